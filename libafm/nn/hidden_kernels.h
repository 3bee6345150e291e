#pragma once

// Private: batch norm, ReLU and dropout of a hidden layer on float32 arrays [rows, columns] in rows of `columns`.
// Results do not depend on the number of threads: reductions have a fixed partition, and whether a unit is dropped is a
// function of the seed, its row and its column.

#include <cstdint>
#include <vector>

namespace afm::nn {

struct Matrix {
  int64_t rows, columns;
};

class Dropout {
 public:
  // Drops units with probability `rate` in [0, 1). With a rate above 0 one number is drawn from dropout_generator(),
  // so that its state decides what is dropped.
  explicit Dropout(double rate);

  uint32_t threshold() const { return threshold_; }  // a unit whose hash is below is dropped
  float scale() const { return scale_; }             // 1 / (1 - rate)
  std::vector<uint32_t> column_keys(int64_t columns) const;
  uint32_t row_key(int64_t row) const;

 private:
  uint64_t seed_ = 0;
  uint32_t threshold_ = 0;
  float scale_ = 1;
};

// Mean and sum of squared deviations of each column, without cancellation: two passes over a piece while it is in the
// cache, pieces merged in float64 by Chan's formula.
struct ColumnMoments {
  std::vector<double> mean, squares;  // [columns]
};
ColumnMoments column_moments(const float* x, Matrix size);

// y = dropped(relu((x - mean) * gain + shift)).
void normalize_activate_drop(const float* x, Matrix size, const float* mean, const std::vector<float>& gain,
                             const std::vector<float>& shift, const Dropout& dropout, float* y);
// The same in place without the normalization.
void activate_drop(float* x, Matrix size, const Dropout& dropout);

// A unit that was cut or dropped has y = 0 and passes no gradient on; the others pass it on times `scale`.
//   grad_x = (y <= 0 ? 0 : grad_y * scale); grad_x may be grad_y.
void differentiate_activation(const float* grad_y, const float* y, Matrix size, float scale, float* grad_x);
// The same, and for each column the sums of g = grad_x and of g * (x - mean).
struct GradientSums {
  std::vector<double> plain, weighted;  // [columns]
};
GradientSums differentiate_and_sum(const float* grad_y, const float* y, const float* x, const float* mean, Matrix size,
                                   float scale, float* grad_x);
// grad_x = grad_x * a + (x - mean) * b + c, with one number per column.
void finish_norm_gradient(float* grad_x, const float* x, const float* mean, Matrix size, const std::vector<float>& a,
                          const std::vector<float>& b, const std::vector<float>& c);

}  // namespace afm::nn
