// A trainer that libafm never sees: its own module, its own data, LibTorch's own optimizer. Only the layers are
// libafm's, and so three calls compress it.
//
//   custom_model
//
// Prints the logloss while it trains, what the plan does to each layer, and the logloss before compression, after it,
// and after some more training. Expect a model 3 times smaller at about the same logloss.

#include <cstdio>
#include <optional>

#include <torch/torch.h>

#include "libafm/afm.h"

namespace {

// Two towers, user and item, that meet in a product: not one of libafm's models.
struct TwoTowersImpl : torch::nn::Module {
  TwoTowersImpl(int64_t users, int64_t items) {
    user_table = register_module("user_table", table_of(users));
    item_table = register_module("item_table", table_of(items));
    user_tower = register_module("user_tower", afm::nn::Linear(16, 64));
    item_tower = register_module("item_tower", afm::nn::Linear(16, 64));
  }

  static afm::nn::Embedding table_of(int64_t rows) {
    return afm::nn::Embedding(afm::nn::EmbeddingOptions{.cardinalities = {rows}, .embedding_dim = 16, .init_std = 0.1});
  }

  torch::Tensor forward(const torch::Tensor& users, const torch::Tensor& items) {
    const auto user = torch::tanh(user_tower(user_table(users.unsqueeze(1)).squeeze(1)));
    const auto item = torch::tanh(item_tower(item_table(items.unsqueeze(1)).squeeze(1)));
    return (user * item).sum(1);
  }

  afm::nn::Embedding user_table{nullptr}, item_table{nullptr};
  afm::nn::Linear user_tower{nullptr}, item_tower{nullptr};
};
TORCH_MODULE(TwoTowers);

struct Clicks {
  torch::Tensor users, items, labels;
};

// Users and items have three hidden tastes; a click follows their product.
Clicks make_clicks(int64_t rows, int64_t users, int64_t items) {
  const auto user_taste = torch::randn({users, 3}), item_taste = torch::randn({items, 3});
  Clicks clicks;
  clicks.users = torch::randint(users, {rows}, torch::kLong);
  clicks.items = torch::randint(items, {rows}, torch::kLong);
  const auto score = (user_taste.index_select(0, clicks.users) * item_taste.index_select(0, clicks.items)).sum(1);
  clicks.labels = torch::bernoulli(torch::sigmoid(2 * score));
  return clicks;
}

double logloss(TwoTowers& model, const Clicks& clicks) {
  torch::NoGradGuard no_grad;
  return afm::logloss_of(model(clicks.users, clicks.items), clicks.labels).item<double>();
}

void train(TwoTowers& model, const Clicks& clicks, int epochs) {
  torch::optim::Adam optimizer(model->parameters(), torch::optim::AdamOptions(3e-3));
  for (int epoch = 1; epoch <= epochs; ++epoch) {
    for (const auto& index : torch::randperm(clicks.users.size(0), torch::kLong).split(1024)) {
      optimizer.zero_grad();
      const auto logits = model(clicks.users.index_select(0, index), clicks.items.index_select(0, index));
      afm::logloss_of(logits, clicks.labels.index_select(0, index)).backward();
      optimizer.step();
    }
    std::printf("epoch %d  logloss %.4f\n", epoch, logloss(model, clicks));
  }
}

}  // namespace

int main() {
  torch::manual_seed(1);
  const auto clicks = make_clicks(50000, 500, 300);
  TwoTowers model(500, 300);
  train(model, clicks, 6);
  const double base = logloss(model, clicks);

  // One batch of calibration data a call.
  const auto batches = clicks.users.split(4096), item_batches = clicks.items.split(4096);
  std::size_t next = 0;
  const auto next_logits = [&]() -> std::optional<torch::Tensor> {
    if (next == batches.size()) return std::nullopt;
    const auto batch = next++;
    return model(batches[batch], item_batches[batch]);
  };
  const auto statistics = afm::collect_statistics(*model, next_logits);
  const auto plan = afm::plan_ranks(statistics, afm::PlanOptions{.ratio = 3.0});
  afm::factorize_(*model, statistics, plan);

  for (const auto& line : afm::summarize(statistics, plan)) {
    std::printf("%-12s %4ld x %-3ld %s rank %ld keeps %.1f %%\n", line.layer.c_str(), static_cast<long>(line.rows),
                static_cast<long>(line.columns), line.dense ? "dense," : "factors,", static_cast<long>(line.rank),
                100 * line.kept_energy);
  }
  const double compressed = logloss(model, clicks);
  train(model, clicks, 2);  // a new optimizer: the old one would hold the old tensors
  std::printf("logloss: base %.4f, compressed %.4f, trained on %.4f; parameters %ld -> %ld\n", base, compressed,
              logloss(model, clicks), static_cast<long>(statistics.parameters),
              static_cast<long>(afm::parameter_count(*model)));
  return 0;
}
