// Any text as a schema and as a rank plan: refused, or one that its own text gives back.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "libafm/core/error.h"
#include "libafm/data/schema.h"
#include "libafm/nn/rank_plan.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_schema(std::string_view text) {
  const afm::Schema schema = afm::schema_from_json(text);
  const afm::Schema again = afm::schema_from_json(afm::schema_to_json(schema));
  require(again == schema && again.fingerprint() == schema.fingerprint());
  afm::check_counted(schema);
  require(schema.slot_count() >= 0 && schema.dense_count() >= 0);
}

void check_plan(std::string_view text) {
  const afm::RankPlan plan = afm::plan_from_json(text);
  require(afm::plan_from_json(afm::plan_to_json(plan)) == plan);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto check : {check_schema, check_plan}) {
    try {
      check(text);
    } catch (const afm::Error&) {
    }
  }
  return 0;
}
