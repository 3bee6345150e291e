#include <optional>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "libafm/nn/integer_weight.h"
#include "libafm/nn/model_file.h"
#include "libafm/nn/quantize.h"
#include "tests/core/temporary_folder.h"
#include "tests/nn/embedding_cases.h"
#include "tests/nn/same_bits.h"
#include "tests/nn/tiny_ranker.h"

namespace afm {

using nn::EmbeddingImpl;
using nn::EmbeddingOptions;
using testing::message_of;
using testing::same_bits;
using testing::TemporaryFolder;
using testing::tiny_ids;
using testing::tiny_schema;
using testing::TinyRanker;

struct Integers {
  Bits bits;
  ScaleBy scale;
};
const std::vector<Integers> kIntegers = {{Bits::kInt8, ScaleBy::kRow},
                                         {Bits::kInt8, ScaleBy::kColumn},
                                         {Bits::kInt4, ScaleBy::kRow},
                                         {Bits::kInt4, ScaleBy::kColumn}};

Integers random_integers() { return kIntegers[static_cast<std::size_t>(torch::randint(4, {1}).item<int64_t>())]; }

// Elements of the flat table by group, in the order in which a file has the scales: told by the options alone.
std::vector<std::vector<int64_t>> naive_groups(const EmbeddingOptions& options, ScaleBy by) {
  std::vector<std::vector<int64_t>> groups;
  std::vector<std::vector<int64_t>> wide(options.cardinalities.size());
  const bool stores_wide = options.wide && !options.joint;
  int64_t element = 0;
  for (std::size_t j = 0; j < options.cardinalities.size(); ++j) {
    const int64_t width = options.ranks.empty() ? options.embedding_dim : options.ranks[j];
    std::vector<Tier> tiers = {{.rows = options.cardinalities[j], .rank = width}};
    if (!options.tiers.empty() && !options.tiers[j].empty()) tiers = options.tiers[j];
    std::vector<std::vector<int64_t>> columns(static_cast<std::size_t>(width));
    for (const Tier& tier : tiers) {
      for (int64_t row = 0; row < (tier.shared ? 1 : tier.rows); ++row) {
        std::vector<int64_t> mine;
        for (int64_t c = 0; c < tier.rank; ++c) {
          columns[static_cast<std::size_t>(c)].push_back(element);
          mine.push_back(element++);
        }
        if (stores_wide) wide[j].push_back(element++);
        if (by == ScaleBy::kRow && !mine.empty()) groups.push_back(mine);
      }
    }
    if (by == ScaleBy::kColumn) groups.insert(groups.end(), columns.begin(), columns.end());
  }
  if (stores_wide) groups.insert(groups.end(), wide.begin(), wide.end());
  return groups;
}

// Each group rounded as a matrix of one row.
at::Tensor round_by_hand(const at::Tensor& table, const EmbeddingOptions& options, at::Tensor& scales) {
  const auto groups = naive_groups(options, options.scale);
  const at::Tensor flat = table.detach().flatten(), values = torch::full_like(flat, 1e9);
  scales = torch::zeros({static_cast<int64_t>(groups.size())}, torch::kBFloat16);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const at::Tensor elements = torch::tensor(groups[g], torch::kLong);
    const auto one_row = nn::matrix_groups(1, elements.numel(), ScaleBy::kRow);
    const at::Tensor x = flat.index_select(0, elements);
    values.index_copy_(0, elements, nn::fake_quantize(x, options.bits, one_row));
    scales[static_cast<int64_t>(g)] = nn::store_integers(x, options.bits, one_row).scale[0];
  }
  return values.view(table.sizes());
}

at::Tensor& table_of(EmbeddingImpl& embedding) { return embedding.is_dense() ? embedding.weight : embedding.latent; }

TEST_CASE("the scales of a table are those of its rows or columns, wide weights apart, in every form") {
  torch::manual_seed(1);
  for (auto form : nn::embedding_cases()) {
    const auto [bits, scale] = random_integers();
    form.options.bits = bits;
    form.options.scale = scale;
    nn::Embedding embedding = nn::random_embedding(form.options);
    const auto parameters = embedding->integer_parameters();
    REQUIRE(parameters.size() == 1);
    const at::Tensor table = table_of(*embedding);
    CHECK(parameters[0].tensor.is_same(table));
    CHECK(parameters[0].name == (embedding->is_dense() ? "weight" : "latent"));
    at::Tensor scales;
    const at::Tensor values = round_by_hand(table, form.options, scales);
    const nn::ScaleGroups& groups = parameters[0].integers->groups;
    INFO(form.name << ", " << name_of(bits) << ", " << name_of(scale));
    REQUIRE(groups.count == scales.numel());
    CHECK(same_bits(nn::fake_quantize(table.detach(), bits, groups), values));
    CHECK(same_bits(nn::store_integers(table, bits, groups).scale, scales));
  }
}

