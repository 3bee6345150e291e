#pragma once

// Private: how numbers become dense features, for counting and for encoding.

#include <cmath>

#include "libafm/data/schema.h"

namespace afm {

inline bool takes_log(Transform transform) {
  return transform == Transform::kLog || transform == Transform::kLogStandard;
}

// The part of a transform that needs no counted figures.
inline double raw_to_scale(Transform transform, double value) {
  return takes_log(transform) ? std::copysign(std::log1p(std::abs(value)), value) : value;
}

}  // namespace afm
