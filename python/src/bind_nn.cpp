#include <sstream>
#include <stdexcept>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/model.h"
#include "libafm/nn/model_file.h"
#include "python/src/arguments.h"
#include "python/src/bind_record.h"
#include "python/src/bindings.h"
#include "python/src/rank_plans.h"

namespace afm::python {
namespace {

using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

// One module of a C++ tree: what the wrapper in afm/modules.py mirrors. (torch's own binding of torch::nn::Module fails
// on state_dict, pickle and .to.)
struct ModuleView {
  std::shared_ptr<torch::nn::Module> module;

  std::vector<std::pair<std::string, ModuleView>> children() const {
    std::vector<std::pair<std::string, ModuleView>> views;
    for (const auto& item : module->named_children()) views.emplace_back(item.key(), ModuleView{item.value()});
    return views;
  }
  std::string text() const {
    std::ostringstream stream;
    module->pretty_print(stream);
    return stream.str();
  }
};

// The module's own tensors, the very ones that it computes with; none of its children's.
template <typename Items>
Tensors own(const Items& items) {
  Tensors tensors;
  for (const auto& item : items) {
    if (item.value().defined()) tensors.emplace_back(item.key(), item.value());
  }
  return tensors;
}

void bind_modules(py::module_& m) {
  py::class_<ModuleView>(m, "ModuleView", "One module of a C++ module tree.")
      .def("children", &ModuleView::children)
      .def("parameters", [](const ModuleView& self) { return own(self.module->named_parameters(false)); })
      .def("buffers", [](const ModuleView& self) { return own(self.module->named_buffers(false)); })
      .def("text", &ModuleView::text)
      .def_property(
          "training", [](const ModuleView& self) { return self.module->is_training(); },
          [](ModuleView& self, bool mode) { self.module->train(mode); });
  py::class_<Model, std::shared_ptr<Model>>(m, "CoreModel", "A C++ model; afm.Model wraps it.")
      .def_property_readonly("kind", [](const Model& self) { return std::string(self.kind()); })
      .def_property_readonly("options_json", &Model::options_json)
      .def_property_readonly("schema", &Model::schema)
      .def_property_readonly("ranks", [](const Model& self) { return plan_to_json(nn::rank_plan_of(self)); })
      .def_readwrite("notes", &Model::notes)
      .def_property_readonly("device", [](const Model& self) { return self.device(); })
      .def("view", [](Model& self) { return ModuleView{self.shared_from_this()}; })
      .def(
          "forward",
          [](Model& self, const at::Tensor& ids, const std::optional<at::Tensor>& dense) {
            return self.forward({.ids = ids, .dense = dense.value_or(at::Tensor()), .label = {}});
          },
          "ids"_a, "dense"_a = py::none(), ReleaseGil())
      .def(
          "save", [](const Model& self, const std::filesystem::path& path) { save_model(self, path); }, "path"_a,
          ReleaseGil());
}

}  // namespace

RankPlan plan_of_text(const std::string& json) {
  try {
    return plan_from_json(json);
  } catch (const FormatError& error) {
    fail<std::invalid_argument>("{}", error.what());
  }
}

void bind_nn(py::module_& m) {
  bind_modules(m);
  bind_record<GroupSize>(m, "GroupSize", R"(Parameters and bytes of one part of a model.

bytes are those of parameters and buffers in memory, integers packed; a model file adds its header.)",
                         entry("group", &GroupSize::group), entry("parameters", &GroupSize::parameters),
                         entry("bytes", &GroupSize::bytes));
  m.def(
      "size_by_group", [](const Model& model) { return size_by_group(model); }, "model"_a);
  m.def(
      "parameter_count", [](const Model& model) { return parameter_count(model); }, "model"_a);
  m.def(
      "byte_count", [](const Model& model) { return byte_count(model); }, "model"_a);
  m.def(
      "checked_plan", [](const std::string& json) { return plan_to_json(plan_from_json(json)); }, "json"_a,
      "The plan as libafm writes it.");
  m.def(
      "read_plan", [](const std::filesystem::path& path) { return plan_to_json(read_plan(path)); }, "path"_a);
  m.def(
      "write_plan",
      [](const std::filesystem::path& path, const std::string& plan) { write_plan(path, plan_of_text(plan)); },
      "path"_a, "plan"_a);
}

}  // namespace afm::python