// The same embedding in floats, with the rounded values.
nn::Embedding in_floats(EmbeddingImpl& embedding) {
  EmbeddingOptions options = embedding.options;
  options.bits = Bits::kFloat;
  nn::Embedding floats(options);
  floats->to(table_of(embedding).scalar_type());
  const torch::NoGradGuard no_grad;
  at::Tensor scales;
  table_of(*floats).copy_(round_by_hand(table_of(embedding), embedding.options, scales));
  if (floats->basis.defined()) floats->basis.copy_(embedding.basis);
  if (floats->offset.defined()) floats->offset.copy_(embedding.offset);
  return floats;
}

at::Tensor sum_of(const nn::EmbeddingOutput& output) {
  at::Tensor sum = torch::zeros({}, torch::kDouble);
  for (const at::Tensor& tensor : {output.values, output.wide, output.latents}) {
    if (tensor.defined()) sum = sum + (tensor * torch::arange(1, tensor.numel() + 1).view(tensor.sizes())).sum();
  }
  return sum;
}

TEST_CASE("a lookup of integers is the lookup of their values, and its gradient goes to the floats") {
  torch::manual_seed(2);
  for (auto form : nn::embedding_cases()) {
    const auto [bits, scale] = random_integers();
    form.options.bits = bits;
    form.options.scale = scale;
    for (const auto dtype : {torch::kFloat32, torch::kFloat64}) {
      nn::Embedding embedding = nn::random_embedding(form.options);
      embedding->to(dtype);
      nn::Embedding floats = in_floats(*embedding);
      const at::Tensor ids = nn::random_ids(form.options, 11);
      INFO(form.name << ", " << name_of(bits) << ", " << name_of(scale));
      for (const bool training : {true, false}) {
        embedding->train(training);
        const at::Tensor loss = sum_of(embedding->lookup(ids)), expected = sum_of(floats->lookup(ids));
        CHECK(same_bits(loss, expected));
        const torch::NoGradGuard no_grad;
        CHECK(same_bits(sum_of(embedding->lookup(ids)), expected));
      }
      if (table_of(*embedding).numel() == 0) continue;
      sum_of(embedding->lookup(ids)).backward();
      sum_of(floats->lookup(ids)).backward();
      CHECK(same_bits(table_of(*embedding).grad(), table_of(*floats).grad()));
      for (int64_t j = 0; j < embedding->field_count(); ++j) {
        CHECK(same_bits(embedding->table(j), floats->table(j)));
      }
      if (embedding->wide_weights().defined()) CHECK(same_bits(embedding->wide_weights(), floats->wide_weights()));
    }
  }
}

TEST_CASE("a linear layer of integers computes with their values, and its gradient goes to the floats") {
  torch::manual_seed(3);
  for (const auto& [bits, scale] : kIntegers) {
    for (const std::optional<int64_t> rank : {std::optional<int64_t>(), std::optional<int64_t>(3)}) {
      nn::Linear layer(nn::LinearOptions{
          .in_features = 7, .out_features = 5, .bias = true, .rank = rank, .bits = bits, .scale = scale});
      const auto rounded = [by = scale, form = bits](const at::Tensor& matrix) {
        return nn::fake_quantize(matrix, form, nn::matrix_groups(matrix.size(0), matrix.size(1), by));
      };
      const at::Tensor x = torch::randn({4, 7});
      const at::Tensor expected =
          rank ? at::linear(at::linear(x, rounded(layer->down), layer->down_bias), rounded(layer->up), layer->up_bias)
               : at::linear(x, rounded(layer->weight), layer->bias);
      CHECK(same_bits(layer->forward(x), expected));
      CHECK(layer->integer_parameters().size() == (rank ? 2 : 1));
      std::vector<at::Tensor> masters = rank ? std::vector{layer->down, layer->up} : std::vector{layer->weight};
      const auto mine = torch::autograd::grad({layer->forward(x).square().sum()}, masters);
      const auto theirs = torch::autograd::grad({expected.square().sum()}, masters);
      for (std::size_t i = 0; i < mine.size(); ++i) CHECK(same_bits(mine[i], theirs[i]));
      const auto copy = std::dynamic_pointer_cast<nn::LinearImpl>(layer->clone());
      CHECK(same_bits(copy->forward(x), layer->forward(x)));
      CHECK(copy->plan() == layer->plan());
    }
  }
  CHECK(nn::Linear(3, 2)->integer_parameters().empty());
}

