#include "libafm/nn/device_share.h"

#include <utility>

namespace afm::nn {
namespace {

thread_local int64_t runs_here = 1;

}  // namespace

DeviceShareScope::DeviceShareScope(int64_t runs) : before_(std::exchange(runs_here, runs)) {}

DeviceShareScope::~DeviceShareScope() { runs_here = before_; }

int64_t DeviceShareScope::runs() { return runs_here; }

}  // namespace afm::nn
