#include "libafm/train/fit_many.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/device_share.h"
#include "libafm/train/check_options.h"
#include "libafm/train/epoch_loop.h"
#include "libafm/train/lane.h"
#include "libafm/train/memory.h"
#include "libafm/train/progress_relay.h"

namespace afm {
namespace {

using Models = std::vector<std::shared_ptr<Model>>;

// Streams of LibTorch's pool, after which it gives the first again: two runs on one stream could not be recorded.
constexpr int64_t kMostOnGpu = 32;

std::string place_of(int64_t model) { return fmt::format("models[{}]", model); }

// Calls `work`; an exception of it then names the model.
template <typename Work>
auto named(int64_t model, Work work) {
  const std::string place = place_of(model);
  try {
    return work();
  } catch (const DataError& error) {
    fail<DataError>("{}: {}", place, error.what());
  } catch (const FormatError& error) {
    fail<FormatError>("{}: {}", place, error.what());
  } catch (const IoError& error) {
    fail<IoError>("{}: {}", place, error.what());
  } catch (const Error& error) {
    fail<Error>("{}: {}", place, error.what());
  } catch (const std::invalid_argument& error) {
    fail<std::invalid_argument>("{}: {}", place, error.what());
  } catch (c10::Error& error) {
    error.add_context(place);
    throw;
  }
}

// Two models that write to the same weights would read each other's half-done steps.
void check_parameters(const Models& models) {
  std::map<const void*, int64_t> owner_of;
  for (int64_t i = 0; i < std::ssize(models); ++i) {
    for (const auto& item : models[static_cast<std::size_t>(i)]->named_parameters()) {
      const int64_t owner = owner_of.emplace(item.value().unsafeGetTensorImpl(), i).first->second;
      if (owner == i) continue;
      fail<std::invalid_argument>("{} must not share parameters with {}, but both have the same '{}'", place_of(i),
                                  place_of(owner), item.key());
    }
  }
}

void check_together(const Models& models, const std::vector<TrainOptions>& options) {
  std::set<std::string> files;
  for (int64_t i = 0; i < std::ssize(models); ++i) {
    const TrainOptions& own = options[static_cast<std::size_t>(i)];
    for (const auto& teacher : own.teachers) {
      if (std::ranges::find(models, teacher) == models.end()) continue;
      fail<std::invalid_argument>("the teacher of {} must not be one of the models under training", place_of(i));
    }
    if (!own.checkpoint.empty() && !files.insert(own.checkpoint).second) {
      fail<std::invalid_argument>("{}: TrainOptions.checkpoint must be a file of its own, got '{}' again", place_of(i),
                                  own.checkpoint);
    }
    if (device_of(own.device) != device_of(options[0].device)) {
      fail<std::invalid_argument>("{}: TrainOptions.device must be that of the first model, '{}', got '{}'",
                                  place_of(i), options[0].device, own.device);
    }
  }
}

class ManyRuns {
 public:
  ManyRuns(const Models& models, const Dataset& train_set, const Dataset& valid_set,
           const std::vector<TrainOptions>& options, const ManyProgressCallback& on_progress)
      : models_(models),
        options_(options),
        device_(device_of(options[0].device)),
        train_set_(on_device(train_set)),
        valid_set_(on_device(valid_set)),
        relay_(on_progress),
        histories_(models.size()) {
    for (const auto& model : models) model->to(device_);
    wait_for_device();
  }

  std::vector<History> run(int64_t at_once) {
    const int threads = at::get_num_threads();
    const int64_t most = at_once > 0 ? at_once : device_.is_cpu() ? threads : kMostOnGpu;
    const int64_t lanes = std::min(most, static_cast<int64_t>(models_.size()));
    const at::ThreadLocalState callers;
    std::vector<std::thread> workers;
    const Joined joined(workers, threads);
    const auto work_here = [&] {
      const at::ThreadLocalStateGuard as_the_caller(callers);
      at::set_num_threads(std::max(1, static_cast<int>(threads / lanes)));
      const nn::DeviceShareScope share(lanes);
      work();
      relay_.leave();
    };
    try {
      while (std::ssize(workers) < lanes) workers.emplace_back(work_here);
    } catch (const std::system_error&) {
      relay_.stop(std::current_exception());
    }
    relay_.serve(std::ssize(workers));
    return std::move(histories_);
  }

