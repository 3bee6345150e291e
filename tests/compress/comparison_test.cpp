#include "libafm/compress/comparison.h"

#include <cmath>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <nlohmann/json.hpp>

#include "libafm/core/error.h"
#include "tests/compress/tiny_model.h"

namespace afm::testing {
namespace {

using Catch::Matchers::WithinRel;

TEST_CASE("a report has the metrics and the size of the model") {
  TinyModel model;
  const auto rows = GENERATE(3, 500, 9000);
  const auto dataset = tiny_dataset(rows);
  const auto report = report_on(model, dataset);
  const auto metrics = evaluate(model, dataset);
  CHECK(report.metrics.auc == metrics.auc);
  CHECK(report.metrics.logloss == metrics.logloss);
  CHECK(report.metrics.rows == rows);
  CHECK(report.parameters == parameter_count(model));
  CHECK(report.bytes == byte_count(model));
  CHECK(report.microseconds_per_row > 0.0);
  CHECK(model.is_training());
}

TEST_CASE("a model compared with itself differs in nothing") {
  TinyModel model;
  const auto comparison = compare(model, model, tiny_dataset(200));
  CHECK(comparison.mean_absolute_difference == 0.0);
  CHECK(comparison.mean_kl == 0.0);
  CHECK(comparison.flipped == 0.0);
}

TEST_CASE("the differences of two models are those of their probabilities") {
  TinyModel before, after(-0.5);
  const auto dataset = tiny_dataset(200);
  const auto comparison = compare(before, after, dataset);
  const auto p = predict(before, dataset).to(torch::kDouble).sigmoid();
  const auto q = predict(after, dataset).to(torch::kDouble).sigmoid();
  const auto kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log();
  CHECK_THAT(comparison.mean_absolute_difference, WithinRel((p - q).abs().mean().item<double>(), 1e-12));
  CHECK_THAT(comparison.mean_kl, WithinRel(kl.mean().item<double>(), 1e-9));
  CHECK(comparison.flipped == ((p >= 0.5) != (q >= 0.5)).to(torch::kDouble).mean().item<double>());
  CHECK(comparison.flipped > 0.9);
}

TEST_CASE("the divergence of logits that saturate every probability is finite and right") {
  TinyModel before(1e4), after(1.001e4);
  const auto dataset = tiny_dataset(200);
  CHECK(compare(before, after, dataset).mean_kl < 1e-3);
  // KL(1 || sigmoid(-s)) is s where |s| is large.
  TinyModel opposite(-1e4);
  const double distance = predict(before, dataset).to(torch::kDouble).abs().mean().item<double>();
  CHECK_THAT(compare(before, opposite, dataset).mean_kl, WithinRel(distance, 1e-2));
}

TEST_CASE("a dataset of another schema or of one class is refused") {
  TinyModel model;
  auto schema = tiny_schema();
  schema.fields[0].cardinality = 31;
  CHECK_THROWS_AS(report_on(model, tiny_dataset(10, schema)), DataError);
  CHECK_THROWS_AS(compare(model, model, tiny_dataset(1)), DataError);
}

Comparison example() {
  return {
      {{0.9812345, 0.15, 1000, {}}, 800, 3200, 2.0}, {{0.98, 0.16, 1000, {}}, 200, 900, 0.5}, 1.5e-3, 2.5e-6, 0.0125};
}

TEST_CASE("a comparison as JSON holds every number") {
  const auto json = nlohmann::json::parse(comparison_to_json(example()));
  CHECK(json.at("before").at("auc") == 0.9812345);
  CHECK(json.at("after").at("logloss") == 0.16);
  CHECK(json.at("before").at("rows") == 1000);
  CHECK(json.at("after").at("parameters") == 200);
  CHECK(json.at("before").at("bytes") == 3200);
  CHECK(json.at("after").at("microseconds_per_row") == 0.5);
  CHECK(json.at("ratio") == 4.0);
  CHECK(json.at("mean_absolute_difference") == 1.5e-3);
  CHECK(json.at("mean_kl") == 2.5e-6);
  CHECK(json.at("flipped") == 0.0125);
}

TEST_CASE("a comparison as Markdown is a table and a sentence") {
  CHECK(comparison_to_markdown(example()) ==
        "| | before | after | change |\n"
        "|---|--:|--:|--:|\n"
        "| AUC | 0.98123 | 0.98000 | -0.00123 |\n"
        "| logloss | 0.15000 | 0.16000 | +0.01000 |\n"
        "| parameters | 800 | 200 | 4.00x smaller |\n"
        "| bytes | 3200 | 900 | 3.56x smaller |\n"
        "| microseconds per row | 2.000 | 0.500 | 4.00x faster |\n"
        "\n"
        "Over 1000 rows the probabilities differ by 1.50e-03 on average, KL(before || after) is 2.50e-06 nats, and "
        "1.250 % of the rows are on the other side of 0.5.\n");
}

}  // namespace
}  // namespace afm::testing
