#include "libafm/train/random_state.h"

#include <map>
#include <mutex>
#include <string>

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/dropout_generator.h"

namespace afm {
namespace {

std::map<std::string, at::Generator> generators(at::Device device) {
  std::map<std::string, at::Generator> all{{"cpu", nn::dropout_generator()}};
  if (device.is_cuda()) all["cuda"] = at::globalContext().defaultGenerator(device);
  return all;
}

}  // namespace

void seed_random(int64_t seed, at::Device device) {
  for (auto& [name, generator] : generators(device)) {
    const std::lock_guard lock(generator.mutex());
    generator.set_current_seed(static_cast<uint64_t>(seed));
  }
}

TensorMap random_state(at::Device device) {
  TensorMap state;
  for (auto& [name, generator] : generators(device)) {
    const std::lock_guard lock(generator.mutex());
    state[name] = generator.get_state();
  }
  return state;
}

void set_random_state(const TensorMap& state, at::Device device, std::string_view where) {
  for (auto& [name, generator] : generators(device)) {
    const auto found = state.find(name);
    if (found == state.end() && name == "cpu") fail<FormatError>("{} lacks the state of the cpu generator", where);
    if (found == state.end()) continue;  // a run that moved to a GPU
    const std::lock_guard lock(generator.mutex());
    try {
      generator.set_state(found->second);
    } catch (const c10::Error& error) {
      fail<FormatError>("{} has a damaged state of the {} generator: {}", where, name, error.what_without_backtrace());
    }
  }
}

}  // namespace afm
