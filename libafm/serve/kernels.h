#pragma once

// Private: what the scorer computes with. Each kernel exists for every instruction set; which one runs is chosen once,
// by a table of functions. They allocate nothing, check nothing and are safe to call from any number of threads:
// scratch is passed in, and shapes, ids and offsets were checked when the file was opened or the request arrived.
// Instruction sets differ in the order of sums of float32; integer weights may also meet activations that were rounded
// to 24 bits of the largest of their row (Note [Three bytes] in kernels_vnni.cpp).

#include <cstddef>
#include <cstdint>
#include <memory>

#include "libafm/nn/rank_plan.h"
#include "libafm/serve/simd.h"

namespace afm::serve {

// A matrix [m, n] as a file holds it: row-major; int4 as in nn/model_file.h. Scales may be absent (null); the value of
// element (i, j) is element * row_scale[i] * column_scale[j], for floats as well. No alignment is needed.
struct MatrixSource {
  Bits bits = Bits::kFloat;
  const void* elements = nullptr;
  int64_t rows = 0, columns = 0;        // m, n
  const float* row_scale = nullptr;     // [m]
  const float* column_scale = nullptr;  // [n]
};

// How kernels see a matrix: panels of 16 rows, one after the other, padded with zeros.
//   float  columns of 16 floats
//   int8   four columns at a time: 4 bytes for each of 16 rows
//   int4   eight columns at a time: 4 bytes for each of 16 rows, the first four columns in their low four bits
// A matrix of at most four rows lies row-major, as floats, each row padded to a multiple of 16.
struct PackedMatrix {
  Bits bits = Bits::kFloat;
  bool row_major = false;
  int64_t rows = 0, columns = 0;
  const void* elements = nullptr;
  const float* row_scale = nullptr;     // [m rounded up to 16] or null
  const float* column_scale = nullptr;  // [n] or null
  const int32_t* offsets = nullptr;     // [m rounded up to 16] 128 times the sum of a row of integers
  // Of large float matrices whole groups of four panels once more, and the steps of their rows, or null: see Note
  // [Three-byte weights] in matrix.cpp.
  const void* three_bytes = nullptr;
  const float* steps = nullptr;
};

// Weights of a linear layer, arranged for the kernels; integers stay integers. Movable, not copyable.
class Matrix {
 public:
  Matrix() = default;
  explicit Matrix(const MatrixSource& source);  // copies

  int64_t rows() const { return packed_.rows; }
  int64_t columns() const { return packed_.columns; }
  int64_t bytes() const { return bytes_; }
  // Floats of scratch, 64-byte aligned, that Kernels::linear needs for this matrix, whatever the number of rows of x.
  int64_t scratch_floats() const;
  const PackedMatrix& packed() const { return packed_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  PackedMatrix packed_;
  int64_t bytes_ = 0;
  std::unique_ptr<std::byte, Free> memory_;
};

// y = act(x W' + bias) for `rows` rows: y[r, i] = act(bias[i] + sum_j x[r, j] W[i, j]). y must not overlap x. Weights
// are finite: those that meet a zero may not be read.
struct LinearCall {
  const float* x = nullptr;  // row r at x + r * x_stride
  int64_t x_stride = 0;      // see padded_stride
  int64_t rows = 0;
  const float* bias = nullptr;  // [m] or null
  float* y = nullptr;           // row r at y + r * y_stride; m floats of each are written
  int64_t y_stride = 0;
  bool relu = false;
  float* scratch = nullptr;  // Matrix::scratch_floats()
};
// Rows that should go through all layers together, while their activations are in the cache.
inline constexpr int64_t kLinearRows = 128;

// A stride of rows of n floats: whole cache lines, and not a multiple of a page, which would put all rows into one set
// of the cache.
constexpr int64_t padded_stride(int64_t n) {
  const int64_t lines = (n + 15) / 16;
  return 16 * (lines % 16 == 0 ? lines + 1 : lines);
}

// Consecutive ids [first, end) of a field, whose rows lie evenly in the table.
struct TierRows {
  int64_t first = 0, end = 0;
  int64_t start = 0, stride = 0;  // row of id v: elements start + (v - first) * stride; stride 0: all share one row
  int64_t rank = 0;               // values of a row, then its wide weight if the table holds them; the rest is 0
  int64_t scale = 0;              // row_scale of id v: scale + (v - first), or `scale` when they share one row
};

// The rows of one field. The value of element c of a row is element * row scale, or element * column_scale[c]; of its
// wide weight element * row scale (the row's own) or * wide_scale. Floats have no scales.
struct FieldTable {
  Bits bits = Bits::kFloat;
  const void* elements = nullptr;       // the whole table: float, int8 or packed int4; any alignment
  const void* row_scale = nullptr;      // bfloat16, any alignment; null: column_scale
  const float* column_scale = nullptr;  // [width]
  float wide_scale = 1;                 // of the wide weights, which never share the scale of a row
  bool wide = false;                    // a row ends with its wide weight
  int64_t width = 0;                    // values that are written, k_j (dense: D)
  const TierRows* tiers = nullptr;      // cover all ids of the field
};

// A field among others: its id is ids[slot] of a row, its values go to values[column].
struct FieldPlace {
  FieldTable table;
  int64_t slot = 0, column = 0;
};

// Fields that meet as their bases decode them.
struct DecodedFields {
  const int64_t* ranks = nullptr;  // [count], k_j
  int64_t count = 0;
  const float* basis = nullptr;  // k_j rows of each field, one after the other, padded with zeros to a multiple of 16
  int64_t dim = 0;               // D
};

struct Kernels {
  void (*linear)(const PackedMatrix& matrix, const LinearCall& call);

  // For r < rows and each field: values[r * value_stride + column + c] = value c < width of row
  // ids[r * id_stride + slot] (0 from its rank on), and wide[r] += its wide weight, where the table holds them and wide
  // is not null. Every id is in range.
  void (*gather)(const FieldPlace* fields, int64_t count, const int32_t* ids, int64_t id_stride, int64_t rows,
                 float* values, int64_t value_stride, float* wide);

  // out[r] += sum_{i<j} <e_i, e_j> over the rows' [F, D]. scratch: D floats.
  void (*factorization_machine)(const float* values, int64_t stride, int64_t rows, int64_t fields, int64_t dim,
                                float* scratch, float* out);
  // The same over latents of unequal ranks [F], missing coordinates being zero. scratch: max rank floats.
  void (*prefix_machine)(const float* latents, int64_t stride, int64_t rows, const int64_t* ranks, int64_t fields,
                         float* scratch, float* out);
  // out[r] += 1/2 (|start + sum_j e_j|^2 - sum_j |e_j|^2), e_j = basis_j' z_j. start: [D] or null.
  void (*decoded_machine)(const float* latents, int64_t stride, int64_t rows, const DecodedFields& fields,
                          const float* start, float* out);

  float (*dot)(const float* a, const float* b, int64_t n);
  void (*axpy)(float a, const float* x, float* y, int64_t n);                 // y += a x
  void (*multiply_add)(const float* a, const float* b, float* y, int64_t n);  // y += a b, elementwise
};
// Falls back to what the processor has when `simd` is more.
const Kernels& kernels(Simd simd);

}  // namespace afm::serve
