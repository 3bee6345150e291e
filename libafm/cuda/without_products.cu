#include "libafm/cuda/products.h"

// A build without CUTLASS.

#include <cuda_runtime.h>

namespace afm::cuda {

bool has_products(const LayerShape&) { return false; }
Status layer_forward(const LayerForward&, Stream) { return cudaErrorNotSupported; }
size_t layer_gradient_scratch(const LayerShape&) { return 0; }
Status layer_gradient(const LayerGradient&, Stream) { return cudaErrorNotSupported; }
bool has_input_gradient(const LayerShape&) { return false; }
bool has_weight_gradient(const LayerShape&) { return false; }
size_t weight_gradient_scratch(const LayerShape&) { return 0; }
Status layer_weight_gradient(const LayerWeightGradient&, Stream) { return cudaErrorNotSupported; }

}  // namespace afm::cuda
