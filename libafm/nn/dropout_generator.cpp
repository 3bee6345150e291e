#include "libafm/nn/dropout_generator.h"

#include <utility>

#include <ATen/CPUGeneratorImpl.h>

namespace afm::nn {
namespace {

thread_local at::Generator own_generator;  // undefined without a scope

}  // namespace

at::Generator dropout_generator() {
  return own_generator.defined() ? own_generator : at::detail::getDefaultCPUGenerator();
}

DropoutGeneratorScope::DropoutGeneratorScope(at::Generator generator)
    : before_(std::exchange(own_generator, std::move(generator))) {}

DropoutGeneratorScope::~DropoutGeneratorScope() { own_generator = before_; }

}  // namespace afm::nn
