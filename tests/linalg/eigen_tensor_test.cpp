#include "libafm/linalg/eigen_tensor.h"

#include <cmath>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>

namespace afm {

TEST_CASE("a matrix goes to Eigen and back unchanged, whatever its strides and dtype") {
  torch::manual_seed(1);
  const at::Tensor matrix = torch::randn({3, 7}, torch::kDouble);
  CHECK(at::equal(to_tensor(to_eigen(matrix)), matrix));
  CHECK(at::equal(to_tensor(to_eigen(matrix.t())), matrix.t()));
  CHECK(at::equal(to_tensor(to_eigen(matrix.to(at::kFloat))), matrix.to(at::kFloat).to(at::kDouble)));
  CHECK(to_eigen(matrix)(1, 2) == matrix[1][2].item<double>());
}

TEST_CASE("the sign of a column makes its largest entry positive") {
  Eigen::MatrixXd columns(3, 3);
  columns << 1.0, -1.0, 0.0,  //
      -2.0, 0.5, 0.0,         //
      0.5, 0.9, -3.0;
  CHECK(column_signs(columns) == Eigen::Vector3d(-1.0, -1.0, -1.0));
  CHECK(column_signs(-columns) == Eigen::Vector3d(1.0, 1.0, 1.0));
}

TEST_CASE("the first of the largest entries decides the sign, not the last bit of a tie") {
  const double root = std::sqrt(0.5);
  Eigen::MatrixXd columns(2, 2);
  columns << root, root,  //
      -root, -std::nextafter(root, 1.0);
  CHECK(column_signs(columns) == Eigen::Vector2d(1.0, 1.0));
}

TEST_CASE("a column of zeros has a sign") { CHECK(column_signs(Eigen::MatrixXd::Zero(2, 1))(0) == 1.0); }

}  // namespace afm
