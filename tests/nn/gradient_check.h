#pragma once

// Gradients against central differences, in float64.

#include <functional>
#include <vector>

#include <torch/torch.h>

namespace afm::nn {

// The largest |analytic - numeric| / (1 + |numeric|) over all elements of `inputs` (leaves that require a gradient) for
// the scalar sum(f() * weights) with random weights.
inline double gradient_error(const std::function<at::Tensor()>& f, const std::vector<at::Tensor>& inputs) {
  const at::Tensor weights = torch::randn_like(f().detach());
  const auto scalar = [&] { return (f() * weights).sum(); };
  const auto analytic = torch::autograd::grad({scalar()}, inputs);
  constexpr double kStep = 1e-6;
  double worst = 0;
  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor flat = inputs[i].view({-1});
    for (int64_t e = 0; e < flat.numel(); ++e) {
      const double value = flat[e].item<double>();
      flat[e] = value + kStep;
      const double above = scalar().item<double>();
      flat[e] = value - kStep;
      const double below = scalar().item<double>();
      flat[e] = value;
      const double numeric = (above - below) / (2 * kStep);
      const double exact = analytic[i].reshape({-1})[e].item<double>();
      worst = std::max(worst, std::abs(exact - numeric) / (1 + std::abs(numeric)));
    }
  }
  return worst;
}

// Max |a - b| / (1 + max |b|), in float64.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  if (a.numel() == 0 && b.numel() == 0) return 0;
  const at::Tensor wide = b.detach().to(at::kDouble);
  return ((a.detach().to(at::kDouble) - wide).abs().max() / (1 + wide.abs().max())).item<double>();
}

// Runs with that number of LibTorch threads and puts the old number back.
class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(at::get_num_threads()) { at::set_num_threads(threads); }
  ~ThreadCount() { at::set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

}  // namespace afm::nn
