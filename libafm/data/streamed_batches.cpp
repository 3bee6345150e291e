#include "libafm/data/streamed_batches.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace afm {
namespace {

constexpr unsigned kMostThreads = 8;

int64_t aligned(int64_t words) { return (words + 63) / 64 * 64; }

c10::Stream stream_for_copies(at::Device device) {
  const c10::impl::VirtualGuardImpl guard(device.type());
  return device.is_cpu() ? guard.getStream(device) : guard.getStreamFromGlobalPool(device);
}

unsigned thread_count() { return std::clamp(std::thread::hardware_concurrency(), 2U, kMostThreads + 1) - 1; }

template <typename Value>
void copy_row(const Value* from, int64_t row, int64_t width, Value* to) {
  std::copy_n(from + row * width, width, to);
}

}  // namespace

StreamedBatches::StreamedBatches(const Dataset& dataset, at::Device device, int64_t batch_size)
    : batch_size_(std::min(batch_size, dataset.size())),
      slots_(dataset.schema().slot_count()),
      dense_count_(dataset.schema().dense_count()),
      first_dense_(aligned(batch_size_ * slots_)),
      first_label_(first_dense_ + aligned(batch_size_ * dense_count_)),
      device_(device),
      ends_(dataset.starts_.begin() + 1, dataset.starts_.end()),
      copy_stream_(stream_for_copies(device)) {
  for (const Batch& shard : dataset.shards_) {
    shards_.push_back({shard.ids.const_data_ptr<int32_t>(), shard.dense.const_data_ptr<float>(),
                       shard.label.const_data_ptr<float>()});
  }
  const auto words = at::TensorOptions(at::kInt);
  const int64_t size = first_label_ + batch_size_;
  for (HostSlot& slot : host_) slot.words = at::empty({size}, words.pinned_memory(!device.is_cpu()));
  current_ = at::empty({size}, words.device(device));
  if (device.is_cpu()) return;
  for (std::size_t i = 0; i < kDeviceSlots; ++i) {
    device_slots_.push_back(
        {at::empty({size}, words.device(device)), c10::Event(device.type()), c10::Event(device.type())});
  }
}

StreamedBatches::~StreamedBatches() { stop(); }

void StreamedBatches::start(const at::Tensor& order) {
  stop();
  order_ = order.contiguous();
  batches_ = (order_.size(0) + batch_size_ - 1) / batch_size_;
  claimed_ = sent_ = taken_ = 0;
  stopping_ = false;
  for (HostSlot& slot : host_) {
    slot.batch = -1;
    slot.ready = false;
  }
  for (DeviceSlot& slot : device_slots_) slot.used.record(current_stream());
  for (unsigned i = 0; i < thread_count(); ++i) threads_.emplace_back([this] { work(); });
}

void StreamedBatches::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  freed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  if (!device_.is_cpu()) copy_stream_.synchronize();
}

// Touches host memory alone: a call to the device from here would spoil a step that is being recorded.
void StreamedBatches::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    freed_.wait(lock, [&] { return stopping_ || claimed_ == batches_ || host_slot(claimed_).batch < 0; });
    if (stopping_ || claimed_ == batches_) return;
    const int64_t batch = claimed_++;
    HostSlot& slot = host_slot(batch);
    slot.batch = batch;
    lock.unlock();
    const int64_t first = batch * batch_size_;
    gather(order_.const_data_ptr<int64_t>() + first, std::min(batch_size_, order_.size(0) - first),
           slot.words.mutable_data_ptr<int32_t>());
    lock.lock();
    slot.ready = true;
    filled_.notify_all();
  }
}

void StreamedBatches::gather(const int64_t* rows, int64_t count, int32_t* words) const {
  auto* dense = reinterpret_cast<float*>(words + first_dense_);
  auto* label = reinterpret_cast<float*>(words + first_label_);
  for (int64_t i = 0; i < count; ++i) {
    const auto shard = static_cast<std::size_t>(std::ranges::upper_bound(ends_, rows[i]) - ends_.begin());
    const int64_t row = rows[i] - (shard == 0 ? 0 : ends_[shard - 1]);
    copy_row(shards_[shard].ids, row, slots_, words + i * slots_);
    copy_row(shards_[shard].dense, row, dense_count_, dense + i * dense_count_);
    label[i] = shards_[shard].label[row];
  }
}

Batch StreamedBatches::views(const at::Tensor& words, int64_t rows) const {
  const at::Tensor dense = words.narrow(0, first_dense_, batch_size_ * dense_count_).view(at::kFloat);
  const at::Tensor label = words.narrow(0, first_label_, batch_size_).view(at::kFloat);
  return {.ids = words.narrow(0, 0, batch_size_ * slots_).view({batch_size_, slots_}).narrow(0, 0, rows),
          .dense = dense.view({batch_size_, dense_count_}).narrow(0, 0, rows),
          .label = label.narrow(0, 0, rows)};
}

bool StreamedBatches::is_ready(int64_t batch, bool wait) {
  std::unique_lock lock(mutex_);
  const HostSlot& slot = host_slot(batch);
  const auto ready = [&] { return slot.batch == batch && slot.ready; };
  if (wait) filled_.wait(lock, ready);
  return ready();
}

void StreamedBatches::release(int64_t batch) {
  {
    const std::lock_guard lock(mutex_);
    host_slot(batch).batch = -1;
    host_slot(batch).ready = false;
  }
  freed_.notify_all();
}

void StreamedBatches::send(int64_t batch) {
  DeviceSlot& slot = device_slot(batch);
  // The batch that was here before has left: its pinned memory is free again.
  if (batch >= static_cast<int64_t>(kDeviceSlots)) {
    slot.copied.synchronize();
    release(batch - static_cast<int64_t>(kDeviceSlots));
  }
  slot.used.block(copy_stream_);
  const c10::StreamGuard guard(copy_stream_);
  slot.words.copy_(host_slot(batch).words, /*non_blocking=*/true);
  slot.copied.record(copy_stream_);
  ++sent_;
}

c10::Stream StreamedBatches::current_stream() const {
  return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
}

Batch StreamedBatches::next() {
  const int64_t batch = taken_++, rows = std::min(batch_size_, order_.size(0) - batch * batch_size_);
  if (device_.is_cpu()) {
    is_ready(batch, /*wait=*/true);
    current_.copy_(host_slot(batch).words);
    release(batch);
    return views(current_, rows);
  }
  for (; sent_ < std::min(batch + static_cast<int64_t>(kDeviceSlots), batches_); send(sent_)) {
    if (!is_ready(sent_, /*wait=*/sent_ == batch)) break;
  }
  const c10::Stream stream = current_stream();
  DeviceSlot& slot = device_slot(batch);
  slot.copied.block(stream);
  current_.copy_(slot.words, /*non_blocking=*/true);
  slot.used.record(stream);
  return views(current_, rows);
}

}  // namespace afm
