#include "libafm/cuda/products.h"

#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/numeric_types.h>
#include <algorithm>

#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/operations.hpp>
#include <cutlass/epilogue/fusion/sm90_visitor_compute_tma_warpspecialized.hpp>
#include <cutlass/epilogue/fusion/sm90_visitor_load_tma_warpspecialized.hpp>
#include <cutlass/epilogue/fusion/sm90_visitor_store_tma_warpspecialized.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <cutlass/util/packed_stride.hpp>

#include "libafm/cuda/stripes.h"

namespace afm::cuda {
namespace {

namespace fusion = cutlass::epilogue::fusion;
using cute::_0;
using cute::_1;
using cute::Int;
using Bfloat16 = cutlass::bfloat16_t;
using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;

constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;
constexpr int kAligned = 8;           // values that are loaded at once
constexpr int64_t kNarrowest = 96;    // below it most of a tile is empty
constexpr int64_t kFewRows = 16'384;  // up to here smaller tiles give every multiprocessor work

// The part of the result that a block makes at a time, and how many blocks share what they load. Two groups of warps
// work on one tile together, or in turns, so that one multiplies while the other writes.
template <int rows, int columns, int sharing_blocks, bool in_turns>
struct Tile {
  using Shape = cute::Shape<Int<rows>, Int<columns>, Int<64>>;
  using Cluster = cute::Shape<Int<sharing_blocks>, _1, _1>;
  using Written = cute::Shape<Int<in_turns ? 64 : rows>, Int<32>>;  // at a time
  using Multiplying = cute::conditional_t<in_turns, cutlass::gemm::KernelTmaWarpSpecializedPingpong,
                                          cutlass::gemm::KernelTmaWarpSpecializedCooperative>;
  using Writing = cute::conditional_t<in_turns, cutlass::epilogue::TmaWarpSpecialized,
                                      cutlass::epilogue::TmaWarpSpecializedCooperative>;
};
// The fastest of some thirty on an H200 for layers of 400: benchmarks/RESULTS.md.
using LargeTile = Tile<64, 256, 4, true>;
using SmallTile = Tile<128, 128, 1, true>;
constexpr int kGatedRows = 128, kGatedColumns = 256;
using GatedTile = Tile<kGatedRows, kGatedColumns, 1, false>;
constexpr int kWeightRows = 128, kWeightColumns = 128;
using WeightTile = Tile<kWeightRows, kWeightColumns, 1, false>;
constexpr int64_t kShortestPart = 1024;  // rows of the batch

template <template <class> class Operation, class Result, class... Children>
using Compute = fusion::Sm90EVT<fusion::Sm90Compute<Operation, Result, float, kRound>, Children...>;
using Sum = fusion::Sm90AccFetch;

// relu(sum + bias)
template <class Shape>
using BiasRelu = Compute<cutlass::epilogue::thread::ReLu, Bfloat16,
                         Compute<cutlass::plus, float, Sum,
                                 fusion::Sm90RowBroadcast<0, Shape, float, float, cute::Stride<_0, _1, int64_t>, 4>>>;

// The gradient where the gate is positive.
template <class T>
struct Through {
  CUTLASS_DEVICE T operator()(const T& gradient, const T& gate) const { return gate > T(0) ? gradient : T(0); }
};
template <class T, int kCount>
struct Through<cutlass::Array<T, kCount>> {
  using Values = cutlass::Array<T, kCount>;
  CUTLASS_DEVICE Values operator()(const Values& gradient, const Values& gate) const {
    Values result;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < kCount; ++i) result[i] = Through<T>{}(gradient[i], gate[i]);
    return result;
  }
};

// Every block leaves the sums over its rows.
template <class Shape>
using GateAndSums =
    fusion::Sm90EVT<fusion::Sm90RowReduction<cutlass::plus, cutlass::plus, cutlass::plus, 0, Shape, float, float,
                                             kRound, cute::Stride<_0, _1, int64_t>, 4, /*EnableNullptr=*/true,
                                             /*FinalReduction=*/false>,
                    Compute<Through, float, Sum, fusion::Sm90SrcFetch<Bfloat16>>>;

template <class Shape>
using Unchanged = Compute<cutlass::epilogue::thread::Identity, float, Sum>;

// D [batches, rows, columns] of A [batches, rows, k], B [batches, k, columns] and, unless void, a source C like D.
template <class LayoutA, class LayoutB, class Source, class Result, class Tile, template <class> class Fusion>
struct Product {
  using Shape = typename Tile::Shape;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Shape, typename Tile::Cluster, typename Tile::Written, float,
      float, Source, RowMajor, kAligned, Result, RowMajor, 16 / sizeof(Result), typename Tile::Writing,
      Fusion<Shape>>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Bfloat16, LayoutA, kAligned, Bfloat16, LayoutB, kAligned,
      float, Shape, typename Tile::Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Epilogue::SharedStorage))>,
      typename Tile::Multiplying>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>, Mainloop, Epilogue>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
  using FusionArguments = typename Epilogue::FusionCallbacks::Arguments;

  struct Matrices {
    int64_t rows, columns, k, batches, runs;
    const void *a, *b, *c;
    void* d;
  };

  static Status run(const Matrices& of, const FusionArguments& fused, Stream stream) {
    const int m = static_cast<int>(of.rows), n = static_cast<int>(of.columns), k = static_cast<int>(of.k),
              l = static_cast<int>(of.batches);
    const auto stride_a = cutlass::make_cute_packed_stride(typename Kernel::StrideA{}, {m, k, l});
    const auto stride_b = cutlass::make_cute_packed_stride(typename Kernel::StrideB{}, {n, k, l});
    const auto stride_d = cutlass::make_cute_packed_stride(typename Kernel::StrideD{}, {m, n, l});
    typename Kernel::StrideC stride_c{};
    if constexpr (!cute::is_void_v<Source>) stride_c = stride_d;
    const typename Gemm::Arguments arguments{
        cutlass::gemm::GemmUniversalMode::kGemm,
        {m, n, k, l},
        {static_cast<const Bfloat16*>(of.a), stride_a, static_cast<const Bfloat16*>(of.b), stride_b},
        {fused, static_cast<const Bfloat16*>(of.c), stride_c, static_cast<Result*>(of.d), stride_d},
        part_of_device(of.runs)};
    Gemm gemm;
    if (gemm.can_implement(arguments) != cutlass::Status::kSuccess) return cudaErrorInvalidValue;
    if (gemm.initialize(arguments, nullptr, stream) == cutlass::Status::kSuccess &&
        gemm.run(stream) == cutlass::Status::kSuccess) {
      return cudaSuccess;
    }
    const auto status = cudaGetLastError();
    return status != cudaSuccess ? status : cudaErrorUnknown;
  }

 private:
  // Runs side by side are in a product about half of their time.
  static cutlass::KernelHardwareInfo part_of_device(int64_t runs) {
    cutlass::KernelHardwareInfo device;
    cudaGetDevice(&device.device_id);
    cudaDeviceGetAttribute(&device.sm_count, cudaDevAttrMultiProcessorCount, device.device_id);
    if (runs > 2) device.sm_count = std::max(static_cast<int>(2 * device.sm_count / runs), 4);
    return device;
  }
};

