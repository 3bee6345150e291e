#include "libafm/train/checkpoint.h"

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/version.h"
#include "libafm/train/history.h"

namespace afm {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kKind = "afm-checkpoint";

void add_below(TensorMap& tensors, const std::string& folder, const TensorMap& members) {
  for (const auto& [name, tensor] : members) tensors[folder + "/" + name] = tensor;
}

TensorMap take_below(const TensorMap& tensors, std::string_view folder) {
  TensorMap members;
  for (const auto& [name, tensor] : tensors) {
    if (name.size() > folder.size() && name.starts_with(folder) && name[folder.size()] == '/') {
      members[name.substr(folder.size() + 1)] = tensor;
    }
  }
  return members;
}

std::string position_to_json(const RunPosition& position) {
  const ordered_json json = {{"history", json_of(position.history)},
                             {"batch", position.batch},
                             {"learning_rate", position.learning_rate},
                             {"seconds", position.seconds}};
  return json.dump();
}

RunPosition position_of(const ordered_json& json) {
  return {.history = history_of(json.at("history")),
          .batch = json.at("batch").get<int64_t>(),
          .learning_rate = json.at("learning_rate").get<double>(),
          .seconds = json.at("seconds").get<double>()};
}

void check_kind(const SafetensorsFile& file) {
  const auto kind = file.metadata().find("kind");
  if (kind == file.metadata().end() || kind->second != kKind) {
    fail<FormatError>("'{}' is no checkpoint of libafm", file.path().string());
  }
  const auto& version = file.metadata_at("version");
  if (version != std::to_string(kFormatVersion)) {
    fail<FormatError>("'{}' must have version {}, got {}; a newer libafm may have written it", file.path().string(),
                      kFormatVersion, version);
  }
}

ordered_json parsed(const SafetensorsFile& file, const std::string& key) {
  try {
    return ordered_json::parse(file.metadata_at(key));
  } catch (const ordered_json::exception& error) {
    fail<FormatError>("'{}' has a damaged '{}': {}", file.path().string(), key, error.what());
  }
}

RunPosition read_position(const SafetensorsFile& file) {
  try {
    const RunPosition position = position_of(parsed(file, "position"));
    const auto epochs = static_cast<int64_t>(position.history.epochs.size());
    if (position.batch >= 0 && position.history.best_epoch >= 0 && position.history.best_epoch <= epochs) {
      return position;
    }
  } catch (const ordered_json::exception& error) {
    fail<FormatError>("'{}' has a damaged 'position': {}", file.path().string(), error.what());
  }
  fail<FormatError>("'{}' has a damaged 'position': a number is out of range", file.path().string());
}

at::Tensor read_loss_sum(const SafetensorsFile& file) {
  const at::Tensor sum = view_tensor(file, "loss_sum");
  if (sum.dim() != 0) fail<FormatError>("'{}' has a 'loss_sum' that is no scalar", file.path().string());
  return sum.clone();
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, const RunIdentity& identity, const Checkpoint& checkpoint) {
  TensorMap tensors{{"loss_sum", checkpoint.loss_sum}};
  add_below(tensors, "model", checkpoint.model);
  add_below(tensors, "best", checkpoint.best);
  add_below(tensors, "optimizer", checkpoint.optimizer);
  add_below(tensors, "random", checkpoint.random);
  save_tensors(path,
               {{"kind", std::string(kKind)},
                {"version", std::to_string(kFormatVersion)},
                {"options", identity.options.dump()},
                {"run", identity.run.dump()},
                {"position", position_to_json(checkpoint.position)}},
               tensors);
}

Checkpoint read_checkpoint(const std::filesystem::path& path, const RunIdentity& identity) {
  const auto file = SafetensorsFile::open(path);
  check_kind(file);
  file.verify();
  check_same(identity, {parsed(file, "options"), parsed(file, "run")}, fmt::format("checkpoint '{}'", path.string()));
  const TensorMap tensors = read_tensors(file);
  return {.position = read_position(file),
          .model = take_below(tensors, "model"),
          .best = take_below(tensors, "best"),
          .optimizer = take_below(tensors, "optimizer"),
          .random = take_below(tensors, "random"),
          .loss_sum = read_loss_sum(file)};
}

}  // namespace afm