TEST_CASE("in evaluation a layer follows its parameter, whoever changes it") {
  torch::manual_seed(4);
  nn::Linear layer(nn::LinearOptions{.in_features = 3, .out_features = 2, .bits = Bits::kInt8});
  const at::Tensor x = torch::randn({4, 3});
  const auto expected = [&] {
    return at::linear(x, nn::fake_quantize(layer->weight.detach(), Bits::kInt8, nn::matrix_groups(2, 3, ScaleBy::kRow)),
                      layer->bias.detach());
  };
  const torch::NoGradGuard no_grad;
  layer->eval();
  CHECK(same_bits(layer->forward(x), expected()));
  layer->weight.mul_(3);
  CHECK(same_bits(layer->forward(x), expected()));
  layer->weight.variable_data().add_(1);  // not counted by LibTorch
  layer->eval();
  CHECK(same_bits(layer->forward(x), expected()));
  layer->to(torch::kFloat64);
  CHECK(layer->forward(x.to(torch::kFloat64)).dtype() == torch::kFloat64);
}

// Where some parameters have no elements.
const RankPlan kConstants = {{"embedding", {.ranks = {0, 2}, .bits = Bits::kInt4}},
                             {"hidden", {.ranks = {0}, .bits = Bits::kInt4}},
                             {"head", {.ranks = {0}, .bits = Bits::kInt8, .scale = ScaleBy::kColumn}}};

// Plans whose integers are odd in number here and there, of every kind of layer.
std::vector<RankPlan> integer_plans() {
  std::vector<RankPlan> plans;
  for (const auto& [bits, scale] : kIntegers) {
    plans.push_back({{"embedding", {.bits = bits, .scale = scale}},
                     {"hidden", {.bits = bits, .scale = scale}},
                     {"head", {.bits = bits, .scale = scale}}});
    plans.push_back({{"embedding", {.ranks = {2, 1}, .bits = bits, .scale = scale}},
                     {"hidden", {.ranks = {3}, .bits = bits, .scale = scale}},
                     {"head", {.ranks = {1}, .bits = bits, .scale = scale}}});
    plans.push_back({{"embedding",
                      {.ranks = {3, 2},
                       .joint = true,
                       .tiers = {{{.rows = 3, .rank = 3}, {.rows = 7, .rank = 1, .shared = true}}, {}},
                       .bits = bits,
                       .scale = scale}}});
  }
  return plans;
}

int64_t file_bytes(const ModelFile& file) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : file.tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return bytes;
}

std::shared_ptr<TinyRanker> trained_ranker(const RankPlan& plan) {
  auto ranker = std::make_shared<TinyRanker>(plan);
  for (int i = 0; i < 3; ++i) ranker->forward({tiny_ids(32), {}, {}});
  ranker->eval();
  return ranker;
}

TEST_CASE("a file of integers gives the same logits bit by bit, in both precisions, and the same file again") {
  torch::manual_seed(5);
  const TemporaryFolder folder;
  auto plans = integer_plans();
  plans.push_back(kConstants);
  for (const auto& plan : plans) {
    for (const auto dtype : {torch::kFloat32, torch::kFloat64}) {
      const auto ranker = trained_ranker(plan);
      ranker->to(dtype);
      save_model(*ranker, folder / "model.safetensors");
      const ModelFile file = read_model_file(folder / "model.safetensors");
      CHECK((file.plan == plan));
      TinyRanker loaded(file.plan);
      loaded.to(dtype);
      loaded.eval();
      load_state(loaded, file.tensors, "the file");
      const Batch batch{tiny_ids(40), {}, {}};
      CHECK(same_bits(loaded.forward(batch), ranker->forward(batch)));
      save_model(loaded, folder / "again.safetensors");
      for (const auto& [name, tensor] : read_model_file(folder / "again.safetensors").tensors) {
        CHECK(same_bits(tensor, file.tensors.at(name)));
      }
    }
  }
}

TEST_CASE("bytes are those of the tensors in the file, in groups and together") {
  const TemporaryFolder folder;
  for (const auto& plan : integer_plans()) {
    const TinyRanker ranker(plan);
    save_model(ranker, folder / "model.safetensors");
    CHECK(byte_count(ranker) == file_bytes(read_model_file(folder / "model.safetensors")));
    int64_t bytes = 0;
    for (const auto& size : size_by_group(ranker)) bytes += size.bytes;
    CHECK(bytes == byte_count(ranker));
    CHECK(byte_count(ranker) < byte_count(TinyRanker()));
  }
  const TinyRanker ranker({{"embedding", {.bits = Bits::kInt4, .scale = ScaleBy::kColumn}}});
  for (const auto& size : size_by_group(ranker)) {
    if (size.group == "wide") CHECK(size.bytes == (17 + 1) / 2 + 2 * 2);
    if (size.group == "embedding") CHECK(size.bytes == (17 * 5 + 1) / 2 - (17 + 1) / 2 + 2 * 2 * 4);
  }
}

