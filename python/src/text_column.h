#pragma once

// A column of raw values: bytes in one buffer, or a Python list.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "python/src/bindings.h"

namespace afm::python {

using Bytes = py::array_t<uint8_t, py::array::c_style>;
using Offsets = py::array_t<int64_t, py::array::c_style>;

// Views into what Python holds; keeps it alive. A missing value (None) is the empty string.
class TextColumn {
 public:
  // Items are str, bytes or None.
  explicit TextColumn(const py::sequence& values);
  // Value i is data[offsets[i] : offsets[i + 1]], as in an Arrow string column. Throws std::invalid_argument for
  // offsets that fall or leave the data.
  TextColumn(const Bytes& data, const Offsets& offsets);

  std::span<const std::string_view> values() const { return views_; }

 private:
  py::object owner_;
  std::vector<std::string_view> views_;
};

// Text of a value; what is not UTF-8 becomes surrogates, which TextColumn takes back.
py::str text_of(std::string_view bytes);

}  // namespace afm::python
