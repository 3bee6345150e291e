#include "libafm/serve/request.h"

#include <charconv>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/json_text.h"
#include "libafm/core/safetensors.h"
#include "libafm/data/transform.h"
#include "libafm/serve/vocabulary.h"

namespace afm::serve {
namespace {

constexpr int32_t kEmpty = -1;  // a slot of a multi-valued field without a value
constexpr double kExactIntegers = 9007199254740992.0;

struct RequestField {
  FieldSpec spec;
  StoredVocabulary vocabulary;  // of no size for a numeric field
  int64_t place = 0;            // first slot, or column of the dense features
};

// A number as the text that a table would hold.
class NumberText {
 public:
  explicit NumberText(double value) {
    const bool is_integer = std::abs(value) < kExactIntegers && value == std::trunc(value);
    const auto result = is_integer ? std::to_chars(text_, text_ + sizeof(text_), static_cast<int64_t>(value))
                                   : std::to_chars(text_, text_ + sizeof(text_), value);
    size_ = static_cast<std::size_t>(result.ptr - text_);
  }
  std::string_view view() const { return {text_, size_}; }

 private:
  char text_[32];
  std::size_t size_ = 0;
};

double number_of(const FieldSpec& spec, std::string_view text) {
  if (text.empty()) return std::nan("");
  double number = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) {
    fail<DataError>("field '{}' must be a finite number, or empty where it is missing, got '{}'", spec.name, text);
  }
  return number;
}

// As afm::Encoder::encode_numeric.
float dense_of(const FieldSpec& spec, double raw) {
  if (std::isinf(raw)) fail<DataError>("field '{}' must be finite, got {}", spec.name, raw);
  const double value = std::isnan(raw) ? spec.fill : raw;
  const auto dense = static_cast<float>((raw_to_scale(spec.transform, value) - spec.mean) / spec.scale);
  if (!std::isfinite(dense)) fail<DataError>("field '{}': {} is beyond float32 after the transform", spec.name, value);
  return dense;
}

// Where the features of one row go.
struct EncodedRow {
  int32_t* ids;
  float* dense;
};

void put_missing(const RequestField& field, const EncodedRow& row) {
  if (field.spec.kind == FieldKind::kNumeric) {
    row.dense[field.place] = dense_of(field.spec, std::nan(""));
    return;
  }
  std::fill_n(row.ids + field.place, field.spec.slots(), field.spec.kind == FieldKind::kMulti ? kEmpty : 0);
}

// The parts of a text into the slots from `slot` on; the next free one. As afm::Encoder::encode_multi.
int64_t put_parts(const RequestField& field, std::string_view rest, int64_t slot, const EncodedRow& row) {
  const std::string& separator = field.spec.separator;
  while (slot < field.spec.slots() && !rest.empty()) {
    const auto end = std::min(rest.find(separator), rest.size());
    if (end > 0) row.ids[field.place + slot++] = field.vocabulary.id_of(rest.substr(0, end));
    rest.remove_prefix(std::min(rest.size(), end + separator.size()));
  }
  return slot;
}

void put_text(const RequestField& field, std::string_view text, const EncodedRow& row) {
  if (field.spec.kind == FieldKind::kCategorical) {
    row.ids[field.place] = field.vocabulary.id_of(text);
  } else if (field.spec.kind == FieldKind::kNumeric) {
    row.dense[field.place] = dense_of(field.spec, number_of(field.spec, text));
  } else {
    std::fill_n(row.ids + field.place, field.spec.slots(), kEmpty);
    put_parts(field, text, 0, row);
  }
}

void put_number(const RequestField& field, double number, const EncodedRow& row) {
  if (field.spec.kind == FieldKind::kNumeric) {
    row.dense[field.place] = dense_of(field.spec, number);
  } else if (std::isnan(number)) {
    put_missing(field, row);
  } else {
    put_text(field, NumberText(number).view(), row);
  }
}

void put(const RequestField& field, const Value& value, const EncodedRow& row) {
  switch (value.kind) {
    case Value::Kind::kMissing:
      return put_missing(field, row);
    case Value::Kind::kText:
      return put_text(field, value.text, row);
    case Value::Kind::kNumber:
      return put_number(field, value.number, row);
  }
}

}  // namespace

struct RequestEncoder::State {
  SafetensorsFile file;
  std::vector<RequestField> fields;
  std::map<std::string, std::size_t, std::less<>> by_name;
  int64_t slots = 0, dense = 0;
};

namespace {

// Reads one JSON object, value by value.
class RequestReader : public JsonEvents {
 public:
  using Names = std::map<std::string, std::size_t, std::less<>>;
  RequestReader(const std::vector<RequestField>& fields, const Names& names, EncodedRow row)
      : fields_(fields), names_(names), row_(row), seen_(fields.size(), false) {}

