#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/options_json.h"
#include "libafm/metrics/metrics.h"

namespace afm {
namespace {

const FieldSpec* find_field(const Schema& schema, std::string_view name) {
  const auto found = std::ranges::find(schema.fields, name, &FieldSpec::name);
  return found == schema.fields.end() ? nullptr : &*found;
}

// Every value of two fields of one name that differs: "field 'user' has cardinality 10 in the model, 12 in the
// dataset".
void compare_fields(const FieldSpec& model, const FieldSpec& dataset, std::vector<std::string>& differences) {
  const auto here = describe(model), there = describe(dataset);
  for (std::size_t i = 0; i < here.size(); ++i) {
    if (here[i].value == there[i].value) continue;
    differences.push_back(fmt::format("field '{}' has {} {} in the model, {} in the dataset", model.name, here[i].name,
                                      here[i].value, there[i].value));
  }
}

std::vector<std::string> differences_of(const Schema& model, const Schema& dataset) {
  std::vector<std::string> differences;
  for (const auto& field : model.fields) {
    if (const auto* other = find_field(dataset, field.name)) {
      compare_fields(field, *other, differences);
    } else {
      differences.push_back(fmt::format("the dataset lacks field '{}'", field.name));
    }
  }
  for (const auto& field : dataset.fields) {
    if (!find_field(model, field.name)) {
      differences.push_back(fmt::format("the dataset has field '{}', which the model lacks", field.name));
    }
  }
  if (differences.empty()) differences.push_back("their fields come in another order");
  return differences;
}

// A schema may have hundreds of fields; the first few differences tell the story.
constexpr std::size_t kShownDifferences = 5;

}  // namespace

void check_fits(const Schema& model, const Schema& dataset) {
  if (model.fingerprint() == dataset.fingerprint()) return;
  const auto differences = differences_of(model, dataset);
  std::string text;
  for (std::size_t i = 0; i < std::min(differences.size(), kShownDifferences); ++i) {
    text.append(i == 0 ? "" : "; ").append(differences[i]);
  }
  if (differences.size() > kShownDifferences) {
    text.append(fmt::format("; and {} more", differences.size() - kShownDifferences));
  }
  fail<DataError>("the dataset does not fit the model: {}", text);
}

}  // namespace afm
