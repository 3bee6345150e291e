#include "libafm/train/device_adagrad.h"

#include <utility>

#include <ATen/ATen.h>

#include "libafm/nn/device_rows.h"
#include "libafm/train/row_adagrad.h"

namespace afm {
namespace {

class DeviceAdagrad final : public Optimizer {
 public:
  DeviceAdagrad(nn::EmbeddingImpl& embedding, const std::string& name, double l2, double scale, bool deterministic)
      : embedding_(embedding),
        whole_(embedding, name, l2, scale),
        rate_(at::empty({1}, embedding.weight.options())),
        inbox_(std::make_shared<nn::DeviceRowInbox>()),
        step_{.squares = whole_.state().at(name + ".sum"), .scale = scale, .l2 = l2} {
    inbox_->sorted = deterministic;
    embedding_.set_device_rows(inbox_);
  }
  ~DeviceAdagrad() override { embedding_.set_device_rows(nullptr); }

  void step(double learning_rate) override {
    const at::NoGradGuard no_grad;
    const auto parts = std::exchange(inbox_->parts, {});
    const at::Tensor& weight = embedding_.weight;
    // Several lookups in one step, and a model that reads the table itself, need one sum over all of it.
    if (weight.grad().defined() || parts.size() != 1) {
      for (const auto& part : parts) add_whole(nn::whole_gradient(embedding_.layout(), weight, part));
      whole_.step(given_rate_.defined() ? given_rate_.item<double>() : learning_rate);
      return;
    }
    if (!given_rate_.defined()) rate_.fill_(learning_rate);
    step_.rate = given_rate_.defined() ? given_rate_ : rate_;
    nn::step_adagrad(embedding_.layout(), weight, parts[0], slots_, step_);
  }

  bool read_rate_from(const at::Tensor& rate) override {
    given_rate_ = rate;
    return true;
  }

  void zero_grad() override {
    inbox_->parts.clear();
    embedding_.weight.mutable_grad() = at::Tensor();
  }

  TensorMap state() const override { return whole_.state(); }
  void load_state(const TensorMap& state, std::string_view where) override { whole_.load_state(state, where); }

 private:
  void add_whole(const at::Tensor& gradient) {
    at::Tensor& sum = embedding_.weight.mutable_grad();
    sum.defined() ? sum.add_(gradient) : sum = gradient;
  }

  nn::EmbeddingImpl& embedding_;
  RowAdagrad whole_;
  at::Tensor rate_, given_rate_;
  std::shared_ptr<nn::DeviceRowInbox> inbox_;
  nn::DeviceRowSlots slots_;
  nn::DeviceAdagradStep step_;
};

}  // namespace

std::unique_ptr<Optimizer> device_adagrad(nn::EmbeddingImpl& embedding, const std::string& name, double l2,
                                          double scale, bool deterministic) {
  if (!nn::serves_features(embedding)) return nullptr;
  return std::make_unique<DeviceAdagrad>(embedding, name, l2, scale, deterministic);
}

}  // namespace afm
