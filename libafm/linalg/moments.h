#pragma once

// Streaming mean and scatter of vectors, in float64, centred, merged by Chan's formula: never E[yy'] - mu mu' (which
// loses every eigenvalue below 1e-7 of the squared mean in float32), never TF32. Wide float32 rows on a CPU are
// multiplied in float32 once they are centred, and summed in float64.
//
//   Moments moments(400);
//   for (const auto& y : outputs) moments.add(y);          // [B, 400]
//   moments.covariance();                                  // [400, 400] float64, on the device of the rows

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace afm {

class Moments {
 public:
  // Takes its dimension and device from the first rows, or from what is merged into it.
  Moments() = default;
  // dim: length m of the vectors, at least 1. The sums live on `device`.
  explicit Moments(int64_t dim, at::Device device = at::kCPU);
  // Restores saved sums: weight sum, mean [m] and scatter [m, m], float64.
  Moments(double count, at::Tensor mean, at::Tensor scatter, int64_t skipped = 0);

  // rows [B, m], any floating dtype and device. Rows with a NaN or an infinity are skipped and counted.
  void add(const at::Tensor& rows);
  // The same with a weight >= 0 per row, weights [B] of any dtype: an id histogram gives a table's exact covariance.
  void add_weighted(const at::Tensor& rows, const at::Tensor& weights);
  // As if the rows of `other` had been added here.
  void merge(const Moments& other);

  int64_t dim() const;
  double count() const { return count_; }                 // rows, or the sum of their weights
  int64_t skipped() const { return skipped_; }            // rows with a non-finite entry
  const at::Tensor& mean() const { return mean_; }        // [m] float64
  const at::Tensor& scatter() const { return scatter_; }  // [m, m] float64: sum of w (y - mean)(y - mean)'
  at::Tensor covariance() const;                          // [m, m] scatter / count, symmetric; zeros when count is 0

 private:
  void add_in_chunks(const at::Tensor& rows, const at::Tensor& weights);
  void add_chunk(const at::Tensor& rows, const at::Tensor& weights);
  bool add_finite_rows(const at::Tensor& rows, const at::Tensor& weights);
  void merge_batch(double count, const at::Tensor& mean, const at::Tensor& scatter);

  double count_ = 0.0;
  int64_t skipped_ = 0;
  at::Tensor mean_, scatter_;
};

}  // namespace afm
