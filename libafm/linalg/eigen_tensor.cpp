#include "libafm/linalg/eigen_tensor.h"

#include <cmath>

#include <ATen/ATen.h>

namespace afm {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

Eigen::MatrixXd to_eigen(const at::Tensor& matrix) {
  const at::Tensor rows = matrix.detach().to(at::kCPU, at::kDouble).contiguous();
  return Eigen::Map<const RowMajor>(rows.const_data_ptr<double>(), rows.size(0), rows.size(1));
}

at::Tensor to_tensor(const Eigen::MatrixXd& matrix) {
  at::Tensor rows = at::empty({matrix.rows(), matrix.cols()}, at::kDouble);
  Eigen::Map<RowMajor>(rows.data_ptr<double>(), matrix.rows(), matrix.cols()) = matrix;
  return rows;
}

Eigen::VectorXd column_signs(const Eigen::MatrixXd& columns) {
  constexpr double kTie = 1e-8;  // far above a solver's rounding, far below any difference that matters
  Eigen::VectorXd signs(columns.cols());
  for (Eigen::Index column = 0; column < columns.cols(); ++column) {
    const double bound = columns.col(column).cwiseAbs().maxCoeff() * (1.0 - kTie);
    Eigen::Index row = 0;
    while (std::abs(columns(row, column)) < bound) ++row;
    signs(column) = columns(row, column) < 0.0 ? -1.0 : 1.0;
  }
  return signs;
}

}  // namespace afm
