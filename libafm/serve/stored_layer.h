#pragma once

// Private: linear layers as a model file holds them (nn/linear.h), ready to be changed before they are packed.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "libafm/nn/rank_plan.h"
#include "libafm/serve/kernels.h"
#include "libafm/serve/stored_tensors.h"

namespace afm::serve {

// Columns [from, from + count) of a matrix, in a row of them.
struct Columns {
  int64_t from = 0, count = 0;
};

class StoredMatrix {
 public:
  StoredMatrix() = default;
  StoredMatrix(std::vector<float> floats, int64_t rows, int64_t columns);
  // `path` [rows, columns], or its codes and scales.
  StoredMatrix(StoredTensors& tensors, const std::string& path, int64_t rows, int64_t columns, Bits bits, ScaleBy by);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  float value(int64_t row, int64_t column) const;
  void scale_rows(std::span<const float> gain);           // row i times gain[i]
  Matrix packed(std::span<const Columns> columns) const;  // these columns alone, one after the other
  Matrix packed() const;

 private:
  int64_t rows_ = 0, columns_ = 0;
  Bits bits_ = Bits::kFloat;
  std::vector<float> floats_;
  std::vector<int8_t> codes_;
  std::vector<float> row_scale_, column_scale_;  // empty: ones
};

// y = act(W x + bias).
struct StoredAffine {
  StoredMatrix matrix;
  std::vector<float> bias;  // [m], zeros where the file has none
  bool relu = false;
};

struct LayerShape {
  int64_t in = 0, out = 0;
  bool bias = true;
};

// A linear layer as its one or two affine maps.
std::vector<StoredAffine> read_linear(StoredTensors& tensors, const std::string& path, LayerShape shape,
                                      const LayerPlan& plan);
// Batch norm in evaluation mode, moved into the map before it.
void absorb_batch_norm(StoredTensors& tensors, const std::string& path, StoredAffine& affine);

// A layer without ReLU between its factors, as one map of floats.
StoredAffine joined(const std::vector<StoredAffine>& maps);

}  // namespace afm::serve
