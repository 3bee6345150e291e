#include "libafm/train/make_optimizer.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "libafm/nn/embedding.h"
#include "libafm/train/adam.h"
#include "libafm/train/device_adagrad.h"
#include "libafm/train/device_lazy_adam.h"
#include "libafm/train/lazy_adam.h"
#include "libafm/train/parameter_groups.h"
#include "libafm/train/row_adagrad.h"

namespace afm {
namespace {

using Parts = std::vector<std::unique_ptr<Optimizer>>;

// "embedding.weight.mean" -> "embedding.weight"
std::string parameter_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

std::set<std::string> parameters_of(const Optimizer& optimizer) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : optimizer.state()) names.insert(parameter_of(name));
  return names;
}

// Optimizers of different parameters as one.
class JointOptimizer final : public Optimizer {
 public:
  explicit JointOptimizer(Parts parts) : parts_(std::move(parts)) {}

  void step(double learning_rate) override {
    for (const auto& part : parts_) part->step(learning_rate);
  }
  bool read_rate_from(const at::Tensor& rate) override {
    bool all = true;
    for (const auto& part : parts_) all = part->read_rate_from(rate) && all;
    return all;
  }
  void zero_grad() override {
    for (const auto& part : parts_) part->zero_grad();
  }
  std::string parameter_without_finite_gradient() const override {
    for (const auto& part : parts_) {
      if (std::string name = part->parameter_without_finite_gradient(); !name.empty()) return name;
    }
    return {};
  }
  void flush() override {
    for (const auto& part : parts_) part->flush();
  }
  int64_t steps_before_flush() const override {
    int64_t steps = Optimizer::steps_before_flush();
    for (const auto& part : parts_) steps = std::min(steps, part->steps_before_flush());
    return steps;
  }
  TensorMap state() const override {
    TensorMap state;
    for (const auto& part : parts_) state.merge(part->state());
    return state;
  }
  void load_state(const TensorMap& state, std::string_view where) override {
    TensorMap rest = state;
    std::vector<TensorMap> shares;
    for (const auto& part : parts_) shares.push_back(take(rest, parameters_of(*part)));
    shares[0].merge(rest);  // which the first part refuses
    for (std::size_t i = 0; i < parts_.size(); ++i) parts_[i]->load_state(shares[i], where);
  }

 private:
  static TensorMap take(TensorMap& from, const std::set<std::string>& parameters) {
    TensorMap taken;
    for (auto item = from.begin(); item != from.end();) {
      const auto next = std::next(item);
      if (parameters.contains(parameter_of(item->first))) taken.insert(from.extract(item));
      item = next;
    }
    return taken;
  }

  Parts parts_;
};

// The embedding of each table that no other module shares.
std::map<const at::TensorImpl*, nn::EmbeddingImpl*> embeddings_of(torch::nn::Module& model) {
  std::map<const at::TensorImpl*, nn::EmbeddingImpl*> found;
  std::set<const at::TensorImpl*> seen;
  for (const auto& module : model.modules(/*include_self=*/false)) {
    auto* embedding = dynamic_cast<nn::EmbeddingImpl*>(module.get());
    for (const auto& parameter : module->parameters(/*recurse=*/false)) {
      const auto* identity = parameter.unsafeGetTensorImpl();
      const bool is_first = seen.insert(identity).second;
      if (is_first && embedding != nullptr) found[identity] = embedding;
      if (!is_first) found.erase(identity);
    }
  }
  return found;
}

std::unique_ptr<Optimizer> table_optimizer(nn::EmbeddingImpl& embedding, const std::string& name,
                                           const at::Tensor& table, const TrainOptions& options,
                                           int64_t lazy_elements) {
  if (options.optimizer == OptimizerKind::kAdagrad) {
    const double scale = options.adagrad_learning_rate / options.learning_rate;
    if (auto on_device = device_adagrad(embedding, name, options.embedding_l2, scale, options.deterministic)) {
      return on_device;
    }
    return std::make_unique<RowAdagrad>(embedding, name, options.embedding_l2, scale);
  }
  if (table.numel() < lazy_elements) return nullptr;
  if (auto on_device = device_lazy_adam(embedding, name, options.embedding_l2, options.deterministic)) return on_device;
  if (!LazyAdam::serves(embedding)) return nullptr;
  return std::make_unique<LazyAdam>(embedding, name, options.embedding_l2);
}

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(torch::nn::Module& model, const TrainOptions& options,
                                          int64_t lazy_elements) {
  std::vector<ParameterGroup> groups = parameter_groups(model, options.embedding_l2, options.mlp_l2);
  const auto embeddings = embeddings_of(model);
  const ParameterGroup tables = std::exchange(groups[0], {.names = {}, .parameters = {}, .l2 = groups[0].l2});
  Parts parts;
  for (std::size_t i = 0; i < tables.names.size(); ++i) {
    const auto found = embeddings.find(tables.parameters[i].unsafeGetTensorImpl());
    auto own = found == embeddings.end()
                   ? nullptr
                   : table_optimizer(*found->second, tables.names[i], tables.parameters[i], options, lazy_elements);
    if (own) {
      parts.push_back(std::move(own));
    } else {
      groups[0].names.push_back(tables.names[i]);
      groups[0].parameters.push_back(tables.parameters[i]);
    }
  }
  auto adam = std::make_unique<Adam>(std::move(groups));
  if (parts.empty()) return adam;
  parts.insert(parts.begin(), std::move(adam));
  return std::make_unique<JointOptimizer>(std::move(parts));
}

}  // namespace afm
