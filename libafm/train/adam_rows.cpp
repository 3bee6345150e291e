#include "libafm/train/adam_rows.h"

#include <algorithm>
#include <cstring>

#include "libafm/nn/vectorized.h"

namespace afm {
namespace {

constexpr int kLanes = 16;
constexpr int64_t kRowsAhead = 6;

// Part of a row, padded with zeros, which every step leaves zero: its loops have a length that the compiler knows.
struct Lanes {
  float parameter[kLanes], mean[kLanes], square[kLanes];
};

[[gnu::always_inline]] inline void load(const float* from, int64_t count, float* to) {
  if (count == kLanes) {
    std::memcpy(to, from, sizeof(float) * kLanes);
    return;
  }
  for (int i = 0; i < kLanes; ++i) to[i] = i < count ? from[i] : 0.0F;
}

[[gnu::always_inline]] inline void store(const float* from, int64_t count, float* to) {
  if (count == kLanes) {
    std::memcpy(to, from, sizeof(float) * kLanes);
    return;
  }
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

[[gnu::always_inline]] inline void load(const AdamTable& table, int64_t at, int64_t count, Lanes& lanes) {
  load(table.parameters + at, count, lanes.parameter);
  load(table.means + at, count, lanes.mean);
  load(table.squares + at, count, lanes.square);
}

[[gnu::always_inline]] inline void store(const AdamTable& table, int64_t at, int64_t count, const Lanes& lanes) {
  store(lanes.parameter, count, table.parameters + at);
  store(lanes.mean, count, table.means + at);
  store(lanes.square, count, table.squares + at);
}

[[gnu::always_inline]] inline void step_lanes(Lanes& lanes, const float* gradient, float l2, AdamStep step) {
  for (int i = 0; i < kLanes; ++i) {
    take_step(lanes.parameter[i], lanes.mean[i], lanes.square[i], gradient[i], l2, step);
  }
}

[[gnu::always_inline]] inline void skip_lanes(Lanes& lanes, const MissedSteps& missed, AdamDecay decay) {
  for (int i = 0; i < kLanes; ++i) {
    skip_steps(lanes.parameter[i], lanes.mean[i], lanes.square[i], missed, decay);
  }
}

[[gnu::always_inline]] inline void prefetch(const AdamTable& table, const nn::TouchedRow& row) {
  constexpr int64_t kFloatsPerLine = 16;
  for (int64_t c = 0; c < row.size + kFloatsPerLine - 1; c += kFloatsPerLine) {
    const int64_t at = row.start + std::min(c, row.size - 1);
    __builtin_prefetch(table.parameters + at, 1);
    __builtin_prefetch(table.means + at, 1);
    __builtin_prefetch(table.squares + at, 1);
  }
}

// What a row has missed: some steps one by one, and the rest at once.
struct Missed {
  const AdamStep* steps;
  int64_t count;
  const MissedSteps* rest;  // null: none
  AdamDecay decay;
};

Missed missed_by(const AdamTable& table, const StepHistory& history, int64_t row) {
  static const Powers mean_decay(kAdamBeta1), square_decay(kAdamBeta2);
  const int64_t done = table.behind[row], steps = history.steps();
  const int64_t exact = table.l2 != 0 ? steps : std::clamp(kExactSteps, done, steps);
  Missed missed{history.step(done + 1), exact - done, nullptr, {}};
  if (exact == steps) return missed;
  missed.rest = &history.missed_since(exact);
  missed.decay = {static_cast<float>(mean_decay(steps - exact)), static_cast<float>(square_decay(steps - exact))};
  return missed;
}

[[gnu::always_inline]] inline void catch_up_row(const AdamTable& table, const nn::TouchedRow& row,
                                                const Missed& missed) {
  constexpr float kZeros[kLanes] = {};
  for (int64_t c = 0; c < row.size; c += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, row.size - c);
    Lanes lanes;
    load(table, row.start + c, count, lanes);
    for (int64_t t = 0; t < missed.count; ++t) step_lanes(lanes, kZeros, table.l2, missed.steps[t]);
    if (missed.rest != nullptr) skip_lanes(lanes, *missed.rest, missed.decay);
    store(table, row.start + c, count, lanes);
  }
}

}  // namespace

AFM_VECTORIZED void catch_up(const AdamTable& table, const StepHistory& history, const nn::TouchedRow* rows,
                             int64_t count) {
  const int64_t steps = history.steps();
  for (int64_t i = 0; i < count; ++i) {
    prefetch(table, rows[std::min(i + kRowsAhead, count - 1)]);
    const int64_t number = rows[i].number;
    if (owes_nothing(table, number, steps)) continue;
    catch_up_row(table, rows[i], missed_by(table, history, number));
    table.behind[number] = static_cast<int32_t>(steps);
  }
}

AFM_VECTORIZED void step_rows(const AdamTable& table, AdamStep step, int64_t steps, const nn::TouchedRow* rows,
                              int64_t count, const float* gradients) {
  for (int64_t i = 0; i < count; ++i) {
    prefetch(table, rows[std::min(i + kRowsAhead, count - 1)]);
    const nn::TouchedRow& row = rows[i];
    for (int64_t c = 0; c < row.size; c += kLanes) {
      const int64_t width = std::min<int64_t>(kLanes, row.size - c);
      Lanes lanes;
      float gradient[kLanes];
      load(table, row.start + c, width, lanes);
      load(gradients + row.gradient + c, width, gradient);
      step_lanes(lanes, gradient, table.l2, step);
      store(table, row.start + c, width, lanes);
    }
    table.behind[row.number] = static_cast<int32_t>(steps);
  }
}

}  // namespace afm
