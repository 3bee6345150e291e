#pragma once

// Private: batches of a dataset that stays on the CPU (mapped files), for a model on a GPU. Threads gather the rows of
// the next batches into pinned memory; each is copied on a stream of its own while the batches before are worked on.
//
//   StreamedBatches batches(dataset, device, 4096);
//   batches.start(order);                        // [n] int64 on the CPU: the rows to visit, 4096 at a time
//   while (...) step(batches.next());

#include <array>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include "libafm/data/dataset.h"

namespace afm {

class StreamedBatches {
 public:
  // The dataset, on the CPU, must outlive it.
  StreamedBatches(const Dataset& dataset, at::Device device, int64_t batch_size);
  ~StreamedBatches();
  StreamedBatches(const StreamedBatches&) = delete;
  StreamedBatches& operator=(const StreamedBatches&) = delete;

  // Forgets what was under way. Trusts the order.
  void start(const at::Tensor& order);
  // The next batch, always at the same place on the device: work on it that is queued on the current stream is done
  // before the batch after it is written there. REQUIRES: start() has rows left.
  Batch next();

 private:
  static constexpr std::size_t kHostSlots = 12, kDeviceSlots = 2;

  struct Shard {
    const int32_t* ids;
    const float* dense;
    const float* label;
  };
  // One batch as 32-bit words: ids [B, S], dense [B, Q] and label [B], each from a multiple of 256 bytes on.
  struct HostSlot {
    at::Tensor words;
    int64_t batch = -1;  // that it holds, or that a thread is gathering into it; -1: free
    bool ready = false;
  };
  struct DeviceSlot {
    at::Tensor words;
    c10::Event copied, used;
  };

  void stop();
  void work();
  void gather(const int64_t* rows, int64_t count, int32_t* words) const;
  Batch views(const at::Tensor& words, int64_t rows) const;
  HostSlot& host_slot(int64_t batch) { return host_[static_cast<std::size_t>(batch) % kHostSlots]; }
  DeviceSlot& device_slot(int64_t batch) { return device_slots_[static_cast<std::size_t>(batch) % kDeviceSlots]; }
  c10::Stream current_stream() const;
  bool is_ready(int64_t batch, bool wait);
  void send(int64_t batch);
  void release(int64_t batch);

  int64_t batch_size_, slots_, dense_count_, batches_ = 0;
  int64_t first_dense_, first_label_;  // words
  at::Device device_;
  std::vector<Shard> shards_;
  std::vector<int64_t> ends_;  // first row behind each shard
  at::Tensor order_, current_;
  std::array<HostSlot, kHostSlots> host_;
  std::vector<DeviceSlot> device_slots_;  // none on the CPU
  c10::Stream copy_stream_;

  std::mutex mutex_;
  std::condition_variable freed_, filled_;
  bool stopping_ = false;
  int64_t claimed_ = 0;           // batches that a thread has taken on
  int64_t sent_ = 0, taken_ = 0;  // batches copied to the device, and given out: of the caller's thread alone
  std::vector<std::thread> threads_;
};

}  // namespace afm
