#include "models/models.h"
#include "python/src/bind_options.h"
#include "python/src/bindings.h"
#include "python/src/rank_plans.h"

namespace afm::python {

void bind_models(py::module_& m) {
  bind_options<models::DeepFMOptions>(m, "DeepFMOptions", "Options of DeepFM.");
  bind_options<models::DCNOptions>(m, "DCNOptions", "Options of DCN.");
  bind_options<models::WideDeepOptions>(m, "WideDeepOptions", "Options of WideDeep.");
  m.def("model_names", &models::model_names, "The names of the models, as in model files and on the command line.");
  m.def(
      "make_model",
      [](const std::string& name, const std::string& options_json, const Schema& schema, const std::string& ranks) {
        return models::make_model(name, options_json, schema, plan_of_text(ranks));
      },
      "name"_a, "options_json"_a, "schema"_a, "ranks"_a, ReleaseGil());
  m.def("load_model", &models::load_model, "path"_a, ReleaseGil());
}

}  // namespace afm::python
