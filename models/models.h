#pragma once

// The models of libafm, and the table from their names to their builders.

#include "models/dcn.h"
#include "models/deepfm.h"
#include "models/wide_deep.h"
#include "models/zoo.h"
