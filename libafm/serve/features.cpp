#include "libafm/serve/features.h"

#include <algorithm>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm::serve {
namespace {

constexpr int32_t kEmptySlot = -1;

// One block of rows on its way through the fields.
struct Reading {
  const Kernels& kernels;
  const Features& features;
  const FeatureRows& input;
  float* x;
  int64_t stride;
  float* terms;
};

// The mean over the filled slots of a multi-valued field, zero when there are none.
void read_mean(const Reading& reading, std::size_t j, int64_t row, float* values, float* one) {
  const Features& features = reading.features;
  const FieldPlace place{.table = features.places[j].table};
  const int32_t* ids = reading.input.ids + row * features.slots + features.places[j].slot;
  const int64_t width = place.table.width;
  std::fill_n(values, width, 0.0F);
  int64_t filled = 0;
  float wide = 0;
  for (int64_t slot = 0; slot < features.fields[j].slots; ++slot) {
    if (ids[slot] == kEmptySlot) continue;
    reading.kernels.gather(&place, 1, ids + slot, 1, 1, one, width, &wide);
    for (int64_t c = 0; c < width; ++c) values[c] += one[c];
    ++filled;
  }
  if (filled == 0) return;
  const float share = 1.0F / static_cast<float>(filled);
  for (int64_t c = 0; c < width; ++c) values[c] *= share;
  reading.terms[row] += wide * share;
}

bool is_filled(const Reading& reading, std::size_t j, int64_t row) {
  const Features& features = reading.features;
  const int32_t* ids = reading.input.ids + row * features.slots + features.places[j].slot;
  return std::any_of(ids, ids + features.fields[j].slots, [](int32_t id) { return id != kEmptySlot; });
}

// The stored values of all fields, by rows of `stride`.
void read_stored(const Reading& reading, float* values, int64_t stride, float* one) {
  const Features& features = reading.features;
  const FeatureRows& input = reading.input;
  for (std::size_t j = 0; j < features.fields.size(); ++j) {
    if (features.fields[j].multi) {
      float* to = values + features.places[j].column;
      for (int64_t r = 0; r < input.rows; ++r) read_mean(reading, j, r, to + r * stride, one);
      continue;
    }
    const std::size_t begin = j;
    while (j + 1 < features.fields.size() && !features.fields[j + 1].multi) ++j;
    reading.kernels.gather(features.places.data() + begin, static_cast<int64_t>(j + 1 - begin), input.ids,
                           features.slots, input.rows, values, stride, reading.terms);
  }
}

// x = offset + basis' z by rows. A joint wide weight is decoded behind the last value, where the next field, the dense
// features or nothing will come; it is taken from there at once.
void decode(const Reading& reading, std::size_t j, const float* latents, int64_t stride, float* linear_scratch) {
  const Features& features = reading.features;
  const Field& field = features.fields[j];
  float* x = reading.x + field.column;
  const int64_t decoded = static_cast<int64_t>(field.offset.size());
  if (features.places[j].table.width == 0) {
    for (int64_t r = 0; r < reading.input.rows; ++r) std::copy_n(field.offset.data(), decoded, x + r * reading.stride);
  } else {
    reading.kernels.linear(field.decoder.packed(), {.x = latents + features.places[j].column,
                                                    .x_stride = stride,
                                                    .rows = reading.input.rows,
                                                    .bias = field.offset.data(),
                                                    .y = x,
                                                    .y_stride = reading.stride,
                                                    .scratch = linear_scratch});
  }
  for (int64_t r = 0; field.multi && r < reading.input.rows; ++r) {
    if (!is_filled(reading, j, r)) std::fill_n(x + r * reading.stride, decoded, 0.0F);
  }
  for (int64_t r = 0; features.joint && r < reading.input.rows; ++r) {
    reading.terms[r] += x[r * reading.stride + features.dim];
  }
}

void add_presence(const Reading& reading, std::size_t j) {
  float* x = reading.x + reading.features.places[j].column + reading.features.places[j].table.width;
  for (int64_t r = 0; r < reading.input.rows; ++r) x[r * reading.stride] = is_filled(reading, j, r) ? 1.0F : 0.0F;
}

void read_fields(const Reading& reading, Scratch scratch) {
  const Features& features = reading.features;
  float* one = scratch.take(features.widest);
  if (!features.expands) {
    read_stored(reading, reading.x, reading.stride, one);
    for (std::size_t j = 0; j < features.fields.size(); ++j) {
      if (features.fields[j].presence) add_presence(reading, j);
    }
    return;
  }
  const int64_t stride = padded_stride(features.latents);
  float* latents = scratch.take(kLinearRows * stride);
  read_stored(reading, latents, stride, one);
  for (std::size_t j = 0; j < features.fields.size(); ++j) decode(reading, j, latents, stride, scratch.take(0));
}

void add_pairs(const Reading& reading, const Share& share, Scratch scratch) {
  const Features& features = reading.features;
  const int64_t rows = reading.input.rows;
  float* begin = reading.x - features.carried;
  if (share.pairs != nullptr) {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(share.pairs, features.carried, begin + r * reading.stride);
  }
  switch (features.pairs) {
    case Pairs::kNone:
      return;
    case Pairs::kValues:
      return reading.kernels.factorization_machine(begin, reading.stride, rows,
                                                   (features.carried + features.id_width) / features.dim, features.dim,
                                                   scratch.take(features.dim), reading.terms);
    case Pairs::kLatents:
      return reading.kernels.prefix_machine(begin, reading.stride, rows, features.ranks.data(),
                                            static_cast<int64_t>(features.ranks.size()), scratch.take(features.widest),
                                            reading.terms);
    case Pairs::kDecoded:
      return reading.kernels.decoded_machine(reading.x, reading.stride, rows,
                                             {.ranks = features.ranks.data(),
                                              .count = static_cast<int64_t>(features.ranks.size()),
                                              .basis = features.basis.data(),
                                              .dim = features.dim},
                                             share.pairs, reading.terms);
  }
}

}  // namespace

