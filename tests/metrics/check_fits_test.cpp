#include <string>
#include <utility>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "libafm/core/error.h"
#include "libafm/metrics/metrics.h"
#include "tests/metrics/tiny_model.h"

using afm::check_fits;
using afm::testing::tiny_schema;
using Catch::Matchers::Message;

TEST_CASE("a schema fits itself and one that differs in nothing an encoded row depends on") {
  CHECK_NOTHROW(check_fits(tiny_schema(), tiny_schema()));
}

TEST_CASE("a schema that does not fit is refused by name of field, attribute and value") {
  CHECK_THROWS_MATCHES(
      check_fits(tiny_schema(10), tiny_schema(12)), afm::DataError,
      Message("the dataset does not fit the model: field 'user' has cardinality 10 in the model, 12 in the dataset"));

  auto shorter = tiny_schema(), longer = tiny_schema();
  shorter.fields.pop_back();
  longer.fields.push_back(afm::FieldSpec{.name = "price", .kind = afm::FieldKind::kNumeric});
  CHECK_THROWS_MATCHES(check_fits(tiny_schema(), shorter), afm::DataError,
                       Message("the dataset does not fit the model: the dataset lacks field 'item'"));
  CHECK_THROWS_MATCHES(
      check_fits(tiny_schema(), longer), afm::DataError,
      Message("the dataset does not fit the model: the dataset has field 'price', which the model lacks"));

  auto swapped = tiny_schema();
  std::swap(swapped.fields[0], swapped.fields[1]);
  CHECK_THROWS_MATCHES(check_fits(tiny_schema(), swapped), afm::DataError,
                       Message("the dataset does not fit the model: their fields come in another order"));
}

TEST_CASE("of many differences the first five are shown") {
  afm::Schema model, dataset;
  for (int i = 0; i < 7; ++i) model.fields.push_back({.name = "f" + std::to_string(i), .cardinality = 2});
  dataset.fields = {{.name = "g", .cardinality = 2}};
  CHECK_THROWS_MATCHES(
      check_fits(model, dataset), afm::DataError,
      Message("the dataset does not fit the model: the dataset lacks field 'f0'; the dataset lacks field 'f1'; the "
              "dataset lacks field 'f2'; the dataset lacks field 'f3'; the dataset lacks field 'f4'; and 3 more"));
}

TEST_CASE("evaluation refuses a dataset of another schema") {
  afm::testing::TinyModel model(tiny_schema(12));
  CHECK_THROWS_MATCHES(
      afm::evaluate(model, afm::testing::tiny_dataset(10)), afm::DataError,
      Message("the dataset does not fit the model: field 'user' has cardinality 12 in the model, 10 in the dataset"));
}
