// Our models against the plain Python ones of tests/reference/models.py: the same weights and batch, vectors written by
// tests/reference/make_vectors.py.

#include <algorithm>
#include <string>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/core/tensors.h"
#include "libafm/nn/model_file.h"
#include "models/zoo.h"

namespace afm::models {

constexpr double kTolerance = 1e-10;  // float64 on both sides; sums in another order

// What a comparison found, as the largest absolute differences.
struct Differences {
  double logits = 0.0, gradients = 0.0, buffers = 0.0;
};

class Reference {
 public:
  explicit Reference(const std::string& name)
      : file_(SafetensorsFile::open(AFM_GOLDEN "/model_" + name + ".safetensors")), tensors_(read_tensors(file_)) {
    const std::string& ranks = file_.metadata_at("ranks");
    model_ = make_model(file_.metadata_at("model"), file_.metadata_at("options"),
                        schema_from_json(file_.metadata_at("schema")), plan_from_json(ranks));
    model_->to(torch::kFloat64);
    restore();
  }

  Model& model() { return *model_; }
  void restore() { load_state(*model_, below("weight."), "the vectors"); }
  // Values below `prefix` by the rest of their name.
  TensorMap below(const std::string& prefix) const {
    TensorMap found;
    for (const auto& [name, tensor] : tensors_) {
      if (name.starts_with(prefix)) found[name.substr(prefix.size())] = tensor;
    }
    return found;
  }

  at::Tensor logits() { return model_->forward({tensors_.at("ids"), tensors_.at("dense"), tensors_.at("label")}); }

  Differences compare(const std::string& mode) {
    model_->train(mode == "train");
    model_->zero_grad();
    const at::Tensor scores = logits();
    (torch::softplus(scores) - tensors_.at("label") * scores).mean().backward();
    Differences found{.logits = distance(scores, tensors_.at(mode + ".logits"))};
    const TensorMap gradients = below(mode + ".grad.");
    for (const auto& item : model_->named_parameters()) {
      found.gradients = std::max(found.gradients, distance(item.value().grad(), gradients.at(item.key())));
    }
    const TensorMap state = state_of(*model_);
    for (const auto& [name, tensor] : below(mode + ".state.")) {
      found.buffers = std::max(found.buffers, distance(state.at(name), tensor));
    }
    return found;
  }

 private:
  static double distance(const at::Tensor& ours, const at::Tensor& theirs) {
    REQUIRE(ours.sizes() == theirs.sizes());
    return ours.numel() == 0 ? 0.0 : (ours - theirs).abs().max().item<double>();
  }

  SafetensorsFile file_;
  TensorMap tensors_;
  std::shared_ptr<Model> model_;
};

std::string any_case() {
  return GENERATE(as<std::string>{}, "deepfm", "deepfm_plain", "wide_deep", "dcn_vector", "dcn_matrix",
                  "deepfm_factors", "wide_deep_factors", "dcn_factors");
}

TEST_CASE("logits, gradients and batch norm statistics equal those of the plain models") {
  Reference reference(any_case());
  for (const std::string mode : {"eval", "train"}) {
    reference.restore();
    const Differences found = reference.compare(mode);
    INFO(mode);
    CHECK(found.logits < kTolerance);
    CHECK(found.gradients < kTolerance);
    CHECK(found.buffers < kTolerance);
  }
}

TEST_CASE("the plain models have logits and gradients that are worth comparing") {
  const Reference reference(any_case());
  CHECK(reference.below("eval.").at("logits").std().item<double>() > 0.3);
  for (const auto& [name, gradient] : reference.below("eval.grad.")) {
    INFO(name);
    if (gradient.numel() > 0) CHECK(gradient.abs().max().item<double>() > 1e6 * kTolerance);
  }
}

TEST_CASE("control: one weight that is off by 1 percent fails the comparison, in every parameter") {
  Reference reference(any_case());
  const TensorMap gradients = reference.below("eval.grad.");
  for (auto& item : reference.model().named_parameters()) {
    const at::Tensor& gradient = gradients.at(item.key());
    if (gradient.numel() == 0) continue;
    reference.restore();
    {
      const torch::NoGradGuard no_grad;
      // The weight that moves the loss the most for its size.
      const at::Tensor effect = (gradient * item.value()).abs().view({-1});
      item.value().view({-1})[effect.argmax().item<int64_t>()] *= 1.01;
    }
    INFO(item.key());
    const Differences found = reference.compare("eval");
    CHECK(found.logits > 1000 * kTolerance);
    CHECK(found.gradients > 1000 * kTolerance);
  }
}

}  // namespace afm::models