void check_ids(const Features& features, const FeatureRows& input) {
  const int64_t slots = features.slots;
  const auto is_wrong = [&](const int32_t* row, int64_t s) {
    return row[s] < features.lowest[static_cast<std::size_t>(s)] ||
           row[s] > features.highest[static_cast<std::size_t>(s)];
  };
  for (int64_t r = 0; r < input.rows; ++r) {
    const int32_t* row = input.ids + r * slots;
    bool wrong = false;
    for (int64_t s = 0; s < slots; ++s) wrong |= is_wrong(row, s);
    if (!wrong) [[likely]]
      continue;
    int64_t s = 0;
    while (!is_wrong(row, s)) ++s;
    std::size_t j = 0;
    while (s >= features.places[j].slot + features.fields[j].slots) ++j;
    fail<DataError>("field '{}' has id {}, its ids are 0 to {}", features.names[j], row[s],
                    features.highest[static_cast<std::size_t>(s)]);
  }
}

int64_t feature_scratch(const Features& features) {
  const int64_t one = Scratch::padded(features.widest);
  const int64_t of_fields = one + (features.expands ? kLinearRows * padded_stride(features.latents) : 0);
  const int64_t of_pairs = std::max(one, Scratch::padded(features.dim));
  return std::max(of_fields, of_pairs) + Scratch::padded(features.linear_scratch);
}

void read_features(const Kernels& kernels, const Features& features, const FeatureRows& input, const Share& share,
                   float* x, int64_t stride, float* terms, Scratch scratch) {
  const Reading reading{kernels, features, input, x, stride, terms};
  std::fill_n(terms, input.rows, share.constant);
  read_fields(reading, scratch);
  for (int64_t r = 0; r < input.rows && features.dense > 0; ++r) {
    std::copy_n(input.dense + r * features.dense, features.dense, x + r * stride + features.id_width);
  }
  const auto linear = static_cast<int64_t>(features.linear.size());
  for (int64_t r = 0; r < input.rows && linear > 0; ++r) {
    terms[r] += kernels.dot(x + r * stride + features.linear_begin, features.linear.data(), linear);
  }
  add_pairs(reading, share, scratch);
}

void sum_fields(const Kernels& kernels, const Features& features, const float* x, float* sum) {
  if (features.pairs == Pairs::kDecoded) {
    std::fill_n(sum, features.dim, 0.0F);
    const float* basis = features.basis.data();
    for (int64_t c = 0; c < features.id_width; ++c, basis += Scratch::padded(features.dim)) {
      kernels.axpy(x[c], basis, sum, features.dim);
    }
    return;
  }
  std::fill_n(sum, features.sum_width, 0.0F);
  for (std::size_t j = 0; j < features.fields.size(); ++j) {
    const Field& field = features.fields[j];
    const int64_t stored = features.places[j].table.width + (field.presence ? 1 : 0);
    kernels.axpy(1.0F, x + field.column, sum, features.pairs == Pairs::kValues ? features.dim : stored);
  }
}

}  // namespace afm::serve
