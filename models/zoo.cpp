#include "models/zoo.h"

#include <array>
#include <stdexcept>

#include <fmt/ranges.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/integer_state.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/model_file.h"
#include "models/dcn.h"
#include "models/deepfm.h"
#include "models/features.h"
#include "models/wide_deep.h"

namespace afm::models {
namespace {

template <typename Impl, typename Options>
std::shared_ptr<Model> make(std::string_view text, std::string_view where, const Schema& schema, const RankPlan& plan) {
  return std::make_shared<Impl>(options_from<Options>(text, where), schema, plan);
}

struct Entry {
  std::string_view name, options;
  std::shared_ptr<Model> (*make)(std::string_view text, std::string_view where, const Schema&, const RankPlan&);
};

constexpr std::array<Entry, 3> kModels = {{{"deepfm", "DeepFMOptions", make<DeepFMImpl, DeepFMOptions>},
                                           {"dcn", "DCNOptions", make<DCNImpl, DCNOptions>},
                                           {"wide_deep", "WideDeepOptions", make<WideDeepImpl, WideDeepOptions>}}};

const Entry& entry_named(std::string_view name) {
  for (const Entry& entry : kModels) {
    if (entry.name == name) return entry;
  }
  fail<std::invalid_argument>("there is no model '{}'; the models are: {}", name, fmt::join(model_names(), ", "));
}

// A width takes at least one number of a file (a bias, a row of a basis). Without this rule a file of a few bytes could
// ask for any memory before its tensors are compared with the model.
void check_widths(const nlohmann::json& options, int64_t numbers) {
  for (const auto& [key, value] : options.items()) {
    if (value.is_array()) check_widths(value, numbers);
    if (value.is_number_integer() && value.get<int64_t>() > numbers) {
      fail<std::invalid_argument>("its options have the width {}, its tensors only {} numbers", value.dump(), numbers);
    }
  }
}

// At most: a byte holds one number, or two of four bits.
int64_t count_numbers(const TensorMap& tensors) {
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.nbytes();
  return static_cast<int64_t>(2 * bytes);
}

[[noreturn]] void refuse(const std::filesystem::path& path, std::string_view reason) {
  fail<FormatError>("'{}' describes a model that cannot be built: {}", path.string(), reason);
}

std::shared_ptr<Model> blank_model(const ModelFile& file, const std::filesystem::path& path) {
  const nn::BlankScope blank(at::kCPU, at::kFloat);
  try {
    check_widths(parsed_options(file.options_json, "options"), count_numbers(file.tensors));
    return make_model(file.model, file.options_json, file.schema, file.plan);
  } catch (const std::invalid_argument& error) {
    refuse(path, error.what());
  } catch (const DataError& error) {
    refuse(path, error.what());
  } catch (const c10::Error&) {  // a product of sizes that overflows, or an allocation that failed
    refuse(path, "it would not fit into memory");
  }
}

// A fresh model is float32; a file may hold another precision, and a loaded model is what was saved.
void take_dtypes(const Model& model, const TensorMap& tensors) {
  for (auto& [name, tensor] : state_of(model)) {
    const auto source = tensors.find(name);
    if (source == tensors.end() || source->second.is_floating_point() != tensor.is_floating_point()) continue;
    tensor.set_data(tensor.to(source->second.scalar_type()));
  }
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kModels) names.emplace_back(entry.name);
  return names;
}

std::shared_ptr<Model> make_model(std::string_view name, std::string_view options_json, const Schema& schema,
                                  const RankPlan& plan) {
  const Entry& entry = entry_named(name);
  return entry.make(options_json, entry.options, schema, plan);
}

std::shared_ptr<Model> load_model(const std::filesystem::path& path) {
  const ModelFile file = read_model_file(path);
  const std::shared_ptr<Model> model = blank_model(file, path);
  const std::string where = fmt::format("'{}'", path.string());
  const TensorMap values = with_values(*model, file.tensors, where);
  take_dtypes(*model, values);
  load_state(*model, values, where);
  model->notes = file.notes;
  model->eval();
  return model;
}

}  // namespace afm::models
