// A trainer of somebody else's: its own module, its own loop, LibTorch's own optimizer. libafm gives it layers that can
// be factorized, and three calls that compress it. Checks that the error on the layer's output is what was predicted.

#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>

#include <torch/torch.h>

#include "libafm/afm.h"

namespace {

struct RankerImpl : torch::nn::Module {
  RankerImpl() {
    embedding = register_module("embedding", afm::nn::Embedding(afm::nn::EmbeddingOptions{
                                                 .cardinalities = {50, 30, 7}, .embedding_dim = 8, .init_std = 0.3}));
    hidden = register_module("hidden", afm::nn::Linear(3 * 8, 32));
    head = register_module("head", afm::nn::Linear(32, 1));
  }

  torch::Tensor forward(const torch::Tensor& ids) {
    return head(torch::relu(hidden(embedding(ids).flatten(1)))).squeeze(1);
  }

  afm::nn::Embedding embedding{nullptr};
  afm::nn::Linear hidden{nullptr}, head{nullptr};
};
TORCH_MODULE(Ranker);

struct Table {
  torch::Tensor ids, labels;  // [N, 3] int64, [N] float
};

// Clicks that depend on a hidden score per id.
Table make_table(int64_t rows) {
  Table table;
  const auto columns =
      std::vector<torch::Tensor>{torch::randint(50, {rows}, torch::kLong), torch::randint(30, {rows}, torch::kLong),
                                 torch::randint(7, {rows}, torch::kLong)};
  auto score = torch::zeros({rows});
  for (const auto& column : columns) score = score + torch::randn({50}).index_select(0, column);
  table.ids = torch::stack(columns, 1);
  table.labels = torch::bernoulli(torch::sigmoid(score));
  return table;
}

double train(Ranker& ranker, const Table& table, int epochs) {
  torch::optim::Adam optimizer(ranker->parameters(), torch::optim::AdamOptions(1e-2));
  double loss_value = 0.0;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    optimizer.zero_grad();
    const auto loss = afm::logloss_of(ranker(table.ids), table.labels);
    loss.backward();
    optimizer.step();
    loss_value = loss.item<double>();
  }
  return loss_value;
}

torch::Tensor hidden_output(Ranker& ranker, const Table& table) {
  torch::NoGradGuard no_grad;
  return ranker->hidden(ranker->embedding(table.ids).flatten(1)).to(torch::kDouble);
}

bool check(bool holds, const char* what) {
  std::printf("%s: %s\n", holds ? "ok" : "FAILED", what);
  return holds;
}

}  // namespace

int main() {
  torch::manual_seed(1);
  const auto table = make_table(4000);
  Ranker ranker;
  const double before = train(ranker, table, 1);
  const double after = train(ranker, table, 60);

  // The three calls.
  int64_t next_row = 0;
  const auto next_logits = [&]() -> std::optional<torch::Tensor> {
    if (next_row >= table.ids.size(0)) return std::nullopt;
    const auto first_row = std::exchange(next_row, next_row + 1000);
    return ranker(table.ids.slice(0, first_row, next_row));
  };
  const auto statistics = afm::collect_statistics(*ranker, next_logits);
  afm::RankPlan plan = {{"hidden", afm::LayerPlan{.ranks = {6}}}};
  const auto reference = hidden_output(ranker, table);
  afm::factorize_(*ranker, statistics, plan);

  const auto predicted = afm::summarize(statistics, plan);
  double predicted_mse = 0.0;
  for (const auto& line : predicted) {
    if (line.layer == "hidden") predicted_mse = line.predicted_mse;
  }
  const double measured = (hidden_output(ranker, table) - reference).square().sum(1).mean().item<double>();
  std::printf("logloss %.4f -> %.4f; output error predicted %.6g, measured %.6g\n", before, after, predicted_mse,
              measured);

  bool fine = check(after < before, "the outside loop trains our layers");
  fine &= check(predicted_mse > 0 && std::abs(measured / predicted_mse - 1) < 1e-3,
                "the error is the sum of the discarded eigenvalues");
  fine &=
      check(!ranker->hidden->is_dense() && ranker->hidden->down.size(0) == 6, "the typed member is the factor pair");

  // One budget over every layer and table, and training goes on.
  next_row = 0;
  const auto rest = afm::collect_statistics(*ranker, next_logits);
  const auto budget = afm::plan_ranks(rest, afm::PlanOptions{.ratio = 1.5});
  const auto parameters = afm::parameter_count(*ranker);
  afm::factorize_(*ranker, rest, budget);
  fine &= check(afm::parameter_count(*ranker) < parameters, "a budget makes the model smaller");
  const double compressed = train(ranker, table, 1);
  fine &= check(train(ranker, table, 30) < compressed, "the compressed model trains on");
  return fine ? 0 : 1;
}
