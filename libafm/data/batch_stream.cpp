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

at::Tensor random_order(int64_t rows, at::Device device, uint64_t seed) {
  if (!device.is_cuda() || rows <= kRowsOrderedOnCpu) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    return at::randperm(rows, generator, at::TensorOptions(at::kLong)).to(device);
  }
  auto generator = at::detail::getCUDAHooks().getNewGenerator(device.index());
  generator.set_current_seed(seed);
  return at::randperm(rows, generator, at::TensorOptions(at::kLong).device(device));
}

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
  order_ = at::Tensor();
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

at::Tensor BatchStream::visited(int64_t begin, int64_t end) {
  if (!options_.shuffle) return at::arange(begin, end, at::TensorOptions(at::kLong).device(device_));
  if (!order_.defined()) {
    order_ = random_order(dataset_->size(), device_,
                          mixed(static_cast<uint64_t>(options_.seed), static_cast<uint64_t>(epoch_)));
  }
  return order_.slice(0, begin, end);
}

}  // namespace afm
