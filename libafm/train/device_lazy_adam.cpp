#include "libafm/train/device_lazy_adam.h"

#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/nn/device_rows.h"
#include "libafm/train/lazy_adam_state.h"

namespace afm {
namespace {

// Steps that rows may be behind. With L2 a row takes each of them one by one: the coldest row of a batch sets its pace.
constexpr int64_t kMostBehind = 4096, kMostBehindWithL2 = 512;

class DeviceLazyAdam final : public Optimizer {
 public:
  DeviceLazyAdam(nn::EmbeddingImpl& embedding, std::string name, double l2, bool deterministic)
      : embedding_(embedding),
        name_(std::move(name)),
        rate_(at::empty({1}, embedding.weight.options().requires_grad(false))),
        inbox_(std::make_shared<nn::DeviceRowInbox>()) {
    const at::NoGradGuard no_grad;
    inbox_->lazy = nn::fresh_lazy_adam(embedding.layout(), embedding.weight, most_behind(l2), l2);
    inbox_->sorted = deterministic;
    embedding_.set_device_rows(inbox_);
  }
  ~DeviceLazyAdam() override { embedding_.set_device_rows(nullptr); }

  void step(double learning_rate) override {
    const at::NoGradGuard no_grad;
    const auto parts = std::exchange(inbox_->parts, {});
    const at::Tensor& rate = given_rate_.defined() ? given_rate_ : rate_.fill_(learning_rate);
    at::Tensor whole = embedding_.weight.grad();
    if (!whole.defined() && parts.size() == 1) {
      return nn::step_lazy_adam(layout(), embedding_.weight, parts[0], slots_, lazy(), rate);
    }
    for (const auto& part : parts) {
      const at::Tensor gradient = nn::whole_gradient(layout(), embedding_.weight, part);
      whole = whole.defined() ? whole + gradient : gradient;
    }
    if (whole.defined()) nn::step_lazy_adam(layout(), embedding_.weight, whole, lazy(), rate);
  }

  bool read_rate_from(const at::Tensor& rate) override {
    given_rate_ = rate;
    return true;
  }

  void zero_grad() override {
    inbox_->parts.clear();
    embedding_.weight.mutable_grad() = at::Tensor();
  }

  int64_t steps_before_flush() const override { return most_behind(lazy().l2); }
  void flush() override {
    const at::NoGradGuard no_grad;
    nn::catch_up(layout(), embedding_.weight, lazy());
  }

  TensorMap state() const override { return lazy_adam_state(name_, state_now()); }
  void load_state(const TensorMap& state, std::string_view where) override {
    const at::NoGradGuard no_grad;
    LazyAdamState loaded{lazy().means, lazy().squares, lazy().behind};
    load_lazy_adam_state(state, name_, where, /*fresh_rows=*/lazy().l2 == 0, loaded);
    make_room(static_cast<int64_t>(loaded.rates.size()));
    lazy().count.fill_(loaded.steps - static_cast<int64_t>(loaded.rates.size()));
    for (const double rate : loaded.rates) nn::record_step(lazy(), rate_.fill_(rate));
  }

 private:
  static int64_t most_behind(double l2) { return l2 == 0 ? kMostBehind : kMostBehindWithL2; }
  nn::DeviceLazyAdam& lazy() { return *inbox_->lazy; }
  const nn::DeviceLazyAdam& lazy() const { return *inbox_->lazy; }
  const nn::EmbeddingLayout& layout() const { return embedding_.layout(); }

  // A run on the CPU may have put off more.
  void make_room(int64_t behind) {
    if (behind <= most_behind(lazy().l2)) return;
    nn::DeviceLazyAdam larger =
        nn::fresh_lazy_adam(layout(), embedding_.weight, behind + most_behind(lazy().l2), lazy().l2);
    larger.means = lazy().means;
    larger.squares = lazy().squares;
    larger.behind = lazy().behind;
    lazy() = std::move(larger);
  }

  LazyAdamState state_now() const {
    const at::Tensor count = lazy().count.cpu();
    const int64_t steps = count[0].item<int64_t>(), kept = steps - count[1].item<int64_t>();
    const at::Tensor rates = lazy().rates.narrow(0, 0, kept).cpu().to(at::kDouble);
    const double* begin = rates.const_data_ptr<double>();
    return {lazy().means, lazy().squares, lazy().behind, steps, std::vector<double>(begin, begin + kept)};
  }

  nn::EmbeddingImpl& embedding_;
  const std::string name_;
  at::Tensor rate_, given_rate_;
  std::shared_ptr<nn::DeviceRowInbox> inbox_;
  nn::DeviceRowSlots slots_;
};

}  // namespace

std::unique_ptr<Optimizer> device_lazy_adam(nn::EmbeddingImpl& embedding, const std::string& name, double l2,
                                            bool deterministic) {
  if (!nn::serves_features(embedding)) return nullptr;
  return std::make_unique<DeviceLazyAdam>(embedding, name, l2, deterministic);
}

}  // namespace afm
