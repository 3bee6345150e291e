#include "benchmarks/load_rows.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/ATen.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

namespace afm::load {
namespace {

using Json = nlohmann::ordered_json;

class RowMaker {
 public:
  RowMaker(const Encoder& encoder, uint32_t seed) : encoder_(encoder), random_(seed) {}

  // Appends to ids and dense what the encoder makes of the row that is returned.
  std::string next(std::vector<int32_t>& ids, std::vector<float>& dense) {
    Json request = Json::object();
    std::size_t vocabulary = 0;
    const std::vector<FieldSpec>& fields = encoder_.schema().fields;
    for (std::size_t j = 0; j < fields.size(); ++j) {
      const auto field = static_cast<int64_t>(j);
      if (!fields[j].has_ids()) {
        add_number(field, request[fields[j].name], dense);
        continue;
      }
      const auto& values = encoder_.vocabularies()[vocabulary++].values;
      fields[j].kind == FieldKind::kMulti ? add_texts(field, values, request[fields[j].name], ids)
                                          : add_text(field, values, request[fields[j].name], ids);
    }
    return request.dump();
  }

 private:
  void add_number(int64_t field, Json& value, std::vector<float>& dense) {
    const bool missing = random_() % 16 == 0;
    const double number = missing ? std::nan("") : std::lognormal_distribution<double>(1.0, 2.0)(random_);
    if (!missing) value = number;
    encoder_.encode_numeric(field, {&number, 1}, {&dense.emplace_back(), 1});
  }

  void add_text(int64_t field, const std::vector<std::string>& values, Json& value, std::vector<int32_t>& ids) {
    const std::string text = random_text(values);
    if (!text.empty()) value = text;
    const std::string_view view = text;
    encoder_.encode_categorical(field, {&view, 1}, {&ids.emplace_back(), 1});
  }

  void add_texts(int64_t field, const std::vector<std::string>& values, Json& value, std::vector<int32_t>& ids) {
    const FieldSpec& spec = encoder_.schema().fields[static_cast<std::size_t>(field)];
    const auto slots = static_cast<std::size_t>(spec.slots());
    std::string joined;
    for (auto count = random_() % (slots + 2); count > 0; --count) joined += random_text(values) + spec.separator;
    value = joined;
    const std::string_view view = joined;
    ids.resize(ids.size() + slots);
    encoder_.encode_multi(field, {&view, 1}, std::span(ids).last(slots));
  }

  std::string random_text(const std::vector<std::string>& values) {
    if (random_() % 16 == 0) return {};
    if (values.empty() || random_() % 16 == 0) return "value " + std::to_string(random_() % 1000);
    return values[random_() % values.size()];
  }

  const Encoder& encoder_;
  std::mt19937 random_;
};

}  // namespace

Rows random_rows(Model& model, const Encoder& encoder, int64_t count, uint32_t seed) {
  Rows rows;
  RowMaker maker(encoder, seed);
  for (int64_t i = 0; i < count; ++i) rows.texts.push_back(maker.next(rows.ids, rows.dense));
  const torch::NoGradGuard no_grad;
  const at::Tensor logits =
      model
          .forward({.ids = at::tensor(rows.ids, at::kInt).view({count, model.schema().slot_count()}),
                    .dense = at::tensor(rows.dense, at::kFloat).view({count, model.schema().dense_count()}),
                    .label = {}})
          .to(at::kFloat)
          .contiguous();
  rows.logits.assign(logits.const_data_ptr<float>(), logits.const_data_ptr<float>() + count);
  return rows;
}

}  // namespace afm::load