 private:
  // LibTorch keeps a number of threads for each thread, and one for threads to come.
  class Joined {
   public:
    Joined(std::vector<std::thread>& workers, int threads) : workers_(workers), threads_(threads) {}
    ~Joined() {
      for (auto& worker : workers_) worker.join();
      at::set_num_threads(threads_);
    }
    Joined(const Joined&) = delete;
    Joined& operator=(const Joined&) = delete;

   private:
    std::vector<std::thread>& workers_;
    int threads_;
  };

  Dataset on_device(const Dataset& dataset) const {
    return dataset.device() == device_ ? dataset : dataset.to(device_);
  }

  void wait_for_device() const {
    if (device_.is_cuda()) c10::impl::VirtualGuardImpl(device_.type()).getStream(device_).synchronize();
  }

  // A worker: model after model.
  void work() {
    std::optional<c10::StreamGuard> on_stream;
    guarded([&] {
      if (device_.is_cuda()) on_stream.emplace(own_stream());
      for (std::size_t i = next_++; i < models_.size() && !relay_.is_stopped(); i = next_++) {
        const auto model = static_cast<int64_t>(i);
        histories_[i] = named(model, [&] { return fitted(model); });
      }
    });
    guarded([&] { wait_for_device(); });
  }

  template <typename Work>
  void guarded(Work work) {
    try {
      work();
    } catch (const Stopped&) {
    } catch (...) {
      relay_.stop(std::current_exception());
    }
  }

  // Of another pool than those that a step draws from while it is recorded.
  c10::Stream own_stream() const {
    return c10::impl::VirtualGuardImpl(device_.type()).getStreamFromGlobalPool(device_, /*isHighPriority=*/true);
  }

  History fitted(int64_t model) {
    const auto i = static_cast<std::size_t>(model);
    const Lane lane(device_, &launches_);
    const ProgressCallback on_progress = [&](const Progress& progress) { relay_.post(model, progress); };
    std::optional<EpochLoop> loop;
    {
      const std::lock_guard alone(setup_);
      const auto turn = lane.turn();
      loop.emplace(*models_[i], train_set_, valid_set_, options_[i], on_progress, lane);
    }
    return loop->run();
  }

  const Models& models_;
  const std::vector<TrainOptions>& options_;
  at::Device device_;
  Dataset train_set_, valid_set_;
  ProgressRelay relay_;
  std::vector<History> histories_;
  std::atomic<std::size_t> next_ = 0;
  std::mutex setup_;     // teachers may be common
  std::mutex launches_;  // of the lanes
};

}  // namespace

std::vector<History> fit_many(const Models& models, const Dataset& train_set, const Dataset& valid_set,
                              const std::vector<TrainOptions>& options, const ManyProgressCallback& on_progress,
                              int64_t at_once) {
  if (models.size() != options.size()) {
    fail<std::invalid_argument>("fit_many needs options for each of its {} models, got {}", models.size(),
                                options.size());
  }
  if (models.empty()) return {};
  for (std::size_t i = 0; i < models.size(); ++i) {
    named(static_cast<int64_t>(i), [&] { check_run(*models[i], train_set, valid_set, options[i]); });
  }
  if (at_once < 0) fail<std::invalid_argument>("fit_many: at_once must be at least 0, got {}", at_once);
  check_parameters(models);
  check_together(models, options);
  if (device_of(options[0].device).is_cpu()) keep_freed_memory();
  return ManyRuns(models, train_set, valid_set, options, on_progress).run(at_once);
}

}  // namespace afm
