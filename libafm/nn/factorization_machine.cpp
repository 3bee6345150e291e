#include <algorithm>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/interaction.h"
#include "libafm/nn/parallel.h"

namespace afm::nn {
namespace {

constexpr int64_t kRowsPerInteractionTask = 256;

struct Shape {
  int64_t fields, dim;
  int64_t row() const { return fields * dim; }
};

inline void add_fields(const float* __restrict row, Shape shape, float* __restrict sum) {
  std::fill(sum, sum + shape.dim, 0.0F);
  for (int64_t f = 0; f < shape.fields; ++f) {
    for (int64_t d = 0; d < shape.dim; ++d) sum[d] += row[f * shape.dim + d];
  }
}

// products_d = sum_f e_fd (sum of the e_gd before), which is (s_d^2 - sum_f e_fd^2) / 2 without a difference: the
// square of one large value would leave nothing of the products of the others.
inline void add_products(const float* __restrict row, Shape shape, float* __restrict sum, float* __restrict products) {
  std::fill(sum, sum + shape.dim, 0.0F);
  std::fill(products, products + shape.dim, 0.0F);
  for (int64_t f = 0; f < shape.fields; ++f) {
    for (int64_t d = 0; d < shape.dim; ++d) {
      products[d] += row[f * shape.dim + d] * sum[d];
      sum[d] += row[f * shape.dim + d];
    }
  }
}

// scratch: 2 * dim floats here, dim floats in the function below.
AFM_VECTORIZED void score_rows(const float* values, int64_t rows, Shape shape, float* scratch, float* scores) {
  float *sum = scratch, *products = scratch + shape.dim;
  for (int64_t b = 0; b < rows; ++b) {
    const float* row = values + b * shape.row();
    add_products(row, shape, sum, products);
    float score = 0;
    for (int64_t d = 0; d < shape.dim; ++d) score += products[d];
    scores[b] = score;
  }
}

AFM_VECTORIZED void differentiate_rows(const float* values, const float* grad_scores, int64_t rows, Shape shape,
                                       float* scratch, float* __restrict grad_values) {
  for (int64_t b = 0; b < rows; ++b) {
    const float* row = values + b * shape.row();
    add_fields(row, shape, scratch);
    float* grad = grad_values + b * shape.row();
    for (int64_t f = 0; f < shape.fields; ++f) {
      for (int64_t d = 0; d < shape.dim; ++d) {
        grad[f * shape.dim + d] = grad_scores[b] * (scratch[d] - row[f * shape.dim + d]);
      }
    }
  }
}

struct FactorizationMachineFunction : torch::autograd::Function<FactorizationMachineFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& values) {
    context->save_for_backward({values});
    const Shape shape{values.size(1), values.size(2)};
    at::Tensor scores = at::empty({values.size(0)}, values.options());
    const float* from = values.const_data_ptr<float>();
    float* to = scores.mutable_data_ptr<float>();
    parallel_for_pieces(values.size(0), kRowsPerInteractionTask, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(2 * shape.dim));
      score_rows(from + begin * shape.row(), end - begin, shape, scratch.data(), to + begin);
    });
    return scores;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list& gradients) {
    refuse_second_derivative("factorization_machine");
    const at::Tensor values = context->get_saved_variables()[0];
    const Shape shape{values.size(1), values.size(2)};
    const at::Tensor grad_scores = gradients[0].contiguous();
    at::Tensor grad_values = at::empty_like(values);
    const float *from = values.const_data_ptr<float>(), *scores = grad_scores.const_data_ptr<float>();
    float* to = grad_values.mutable_data_ptr<float>();
    parallel_for_pieces(values.size(0), kRowsPerInteractionTask, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(static_cast<std::size_t>(shape.dim));
      differentiate_rows(from + begin * shape.row(), scores + begin, end - begin, shape, scratch.data(),
                         to + begin * shape.row());
    });
    return {grad_values};
  }
};

}  // namespace

at::Tensor factorization_machine(const at::Tensor& values) {
  TORCH_CHECK(values.dim() == 3, "factorization_machine: expected values [B, F, D], got ", values.sizes());
  if (is_cpu_float(values)) return FactorizationMachineFunction::apply(values.contiguous());
  const int64_t pairs = std::max<int64_t>(values.size(1) - 1, 0);
  return values.narrow(1, 0, pairs).cumsum(1).mul(values.narrow(1, values.size(1) - pairs, pairs)).sum({1, 2});
}

}  // namespace afm::nn
