#include "libafm/train/data_place.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include "libafm/core/fail.h"

namespace afm {
namespace {

constexpr int64_t kRoomForAStep = int64_t{2} << 30;
constexpr int64_t kCopiesOfModel = 5;  // itself, gradients, two moments, the best weights

int64_t bytes_of(const Dataset& rows) {
  return rows.size() * (rows.schema().slot_count() + rows.schema().dense_count() + 1) * 4;
}

// The allocator gives it back to whoever asks next.
bool has_room(int64_t bytes, at::Device device) {
  try {
    at::empty({bytes}, at::TensorOptions(device).dtype(at::kByte));
    return true;
  } catch (const c10::OutOfMemoryError&) {
    return false;
  }
}

}  // namespace

bool streams_rows(const TrainOptions& options, const Model& model, const Dataset& train_set, at::Device device) {
  if (device.is_cpu() || options.data == DataPlace::kResident) return false;
  const bool on_cpu = train_set.device().is_cpu();
  if (options.data == DataPlace::kAuto) {
    return on_cpu && !has_room(bytes_of(train_set) + kCopiesOfModel * byte_count(model) + kRoomForAStep, device);
  }
  if (on_cpu) return true;
  fail<std::invalid_argument>("TrainOptions.data must be auto or resident for rows on a GPU, got streamed");
}

}  // namespace afm