using GatedProduct = Product<RowMajor, RowMajor, Bfloat16, Bfloat16, GatedTile, GateAndSums>;
using PlainProduct = Product<RowMajor, RowMajor, void, Bfloat16, GatedTile, Unchanged>;
using WeightProduct = Product<ColumnMajor, RowMajor, void, float, WeightTile, Unchanged>;

template <class Tile>
Status forward(const LayerForward& task, Stream stream) {
  const LayerShape& shape = task.shape;
  return Product<RowMajor, ColumnMajor, void, Bfloat16, Tile, BiasRelu>::run(
      {shape.rows, shape.outputs, shape.inputs, 1, shape.runs, task.x, task.weight, nullptr, task.y},
      {{{}, {task.bias, 0.0F, {}}, {}}, {}}, stream);
}

int64_t tiles_of(int64_t size, int64_t tile) { return (size + tile - 1) / tile; }
int64_t padded_columns(int64_t columns) { return tiles_of(columns, kGatedColumns) * kGatedColumns; }

int64_t attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, which, device);
  return value;
}

// Parts of the batch whose products are made apart, so that there are tiles for the multiprocessors; 0 where no even
// division gives a good part of them work.
int64_t weight_parts(const LayerShape& shape) {
  const int64_t tiles = tiles_of(shape.outputs, kWeightRows) * tiles_of(shape.inputs, kWeightColumns);
  const int64_t blocks = attribute(cudaDevAttrMultiProcessorCount);
  int64_t parts = 1;
  while (2 * parts * tiles <= blocks && shape.rows % (2 * parts) == 0 && shape.rows / (2 * parts) >= kShortestPart) {
    parts *= 2;
  }
  return tiles <= blocks && 5 * parts * tiles >= 2 * blocks ? parts : 0;
}

}  // namespace

