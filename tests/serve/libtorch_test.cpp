// The scorer's logits are LibTorch's: random models of every kind, plan, data type and form.

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "libafm/data/batch.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/model_file.h"
#include "libafm/serve/scorer.h"
#include "models/models.h"
#include "tests/core/temporary_folder.h"

namespace afm::serve {
namespace {

using afm::testing::TemporaryFolder;

// Float32 sums are as far from float64 as their terms are large, in LibTorch too; so what is allowed is this share of
// a logit, and as much again as LibTorch itself is off.
constexpr double kRelative = 1e-5;

class Draw {
 public:
  explicit Draw(uint32_t seed) : random_(seed) {}
  int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  bool chance(double share) { return std::bernoulli_distribution(share)(random_); }
  template <typename Value>
  Value one_of(std::initializer_list<Value> values) {
    return *(values.begin() + between(0, static_cast<int64_t>(values.size()) - 1));
  }

 private:
  std::mt19937 random_;
};

Schema random_schema(Draw& draw) {
  Schema schema;
  const int64_t ids = draw.between(1, 5), numbers = draw.between(0, 3);
  for (int64_t i = 0; i < ids + numbers; ++i) {
    FieldSpec field{.name = "field" + std::to_string(i)};
    const bool numeric = i > 0 && draw.chance(0.3);
    if (numeric) {
      field.kind = FieldKind::kNumeric;
    } else {
      field.cardinality = draw.between(1, 40);
      if (draw.chance(0.35)) {
        field.kind = FieldKind::kMulti;
        field.max_values = draw.between(1, 4);
      }
    }
    schema.fields.push_back(field);
  }
  return schema;
}

void draw_integers(Draw& draw, LayerPlan& plan) {
  plan.bits = draw.one_of({Bits::kFloat, Bits::kFloat, Bits::kInt8, Bits::kInt4});
  plan.scale = plan.bits == Bits::kFloat ? ScaleBy::kRow : draw.one_of({ScaleBy::kRow, ScaleBy::kColumn});
}

std::vector<Tier> random_tiers(Draw& draw, int64_t rank, int64_t rows) {
  std::vector<Tier> tiers;
  while (rows > 0) {
    const int64_t count = draw.between(1, rows);
    tiers.push_back({.rows = count, .rank = rank, .shared = draw.chance(0.3)});
    rows -= count;
    rank = draw.between(0, rank);
  }
  return tiers;
}

// Folded models (Basis::kNone) are built as what fold() gives; their weights are drawn like all others.
LayerPlan random_embedding(Draw& draw, const Schema& schema, int64_t dim, bool wide, bool folds) {
  LayerPlan plan;
  if (draw.chance(0.75)) {
    plan.basis = draw.one_of({Basis::kField, Basis::kShared, folds ? Basis::kNone : Basis::kField});
    plan.joint = wide && plan.basis != Basis::kShared && draw.chance(0.4);
    for (std::size_t j = 0; j < schema.cardinalities().size(); ++j) {
      plan.ranks.push_back(draw.between(j == 0 ? 1 : 0, dim));
    }
    if (draw.chance(0.5)) {
      for (std::size_t j = 0; j < plan.ranks.size(); ++j) {
        const bool tiered = draw.chance(0.7);
        plan.tiers.push_back(tiered ? random_tiers(draw, plan.ranks[j], schema.cardinalities()[j])
                                    : std::vector<Tier>());
      }
    }
  }
  draw_integers(draw, plan);
  return plan;
}

LayerPlan random_linear(Draw& draw, const LayerPlan& dense, int64_t smaller_side) {
  LayerPlan plan = dense;
  if (draw.chance(0.5)) {
    plan.ranks = {draw.between(0, smaller_side)};
    plan.activation = draw.one_of({FactorActivation::kNone, FactorActivation::kRelu, FactorActivation::kShiftedRelu});
  }
  draw_integers(draw, plan);
  return plan;
}

int64_t smaller_side(const nn::Layer& layer) {
  const auto* linear = dynamic_cast<const nn::LinearImpl*>(&layer);
  return std::min(linear->options.in_features, linear->options.out_features);
}

std::string random_options(Draw& draw, const std::string& name, int64_t dim) {
  std::string text = "{\"embedding_dim\": " + std::to_string(dim);
  text += ", \"hidden\": " + std::string(draw.one_of({"[]", "[5]", "[20, 9]", "[33, 16, 7]"}));
  text += ", \"batch_norm\": " + std::string(draw.one_of({"true", "false"}));
  if (name == "deepfm") text += ", \"interaction\": \"" + std::string(draw.one_of({"decoded", "latent"})) + "\"";
  if (name == "dcn") {
    text += ", \"cross_layers\": " + std::to_string(draw.between(1, 3));
    text += ", \"cross\": \"" + std::string(draw.one_of({"vector", "matrix"})) + "\"";
  }
  return text + "}";
}

void randomise(Model& model) {
  const torch::NoGradGuard no_grad;
  for (const auto& item : model.named_parameters()) item.value().normal_(0, item.value().dim() == 2 ? 0.3 : 0.5);
  for (const auto& item : model.named_buffers()) {
    if (item.key().ends_with("running_mean")) item.value().normal_();
    if (item.key().ends_with("running_var")) item.value().uniform_(0.3, 2.0);
  }
}

std::shared_ptr<Model> random_model(Draw& draw) {
  const std::string name = draw.one_of<std::string>({"deepfm", "dcn", "wide_deep"});
  const Schema schema = random_schema(draw);
  const int64_t dim = draw.one_of<int64_t>({1, 3, 8, 16, 17});
  const std::string options = random_options(draw, name, dim);
  const bool folds = options.find("matrix") == std::string::npos;
  RankPlan plan = {{"embedding", random_embedding(draw, schema, dim, name != "dcn", folds)}};
  // Built once to learn its layers, and again with their plans.
  const auto plain = models::make_model(name, options, schema, plan);
  for (const auto& [path, layer] : nn::layers_of(*plain)) {
    if (path != "embedding") plan[path] = random_linear(draw, layer->plan(), smaller_side(*layer));
  }
  const auto model = models::make_model(name, options, schema, plan);
  randomise(*model);
  model->eval();
  return model;
}

Batch random_batch(const Schema& schema, int64_t rows) {
  std::vector<torch::Tensor> ids;
  for (const FieldSpec& field : schema.fields) {
    const int64_t lowest = field.kind == FieldKind::kMulti ? kEmptySlot : 0;
    if (field.has_ids()) ids.push_back(torch::randint(lowest, field.cardinality, {rows, field.slots()}));
  }
  return {torch::cat(ids, 1).to(torch::kInt32).contiguous(), torch::randn({rows, schema.dense_count()}), {}};
}

torch::Tensor libtorch_logits(Model& model, const Batch& batch, torch::Dtype dtype) {
  const torch::NoGradGuard no_grad;
  const auto copy = copy_of(model);
  copy->to(dtype);
  return copy->forward({batch.ids, batch.dense.to(dtype), {}}).to(torch::kFloat64);
}

torch::Tensor scorer_logits(const Scorer& scorer, const Batch& batch) {
  torch::Tensor logits = torch::empty({batch.rows()});
  scorer.score(batch.ids.const_data_ptr<int32_t>(), batch.dense.const_data_ptr<float>(), batch.rows(),
               logits.mutable_data_ptr<float>());
  return logits.to(torch::kFloat64);
}

// How far `logits` are from `exact`, in shares of the logit.
double distance(const torch::Tensor& logits, const torch::Tensor& exact) {
  return ((logits - exact).abs() / (1 + exact.abs())).max().item<double>();
}

TEST_CASE("logits are LibTorch's, over random models, plans and data types") {
  for (uint32_t seed = 0; seed < 250; ++seed) {
    torch::manual_seed(seed);
    Draw draw(seed);
    const auto model = random_model(draw);
    const TemporaryFolder folder;
    save_model(*model, folder / "model");
    const auto loaded = models::load_model(folder / "model");
    const Batch batch = random_batch(model->schema(), draw.one_of<int64_t>({1, 3, 40, 150}));
    const torch::Tensor exact = libtorch_logits(*loaded, batch, torch::kFloat64);
    const torch::Tensor single = libtorch_logits(*loaded, batch, torch::kFloat32);
    const auto simd = draw.one_of({Simd::kPortable, Simd::kAvx2, Simd::kAvx512});
    const auto scorer = Scorer::open(folder / "model", {.simd = std::min(simd, best_simd())});
    INFO("seed " << seed << ", " << model->kind() << " " << model->options_json() << " "
                 << plan_to_json(nn::rank_plan_of(*model)));
    CHECK(scorer.golden_rows() == 4);
    CHECK(distance(scorer_logits(scorer, batch), exact) <= kRelative + 2 * distance(single, exact));
  }
}

torch::Tensor row_by_row(const Scorer& scorer, const Batch& batch) {
  std::vector<torch::Tensor> logits;
  for (int64_t r = 0; r < batch.rows(); ++r) {
    logits.push_back(scorer_logits(scorer, {batch.ids.slice(0, r, r + 1), batch.dense.slice(0, r, r + 1), {}}));
  }
  return torch::cat(logits);
}

// One row meets such layers at three bytes a weight (Note [Three-byte weights] in matrix.cpp).
TEST_CASE("models of large layers score row by row as LibTorch does") {
  for (uint32_t seed = 0; seed < 9; ++seed) {
    torch::manual_seed(seed);
    Draw draw(seed + 2000);
    const std::string name = draw.one_of<std::string>({"deepfm", "dcn", "wide_deep"});
    const auto model =
        models::make_model(name, R"({"embedding_dim": 16, "hidden": [300, 400, 257]})", random_schema(draw));
    {
      const torch::NoGradGuard no_grad;
      for (const auto& item : model->named_parameters()) item.value().normal_(0, item.value().dim() == 2 ? 0.06 : 0.5);
    }
    model->eval();
    const TemporaryFolder folder;
    save_model(*model, folder / "model");
    const Batch batch = random_batch(model->schema(), 40);
    const torch::Tensor exact = libtorch_logits(*model, batch, torch::kFloat64);
    const Scorer scorer = Scorer::open(folder / "model");
    INFO("seed " << seed << ", " << name);
    CHECK(distance(row_by_row(scorer, batch), exact) <= kRelative);
    CHECK(distance(row_by_row(scorer, batch), exact * (1 + 1e-4)) > kRelative);
  }
}

TEST_CASE("folded models score as LibTorch does") {
  int folded = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    torch::manual_seed(seed);
    Draw draw(seed + 1000);
    const auto model = random_model(draw);
    const FoldResult result = model->folded();
    if (!result.refused.empty()) continue;
    ++folded;
    const TemporaryFolder folder;
    save_model(*result.model, folder / "model");
    const auto loaded = models::load_model(folder / "model");
    const Batch batch = random_batch(model->schema(), 30);
    const torch::Tensor exact = libtorch_logits(*loaded, batch, torch::kFloat64);
    const torch::Tensor single = libtorch_logits(*loaded, batch, torch::kFloat32);
    CHECK(distance(scorer_logits(Scorer::open(folder / "model"), batch), exact) <=
          kRelative + 2 * distance(single, exact));
  }
  CHECK(folded > 10);
}

TEST_CASE("a model in another precision scores as its float32 values") {
  torch::manual_seed(1);
  for (const auto dtype : {torch::kFloat64, torch::kBFloat16, torch::kFloat16}) {
    Draw draw(7);
    const auto model = random_model(draw);
    model->to(dtype);
    const TemporaryFolder folder;
    save_model(*model, folder / "model");
    const Batch batch = random_batch(model->schema(), 20);
    const torch::Tensor exact = libtorch_logits(*model, batch, torch::kFloat64);
    CHECK(distance(scorer_logits(Scorer::open(folder / "model"), batch), exact) <= kRelative);
  }
}

}  // namespace
}  // namespace afm::serve
