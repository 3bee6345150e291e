#pragma once

// Private: a History as JSON and back; doubles survive bitwise.

#include <nlohmann/json.hpp>

#include "libafm/train/trainer.h"

namespace afm {

nlohmann::ordered_json json_of(const History& history);
// Throws nlohmann::json::exception for what json_of() does not write.
History history_of(const nlohmann::ordered_json& json);

}  // namespace afm
