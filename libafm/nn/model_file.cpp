#include "libafm/nn/model_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <stdexcept>
#include <utility>
#include <vector>

#include <fmt/ranges.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/version.h"
#include "libafm/nn/golden_rows.h"
#include "libafm/nn/integer_state.h"
#include "libafm/nn/layer.h"

namespace afm {
namespace {

constexpr std::string_view kModelKind = "afm-model";

void check_kind(const SafetensorsFile& file) {
  const auto found = file.metadata().find("kind");
  if (found != file.metadata().end() && found->second == kModelKind) return;
  fail<FormatError>("'{}' is no model file: its kind must be '{}', got '{}'", file.path().string(), kModelKind,
                    found == file.metadata().end() ? "" : found->second);
}

void check_version(const SafetensorsFile& file) {
  const std::string& text = file.metadata_at("version");
  int64_t version = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc{} || stop != text.data() + text.size() || version < 1) {
    fail<FormatError>("'{}' is no model file: its version must be a number from 1, got '{}'", file.path().string(),
                      text);
  }
  if (version > kFormatVersion) {
    fail<FormatError>("'{}' has version {}, written by a newer libafm; this one reads up to {}; upgrade",
                      file.path().string(), version, kFormatVersion);
  }
}

// What a reader of one metadata value refuses, with the file's name.
template <typename Read>
auto read_metadata(const SafetensorsFile& file, const char* key, Read read) {
  const std::string& text = file.metadata_at(key);
  try {
    return read(text);
  } catch (const Error& error) {
    fail<FormatError>("'{}' has a bad '{}': {}", file.path().string(), key, error.what());
  }
}

std::map<std::string, std::string> notes_from_json(const std::string& text) {
  try {
    return nlohmann::json::parse(text).get<std::map<std::string, std::string>>();
  } catch (const nlohmann::json::exception& error) {
    fail<FormatError>("notes must be an object of texts: {}", error.what());
  }
}

std::string shape_of(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

void append_problem(std::string& problems, std::string_view what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  problems += fmt::format("{}{}: {}", problems.empty() ? "" : "; ", what, fmt::join(names, ", "));
}

void check_state(const TensorMap& targets, const TensorMap& state, std::string_view where) {
  std::vector<std::string> missing, surplus, misshapen;
  for (const auto& [name, target] : targets) {
    const auto source = state.find(name);
    if (source == state.end()) {
      missing.push_back(name);
    } else if (source->second.sizes() != target.sizes()) {
      misshapen.push_back(fmt::format("{} (expected {}, got {})", name, shape_of(target), shape_of(source->second)));
    }
  }
  for (const auto& [name, source] : state) {
    if (!targets.contains(name)) surplus.push_back(name);
  }
  std::string problems;
  append_problem(problems, "missing", missing);
  append_problem(problems, "surplus", surplus);
  append_problem(problems, "misshapen", misshapen);
  if (!problems.empty()) fail<FormatError>("the tensors of {} do not fit the model; {}", where, problems);
}

// What a file holds beside the tensors of the model.
constexpr std::array<std::string_view, 2> kCompanions = {kGoldenPrefix, "vocabulary."};

bool is_companion(std::string_view name) {
  return std::ranges::any_of(kCompanions, [&](std::string_view prefix) { return name.starts_with(prefix); });
}

TensorMap tensors_of_file(const Model& model) {
  TensorMap tensors = stored_state_of(model);
  for (const auto& [name, tensor] : tensors) {
    if (is_companion(name)) {
      fail<std::invalid_argument>("a model must have no tensor named '{}': files use such names for other things",
                                  name);
    }
  }
  tensors.merge(golden_rows_of(model));
  return tensors;
}

TensorMap read_where(const SafetensorsFile& file, auto wanted) {
  TensorMap tensors;
  for (const auto& [name, view] : file.tensors()) {
    if (wanted(name)) tensors[name] = view_tensor(file, name).clone();
  }
  return tensors;
}

}  // namespace

void save_model(const Model& model, const std::filesystem::path& path) {
  const Metadata metadata = {{"kind", std::string(kModelKind)},
                             {"version", std::to_string(kFormatVersion)},
                             {"model", std::string(model.kind())},
                             {"options", model.options_json()},
                             {"schema", schema_to_json(model.schema())},
                             {"ranks", plan_to_json(nn::rank_plan_of(model))},
                             {"notes", nlohmann::json(model.notes).dump()}};
  save_tensors(path, metadata, tensors_of_file(model));
}

ModelFile read_model_file(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  check_kind(file);
  check_version(file);
  file.verify();
  return {.model = file.metadata_at("model"),
          .options_json = file.metadata_at("options"),
          .schema = read_metadata(file, "schema", schema_from_json),
          .plan = read_metadata(file, "ranks", plan_from_json),
          .notes = file.metadata().contains("notes") ? read_metadata(file, "notes", notes_from_json)
                                                     : std::map<std::string, std::string>(),
          .tensors = read_where(file, [](std::string_view name) { return !is_companion(name); }),
          .golden = read_where(file, [](std::string_view name) { return name.starts_with(kGoldenPrefix); })};
}

TensorMap state_of(const torch::nn::Module& module) {
  TensorMap state;
  for (const auto& item : module.named_parameters()) state[item.key()] = item.value();
  for (const auto& item : module.named_buffers()) state[item.key()] = item.value();
  return state;
}

void load_state(torch::nn::Module& module, const TensorMap& state, std::string_view where) {
  const torch::NoGradGuard no_grad;
  TensorMap targets = state_of(module);
  const TensorMap values = with_values(module, state, where);
  check_state(targets, values, where);
  for (auto& [name, target] : targets) target.copy_(values.at(name));
}

}  // namespace afm
