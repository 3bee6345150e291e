#pragma once

// Private: matrices between LibTorch and Eigen, always copied, always float64 on the CPU.

#include <ATen/core/Tensor.h>
#include <Eigen/Dense>

namespace afm {

// [r, c], any device and floating dtype.
Eigen::MatrixXd to_eigen(const at::Tensor& matrix);

at::Tensor to_tensor(const Eigen::MatrixXd& matrix);

// +1 or -1 for each column: what makes its entry of largest magnitude positive. Entries within rounding of the largest
// tie and the first of them decides, so that the last bit of a solver does not.
Eigen::VectorXd column_signs(const Eigen::MatrixXd& columns);

}  // namespace afm
