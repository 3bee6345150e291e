#include "libafm/nn/hidden_activation.h"

#include <ATen/ATen.h>

namespace afm::nn {

at::Tensor hidden_activation(at::Tensor x, torch::nn::BatchNorm1dImpl* norm, double dropout, bool training) {
  if (norm != nullptr) x = norm->forward(x);
  x.relu_();
  return training && dropout > 0 ? at::dropout(x, dropout, /*train=*/true) : x;
}

}  // namespace afm::nn
