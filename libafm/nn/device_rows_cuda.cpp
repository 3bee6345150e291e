#include "libafm/nn/device_rows.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>

#include "libafm/cuda/row_slots.h"
#include "libafm/nn/cuda_launch.h"
#include "libafm/nn/device_table.h"

namespace afm::nn {
namespace {

// The kernel's view of gradients; `scratch` must outlive the launch.
cuda::RowGradients view_of(const EmbeddingLayout& layout, const DeviceRowGradients& rows, const at::Tensor& scratch) {
  const bool has_input = rows.input.defined();
  const auto unsigned_or_null = [](const at::Tensor& t) { return t.defined() ? unsigned_of(t) : nullptr; };
  return {.rows = unsigned_or_null(rows.rows),
          .sorted_rows = unsigned_or_null(rows.sorted_rows),
          .sorted_places = unsigned_or_null(rows.sorted_places),
          .code = cuda::place_code(layout.field_count()),
          .batch = rows.batch,
          .input = has_input ? rows.input.const_data_ptr() : nullptr,
          .input_stride = has_input ? rows.input.size(1) : layout.field_count() * layout.dim,
          .element = has_input ? element_of(rows.input.scalar_type()) : cuda::Element::kFloat,
          .score = floats_of(rows.score),
          .sums = floats_of(rows.sums),
          .scratch = scratch.defined() ? scratch.mutable_data_ptr() : nullptr};
}

at::Tensor scratch_for(const EmbeddingLayout& layout, const DeviceRowGradients& rows) {
  const int64_t places = rows.batch * layout.field_count();
  return bytes_like(cuda::gradient_scratch(places, static_cast<int>(layout.dim)), rows.sorted_rows);
}

// The same gradients with their places sorted: for who needs the whole gradient of a table that has slots.
DeviceRowGradients sorted(const EmbeddingLayout& layout, DeviceRowGradients rows) {
  if (!rows.rows.defined()) return rows;
  const at::Tensor samples = at::arange(rows.batch, rows.rows.options()).unsqueeze(1);
  const at::Tensor fields = at::arange(layout.field_count(), rows.rows.options());
  const int64_t step = int64_t{1} << cuda::place_code(layout.field_count()).field_bits;
  const at::Tensor places = (samples * step + fields).flatten();
  const int64_t count = places.numel();
  rows.sorted_rows = at::empty_like(places);
  rows.sorted_places = at::empty_like(places);
  const at::Tensor scratch = bytes_like(cuda::sort_scratch(count, layout.rows), places);
  check_launch(cuda::sort_rows(unsigned_of(rows.rows), unsigned_of(places), count, layout.rows,
                               scratch.mutable_data_ptr(), static_cast<std::size_t>(scratch.numel()),
                               unsigned_of(rows.sorted_rows), unsigned_of(rows.sorted_places), stream_of(places)));
  rows.rows = at::Tensor();
  return rows;
}

void make_room(DeviceRowSlots& slots, const EmbeddingLayout& layout, const DeviceRowGradients& rows) {
  const int64_t needed = std::min(rows.batch * layout.field_count(), layout.rows);
  if (slots.row_of.defined() && slots.row_of.size(0) >= needed) return;
  const auto counts = rows.rows.options(), floats = counts.dtype(at::kFloat);
  if (!slots.slot_of.defined()) {
    slots.slot_of = at::full({layout.rows}, static_cast<int32_t>(cuda::kNoSlot), counts);
    slots.count = at::zeros({1}, counts);
  }
  slots.row_of = at::empty({needed}, counts);
  slots.sums = at::zeros({needed, cuda::slot_width(static_cast<int>(layout.dim))}, floats);
  slots.scores = at::zeros({needed}, floats);
}

// The sums of all rows that the batch reads, in slots.
cuda::RowSlots add_up(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows,
                      DeviceRowSlots& slots) {
  make_room(slots, layout, rows);
  const cuda::RowSlots view{.slot_of = unsigned_of(slots.slot_of),
                            .row_of = unsigned_of(slots.row_of),
                            .count = unsigned_of(slots.count),
                            .sums = floats_of(slots.sums),
                            .scores = floats_of(slots.scores)};
  check_launch(cuda::add_to_slots(table_of(layout, table), view_of(layout, rows, {}), view, stream_of(table)));
  return view;
}

void step_rows(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows,
               DeviceRowSlots& slots, const cuda::LazyAdam& adam) {
  const cuda::Table view = table_of(layout, table);
  if (rows.rows.defined()) {
    const cuda::RowSlots sums = add_up(layout, table, rows, slots);
    return check_launch(cuda::step_adam_rows(view, sums, rows.sums.defined(), adam, stream_of(table)));
  }
  const at::Tensor scratch = scratch_for(layout, rows);
  check_launch(cuda::step_adam_rows(view, view_of(layout, rows, scratch), adam, stream_of(table)));
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

at::Tensor whole_gradient(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& given) {
  const DeviceRowGradients rows = sorted(layout, given);
  at::Tensor gradient = at::zeros_like(table);
  const at::Tensor scratch = scratch_for(layout, rows);
  check_launch(cuda::write_gradients(table_of(layout, table), view_of(layout, rows, scratch), floats_of(gradient),
                                     stream_of(table)));
  return gradient;
}

void step_adagrad(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows,
                  DeviceRowSlots& slots, const DeviceAdagradStep& step) {
  const c10::cuda::CUDAGuard guard(table.device());
  const cuda::Adagrad adagrad{.squares = floats_of(step.squares),
                              .rate = floats_of(step.rate),
                              .scale = static_cast<float>(step.scale),
                              .l2 = static_cast<float>(step.l2),
                              .epsilon = static_cast<float>(step.epsilon)};
  const cuda::Table view = table_of(layout, table);
  if (rows.rows.defined()) {
    const cuda::RowSlots sums = add_up(layout, table, rows, slots);
    return check_launch(cuda::step_adagrad(view, sums, rows.sums.defined(), adagrad, stream_of(table)));
  }
  const at::Tensor scratch = scratch_for(layout, rows);
  check_launch(cuda::step_adagrad(view, view_of(layout, rows, scratch), adagrad, stream_of(table)));
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
                    DeviceRowSlots& slots, const DeviceLazyAdam& adam, const at::Tensor& rate) {
  const c10::cuda::CUDAGuard guard(table.device());
  const cuda::LazyAdam view = view_of(adam);
  check_launch(cuda::begin_step(view.history, floats_of(rate), stream_of(table)));
  step_rows(layout, table, rows, slots, view);
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
