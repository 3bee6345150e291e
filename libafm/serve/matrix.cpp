#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "libafm/serve/kernels.h"

namespace afm::serve {
namespace {

constexpr int64_t kPanel = 16;
constexpr int64_t kRowMajorRows = 4;
constexpr std::align_val_t kAlignment{64};

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Element (row, column) of the file, as it is stored: a float, or a code.
class Elements {
 public:
  explicit Elements(const MatrixSource& source) : source_(source) {}

  float number(int64_t row, int64_t column) const {
    const int64_t index = row * source_.columns + column;
    if (source_.bits != Bits::kFloat) return static_cast<float>(code(row, column));
    float value;
    std::memcpy(&value, static_cast<const char*>(source_.elements) + index * static_cast<int64_t>(sizeof(float)),
                sizeof(float));
    return value;
  }

  int code(int64_t row, int64_t column) const {
    const int64_t index = row * source_.columns + column;
    if (source_.bits == Bits::kInt8) return static_cast<const int8_t*>(source_.elements)[index];
    const int byte = static_cast<const uint8_t*>(source_.elements)[index / 2];
    const int four = index % 2 == 0 ? byte & 15 : byte >> 4;
    return four < 8 ? four : four - 16;
  }

  float value(int64_t row, int64_t column) const {
    float value = number(row, column);
    if (source_.row_scale != nullptr) value *= source_.row_scale[row];
    if (source_.column_scale != nullptr) value *= source_.column_scale[column];
    return value;
  }

