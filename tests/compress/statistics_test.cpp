#include "libafm/compress/statistics.h"

#include <limits>
#include <stdexcept>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "libafm/metrics/metrics.h"
#include "tests/compress/ranker.h"
#include "tests/compress/tiny_model.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr double kMomentRounding = 1e-12;  // relative, of sums over a few hundred float64 rows

Moments moments_of(const at::Tensor& rows) {
  Moments moments;
  moments.add(rows);
  return moments;
}

void check_same(const Moments& got, const Moments& wanted) {
  CHECK(got.count() == wanted.count());
  CHECK(relative_error(got.mean(), wanted.mean()) < kMomentRounding);
  CHECK(relative_error(got.covariance(), wanted.covariance()) < kMomentRounding);
}

// What a layer's inputs and outputs were, of all its uses.
struct Seen {
  at::Tensor input, output;
};

template <typename LayerType, typename Forward>
Seen see(LayerType& layer, Forward forward) {
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> inputs, outputs;
  layer.set_output_hook([&](const at::Tensor& input, const at::Tensor& output) {
    inputs.push_back(input.clone());
    outputs.push_back(output.clone());
  });
  forward();
  layer.set_output_hook({});
  return {torch::cat(inputs), torch::cat(outputs)};
}

TEST_CASE("statistics of a linear layer are those of its outputs, of all its uses") {
  auto ranker = make_ranker();
  const auto ids = make_ids(350);
  const auto statistics = statistics_of(ranker, ids);
  const auto& layer = statistics.layers.at("tower.mix");
  const auto seen = see(*ranker->tower->mix, [&] { ranker(ids); });

  check_same(layer.output.at(0), moments_of(seen.output));
  CHECK(layer.output[0].count() == 700.0);
  CHECK(relative_error(layer.input_mean, seen.input.mean(0)) < kMomentRounding);
  CHECK(layer.in_features == 24);
  CHECK(layer.out_features == 24);
  CHECK(layer.parameters() == 24 * 25);
  CHECK(statistics.layers.at("tower.narrow").parameters() == 24 * 16);
}

TEST_CASE("the radius bounds the distance of every output from the mean, and not by much") {
  auto ranker = make_ranker();
  const auto ids = make_ids(350);
  const auto radius = statistics_of(ranker, ids).layers.at("tower.mix").radius;
  const auto seen = see(*ranker->tower->mix, [&] { ranker(ids); });
  const double largest = (seen.output - seen.output.mean(0)).norm(2, {1}).max().item<double>();
  CHECK(radius >= largest);
  CHECK(radius <= 2.0 * largest);
}

TEST_CASE("the covariance of a table from id counts is that of the rows looked up") {
  auto ranker = make_ranker();
  const auto ids = make_ids(500);
  const auto layer = statistics_of(ranker, ids).layers.at("embedding");
  const auto values = see(*ranker->embedding, [&] { ranker(ids); }).output;
  for (const int64_t field : {0, 1, 3}) check_same(layer.output.at(field), moments_of(values.select(1, field)));
}

TEST_CASE("a multi-valued field has the statistics of its pooled rows that have a value") {
  auto ranker = make_ranker();
  const auto ids = make_ids(500);
  const auto layer = statistics_of(ranker, ids).layers.at("embedding");
  const auto values = see(*ranker->embedding, [&] { ranker(ids); }).output.select(1, 2);
  const auto filled = ids.narrow(1, 2, 3).ne(kEmptySlot).any(1);
  REQUIRE(filled.sum().item<int64_t>() < 500);
  check_same(layer.output.at(2), moments_of(values.index({filled})));
}

