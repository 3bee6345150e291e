#include "libafm/train/graphed_step.h"

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

namespace afm {
namespace {

// Libraries choose their kernels, and gradients get their memory, before anything is recorded.
constexpr int kCallsBeforeRecording = 3;

class CudaGraphStep final : public GraphedStep {
 public:
  explicit CudaGraphStep(at::Device device)
      : device_(device), stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}

  // Recording needs a stream of its own; it waits for the caller's, and the caller's for it.
  void run(torch::nn::Module& model, const std::function<void()>& step) override {
    const c10::cuda::CUDAStream caller = c10::cuda::getCurrentCUDAStream(device_.index());
    before_.record(caller);
    before_.block(stream_);
    {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      if (state_ == State::kRefused || ++calls_ <= kCallsBeforeRecording) {
        step();
      } else {
        record(model, step);
      }
    }
    after_.record(stream_);
    after_.block(caller);
  }

  bool is_recorded() const override { return state_ == State::kRecorded; }
  void replay() override { graph_->replay(); }

 private:
  enum class State { kWarming, kRecorded, kRefused };

  void record(torch::nn::Module& model, const std::function<void()>& step) {
    for (auto& parameter : model.parameters()) parameter.mutable_grad() = at::Tensor();
    graph_ = std::make_unique<at::cuda::CUDAGraph>();
    stream_.synchronize();
    graph_->capture_begin(/*pool=*/{0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      step();
      graph_->capture_end();
      state_ = State::kRecorded;
    } catch (const c10::Error&) {
      state_ = State::kRefused;
    }
    if (state_ == State::kRecorded) return graph_->replay();
    give_up();
    for (auto& parameter : model.parameters()) parameter.mutable_grad() = at::Tensor();
    step();
  }

  // A failed recording leaves the stream recording.
  void give_up() {
    try {
      graph_->capture_end();
    } catch (const c10::Error&) {
      cudaGetLastError();
    }
    graph_.reset();
  }

  at::Device device_;
  c10::cuda::CUDAStream stream_;
  at::cuda::CUDAEvent before_, after_;
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
  State state_ = State::kWarming;
  int calls_ = 0;
};

}  // namespace

std::unique_ptr<GraphedStep> GraphedStep::make(at::Device device) { return std::make_unique<CudaGraphStep>(device); }

}  // namespace afm
