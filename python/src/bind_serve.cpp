#include <optional>
#include <string>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/serve/pack.h"
#include "libafm/serve/request.h"
#include "libafm/serve/scorer.h"
#include "python/src/arguments.h"
#include "python/src/bindings.h"
#include "python/src/rank_plans.h"

namespace afm::python {
namespace {

using serve::CandidateScorer;
using serve::Scorer;
using Ids = py::array_t<int32_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;

std::string shape_of(const py::array& array) {
  std::string text;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
  return "[" + text + "]";
}

// Rows of an array [rows, columns].
int64_t rows_of(std::string_view name, const py::array& array, int64_t columns) {
  if (array.ndim() == 2 && array.shape(1) == columns) return array.shape(0);
  fail<std::invalid_argument>("{} must have the shape [rows, {}], got {}", name, columns, shape_of(array));
}

void check_width(std::string_view name, const py::array& array, int64_t width) {
  if (array.ndim() == 1 && array.shape(0) == width) return;
  fail<std::invalid_argument>("{} must have the shape [{}], got {}", name, width, shape_of(array));
}

void check_equal(std::string_view name, int64_t expected, int64_t found) {
  if (expected != found) fail<std::invalid_argument>("{} must have {} rows, got {}", name, expected, found);
}

using ScoreRows = void (Scorer::*)(const int32_t*, const float*, int64_t, float*) const;

template <ScoreRows Score>
Floats score_rows(const Scorer& scorer, const Ids& ids, const Floats& dense) {
  const int64_t rows = rows_of("ids", ids, scorer.slot_count());
  check_equal("dense", rows, rows_of("dense", dense, scorer.dense_count()));
  Floats out(rows);
  float* results = out.mutable_data();
  const py::gil_scoped_release unlocked;
  (scorer.*Score)(ids.data(), dense.data(), rows, results);
  return out;
}

using ScoreItems = void (CandidateScorer::*)(const int32_t*, const float*, const int32_t*, const float*, int64_t,
                                             float*) const;

template <ScoreItems Score>
Floats score_items(const CandidateScorer& scorer, const Ids& user_ids, const Floats& user_dense, const Ids& item_ids,
                   const Floats& item_dense) {
  check_width("user_ids", user_ids, scorer.user_slots());
  check_width("user_dense", user_dense, scorer.user_dense());
  const int64_t items = rows_of("item_ids", item_ids, scorer.item_slots());
  check_equal("item_dense", items, rows_of("item_dense", item_dense, scorer.item_dense()));
  Floats out(items);
  float* results = out.mutable_data();
  const py::gil_scoped_release unlocked;
  (scorer.*Score)(user_ids.data(), user_dense.data(), item_ids.data(), item_dense.data(), items, results);
  return out;
}

// JSON objects -> ids [rows, S], dense [rows, Q].
py::tuple encode_json(const Scorer& scorer, const std::vector<std::string>& requests) {
  if (scorer.encoder() == nullptr) fail<DataError>("this scorer's file holds no vocabulary; pack it first");
  const auto rows = static_cast<py::ssize_t>(requests.size());
  Ids ids({rows, static_cast<py::ssize_t>(scorer.slot_count())});
  Floats dense({rows, static_cast<py::ssize_t>(scorer.dense_count())});
  int32_t* ids_out = ids.mutable_data();
  float* dense_out = dense.mutable_data();
  for (const std::string& request : requests) {
    scorer.encoder()->encode_json(request, ids_out, dense_out);
    ids_out += scorer.slot_count();
    dense_out += scorer.dense_count();
  }
  return py::make_tuple(ids, dense);
}

Scorer open_scorer(const std::filesystem::path& path, const std::optional<std::string>& simd, bool verify) {
  serve::ScorerOptions options{.verify = verify};
  if (simd) options.simd = enum_of<serve::Simd>(*simd, "simd");
  return Scorer::open(path, options);
}

}  // namespace

void bind_serve(py::module_& m) {
  py::class_<CandidateScorer>(m, "CoreCandidateScorer", "Use afm.Scorer.candidates.")
      .def("score", &score_items<&CandidateScorer::score>, "user_ids"_a, "user_dense"_a, "item_ids"_a, "item_dense"_a)
      .def("probabilities", &score_items<&CandidateScorer::probabilities>, "user_ids"_a, "user_dense"_a, "item_ids"_a,
           "item_dense"_a)
      .def_property_readonly("user_slots", &CandidateScorer::user_slots)
      .def_property_readonly("user_dense", &CandidateScorer::user_dense)
      .def_property_readonly("item_slots", &CandidateScorer::item_slots)
      .def_property_readonly("item_dense", &CandidateScorer::item_dense);
  py::class_<Scorer>(m, "CoreScorer", "Use afm.Scorer.")
      .def_static("open", &open_scorer, "path"_a, "simd"_a, "verify"_a, ReleaseGil())
      .def("score", &score_rows<&Scorer::score>, "ids"_a, "dense"_a)
      .def("probabilities", &score_rows<&Scorer::probabilities>, "ids"_a, "dense"_a)
      .def(
          "candidates",
          [](const Scorer& self, const std::vector<int64_t>& user_fields) { return self.candidates(user_fields); },
          "user_fields"_a)
      .def(
          "score_json", [](const Scorer& self, const std::string& request) { return self.score_json(request); },
          "request"_a)
      .def("encode_json", &encode_json, "requests"_a)
      .def_property_readonly("is_packed", [](const Scorer& self) { return self.encoder() != nullptr; })
      .def_property_readonly("schema", &Scorer::schema)
      .def_property_readonly("model", [](const Scorer& self) { return std::string(self.model()); })
      .def_property_readonly("ranks", [](const Scorer& self) { return plan_to_json(self.plan()); })
      .def_property_readonly("simd", [](const Scorer& self) { return std::string(name_of(self.simd())); })
      .def_property_readonly("slot_count", &Scorer::slot_count)
      .def_property_readonly("dense_count", &Scorer::dense_count)
      .def_property_readonly("golden_rows", &Scorer::golden_rows)
      .def_property_readonly("file_bytes", &Scorer::file_bytes)
      .def_property_readonly("prepared_bytes", &Scorer::prepared_bytes);
  m.def("pack", &serve::pack, "model"_a, "dataset"_a, "packed"_a, ReleaseGil());
}

}  // namespace afm::python
