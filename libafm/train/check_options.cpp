#include "libafm/train/check_options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <stdexcept>
#include <string>

#include <c10/util/Exception.h>
#include <torch/cuda.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/metrics/metrics.h"

namespace afm {
namespace {

template <typename Value>
void require(bool good, std::string_view name, std::string_view rule, const Value& value) {
  if (!good) fail<std::invalid_argument>("TrainOptions.{} must be {}, got {}", name, rule, value);
}

void require_positive(std::string_view name, double value) {
  require(value > 0 && std::isfinite(value), name, "above 0 and finite", value);
}

void require_not_negative(std::string_view name, double value) {
  require(value >= 0 && std::isfinite(value), name, "at least 0 and finite", value);
}

void check_checkpoint(const TrainOptions& options) {
  require_positive("checkpoint_seconds", options.checkpoint_seconds);
  if (options.checkpoint.empty()) {
    require(!options.resume, "resume", "false without a checkpoint", options.resume);
    return;
  }
  const std::filesystem::path path(options.checkpoint);
  const auto folder = std::filesystem::absolute(path).parent_path();
  require(std::filesystem::is_directory(folder) && !std::filesystem::is_directory(path), "checkpoint",
          "a file in a folder that exists", options.checkpoint);
}

[[noreturn]] void refuse_device(std::string_view name) {
  fail<std::invalid_argument>("TrainOptions.device must be cpu, cuda or cuda:N, got {}", name);
}

at::Device parsed_device(std::string_view name) {
  try {
    return at::Device(std::string(name));
  } catch (const c10::Error&) {
    refuse_device(name);
  }
}

}  // namespace

void check_options(const TrainOptions& options) {
  require(options.epochs >= 1, "epochs", "at least 1", options.epochs);
  require(options.batch_size >= 2, "batch_size", "at least 2", options.batch_size);
  require_positive("learning_rate", options.learning_rate);
  require_positive("adagrad_learning_rate", options.adagrad_learning_rate);
  require(options.lr_decay > 0 && options.lr_decay <= 1, "lr_decay", "in (0, 1]", options.lr_decay);
  require(options.patience >= 0, "patience", "at least 0", options.patience);
  require_not_negative("embedding_l2", options.embedding_l2);
  require_not_negative("mlp_l2", options.mlp_l2);
  require_not_negative("distillation", options.distillation);
  require_positive("temperature", options.temperature);
  require_not_negative("label_preserving", options.label_preserving);
  for (const auto& teacher : options.teachers) require(teacher != nullptr, "teachers", "models", "a null pointer");
  check_checkpoint(options);
  device_of(options.device);
}

at::Device device_of(std::string_view name) {
  const at::Device device = parsed_device(name);
  if (device.is_cpu()) return at::Device(at::kCPU);
  if (!device.is_cuda()) refuse_device(name);
  const auto index = device.has_index() ? device.index() : c10::DeviceIndex{0};
  const auto count = static_cast<int64_t>(torch::cuda::device_count());
  if (index >= count) {
    fail<std::invalid_argument>(
        "TrainOptions.device must be a device of this machine, which has {} CUDA devices, got {}", count, name);
  }
  return at::Device(at::kCUDA, index);
}

void check_run(const Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options) {
  check_options(options);
  const auto parameters = model.parameters();
  if (std::ranges::none_of(parameters, [](const at::Tensor& each) { return each.requires_grad(); })) {
    fail<std::invalid_argument>(
        "the model must have a parameter that requires a gradient to be trained, got none of {}", parameters.size());
  }
  check_fits(model.schema(), train_set.schema());
  check_fits(model.schema(), valid_set.schema());
  for (const auto& teacher : options.teachers) check_fits(teacher->schema(), train_set.schema());
  if (train_set.size() < 2) fail<DataError>("the training set must have at least 2 rows, got {}", train_set.size());
  const double rate = valid_set.click_rate();
  if (rate == 0 || rate == 1) {
    fail<DataError>("the validation set must have rows of label 0 and of label 1, got only label {}", rate);
  }
}

}  // namespace afm
