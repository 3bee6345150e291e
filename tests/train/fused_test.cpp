#include <cmath>
#include <string>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>

#include "libafm/train/adam.h"
#include "libafm/train/fused.h"
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

TEST_CASE("losses are added up on a GPU, and the batches before the first that is not finite counted", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  const at::Tensor sum = torch::zeros({}, at::TensorOptions(at::kCUDA).dtype(at::kDouble));
  const at::Tensor finite = torch::zeros({}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const auto add = [&](double loss, int64_t rows) {
    return fused_loss_sum(torch::full({}, loss, at::kFloat).cuda(), rows, sum, finite);
  };
  if (!add(0.5, 3)) SKIP("a build without AFM_CUDA");
  CHECK(add(0.25, 1000));
  CHECK(sum.item<double>() == 251.5);
  CHECK(finite.item<int64_t>() == 2);
  CHECK(add(NAN, 3));
  CHECK(add(0.5, 3));
  CHECK(std::isnan(sum.item<double>()));
  CHECK(finite.item<int64_t>() == 2);
}

TEST_CASE("Adam on a GPU takes the steps of the CPU, tensors of all sizes in one launch", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(9);
  const auto groups_on = [](at::Device device) {
    torch::manual_seed(10);
    std::vector<ParameterGroup> groups(2);
    groups[0].l2 = 0.1;
    for (int i = 0; i < 40; ++i) {
      ParameterGroup& group = groups[static_cast<std::size_t>(i % 2)];
      group.names.push_back("p" + std::to_string(i));
      group.parameters.push_back(torch::randn({1 + 977 * (i % 5), 1 + i % 3}).to(device).requires_grad_());
    }
    return groups;
  };
  const auto cpu = groups_on(at::kCPU), gpu = groups_on(at::kCUDA);
  Adam on_cpu(cpu), on_gpu(gpu);
  const at::Tensor rate = torch::full({1}, 0.01F).cuda();
  for (int step = 0; step < 5; ++step) {
    for (std::size_t g = 0; g < 2; ++g) {
      for (std::size_t i = 0; i < cpu[g].parameters.size(); ++i) {
        const at::Tensor gradient = torch::randn(cpu[g].parameters[i].sizes());
        cpu[g].parameters[i].mutable_grad() = gradient;
        gpu[g].parameters[i].mutable_grad() = gradient.cuda();
      }
    }
    if (step == 3) on_gpu.read_rate_from(rate);
    on_cpu.step(0.01);
    on_gpu.step(step < 3 ? 0.01 : 1e9);  // which a given rate overrides
  }
  const TensorMap want = on_cpu.state(), got = on_gpu.state();
  for (const auto& [name, tensor] : want) CHECK(at::allclose(got.at(name).cpu(), tensor, 1e-4, 1e-6));
  const at::Tensor start = groups_on(at::kCPU)[0].parameters[0];
  CHECK_FALSE(at::allclose(cpu[0].parameters[0], start, 1e-3, 1e-3));  // it moved
  for (std::size_t g = 0; g < 2; ++g) {
    for (std::size_t i = 0; i < cpu[g].parameters.size(); ++i) {
      CHECK(at::allclose(gpu[g].parameters[i].cpu(), cpu[g].parameters[i], 1e-4, 1e-5));
    }
  }
}

TEST_CASE("rows gathered in one launch are the rows", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(11);
  for (const int64_t dense : {0, 3}) {
    const Batch all = Batch{.ids = torch::randint(1000, {500, 39}, at::kInt),
                            .dense = torch::randn({500, dense}),
                            .label = torch::randint(2, {500}, at::kFloat)}
                          .to(at::kCUDA);
    const at::Tensor index = torch::randint(500, {123}, at::kLong).cuda();
    const auto batch = fused_gather(all, index);
    if (!batch) SKIP("a build without AFM_CUDA");
    CHECK(at::equal(batch->ids, all.ids.index_select(0, index)));
    CHECK(at::equal(batch->dense, all.dense.index_select(0, index)));
    CHECK(at::equal(batch->label, all.label.index_select(0, index)));
  }
}

}  // namespace afm
