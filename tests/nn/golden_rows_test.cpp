#include "libafm/nn/golden_rows.h"

#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "libafm/nn/model_file.h"
#include "tests/core/temporary_folder.h"
#include "tests/nn/tiny_ranker.h"

namespace afm {

using testing::message_of;
using testing::TemporaryFolder;
using testing::TinyRanker;

Schema mixed_schema() {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = 1000},
                   FieldSpec{.name = "tags", .kind = FieldKind::kMulti, .cardinality = 50, .max_values = 4},
                   FieldSpec{.name = "only", .cardinality = 1},
                   FieldSpec{.name = "price", .kind = FieldKind::kNumeric}};
  return schema;
}

// A model that is one function.
class Formula : public Model {
 public:
  using Function = std::function<at::Tensor(const Batch&, bool is_training)>;
  explicit Formula(Function function, Schema schema = mixed_schema())
      : Model(std::move(schema)), function_(std::move(function)) {}
  at::Tensor forward(const Batch& batch) override { return function_(batch, is_training()); }
  std::string_view kind() const override { return "formula"; }
  std::string options_json() const override { return "{}"; }
  std::shared_ptr<Model> rebuild(std::string_view, const RankPlan&) const override {
    return std::make_shared<Formula>(function_, schema());
  }

 private:
  Function function_;
};

at::Tensor sum_of(const Batch& batch) { return batch.ids.sum(1).to(torch::kFloat32) + 0.5 * batch.dense.sum(1); }

TEST_CASE("golden rows hold the unknown ids, the first ids, random ids and empty slots, with their logits") {
  const Formula model(
      [](const Batch& batch, bool training) { return training ? torch::full({batch.rows()}, 7.0) : sum_of(batch); });
  const TensorMap golden = golden_rows_of(model);
  const at::Tensor ids = golden.at("golden.ids"), dense = golden.at("golden.dense");
  REQUIRE(ids.sizes() == at::IntArrayRef{4, 6});
  CHECK(ids.scalar_type() == torch::kInt32);
  CHECK(torch::equal(ids[0], torch::zeros({6}, torch::kInt32)));
  CHECK(torch::equal(ids[1], torch::tensor({1, 1, 1, 1, 1, 0}, torch::kInt32)));
  const at::Tensor random = ids.slice(0, 2);
  CHECK(random[0][0].item<int>() != random[1][0].item<int>());
  CHECK((random.lt(torch::tensor({1000, 50, 50, 50, 50, 1})) & random.ge(-1)).all().item<bool>());
  CHECK(torch::equal(ids.eq(kEmptySlot).sum(1), torch::tensor({0, 0, 0, 2})));
  CHECK(dense.sizes() == at::IntArrayRef{4, 1});
  CHECK(torch::equal(golden.at("golden.logits"), sum_of({ids, dense, {}})));
  const TensorMap again = golden_rows_of(model);
  for (const auto& [name, tensor] : golden) CHECK(torch::equal(tensor, again.at(name)));
}

TEST_CASE("a file carries the golden rows of its model beside its tensors") {
  const TemporaryFolder folder;
  TinyRanker ranker;
  ranker.forward({testing::tiny_ids(32), {}, {}});
  save_model(ranker, folder / "model.safetensors");
  const ModelFile file = read_model_file(folder / "model.safetensors");
  REQUIRE(file.golden.size() == 2);  // the schema has no dense features
  CHECK_FALSE(file.tensors.contains("golden.ids"));
  ranker.eval();
  const torch::NoGradGuard no_grad;
  CHECK(torch::equal(ranker.forward({file.golden.at("golden.ids"), {}, {}}), file.golden.at("golden.logits")));
}

TEST_CASE("saving leaves the modes of a model and torch's generator as they were") {
  const TemporaryFolder folder;
  TinyRanker ranker;
  ranker.train();
  ranker.norm->eval();
  torch::manual_seed(3);
  const at::Tensor expected = torch::randn({4});
  torch::manual_seed(3);
  save_model(ranker, folder / "model.safetensors");
  CHECK(torch::equal(torch::randn({4}), expected));
  CHECK(ranker.is_training());
  CHECK(ranker.hidden->is_training());
  CHECK_FALSE(ranker.norm->is_training());
}

TEST_CASE("a model that cannot compute, or not precisely, is saved without golden rows") {
  const TemporaryFolder folder;
  const auto path = folder / "model.safetensors";
  const auto golden_of = [&](const Model& model) {
    save_model(model, path);
    return read_model_file(path).golden.size();
  };
  CHECK(golden_of(Formula([](const Batch& batch, bool) { return sum_of(batch); })) == 3);
  CHECK(golden_of(Formula([](const Batch&, bool) -> at::Tensor { throw DataError("no"); })) == 0);
  CHECK(golden_of(Formula([](const Batch& batch, bool) { return sum_of(batch).div(0); })) == 0);
  CHECK(golden_of(Formula([](const Batch& batch, bool) { return sum_of(batch).unsqueeze(1); })) == 0);
  const Schema uncounted{.fields = {FieldSpec{.name = "user", .cardinality = 0}}};
  CHECK(golden_of(Formula([](const Batch& batch, bool) { return batch.ids.sum(1); }, uncounted)) == 0);
  TinyRanker half;
  half.to(torch::kBFloat16);
  CHECK(golden_of(half) == 0);
}

TEST_CASE("a model's own tensor that is named like a golden row is refused") {
  Formula model([](const Batch& batch, bool) { return sum_of(batch); });
  auto part = std::make_shared<Formula>([](const Batch& batch, bool) { return sum_of(batch); });
  part->register_buffer("ids", torch::zeros({1}));
  model.register_module("golden", part);
  const TemporaryFolder folder;
  CHECK(message_of<std::invalid_argument>([&] { save_model(model, folder / "model.safetensors"); }) ==
        "a model must have no tensor named 'golden.ids': files use such names for other things");
}

}  // namespace afm
