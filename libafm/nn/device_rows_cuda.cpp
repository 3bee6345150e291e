#include "libafm/nn/device_rows.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "libafm/nn/cuda_launch.h"
#include "libafm/nn/device_table.h"

namespace afm::nn {
namespace {

// The kernel's view of gradients; `scratch` must outlive the launch.
cuda::RowGradients view_of(const EmbeddingLayout& layout, const DeviceRowGradients& rows, const at::Tensor& scratch) {
  const bool has_input = rows.input.defined();
  return {.sorted_rows = unsigned_of(rows.sorted_rows),
          .sorted_places = unsigned_of(rows.sorted_places),
          .code = cuda::place_code(layout.field_count()),
          .batch = rows.batch,
          .input = has_input ? rows.input.const_data_ptr() : nullptr,
          .input_stride = has_input ? rows.input.size(1) : layout.field_count() * layout.dim,
          .element = has_input ? element_of(rows.input.scalar_type()) : cuda::Element::kFloat,
          .score = floats_of(rows.score),
          .sums = floats_of(rows.sums),
          .scratch = scratch.mutable_data_ptr()};
}

at::Tensor scratch_for(const EmbeddingLayout& layout, const DeviceRowGradients& rows) {
  const int64_t places = rows.batch * layout.field_count();
  return bytes_like(cuda::gradient_scratch(places, static_cast<int>(layout.dim)), rows.sorted_rows);
}

}  // namespace

cuda::Table table_of(const EmbeddingLayout& layout, const at::Tensor& table) {
  return {.rows = table.mutable_data_ptr<float>(),
          .row_count = layout.rows,
          .stride = static_cast<int>(table.size(1)),
          .dim = static_cast<int>(layout.dim),
          .fields = static_cast<int>(layout.field_count()),
          .first_row = layout.first_row.const_data_ptr<int64_t>(),
          .highest = layout.highest.const_data_ptr<int64_t>()};
}

cuda::LazyAdam view_of(const DeviceLazyAdam& adam) {
  static_assert(sizeof(cuda::AdamCount) == 2 * sizeof(int32_t));
  auto* count = reinterpret_cast<cuda::AdamCount*>(adam.count.mutable_data_ptr<int32_t>());
  return {.means = floats_of(adam.means),
          .squares = floats_of(adam.squares),
          .behind = adam.behind.mutable_data_ptr<int32_t>(),
          .l2 = static_cast<float>(adam.l2),
          .history = cuda::history_in(adam.memory.mutable_data_ptr(), count, floats_of(adam.rates),
                                      static_cast<int32_t>(adam.rates.size(0)))};
}

at::Tensor whole_gradient(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows) {
  at::Tensor gradient = at::zeros_like(table);
  const at::Tensor scratch = scratch_for(layout, rows);
  check_launch(cuda::write_gradients(table_of(layout, table), view_of(layout, rows, scratch), floats_of(gradient),
                                     stream_of(table)));
  return gradient;
}

void step_adagrad(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows,
                  const DeviceAdagradStep& step) {
  const c10::cuda::CUDAGuard guard(table.device());
  const at::Tensor scratch = scratch_for(layout, rows);
  check_launch(cuda::step_adagrad(table_of(layout, table), view_of(layout, rows, scratch),
                                  {.squares = floats_of(step.squares),
                                   .rate = floats_of(step.rate),
                                   .scale = static_cast<float>(step.scale),
                                   .l2 = static_cast<float>(step.l2),
                                   .epsilon = static_cast<float>(step.epsilon)},
                                  stream_of(table)));
}

DeviceLazyAdam fresh_lazy_adam(const EmbeddingLayout& layout, const at::Tensor& table, int64_t capacity, double l2) {
  const c10::cuda::CUDAGuard guard(table.device());
  const at::TensorOptions counts = table.options().dtype(at::kInt);
  DeviceLazyAdam adam{.means = at::zeros_like(table),
                      .squares = at::zeros_like(table),
                      .behind = at::zeros({layout.rows}, counts),
                      .count = at::zeros({2}, counts),
                      .rates = at::zeros({capacity}, table.options()),
                      .memory = bytes_like(cuda::history_bytes(static_cast<int32_t>(capacity)), table),
                      .l2 = l2};
  check_launch(cuda::start_history(view_of(adam).history, stream_of(table)));
  return adam;
}

void step_lazy_adam(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows,
                    const DeviceLazyAdam& adam, const at::Tensor& rate) {
  const c10::cuda::CUDAGuard guard(table.device());
  const at::Tensor scratch = scratch_for(layout, rows);
  const cuda::LazyAdam view = view_of(adam);
  check_launch(cuda::begin_step(view.history, floats_of(rate), stream_of(table)));
  check_launch(cuda::step_adam_rows(table_of(layout, table), view_of(layout, rows, scratch), view, stream_of(table)));
  check_launch(cuda::end_step(view.history, floats_of(rate), /*with_sums=*/adam.l2 == 0, stream_of(table)));
}

void step_lazy_adam(const EmbeddingLayout& layout, const at::Tensor& table, const at::Tensor& gradient,
                    const DeviceLazyAdam& adam, const at::Tensor& rate) {
  const c10::cuda::CUDAGuard guard(table.device());
  const cuda::LazyAdam view = view_of(adam);
  check_launch(cuda::begin_step(view.history, floats_of(rate), stream_of(table)));
  check_launch(cuda::step_adam_table(table_of(layout, table), floats_of(gradient), view, stream_of(table)));
  check_launch(cuda::end_step(view.history, floats_of(rate), /*with_sums=*/adam.l2 == 0, stream_of(table)));
}

void record_step(const DeviceLazyAdam& adam, const at::Tensor& rate) {
  const c10::cuda::CUDAGuard guard(rate.device());
  const cuda::AdamHistory history = view_of(adam).history;
  check_launch(cuda::begin_step(history, floats_of(rate), stream_of(rate)));
  check_launch(cuda::end_step(history, floats_of(rate), /*with_sums=*/adam.l2 == 0, stream_of(rate)));
}

void catch_up(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceLazyAdam& adam) {
  const c10::cuda::CUDAGuard guard(table.device());
  check_launch(cuda::catch_up_table(table_of(layout, table), view_of(adam), stream_of(table)));
}

}  // namespace afm::nn
