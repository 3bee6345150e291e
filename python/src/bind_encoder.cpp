#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libafm/data/encoder.h"
#include "python/src/arguments.h"
#include "python/src/bindings.h"
#include "python/src/text_column.h"

namespace afm::python {
namespace {

using Numbers = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Counts = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;
using Ids = py::array_t<int32_t>;

template <typename Value>
std::span<const Value> span_of(const py::array_t<Value, py::array::c_style | py::array::forcecast>& array) {
  return {array.data(), static_cast<std::size_t>(array.size())};
}

Ids encode_categorical(const Encoder& encoder, const py::object& field, const TextColumn& column) {
  const int64_t index = field_index(encoder.schema(), field);
  Ids ids(static_cast<py::ssize_t>(column.values().size()));
  const std::span<int32_t> out(ids.mutable_data(), ids.size());
  const py::gil_scoped_release unlocked;
  encoder.encode_categorical(index, column.values(), out);
  return ids;
}

Ids encode_multi(const Encoder& encoder, const py::object& field, const TextColumn& column) {
  const int64_t index = field_index(encoder.schema(), field);
  const auto rows = static_cast<py::ssize_t>(column.values().size());
  const auto slots = static_cast<py::ssize_t>(encoder.schema().fields[index].slots());
  Ids ids(std::vector<py::ssize_t>{rows, slots});
  const std::span<int32_t> out(ids.mutable_data(), ids.size());
  const py::gil_scoped_release unlocked;
  encoder.encode_multi(index, column.values(), out);
  return ids;
}

py::array_t<float> encode_numeric(const Encoder& encoder, const py::object& field, const Numbers& values) {
  const int64_t index = field_index(encoder.schema(), field);
  py::array_t<float> dense(values.size());
  const std::span<float> out(dense.mutable_data(), dense.size());
  const auto in = span_of(values);
  const py::gil_scoped_release unlocked;
  encoder.encode_numeric(index, in, out);
  return dense;
}

void add_counts(EncoderBuilder& builder, int64_t field, const TextColumn& column, const Counts& counts) {
  const auto seen = span_of(counts);
  const py::gil_scoped_release unlocked;
  builder.add_counts(field, column.values(), seen);
}

py::array_t<uint64_t> hash_strings(const Bytes& data, const Offsets& offsets) {
  const TextColumn column(data, offsets);
  py::array_t<uint64_t> hashes(static_cast<py::ssize_t>(column.values().size()));
  uint64_t* out = hashes.mutable_data();
  const py::gil_scoped_release unlocked;
  for (const auto value : column.values()) *out++ = XXH3_64bits(value.data(), value.size());
  return hashes;
}

using PlainVocabulary = std::pair<py::sequence, Counts>;

Encoder make_encoder(const Schema& schema, const std::vector<PlainVocabulary>& plain) {
  std::vector<Vocabulary> vocabularies;
  for (const auto& [values, counts] : plain) {
    const TextColumn column(values);
    const auto seen = span_of(counts);
    vocabularies.push_back(
        {.values = {column.values().begin(), column.values().end()}, .counts = {seen.begin(), seen.end()}});
  }
  return {schema, std::move(vocabularies)};
}

py::tuple vocabulary_of(const Encoder& encoder, const py::object& field) {
  const int64_t index = field_index(encoder.schema(), field);
  if (!encoder.schema().fields[index].has_ids()) {
    fail<std::invalid_argument>("field '{}' is numeric and has no vocabulary", encoder.schema().fields[index].name);
  }
  std::size_t position = 0;
  for (int64_t i = 0; i < index; ++i) position += encoder.schema().fields[i].has_ids() ? 1 : 0;
  const Vocabulary& vocabulary = encoder.vocabularies()[position];
  py::list values;
  for (const auto& value : vocabulary.values) values.append(text_of(value));
  return py::make_tuple(values, py::array_t<int64_t>(vocabulary.counts.size(), vocabulary.counts.data()));
}

// Python counts fields by name too, but the builder's schema is its own: a copy is kept here.
struct Builder {
  Schema schema;
  EncoderBuilder builder;
};

void bind_builder(py::module_& m) {
  py::class_<Builder>(m, "EncoderBuilder",
                      "Counts the values of a table, chunk by chunk, then builds its Encoder.\n\n"
                      "A field is its name or its index in schema.fields.")
      .def(py::init([](const Schema& schema) {
             return Builder{schema, EncoderBuilder(schema)};
           }),
           "schema"_a)
      .def(
          "add_counts",
          [](Builder& self, const py::object& field, const Bytes& data, const Offsets& offsets, const Counts& counts) {
            add_counts(self.builder, field_index(self.schema, field), TextColumn(data, offsets), counts);
          },
          "field"_a, "data"_a.noconvert(), "offsets"_a.noconvert(), "counts"_a,
          "Counted values: the bytes of all, uint8, and their int64 offsets [values + 1]; counts [values].")
      .def(
          "add_counts",
          [](Builder& self, const py::object& field, const py::sequence& values, const Counts& counts) {
            add_counts(self.builder, field_index(self.schema, field), TextColumn(values), counts);
          },
          "field"_a, "values"_a, "counts"_a, "Counted values, as a group-by gives them. May repeat over chunks.")
      .def(
          "add_longest",
          [](Builder& self, const py::object& field, int64_t values_in_row) {
            self.builder.add_longest(field_index(self.schema, field), values_in_row);
          },
          "field"_a, "values_in_row"_a, "Multi fields: the number of values of the longest row of a chunk.")
      .def(
          "add_numbers",
          [](Builder& self, const py::object& field, const Numbers& values) {
            const int64_t index = field_index(self.schema, field);
            const auto numbers = span_of(values);
            const py::gil_scoped_release unlocked;
            self.builder.add_numbers(index, numbers);
          },
          "field"_a, "values"_a, "Numeric fields: the raw values of a chunk; NaN is missing.")
      .def(
          "build", [](const Builder& self) { return self.builder.build(); }, ReleaseGil(),
          "The encoder, with a counted schema.");
}

}  // namespace

void bind_encoder(py::module_& m) {
  py::class_<Encoder>(m, "Encoder",
                      "Raw values to ids and dense features, the same for training and for serving.\n\n"
                      "A field is its name or its index in schema.fields. Text columns are lists of str, or, at full\n"
                      "speed, the bytes of all values (uint8) and their offsets (int64, [rows + 1]), as in Arrow.")
      .def(py::init(&make_encoder), "schema"_a, "vocabularies"_a,
           "One (values, counts) per id field, in order; empty for a hashed field.")
      .def_property_readonly("schema", &Encoder::schema)
      .def("vocabulary", &vocabulary_of, "field"_a, "(values, counts): values[i] has id i + 1.")
      .def(
          "encode_categorical",
          [](const Encoder& self, const py::object& field, const Bytes& data, const Offsets& offsets) {
            return encode_categorical(self, field, TextColumn(data, offsets));
          },
          "field"_a, "data"_a.noconvert(), "offsets"_a.noconvert(), "Ids [rows] int32.")
      .def(
          "encode_categorical",
          [](const Encoder& self, const py::object& field, const py::sequence& values) {
            return encode_categorical(self, field, TextColumn(values));
          },
          "field"_a, "values"_a, "Ids [rows] int32; unknown and missing values get 0.")
      .def(
          "encode_multi",
          [](const Encoder& self, const py::object& field, const Bytes& data, const Offsets& offsets) {
            return encode_multi(self, field, TextColumn(data, offsets));
          },
          "field"_a, "data"_a.noconvert(), "offsets"_a.noconvert(), "Ids [rows, slots] int32.")
      .def(
          "encode_multi",
          [](const Encoder& self, const py::object& field, const py::sequence& values) {
            return encode_multi(self, field, TextColumn(values));
          },
          "field"_a, "values"_a, "Ids [rows, slots] int32; unused slots get -1.")
      .def("encode_numeric", &encode_numeric, "field"_a, "values"_a, "Dense features [rows] float32; NaN is missing.")
      .def(
          "id_of",
          [](const Encoder& self, const py::object& field, const py::object& value) {
            const TextColumn column(py::make_tuple(value));
            return self.id_of(field_index(self.schema(), field), column.values()[0]);
          },
          "field"_a, "value"_a)
      .def("save", &Encoder::save, "path"_a, ReleaseGil())
      .def_static("open", &Encoder::open, "path"_a, "schema"_a, ReleaseGil());
  bind_builder(m);
  m.def("hash_strings", &hash_strings, "data"_a.noconvert(), "offsets"_a.noconvert(),
        "XXH3 of each value, [rows] uint64: the same on every machine.");
}

}  // namespace afm::python
