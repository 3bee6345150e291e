#pragma once

// The one table that maps a model's name to its builder.

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libafm/nn/model.h"

namespace afm::models {

std::vector<std::string> model_names();  // {"deepfm", "dcn", "wide_deep"}

// options_json: {} or some fields; the rest are defaults. Throws std::invalid_argument for an unknown model (listing
// the known ones), an unknown option or a bad value, and DataError for a schema that is not counted.
std::shared_ptr<Model> make_model(std::string_view name, std::string_view options_json, const Schema& schema,
                                  const RankPlan& plan = {});

// Any model file, dense or compressed, in evaluation mode.
std::shared_ptr<Model> load_model(const std::filesystem::path& path);

}  // namespace afm::models
