#pragma once

// Private: the stored rows that a batch reads of an embedding's table, each once, so that training costs what the batch
// touches and not what the table holds. Float32 on the CPU.

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/touched_row.h"

namespace afm::nn {

struct TouchedField {
  std::vector<TouchedRow> rows;  // in the order in which the batch first reads them, slot after slot
  std::vector<int32_t> places;   // [slots, B] index in `rows`; -1 for an empty slot
  std::vector<float> gradient;   // row after row, sums over the batch
  std::vector<int32_t> table;    // scratch of the search
};

struct TouchedRows {
  std::vector<TouchedField> fields;  // [F]
};

// Fills `touched` from ids [B, S]; what it held is reused. False when an id is out of range.
[[nodiscard]] bool find_touched_rows(const EmbeddingLayout& layout, const at::Tensor& ids, TouchedRows& touched);

// Rows [begin, end) of one field: pieces of about the same work.
struct RowPiece {
  std::size_t field;
  int64_t begin, end;
};
std::vector<RowPiece> pieces_of(const TouchedRows& touched);

// Who trains a table row by row. While an embedding has one, its lookups name the rows that they read, and a backward
// pass gives their gradients here and none for the whole table.
class RowUpdates {
 public:
  virtual ~RowUpdates() = default;

  virtual std::shared_ptr<TouchedRows> buffer() = 0;  // for the next lookup; no longer in use elsewhere
  // Whether rows of the table may be behind, so that before_read() must be called before any is read.
  virtual bool is_behind() const = 0;
  virtual void before_read(const TouchedRows& rows) = 0;
  virtual void add_gradient(std::shared_ptr<TouchedRows> rows) = 0;
};

}  // namespace afm::nn
