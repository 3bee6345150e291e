#include "libafm/compress/check_plan.h"

#include <stdexcept>
#include <vector>

#include <fmt/ranges.h>

#include "libafm/compress/layer_ranks.h"
#include "libafm/core/fail.h"

namespace afm {

const LayerStatistics& layer_named(const Statistics& statistics, const std::string& path) {
  const auto found = statistics.layers.find(path);
  if (found != statistics.layers.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, layer] : statistics.layers) known.push_back(name);
  fail<std::invalid_argument>("there are no statistics of layer '{}'; there are of: {}", path, fmt::join(known, ", "));
}

void check_plan(const Statistics& statistics, const RankPlan& plan) {
  for (const auto& [path, layer_plan] : plan) {
    check_ranks(path, layer_named(statistics, path), layer_plan);
    if (layer_plan.units == 0) continue;
    fail<std::invalid_argument>(
        "the rank plan of layer '{}' asks for {} units, which takes the model: call the function with it", path,
        layer_plan.units);
  }
}

}  // namespace afm