  bool null() override {
    need_field("a value");
    return in_list_ || (put_missing(*field_, row_), true);
  }
  bool boolean(bool value) override {
    need_field("a value");
    if (field_->spec.kind == FieldKind::kNumeric) return number(value ? 1.0 : 0.0);
    return text(value ? "true" : "false");
  }
  bool number_integer(number_integer_t value) override { return integer(value); }
  bool number_unsigned(number_unsigned_t value) override { return integer(value); }
  bool number_float(number_float_t value, const string_t& written) override {
    need_field("a value");
    return field_->spec.kind == FieldKind::kNumeric ? number(value) : text(written);
  }
  bool string(string_t& value) override {
    need_field("a value");
    return text(value);
  }
  bool binary(binary_t&) override { return false; }  // JSON text has none
  bool start_object(std::size_t) override {
    if (is_open_) refuse("an object");
    return is_open_ = true;
  }
  bool key(string_t& name) override {
    const auto found = names_.find(name);
    if (found == names_.end()) fail<DataError>("a request has a field '{}' that the schema lacks", name);
    field_ = &fields_[found->second];
    if (seen_[found->second]) fail<DataError>("a request has the field '{}' twice", name);
    return seen_[found->second] = true;
  }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override {
    need_field("a list");
    if (in_list_ || field_->spec.kind != FieldKind::kMulti) refuse("a list");
    put_missing(*field_, row_);
    slot_ = 0;
    return in_list_ = true;
  }
  bool end_array() override {
    in_list_ = false;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    fail<DataError>("a request must be a JSON object: {}", error.what());
  }

 private:
  void need_field(std::string_view found) const {
    if (field_ == nullptr) fail<DataError>("a request must be a JSON object, got {}", found);
  }
  [[noreturn]] void refuse(std::string_view found) const {
    need_field(found);
    fail<DataError>("field '{}' must be a text or a number{}, got {}", field_->spec.name,
                    field_->spec.kind == FieldKind::kMulti ? ", or a list of them" : "", found);
  }
  bool text(std::string_view value) {
    if (in_list_) {
      slot_ = put_parts(*field_, value, slot_, row_);
    } else {
      put_text(*field_, value, row_);
    }
    return true;
  }
  bool number(double value) {
    put_number(*field_, value, row_);
    return true;
  }
  bool integer(auto value) {
    need_field("a value");
    if (field_->spec.kind == FieldKind::kNumeric) return number(static_cast<double>(value));
    char digits[24];
    return text({digits, std::to_chars(digits, digits + sizeof(digits), value).ptr});
  }

  const std::vector<RequestField>& fields_;
  const Names& names_;
  EncodedRow row_;
  std::vector<bool> seen_;
  const RequestField* field_ = nullptr;  // of the value that comes next
  bool is_open_ = false, in_list_ = false;
  int64_t slot_ = 0;  // next one of a list
};

}  // namespace

RequestEncoder::RequestEncoder(const SafetensorsFile& file, const Schema& schema) {
  auto state = std::make_unique<State>();
  state->file = file;
  for (const FieldSpec& spec : schema.fields) {
    const bool has_ids = spec.has_ids();
    state->by_name.emplace(spec.name, state->fields.size());
    state->fields.push_back({.spec = spec,
                             .vocabulary = has_ids ? StoredVocabulary(file, spec) : StoredVocabulary(),
                             .place = has_ids ? state->slots : state->dense});
    state->slots += spec.slots();
    state->dense += has_ids ? 0 : 1;
  }
  state_ = std::move(state);
}

RequestEncoder::~RequestEncoder() = default;
RequestEncoder::RequestEncoder(RequestEncoder&&) noexcept = default;
RequestEncoder& RequestEncoder::operator=(RequestEncoder&&) noexcept = default;

bool RequestEncoder::is_in(const SafetensorsFile& file) { return file.metadata().contains("vocabulary"); }

void RequestEncoder::encode(std::span<const Value> request, int32_t* ids, float* dense) const {
  if (request.size() != state_->fields.size()) {
    fail<DataError>("a request must have {} values, one per field of the schema, got {}", state_->fields.size(),
                    request.size());
  }
  for (std::size_t i = 0; i < request.size(); ++i) put(state_->fields[i], request[i], {ids, dense});
}

void RequestEncoder::encode_json(std::string_view request, int32_t* ids, float* dense) const {
  const EncodedRow row{ids, dense};
  for (const RequestField& field : state_->fields) put_missing(field, row);
  RequestReader reader(state_->fields, state_->by_name, row);
  read_json(request, reader);
}

int64_t RequestEncoder::slot_count() const { return state_->slots; }
int64_t RequestEncoder::dense_count() const { return state_->dense; }

}  // namespace afm::serve