bool has_products(const LayerShape& shape) {
  const auto fits = [](int64_t width) { return width >= kNarrowest && width % kAligned == 0 && width < INT32_MAX; };
  return shape.rows > 0 && shape.rows < INT32_MAX && fits(shape.inputs) && fits(shape.outputs) &&
         attribute(cudaDevAttrComputeCapabilityMajor) == 9 && attribute(cudaDevAttrComputeCapabilityMinor) == 0;
}

Status layer_forward(const LayerForward& task, Stream stream) {
  return task.shape.rows > kFewRows ? forward<LargeTile>(task, stream) : forward<SmallTile>(task, stream);
}

size_t layer_gradient_scratch(const LayerShape& shape) {
  return static_cast<size_t>(tiles_of(shape.rows, kGatedRows) * padded_columns(shape.inputs)) * sizeof(float);
}

Status layer_gradient(const LayerGradient& task, Stream stream) {
  const LayerShape& shape = task.shape;
  if (task.x == nullptr) {
    return PlainProduct::run(
        {shape.rows, shape.inputs, shape.outputs, 1, shape.runs, task.gradient, task.weight, nullptr, task.to_z},
        {{}, {}}, stream);
  }
  auto* parts = static_cast<float*>(task.scratch);
  const Status status = GatedProduct::run(
      {shape.rows, shape.inputs, shape.outputs, 1, shape.runs, task.gradient, task.weight, task.x, task.to_z},
      {{{}, {}, {}}, {parts, 0.0F, {}}}, stream);
  if (status != cudaSuccess) return status;
  return sum_parts(parts, tiles_of(shape.rows, kGatedRows), padded_columns(shape.inputs), shape.inputs, task.sums,
                   stream);
}

bool has_input_gradient(const LayerShape& shape) { return has_products(shape) && shape.rows <= kFewRows; }

bool has_weight_gradient(const LayerShape& shape) { return has_input_gradient(shape) && weight_parts(shape) > 0; }

size_t weight_gradient_scratch(const LayerShape& shape) {
  return static_cast<size_t>(weight_parts(shape) * shape.outputs * shape.inputs) * sizeof(float);
}

Status layer_weight_gradient(const LayerWeightGradient& task, Stream stream) {
  const LayerShape& shape = task.shape;
  const int64_t parts = weight_parts(shape), count = shape.outputs * shape.inputs;
  auto* sums = static_cast<float*>(task.scratch);
  const Status status = WeightProduct::run(
      {shape.outputs, shape.inputs, shape.rows / parts, parts, shape.runs, task.gradient, task.x, nullptr, sums},
      {{}, {}}, stream);
  if (status != cudaSuccess) return status;
  return sum_parts(sums, parts, count, count, task.to_weight, stream);
}

}  // namespace afm::cuda
