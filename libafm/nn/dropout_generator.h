#pragma once

// Private: where dropout on the CPU takes its randomness from.

#include <ATen/core/Generator.h>

namespace afm::nn {

// LibTorch's default generator, or the one that a scope names on this thread: models that train beside one another in
// one process each have a sequence of their own.
at::Generator dropout_generator();

class DropoutGeneratorScope {
 public:
  explicit DropoutGeneratorScope(at::Generator generator);
  ~DropoutGeneratorScope();
  DropoutGeneratorScope(const DropoutGeneratorScope&) = delete;
  DropoutGeneratorScope& operator=(const DropoutGeneratorScope&) = delete;

 private:
  at::Generator before_;
};

}  // namespace afm::nn
