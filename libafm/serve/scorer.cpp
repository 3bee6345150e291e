#include "libafm/serve/scorer.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <system_error>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/fields.h"
#include "libafm/serve/scorer_state.h"

namespace afm::serve {
namespace {

Simd chosen_simd(const ScorerOptions& options) {
  const Simd best = best_simd();
  if (!options.simd) return best;
  if (*options.simd > best) {
    fail<std::invalid_argument>("ScorerOptions.simd must be at most {} on this processor, got {}", name_of(best),
                                name_of(*options.simd));
  }
  return *options.simd;
}

int64_t size_of_file(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

int64_t bytes_of(const Chain& chain) {
  int64_t bytes = 0;
  for (const Step& step : chain) bytes += step.matrix.bytes() + static_cast<int64_t>(step.bias.size() * sizeof(float));
  return bytes;
}

int64_t bytes_of(const Features& features) {
  int64_t bytes = 0;
  for (const Matrix& first : features.first) bytes += first.bytes();
  for (const Field& field : features.fields) bytes += field.decoder.bytes();
  return bytes + static_cast<int64_t>((features.basis.size() + features.linear.size()) * sizeof(float));
}

int64_t bytes_of(const Program& program) {
  int64_t bytes = bytes_of(program.mlp) + bytes_of(program.wide) + bytes_of(program.head);
  for (const Chain& chain : program.cross_layers) bytes += bytes_of(chain);
  return bytes;
}

Choice all_fields(const Schema& schema) { return {.chosen = std::vector<bool>(schema.fields.size(), true)}; }

}  // namespace

ScorerState::ScorerState(const SafetensorsFile& mapped, const ScorerOptions& options)
    : tensors(mapped), header(read_model_header(mapped)), simd(chosen_simd(options)), kernels(&serve::kernels(simd)) {
  embedding = read_embedding(tensors, header, keeps_wide_weights(header));
  const Blueprint blueprint = read_blueprint(tensors, header, embedding);
  tensors.refuse_rest();
  program = program_of(blueprint);
  features = features_of(blueprint, header, embedding, all_fields(header.schema));
  if (RequestEncoder::is_in(mapped)) encoder = std::make_unique<const RequestEncoder>(mapped, header.schema);
  scratch = program_scratch(program, features);
  file_bytes = size_of_file(mapped.path());
  prepared_bytes =
      bytes_of(program) + bytes_of(features) + static_cast<int64_t>(embedding.floats.owned.size() * sizeof(float));
  golden_rows = check_golden_rows(*this);
  tensors.release_copied();
}

void score_rows(const ScorerState& state, const FeatureRows& rows, float* logits) {
  const Scratch scratch = thread_scratch(state.scratch);
  const Features& features = state.features;
  const Given given{.share = {.constant = state.program.constant}};
  for (int64_t first = 0; first < rows.rows; first += kLinearRows) {
    const FeatureRows block{rows.ids + first * features.slots,
                            features.dense > 0 ? rows.dense + first * features.dense : nullptr,
                            std::min(kLinearRows, rows.rows - first)};
    check_ids(features, block);
    run(*state.kernels, state.program, features, block, given, logits + first, scratch);
  }
}

void apply_sigmoid(float* logits, int64_t count) {
  for (int64_t i = 0; i < count; ++i) logits[i] = 1.0F / (1.0F + std::exp(-logits[i]));
}

Scorer Scorer::open(const std::filesystem::path& path, const ScorerOptions& options) {
  const auto file = SafetensorsFile::open(path);
  if (options.verify) file.verify();
  Scorer scorer;
  try {
    scorer.state_ = std::make_shared<const ScorerState>(file, options);
  } catch (const FormatError& error) {
    const std::string name = fmt::format("'{}'", path.string());
    if (std::string_view(error.what()).starts_with(name)) throw;
    fail<FormatError>("{} cannot be scored: {}", name, error.what());
  }
  return scorer;
}

void Scorer::score(const int32_t* ids, const float* dense, int64_t rows, float* logits) const {
  score_rows(*state_, {ids, dense, rows}, logits);
}

void Scorer::probabilities(const int32_t* ids, const float* dense, int64_t rows, float* out) const {
  score(ids, dense, rows, out);
  apply_sigmoid(out, rows);
}

const Schema& Scorer::schema() const { return state_->header.schema; }
std::string_view Scorer::model() const { return name_of(state_->header.kind); }
const RankPlan& Scorer::plan() const { return state_->header.plan; }
Simd Scorer::simd() const { return state_->simd; }
int64_t Scorer::slot_count() const { return state_->features.slots; }
int64_t Scorer::dense_count() const { return state_->features.dense; }
int64_t Scorer::golden_rows() const { return state_->golden_rows; }
int64_t Scorer::file_bytes() const { return state_->file_bytes; }
int64_t Scorer::prepared_bytes() const { return state_->prepared_bytes; }

}  // namespace afm::serve
