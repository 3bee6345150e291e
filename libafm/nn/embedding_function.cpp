#include <memory>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/embedding_kernels.h"
#include "libafm/nn/embedding_lookup.h"

namespace afm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using LayoutPointer = std::shared_ptr<EmbeddingLayout>;

struct RowTraining {
  std::shared_ptr<RowUpdates> updates;  // null: the table's gradient is a tensor like any other
  std::shared_ptr<TouchedRows> touched;
};

// Lets the graph keep what its backward pass needs.
struct LookupCapsule : torch::CustomClassHolder {
  LookupCapsule(LayoutPointer held, RowTraining rows) : layout(std::move(held)), training(std::move(rows)) {}
  LayoutPointer layout;
  RowTraining training;
};

const float* read(const std::optional<at::Tensor>& tensor) {
  return tensor && tensor->defined() ? tensor->const_data_ptr<float>() : nullptr;
}

// The gradient of a parameter, or an undefined tensor when it is not wanted.
at::Tensor zeros_if(bool wanted, at::IntArrayRef shape, const at::TensorOptions& options) {
  return wanted ? at::zeros(shape, options) : at::Tensor();
}

float* write(const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr; }

// Inputs with a gradient, in this order: table, and where there is a basis, basis and offset.
struct LookupFunction : torch::autograd::Function<LookupFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& table,
                               const std::optional<at::Tensor>& basis, const std::optional<at::Tensor>& offset,
                               const at::Tensor& ids, const LayoutPointer& layout, const RowTraining& training) {
    const at::Tensor values = at::empty({ids.size(0), layout->output_width}, table.options());
    const at::Tensor wide = layout->gives_wide() ? at::empty({ids.size(0)}, table.options()) : at::Tensor();
    const LookupInput input{ids, table.const_data_ptr<float>(), read(basis), read(offset)};
    if (!lookup_rows(*layout, input, values.mutable_data_ptr<float>(), write(wide))) fail_id(*layout, ids);

    context->set_materialize_grads(false);
    context->saved_data["layout"] = c10::IValue::make_capsule(c10::make_intrusive<LookupCapsule>(layout, training));
    context->saved_data["shape"] = table.sizes();
    // Without a basis the gradients do not need the table's values.
    context->save_for_backward(layout->expands ? variable_list{ids, table, *basis} : variable_list{ids});
    return wide.defined() ? variable_list{values, wide} : variable_list{values};
  }

  static variable_list backward(AutogradContext* context, variable_list& incoming) {
    refuse_second_derivative("Embedding");
    const auto capsule = context->saved_data["layout"].toCapsule();
    const auto& kept = static_cast<const LookupCapsule&>(*capsule);
    const EmbeddingLayout& layout = *kept.layout;
    const RowTraining& training = kept.training;
    const variable_list saved = context->get_saved_variables();
    const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat);
    const at::Tensor values = incoming[0].defined() ? incoming[0].contiguous() : at::Tensor();
    const at::Tensor wide = layout.gives_wide() && incoming[1].defined() ? incoming[1].contiguous() : at::Tensor();

    const bool whole = context->needs_input_grad(0) && !training.updates;
    const at::Tensor table = zeros_if(whole, context->saved_data["shape"].toIntVector(), options);
    const at::Tensor basis = zeros_if(layout.expands, {layout.basis_rows, layout.decoded}, options);
    const at::Tensor offset = zeros_if(layout.expands, {layout.field_count(), layout.decoded}, options);
    const LookupInput input{saved[0], layout.expands ? read(saved[1]) : nullptr,
                            layout.expands ? read(saved[2]) : nullptr, nullptr};
    lookup_gradients(layout, input,
                     {read(values), read(wide), write(table), write(basis), write(offset), training.touched.get()});
    if (training.updates) training.updates->add_gradient(training.touched);
    return {table, basis, offset, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// Finds the rows of a lookup and brings them up to date.
RowTraining begin_rows(const EmbeddingLayout& layout, const EmbeddingTables& tables, const at::Tensor& ids,
                       const std::shared_ptr<RowUpdates>& updates) {
  const bool trains = at::GradMode::is_enabled() && tables.table.requires_grad();
  if (!updates || !(trains || updates->is_behind())) return {};
  const auto touched = updates->buffer();
  if (!find_touched_rows(layout, ids, *touched)) fail_id(layout, ids);
  updates->before_read(*touched);
  return trains ? RowTraining{updates, touched} : RowTraining{};
}

}  // namespace

bool kernels_serve(const EmbeddingTables& tables, const at::Tensor& ids) {
  for (const at::Tensor& tensor : {tables.table, tables.basis, tables.offset}) {
    if (tensor.defined() && !(is_cpu_float(tensor) && tensor.is_contiguous())) return false;
  }
  return ids.is_cpu();
}

EmbeddingOutput lookup_with_kernels(const LayoutPointer& layout, const EmbeddingTables& tables, const at::Tensor& ids,
                                    const std::shared_ptr<RowUpdates>& updates) {
  const RowTraining training = begin_rows(*layout, tables, ids, updates);
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? std::optional(tensor) : std::nullopt;
  };
  const variable_list output =
      LookupFunction::apply(tables.table, optional(tables.basis), optional(tables.offset), ids, layout, training);
  EmbeddingOutput result;
  if (layout->gives_wide()) result.wide = output[1];
  if (layout->dense || layout->expands) {
    result.values = output[0].view({ids.size(0), layout->field_count(), layout->dim});
  } else {
    result.latents = output[0];
  }
  return result;
}

}  // namespace afm::nn