TEST_CASE("the tensors of integers in a file have their names and dtypes") {
  const TemporaryFolder folder;
  save_model(TinyRanker({{"embedding", {.ranks = {2, 1}, .bits = Bits::kInt4}}, {"hidden", {.bits = Bits::kInt8}}}),
             folder / "model.safetensors");
  const TensorMap tensors = read_model_file(folder / "model.safetensors").tensors;
  CHECK_FALSE(tensors.contains("hidden.weight"));
  CHECK(tensors.at("hidden.weight.codes").sizes() == at::IntArrayRef({48}));
  CHECK(tensors.at("hidden.weight.codes").dtype() == torch::kInt8);
  CHECK(tensors.at("hidden.weight.scale").sizes() == at::IntArrayRef({6}));
  CHECK(tensors.at("hidden.weight.scale").dtype() == torch::kBFloat16);
  CHECK(tensors.at("embedding.latent.codes").sizes() == at::IntArrayRef({(10 * 3 + 7 * 2) / 2}));
  CHECK(tensors.at("embedding.latent.codes").dtype() == torch::kUInt8);
  CHECK(tensors.at("embedding.latent.scale").sizes() == at::IntArrayRef({17 + 2}));
  CHECK(tensors.contains("head.weight"));
}

TEST_CASE("integers that do not fit the model are refused by name") {
  const RankPlan plan = {{"hidden", {.bits = Bits::kInt8}}};
  const TemporaryFolder folder;
  save_model(TinyRanker(plan), folder / "model.safetensors");
  const TensorMap good = read_model_file(folder / "model.safetensors").tensors;
  TinyRanker ranker(plan);
  const at::Tensor before = ranker.hidden->weight.detach().clone();
  const auto refusal = [&](const TensorMap& state) {
    return message_of<FormatError>([&] { load_state(ranker, state, "'x'"); });
  };
  TensorMap cut = good;
  cut["hidden.weight.codes"] = cut["hidden.weight.codes"].narrow(0, 0, 47);
  CHECK(refusal(cut) ==
        "'x' does not hold the integers of 'hidden.weight': its codes must be Char [48], got Char [47]");
  TensorMap incomplete = good;
  incomplete.erase("hidden.weight.scale");
  CHECK(refusal(incomplete) ==
        "'x' does not hold the integers of 'hidden.weight': its scale must be BFloat16 [6], got none []");
  TensorMap without = incomplete;
  without.erase("hidden.weight.codes");
  CHECK(refusal(without) == "the tensors of 'x' do not fit the model; missing: hidden.weight");
  CHECK(message_of<FormatError>([&] { load_state(*std::make_shared<TinyRanker>(), good, "'x'"); }) ==
        "the tensors of 'x' do not fit the model; missing: hidden.weight; surplus: hidden.weight.codes, "
        "hidden.weight.scale");
  CHECK(same_bits(ranker.hidden->weight, before));
}

TEST_CASE("floats go into a model of integers too, as a checkpoint holds them") {
  for (const auto& plan : integer_plans()) {
    const auto ranker = trained_ranker(plan);
    TinyRanker other(plan);
    load_state(other, state_of(*ranker), "the source");
    for (const auto& [name, tensor] : state_of(other)) CHECK(same_bits(tensor, state_of(*ranker).at(name)));
    const auto copy = copy_of(*ranker);
    const Batch batch{tiny_ids(20), {}, {}};
    CHECK(same_bits(copy->forward(batch), ranker->forward(batch)));
  }
}

// Labels that the ids decide.
at::Tensor planted_labels(const at::Tensor& ids) {
  return ids.select(1, 0).lt(5).logical_or(ids.select(1, 1).lt(3)).to(torch::kFloat32);
}

TEST_CASE("training with the rounding in the loop lowers the loss, of int4 too") {
  for (const auto& plan : integer_plans()) {
    torch::manual_seed(6);
    TinyRanker ranker(plan);
    torch::optim::Adam adam(ranker.parameters(), 0.02);
    const at::Tensor ids = tiny_ids(256), labels = planted_labels(ids);
    const auto loss = [&] { return torch::binary_cross_entropy_with_logits(ranker.forward({ids, {}, {}}), labels); };
    const auto before = loss().item<double>();
    for (int step = 0; step < 100; ++step) {
      adam.zero_grad();
      loss().backward();
      adam.step();
    }
    CHECK(loss().item<double>() < 0.75 * before);
  }
}

}  // namespace afm
