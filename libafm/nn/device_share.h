#pragma once

// Private: with how many others a thread's models share a GPU.

#include <cstdint>

namespace afm::nn {

// Within the scope, the layers that this thread calls leave room on the device for those of `runs` runs in all, itself
// among them. Only how work is laid out changes, no number.
class DeviceShareScope {
 public:
  explicit DeviceShareScope(int64_t runs);
  ~DeviceShareScope();
  DeviceShareScope(const DeviceShareScope&) = delete;
  DeviceShareScope& operator=(const DeviceShareScope&) = delete;

  static int64_t runs();  // 1 outside any scope

 private:
  int64_t before_;
};

}  // namespace afm::nn
