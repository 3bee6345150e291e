#pragma once

// Private: the dense fused table on a GPU: lookup of all fields with what the models make of it, and the gradients of
// the rows that a batch reads, fused with the optimizer. Single-valued fields alone. All pointers are device memory.
//
// Note [Deterministic rows]
// The places [b, f] of a batch are sorted by row (stable: within a row in the order of the batch). A block takes a
// fixed stretch of the sorted places, each group of its lanes a few of them. The sums of a run, the places of one row,
// are joined over the groups of a warp, the warps of a block, and in a second launch over blocks, always in the same
// order. No atomics: equal input gives equal bits. The rows whose runs end in the block are then written by all its
// groups.
//
// What the places read lies anywhere in memory, and waiting for it is most of the time. So a group issues the loads of
// all its places before it uses one. That holds only while no run-time branch stands between a place's load and its
// use: within a branch that has both, the compiler waits, and the places follow one another (2.4 times slower).

#include <cstddef>
#include <cstdint>

#include "libafm/cuda/status.h"

namespace afm::cuda {

inline constexpr int kLargestDim = 256;

struct Table {
  float* rows;               // [N, stride]
  int64_t row_count;         // N, below 2^32
  int stride;                // D, or D + 1 with the wide weight
  int dim;                   // D in [1, kLargestDim]
  int fields;                // F
  const int64_t* first_row;  // [F]
  const int64_t* highest;    // [F] the largest id
};

// A place of a batch, sample b and field f, in one number.
struct PlaceCode {
  int field_bits;  // the lowest bits hold f, the others b
};
// The code for F fields; `fits` tells whether it holds all places of a batch of B.
PlaceCode place_code(int64_t fields);
bool fits(PlaceCode code, int64_t batch);

struct Lookup {
  const int32_t* ids;  // [B, F], local to their field; out of range: clamped, and counted
  int64_t batch;       // B; B F below 2^31
  const float* dense;  // [B, Q]; null when Q is 0
  int dense_count;     // Q
  void* input;         // [B, F D + Q] of `element`: what an MLP reads
  Element element;
  float* score;      // [B]; null: not wanted. Sum of wide weights, and with `interaction` sum_{i<j} <e_i, e_j>
  bool interaction;  // without: the wide weights alone
  float* sums;       // [B, D] sum_f e_f; null: not wanted
  uint32_t* rows;    // [B, F] row of each place; null: not wanted
  uint32_t* places;  // [B, F] its code; null: not wanted
  PlaceCode code;
  int64_t* wrong;  // ids out of range, added up; null: not counted
};
Status lookup(const Table& table, const Lookup& task, Stream stream);

// Bytes of scratch that sort_rows() needs for `places` = B F.
size_t sort_scratch(int64_t places, int64_t row_count);
// rows [places] -> sorted rows, and the codes of the places in that order.
Status sort_rows(const uint32_t* rows, const uint32_t* codes, int64_t places, int64_t row_count, void* scratch,
                 size_t scratch_bytes, uint32_t* sorted_rows, uint32_t* sorted_places, Stream stream);

// The same order for a batch of at most kLargestFieldSort, in one launch and from ids alone: the rows of a field lie
// together, so a block sorts those of one field.
inline constexpr int64_t kLargestFieldSort = 8192;
Status sort_fields(const Table& table, const uint32_t* rows, int64_t batch, PlaceCode code, uint32_t* sorted_rows,
                   uint32_t* sorted_places, Stream stream);

struct RowGradients {
  const uint32_t* rows;           // [B, F] of Lookup; null where they are sorted
  const uint32_t* sorted_rows;    // [B F]
  const uint32_t* sorted_places;  // [B F]
  PlaceCode code;
  int64_t batch;      // B
  const void* input;  // [B, input_stride] of `element`, its first F D columns; null: zero
  int64_t input_stride;
  Element element;
  const float* score;  // [B] gradient of Lookup::score; null: zero
  const float* sums;   // [B, D] of Lookup with `interaction`, else null
  void* scratch;       // gradient_scratch() bytes
};
size_t gradient_scratch(int64_t places, int dim);

// gradient [N, stride], zero before: rows that are read get their gradient.
Status write_gradients(const Table& table, const RowGradients& task, float* gradient, Stream stream);

// Row-wise Adagrad on the rows that are read, as train/row_adagrad.h says.
struct Adagrad {
  float* squares;     // [N], with wide weights [N, 2]
  const float* rate;  // [1] learning rate
  float scale, l2, epsilon;
};
Status step_adagrad(const Table& table, const RowGradients& task, const Adagrad& adagrad, Stream stream);

}  // namespace afm::cuda
