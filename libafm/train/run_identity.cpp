#include "libafm/train/run_identity.h"

#include <memory>
#include <stdexcept>
#include <string>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/options_json.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/model_file.h"

namespace afm {
namespace {

using nlohmann::json;

// Hash of every weight and buffer: a teacher has no name that would tell it from another.
std::string digest_of(const Model& model) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  for (const auto& [name, tensor] : state_of(model)) {
    const at::Tensor bytes = tensor.detach().cpu().contiguous();
    XXH3_64bits_update(hash.get(), name.data(), name.size());
    XXH3_64bits_update(hash.get(), bytes.const_data_ptr(), bytes.nbytes());
  }
  return fmt::format("{:016x}", XXH3_64bits_digest(hash.get()));
}

json digests_of(const std::vector<std::shared_ptr<Model>>& models) {
  json digests = json::array();
  for (const auto& model : models) digests.push_back(digest_of(*model));
  return digests;
}

json deciding_options(const TrainOptions& options) {
  json fields = to_json(options);
  for (const char* name :
       {"device", "cuda_graph", "deterministic", "data", "checkpoint", "checkpoint_seconds", "resume"})
    fields.erase(name);
  // A run may be prolonged, unless the learning rate was bound to its end.
  if (options.schedule != Schedule::kLinear) fields.erase("epochs");
  return fields;
}

std::string shown(const json& object, const std::string& key) {
  const auto found = object.find(key);
  if (found == object.end()) return "absent";
  return found->is_string() ? found->get<std::string>() : found->dump();
}

}  // namespace

RunIdentity identity_of(const Model& model, const Dataset& train_set, const Dataset& valid_set,
                        const TrainOptions& options) {
  return {deciding_options(options),
          {{"model", std::string(model.kind())},
           {"options", model.options_json()},
           {"ranks", json::parse(plan_to_json(nn::rank_plan_of(model))).dump()},
           {"schema", model.schema().fingerprint()},
           {"teachers", digests_of(options.teachers)},
           {"training rows", train_set.size()},
           {"validation rows", valid_set.size()}}};
}

void check_same(const RunIdentity& now, const RunIdentity& saved, std::string_view where) {
  for (const auto& item : now.run.items()) {
    const auto there = shown(saved.run, item.key()), here = shown(now.run, item.key());
    if (there != here) {
      fail<DataError>("{} belongs to another run: its {} must be {}, got {}", where, item.key(), here, there);
    }
  }
  for (const auto& item : now.options.items()) {
    const auto there = shown(saved.options, item.key()), here = shown(now.options, item.key());
    if (there != here) {
      fail<std::invalid_argument>("TrainOptions.{} must be {} to go on from {}, got {}", item.key(), there, where,
                                  here);
    }
  }
}

}  // namespace afm