 private:
  const MatrixSource& source_;
};

int64_t element_bytes(const MatrixSource& source, bool row_major) {
  const int64_t float_bytes = static_cast<int64_t>(sizeof(float));
  if (row_major) return source.rows * round_up(source.columns, kPanel) * float_bytes;
  const int64_t rows = round_up(source.rows, kPanel);
  switch (source.bits) {
    case Bits::kFloat:
      return rows * source.columns * float_bytes;
    case Bits::kInt8:
      return rows * round_up(source.columns, 4);
    case Bits::kInt4:
      return rows * round_up(source.columns, 8) / 2;
  }
  return 0;
}

void pack_row_major(const MatrixSource& source, float* to) {
  const Elements from(source);
  const int64_t stride = round_up(source.columns, kPanel);
  for (int64_t i = 0; i < source.rows; ++i) {
    for (int64_t j = 0; j < source.columns; ++j) to[i * stride + j] = from.value(i, j);
  }
}

void pack_floats(const MatrixSource& source, float* to) {
  const Elements from(source);
  for (int64_t i = 0; i < source.rows; ++i) {
    float* panel = to + i / kPanel * kPanel * source.columns + i % kPanel;
    for (int64_t j = 0; j < source.columns; ++j) panel[kPanel * j] = from.value(i, j);
  }
}

void pack_bytes(const MatrixSource& source, uint8_t* to) {
  const Elements from(source);
  const int64_t width = round_up(source.columns, 4);
  for (int64_t i = 0; i < source.rows; ++i) {
    uint8_t* row = to + i / kPanel * kPanel * width + 4 * (i % kPanel);
    for (int64_t j = 0; j < source.columns; ++j) {
      row[j / 4 * 4 * kPanel + j % 4] = static_cast<uint8_t>(from.code(i, j));
    }
  }
}

void pack_nibbles(const MatrixSource& source, uint8_t* to) {
  const Elements from(source);
  const int64_t width = round_up(source.columns, 8) / 2;
  for (int64_t i = 0; i < source.rows; ++i) {
    uint8_t* row = to + i / kPanel * kPanel * width + 4 * (i % kPanel);
    for (int64_t j = 0; j < source.columns; ++j) {
      row[j / 8 * 4 * kPanel + j % 4] |= static_cast<uint8_t>((from.code(i, j) & 15) << (j % 8 < 4 ? 0 : 4));
    }
  }
}

// Note [Three-byte weights]
// A request of one row reads every weight once, so that a large matrix costs what its bytes cost. Three bytes hold a
// weight in steps of 2^-23 of the largest of its row: its error is at most 2^-24 of that, what a float of that size
// has, and sums are as exact as those of floats unless the largest weight is far above the others. For more rows the
// same panels are there as floats, which cost less to compute with. Four panels make a group. Of each of its columns
// and for i < 16, three 32-bit words hold the weights of row i of the four panels: those of the first three in their
// upper three bytes, that of the last in the three lowest bytes. A word is used as it is: the upper bytes are chosen
// such that with the byte below them they come nearest to the weight.
constexpr int64_t kGroupRows = 64;
constexpr int64_t kGroupBytes = 192;               // of a column
constexpr int64_t kThreeByteElements = 64 * 1024;  // smaller matrices stay in the cache
constexpr double kLargestWord = 0x7FFFFC00;        // a step that is rounded to a float does not lead beyond 2^31
constexpr float kSmallestOfRow = 1e-20F;           // its step is a normal float
constexpr float kMostAboveMean = 16;               // the largest of a row over the mean of all

// The steps of the rows of whole groups; empty when the matrix does not have three-byte weights.
std::vector<float> three_byte_steps(const MatrixSource& source) {
  const int64_t rows = round_up(source.rows, kPanel) / kGroupRows * kGroupRows;
  if (source.bits != Bits::kFloat || rows == 0 || source.rows * source.columns < kThreeByteElements) return {};
  if (best_simd() < Simd::kAvx512) return {};  // others read floats
  const Elements from(source);
  std::vector<float> steps(static_cast<std::size_t>(rows), 0);
  for (int64_t i = 0; i < std::min(rows, source.rows); ++i) {
    float largest = 0, total = 0;
    for (int64_t j = 0; j < source.columns; ++j) {
      const float size = std::abs(from.value(i, j));
      largest = std::max(largest, size);
      total += size;
    }
    const float mean = total / static_cast<float>(source.columns);
    if (total != 0 && !(std::isfinite(total) && largest >= kSmallestOfRow && largest / kMostAboveMean <= mean)) {
      return {};
    }
    steps[static_cast<std::size_t>(i)] = static_cast<float>(largest / kLargestWord);
  }
  return steps;
}

uint32_t word_of(double units, uint32_t lowest_byte) {
  return static_cast<uint32_t>(std::lround((units - lowest_byte) / 256)) << 8 | lowest_byte;
}

void pack_three_bytes(const MatrixSource& source, const std::vector<float>& steps, char* to) {
  const Elements from(source);
  const auto units = [&](int64_t row, int64_t column) {
    const float step = steps[static_cast<std::size_t>(row)];
    return step > 0 ? static_cast<double>(from.value(row, column)) / step : 0.0;  // no such row: 0
  };
  const int64_t rows = static_cast<int64_t>(steps.size());
  for (int64_t first = 0; first < rows; first += kGroupRows) {
    for (int64_t j = 0; j < source.columns; ++j, to += kGroupBytes) {
      for (int64_t i = 0; i < kPanel; ++i) {
        const uint32_t last = word_of(units(first + 3 * kPanel + i, j), 0);
        for (int64_t panel = 0; panel < 3; ++panel) {
          const uint32_t word = word_of(units(first + kPanel * panel + i, j), last >> 8 * (panel + 1) & 255U);
          std::memcpy(to + 4 * (kPanel * panel + i), &word, sizeof word);
        }
      }
    }
  }
}

// Of more columns than kernels_vnni.cpp takes they may wrap around: nobody reads those.
std::vector<uint32_t> offsets_of_rows(const MatrixSource& source) {
  const Elements from(source);
  std::vector<uint32_t> offsets(static_cast<std::size_t>(source.rows), 0);
  for (int64_t i = 0; i < source.rows; ++i) {
    for (int64_t j = 0; j < source.columns; ++j) {
      offsets[static_cast<std::size_t>(i)] += 128U * static_cast<uint32_t>(from.code(i, j));
    }
  }
  return offsets;
}

void pack(const MatrixSource& source, bool row_major, void* to) {
  if (row_major) return pack_row_major(source, static_cast<float*>(to));
  switch (source.bits) {
    case Bits::kFloat:
      return pack_floats(source, static_cast<float*>(to));
    case Bits::kInt8:
      return pack_bytes(source, static_cast<uint8_t*>(to));
    case Bits::kInt4:
      return pack_nibbles(source, static_cast<uint8_t*>(to));
  }
}

}  // namespace

void Matrix::Free::operator()(std::byte* memory) const { ::operator delete(memory, kAlignment); }

Matrix::Matrix(const MatrixSource& source) {
  packed_ = {
      .bits = source.bits, .row_major = source.rows <= kRowMajorRows, .rows = source.rows, .columns = source.columns};
  if (packed_.row_major) packed_.bits = Bits::kFloat;
  const bool integers = packed_.bits != Bits::kFloat;  // floats have their scales multiplied in
  const auto array_bytes = [&](bool kept, int64_t n) { return integers && kept ? round_up(4 * n, 64) : 0; };
  const int64_t rows = round_up(source.rows, kPanel);
  const int64_t weights = round_up(element_bytes(source, packed_.row_major), 64);
  const int64_t by_row = array_bytes(source.row_scale != nullptr, rows);
  const int64_t by_column = array_bytes(source.column_scale != nullptr, source.columns);
  const int64_t sums = array_bytes(true, rows);
  const std::vector<float> steps = three_byte_steps(source);
  const int64_t groups = static_cast<int64_t>(steps.size()) / kGroupRows;
  const int64_t three_bytes = groups * kGroupBytes * source.columns, by_group = 4 * groups * kGroupRows;
  bytes_ = weights + by_row + by_column + sums + three_bytes + by_group;
  memory_.reset(static_cast<std::byte*>(::operator new(static_cast<std::size_t>(bytes_), kAlignment)));
  std::memset(memory_.get(), 0, static_cast<std::size_t>(bytes_));

  pack(source, packed_.row_major, memory_.get());
  packed_.elements = memory_.get();
  auto append = [at = memory_.get() + weights](const void* from, int64_t count, int64_t bytes) mutable {
    if (bytes > 0 && count > 0) std::memcpy(at, from, static_cast<std::size_t>(4 * count));
    return std::exchange(at, at + bytes);
  };
  const std::byte* row_scale = append(source.row_scale, source.rows, by_row);
  const std::byte* column_scale = append(source.column_scale, source.columns, by_column);
  if (by_row > 0) packed_.row_scale = reinterpret_cast<const float*>(row_scale);
  if (by_column > 0) packed_.column_scale = reinterpret_cast<const float*>(column_scale);
  if (sums > 0) {
    packed_.offsets = reinterpret_cast<const int32_t*>(append(offsets_of_rows(source).data(), source.rows, sums));
  }
  if (groups == 0) return;
  packed_.steps = reinterpret_cast<const float*>(append(steps.data(), groups * kGroupRows, by_group));
  std::byte* words = append(nullptr, 0, three_bytes);
  pack_three_bytes(source, steps, reinterpret_cast<char*>(words));
  packed_.three_bytes = words;
}

int64_t Matrix::scratch_floats() const {
  // Of floats a list of columns. Of integers two panels as floats; or four rows of x times the scales of the columns;
  // or 32 rows of x as integers of three bytes with their scales. Columns are rounded up to 16.
  return packed_.bits == Bits::kFloat ? packed_.columns : 32 * (packed_.columns + kPanel) + 64;
}

}  // namespace afm::serve
