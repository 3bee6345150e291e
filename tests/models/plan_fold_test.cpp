#include <string>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/factorize.h"
#include "libafm/compress/fold.h"
#include "libafm/compress/plan.h"
#include "models/models.h"

namespace afm::models {
namespace {

Schema folding_schema() {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = 300}, FieldSpec{.name = "item", .cardinality = 70},
                   FieldSpec{.name = "hour", .cardinality = 4}, FieldSpec{.name = "age", .kind = FieldKind::kNumeric},
                   FieldSpec{.name = "price", .kind = FieldKind::kNumeric}};
  return schema;
}

Dataset folding_dataset() {
  torch::manual_seed(2);
  std::vector<at::Tensor> ids;
  for (const int64_t ends : {300, 70, 4}) ids.push_back((torch::rand({600}).square() * static_cast<double>(ends)));
  return Dataset::from_tensors(folding_schema(), {torch::stack(ids, 1).to(torch::kInt32), torch::randn({600, 2}),
                                                  (torch::arange(600) % 3 == 0).to(torch::kFloat32)});
}

std::shared_ptr<Model> dense_model(const std::string& name, const std::string& options) {
  torch::manual_seed(1);
  const auto model = make_model(name, options, folding_schema());
  const torch::NoGradGuard no_grad;
  for (const auto& item : model->named_parameters()) {
    if (item.key().starts_with("embedding")) item.value().normal_();
  }
  model->eval();
  return model;
}

// What a plan must know of the model to size it folded.
PlanOptions folding_of(const std::string& name, bool has_hidden) {
  PlanOptions options{.fold = true, .keep_basis = name == "deepfm"};
  if (name != "dcn") return options;
  options.cross_layers = 2;
  options.first_layers = {"head"};
  if (has_hidden) options.first_layers.emplace_back("mlp.layers.0");
  return options;
}

TEST_CASE("a plan for a folded model has the size of the folded model") {
  const std::string name = GENERATE(as<std::string>{}, "deepfm", "dcn", "wide_deep");
  const bool has_hidden = GENERATE(true, false);
  const auto basis = GENERATE(Basis::kField, Basis::kShared);
  const auto bits = GENERATE(Bits::kFloat, Bits::kInt4);
  std::string options = R"({"embedding_dim": 6, "hidden": )" + std::string(has_hidden ? "[40, 20]" : "[]");
  options += name == "dcn" ? R"(, "cross_layers": 2})" : "}";
  const auto model = dense_model(name, options);
  const auto dataset = folding_dataset();
  const auto statistics = collect_statistics(*model, logits_of(*model, dataset), {.metric = true});

  PlanOptions wanted = folding_of(name, has_hidden);
  wanted.bytes = statistics.bytes / (bits == Bits::kFloat ? 5 : 11);
  wanted.basis = basis;
  wanted.joint = name != "dcn" && basis == Basis::kField;
  wanted.tiers = 3;
  wanted.embedding_bits = wanted.mlp_bits = bits;
  const RankPlan plan = plan_ranks(statistics, wanted);
  INFO(name << " " << plan_to_json(plan));
  const FoldResult folded = fold(*factorize(*model, statistics, plan));
  for (const Refusal& refusal : folded.refused) UNSCOPED_INFO(refusal.part << ": " << refusal.reason);
  REQUIRE(folded.refused.empty());
  const PlanSize size = planned_size(statistics, plan, wanted);
  CHECK(size.parameters == parameter_count(*folded.model));
  CHECK(size.bytes == byte_count(*folded.model));
  CHECK(size.bytes <= wanted.bytes);
}

}  // namespace
}  // namespace afm::models
