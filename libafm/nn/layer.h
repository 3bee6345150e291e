#pragma once

// What every layer that can be factorized has in common: its ranks, and a hook on its output (LibTorch's C++ modules
// have neither hooks nor replaceable typed members, so a layer changes its own inside).

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "libafm/nn/rank_plan.h"

namespace afm::nn {

// Called with the layer's input and output after each forward. The output may be overwritten by what follows: use it at
// once or copy it.
using OutputHook = std::function<void(const at::Tensor& input, const at::Tensor& output)>;

class IntegerWeight;  // private: integer_weight.h

// A parameter that is computed with, and stored in files, as integers (nn/quantize.h).
struct IntegerParameter {
  std::string name;   // within the layer: "weight"
  at::Tensor tensor;  // the floats that training changes, not rounded
  std::shared_ptr<IntegerWeight> integers;
};

class Layer {
 public:
  virtual ~Layer() = default;
  void set_output_hook(OutputHook hook) { hook_ = std::move(hook); }  // an empty hook removes it
  virtual bool is_dense() const = 0;
  virtual LayerPlan plan() const = 0;  // the form it has; empty ranks when dense
  // Replaces the parameters by uninitialised ones of the plan's shapes (empty ranks: dense), keeping dtype and device.
  // Throws std::invalid_argument for a rank above what the layer allows, and for an instruction to factorize() (units).
  virtual void reshape(const LayerPlan& plan) = 0;
  virtual void reset_parameters() = 0;  // fresh values for the parameters that it has
  virtual std::vector<IntegerParameter> integer_parameters() const { return {}; }  // none when its plan says floats

 protected:
  void call_hook(const at::Tensor& input, const at::Tensor& output) const {
    if (hook_) hook_(input, output);
  }
  bool has_hook() const { return static_cast<bool>(hook_); }

 private:
  OutputHook hook_;
};

// Layers that this thread makes, and fresh values that it asks for, within this scope stay uninitialised, of this type
// and on this device: for who overwrites them all. A table is then never filled twice, nor made in two memories.
class BlankScope {
 public:
  BlankScope(at::Device device, at::ScalarType type);
  ~BlankScope();
  BlankScope(const BlankScope&) = delete;
  BlankScope& operator=(const BlankScope&) = delete;

  static bool active();
  static at::TensorOptions options();  // of a fresh parameter; outside any scope float32 on the CPU

 private:
  std::optional<at::TensorOptions> outer_;
};

// Throws std::invalid_argument when `plan` asks for fewer units, which only factorize() can do.
void check_no_units(const LayerPlan& plan);

// Every Layer of a module tree with its path ("" for the root itself), in order of registration; a layer registered
// twice is given once, under its first path.
std::vector<std::pair<std::string, Layer*>> layers_of(torch::nn::Module& root);

// The ranks of a module tree: what a model file states.
RankPlan rank_plan_of(const torch::nn::Module& root);
// Reshapes the layers that `plan` names. Throws std::invalid_argument for a name that is no layer (listing the layers)
// or ranks that do not fit it.
void apply_plan(torch::nn::Module& root, const RankPlan& plan);

}  // namespace afm::nn
