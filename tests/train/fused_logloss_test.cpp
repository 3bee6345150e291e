#include <cmath>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>

#include "libafm/train/fused_logloss.h"
#include "libafm/train/loss.h"

namespace afm {

TEST_CASE("the logloss on a GPU and its gradient are those of float64", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(8);
  for (const int64_t rows : {1, 2, 255, 256, 257, 4096, 70000, 200000}) {
    CAPTURE(rows);
    const at::Tensor logits = (torch::randn({rows}) * 20).requires_grad_(),
                     labels = torch::randint(2, {rows}, at::kFloat);
    const at::Tensor exact = logits.detach().to(at::kDouble).requires_grad_();
    const at::Tensor device = logits.detach().cuda().requires_grad_();
    const auto loss = fused_logloss(device, labels.cuda());
    if (!loss) SKIP("a build without AFM_CUDA");
    const at::Tensor want = logloss_of(exact, labels.to(at::kDouble));
    CHECK(std::abs(loss->item<double>() / want.item<double>() - 1) < 1e-6);
    const at::Tensor got = torch::autograd::grad({*loss * 3}, {device})[0].cpu().to(at::kDouble);
    const at::Tensor gradient = torch::autograd::grad({want * 3}, {exact})[0];
    CHECK(((got - gradient).norm() / gradient.norm()).item<double>() < 1e-6);
    CHECK(((got - gradient * 1.001).norm() / gradient.norm()).item<double>() > 1e-6);
  }
}

}  // namespace afm
