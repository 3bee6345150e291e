#pragma once

// Private: what a model takes over from one that is built differently.

#include "libafm/nn/model.h"

namespace afm {

// Tensors of the same name and shape get the values, precision and device that they have in `from`, all others the
// precision and device of `from`. Notes and training modes too.
void copy_matching(Model& to, const Model& from);

}  // namespace afm
