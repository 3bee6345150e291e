#include "libafm/data/batch_stream.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include "libafm/core/fail.h"

namespace afm {
namespace {

// splitmix64: neighbouring seeds and epochs give unrelated orders.
uint64_t mixed(uint64_t seed, uint64_t epoch) {
  uint64_t value = seed * 0x9e3779b97f4a7c15ULL + epoch + 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

// A GPU draws the order of few rows as the CPU does, and that of many itself: the CPU takes 15 ns a row.
constexpr int64_t kRowsOrderedOnCpu = int64_t{1} << 20;

// Memory for an order that goes on to `device`.
at::Tensor host_order(int64_t rows, at::Device device) {
  return at::empty({rows}, at::TensorOptions(at::kLong).pinned_memory(device.is_cuda()));
}

// Touches host memory alone: a call to the device from a thread beside the run could spoil a step being recorded.
at::Tensor drawn(at::Tensor order, uint64_t seed) {
  return at::randperm_out(order, order.size(0), at::make_generator<at::CPUGeneratorImpl>(seed));
}

at::Tensor drawn_by(at::Device device, int64_t rows, uint64_t seed) {
  auto generator = at::detail::getCUDAHooks().getNewGenerator(device.index());
  generator.set_current_seed(seed);
  return at::randperm(rows, generator, at::TensorOptions(at::kLong).device(device));
}

// Of pinned memory, without waiting for the device.
at::Tensor moved(const at::Tensor& order, at::Device device) { return order.to(device, /*non_blocking=*/true); }

}  // namespace

BatchStream::BatchStream(const Dataset& dataset, BatchOptions options)
    : BatchStream(dataset, options, dataset.device()) {}

BatchStream::BatchStream(const Dataset& dataset, BatchOptions options, at::Device device)
    : dataset_(&dataset), options_(options), device_(device) {
  if (options_.batch_size < 1) {
    fail<std::invalid_argument>("BatchOptions.batch_size must be at least 1, got {}", options_.batch_size);
  }
  if (batches() == 0) {
    fail<std::invalid_argument>(
        "BatchOptions.batch_size must be at most the {} rows of the dataset with drop_last, got {}", dataset.size(),
        options_.batch_size);
  }
}

int64_t BatchStream::batches() const {
  const auto whole = dataset_->size() / options_.batch_size;
  return options_.drop_last || dataset_->size() % options_.batch_size == 0 ? whole : whole + 1;
}

void BatchStream::start_epoch(int64_t epoch, int64_t batch) {
  if (epoch < 0) fail<std::invalid_argument>("BatchStream: epoch must be at least 0, got {}", epoch);
  if (batch < 0 || batch > batches()) {
    fail<std::invalid_argument>("BatchStream: batch must be in [0, {}], got {}", batches(), batch);
  }
  epoch_ = epoch;
  next_ = batch;
  const bool is_drawn = ahead_.order.valid() && ahead_.epoch == epoch;
  order_ = is_drawn ? moved(ahead_.order.get(), device_) : at::Tensor();
}

void BatchStream::prepare(int64_t epoch) {
  const int64_t rows = dataset_->size();
  if (!options_.shuffle || rows > kRowsOrderedOnCpu) return;
  ahead_ = {epoch, std::async(std::launch::async, drawn, host_order(rows, device_), seed_of(epoch))};
}

std::optional<Batch> BatchStream::next() {
  if (!advance()) return std::nullopt;
  if (options_.shuffle) return gather(index_);
  const auto begin = (next_ - 1) * options_.batch_size;
  return dataset_->range(begin, begin + index_.size(0));
}

bool BatchStream::advance() {
  if (next_ >= batches()) return false;
  const auto begin = next_ * options_.batch_size;
  const auto end = std::min(begin + options_.batch_size, dataset_->size());
  ++next_;
  index_ = visited(begin, end);
  return true;
}

at::Tensor BatchStream::order() {
  const auto end = options_.drop_last ? batches() * options_.batch_size : dataset_->size();
  return visited(std::min(next_ * options_.batch_size, end), end);
}

uint64_t BatchStream::seed_of(int64_t epoch) const {
  return mixed(static_cast<uint64_t>(options_.seed), static_cast<uint64_t>(epoch));
}

at::Tensor BatchStream::visited(int64_t begin, int64_t end) {
  if (!options_.shuffle) return at::arange(begin, end, at::TensorOptions(at::kLong).device(device_));
  if (!order_.defined()) {
    const int64_t rows = dataset_->size();
    order_ = device_.is_cuda() && rows > kRowsOrderedOnCpu
                 ? drawn_by(device_, rows, seed_of(epoch_))
                 : moved(drawn(host_order(rows, device_), seed_of(epoch_)), device_);
  }
  return order_.slice(0, begin, end);
}

}  // namespace afm