TEST_CASE("id counts are histograms of the ids, empty slots apart") {
  auto ranker = make_ranker();
  const auto ids = make_ids(500);
  const auto layer = statistics_of(ranker, ids).layers.at("embedding");
  for (std::size_t j = 0, slot = 0; j < kSlots.size(); slot += static_cast<std::size_t>(kSlots[j++])) {
    const auto column = ids.narrow(1, static_cast<int64_t>(slot), kSlots[j]).flatten();
    const auto wanted = torch::bincount(column.index({column.ge(0)}), {}, kCardinalities[j]).to(torch::kDouble);
    CHECK(torch::equal(layer.id_counts.at(j), wanted));
  }
}

TEST_CASE("statistics do not depend on how the rows are cut into batches") {
  auto ranker = make_ranker();
  const auto ids = make_ids(300);
  const auto forward = [ranker](const at::Tensor& rows) mutable { return ranker(rows); };
  const auto whole = collect_statistics(*ranker, batches_of(ids, 300, forward));
  const auto pieces = collect_statistics(*ranker, batches_of(ids, 7, forward));
  CHECK(whole.rows == 300);
  CHECK(pieces.rows == 300);
  for (const auto& [path, layer] : whole.layers) {
    for (std::size_t i = 0; i < layer.output.size(); ++i) check_same(pieces.layers.at(path).output[i], layer.output[i]);
  }
}

TEST_CASE("a module tree has its layers by path, a shared one once, and lists what no batch reached") {
  auto ranker = make_ranker();
  const auto statistics = statistics_of(ranker, make_ids(50));
  std::vector<std::string> paths;
  for (const auto& [path, layer] : statistics.layers) paths.push_back(path);
  CHECK(paths == std::vector<std::string>{"embedding", "head", "tower.mix", "tower.narrow"});
  CHECK(statistics.unreached == std::vector<std::string>{"spare"});
  CHECK(statistics.parameters == parameter_count(*ranker));
  CHECK(statistics.bytes == byte_count(*ranker));
  CHECK(statistics.parameter_bytes == 8 * statistics.parameters);
}

TEST_CASE("a layer can be the root itself, on inputs of any shape") {
  nn::Linear layer(5, 3);
  layer->to(torch::kDouble);
  const auto input = torch::randn({4, 6, 5}, torch::kDouble);
  bool done = false;
  const auto statistics = collect_statistics(*layer, [&]() -> std::optional<at::Tensor> {
    if (std::exchange(done, true)) return std::nullopt;
    return layer(input);
  });
  CHECK(statistics.layers.at("").output.at(0).count() == 24.0);
}

// A layer that says whether it has a hook: the recorders of this room throw on a shape that
// is not the layer's.
struct ProbeImpl : nn::LinearImpl {
  using nn::LinearImpl::LinearImpl;
  bool has_hook() const {
    try {
      call_hook(torch::ones({1, 7}), torch::ones({1, 7}));
    } catch (const c10::Error&) {
      return true;
    } catch (const std::invalid_argument&) {
      return true;
    }
    return false;
  }
};

TEST_CASE("hooks are gone afterwards, also after an exception") {
  ProbeImpl layer(3, 2);
  int calls = 0;
  bool hooked = false;
  const auto once = [&]() -> std::optional<at::Tensor> {
    hooked = layer.has_hook();
    if (calls++ > 0) return std::nullopt;
    return layer.forward(torch::randn({4, 3}));
  };
  collect_statistics(layer, once);
  CHECK(hooked);
  CHECK_FALSE(layer.has_hook());

  CHECK_THROWS_AS(collect_statistics(layer, []() -> std::optional<at::Tensor> { throw std::runtime_error("no"); }),
                  std::runtime_error);
  CHECK_FALSE(layer.has_hook());
}

TEST_CASE("the model runs in evaluation mode without gradient, and is trained on afterwards") {
  auto ranker = make_ranker();
  ranker->train();
  bool was_training = true, had_gradient = true;
  collect_statistics(*ranker, batches_of(make_ids(10), 10, [&](const at::Tensor& rows) {
    was_training = ranker->is_training();
    const auto logits = ranker(rows);
    had_gradient = logits.requires_grad();
    return logits;
  }));
  CHECK_FALSE(was_training);
  CHECK_FALSE(had_gradient);
  CHECK(ranker->is_training());
}

Statistics statistics_with_bad_rows(int64_t bad, int64_t rows) {
  torch::manual_seed(3);
  struct Holder : torch::nn::Module {
    nn::Linear hidden = register_module("hidden", nn::Linear(4, 3));
  } holder;
  auto input = torch::randn({rows, 4});
  input.narrow(0, 0, bad).fill_(std::numeric_limits<float>::infinity());
  return collect_statistics(holder, batches_of(input, 500, [&](const at::Tensor& x) { return holder.hidden(x); }));
}

TEST_CASE("a few outputs that are not finite are left out, more than one in a thousand is an error") {
  const auto statistics = statistics_with_bad_rows(2, 2000);
  const auto& layer = statistics.layers.at("hidden");
  CHECK(layer.output[0].count() == 1998.0);
  CHECK(layer.output[0].skipped() == 2);
  CHECK(layer.input_mean.isfinite().all().item<bool>());
  CHECK(std::isfinite(layer.radius));
  CHECK(message_of<DataError>([] { statistics_with_bad_rows(3, 2000); }) ==
        "layer 'hidden' has 3 of 2000 outputs that are not finite, at most 1 in 1000 may be");
}

TEST_CASE("a table row that is not finite is an error that names the field when it is looked up often") {
  auto ranker = make_ranker();
  {
    const torch::NoGradGuard no_grad;
    ranker->embedding->weight[60][1] = std::numeric_limits<double>::quiet_NaN();  // field 1, its most frequent id
  }
  CHECK_THAT(message_of<DataError>([&] { statistics_of(ranker, make_ids(100)); }),
             ContainsSubstring("field '1' of layer 'embedding' has "));
}

TEST_CASE("no batch is an error") {
  auto ranker = make_ranker();
  CHECK(message_of<DataError>([&] { statistics_of(ranker, make_ids(0)); }) ==
        "collect_statistics: next_logits must give at least one row, got none");
}

TEST_CASE("the logits of a model over a dataset are those of predict, row by row") {
  TinyModel model;
  model.eval();
  const auto dataset = tiny_dataset(37);
  auto next = logits_of(model, dataset, 0, 10);
  std::vector<at::Tensor> logits;
  while (const auto batch = next()) logits.push_back(*batch);
  CHECK(logits.size() == 4);
  // A batch of another size is multiplied in another order.
  CHECK(torch::allclose(torch::cat(logits), predict(model, dataset), 1e-5, 1e-6));
}

TEST_CASE("max_rows draws that many rows, the same ones each time, from the whole dataset") {
  TinyModel model;
  model.eval();
  const auto dataset = tiny_dataset(1000);
  const auto draw = [&] {
    auto next = logits_of(model, dataset, 25, 10);
    std::vector<at::Tensor> logits;
    while (const auto batch = next()) logits.push_back(*batch);
    return torch::cat(logits);
  };
  const auto drawn = draw();
  CHECK(drawn.size(0) == 25);
  CHECK(torch::equal(drawn, draw()));
  CHECK_FALSE(torch::equal(drawn, predict(model, dataset).narrow(0, 0, 25)));
  CHECK(statistics_of(model, dataset, 25).rows == 25);
}

TEST_CASE("logits_of refuses a negative number of rows and a dataset of another schema") {
  TinyModel model;
  const auto dataset = tiny_dataset(10);
  CHECK(message_of<std::invalid_argument>([&] { logits_of(model, dataset, -1); }) ==
        "logits_of: max_rows must be at least 0, got -1");
  auto schema = tiny_schema();
  schema.fields[0].cardinality = 31;
  const auto other = tiny_dataset(10, schema);
  CHECK_THROWS_AS(logits_of(model, other), DataError);
}

}  // namespace
}  // namespace afm::testing
