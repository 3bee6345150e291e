#pragma once

// Private: a model as the steps that score it, and their execution on one block of rows.

#include <cstdint>
#include <vector>

#include "libafm/serve/features.h"
#include "libafm/serve/kernels.h"
#include "libafm/serve/scratch.h"

namespace afm::serve {

// y = act(W x + bias). Without columns the bias alone.
struct Step {
  Matrix matrix;
  std::vector<float> bias;
  bool relu = false;
};

// Layers one after the other. Where the first one reads features, its matrix is in Features::first and empty here.
using Chain = std::vector<Step>;

enum class Cross {
  kNone,
  kScalars,  // one number per row and layer: output a_L p_L + shift_L (nn/latent_interaction.h), head included
  kVector,   // the vector form before a head that is not linear: x_L = a_L x_0 + sum
  kMatrix,
};

// What comes behind the features; knows no field.
struct Program {
  float constant = 0;  // of every logit
  Chain mlp;           // ends with one output that adds to the logit, or before `head`
  Chain wide;          // the same for first-order terms of dense features that are not linear; mostly absent
  Cross cross = Cross::kNone;
  std::vector<Chain> cross_layers;  // kMatrix: [L]; kScalars, kVector: one of one step, all dot products
  std::vector<float> shift;         // kScalars [L + 1], kVector [L]
  std::vector<float> sum;           // kVector [n]: what the layers add to a_L x_0
  Chain head;                       // kVector, kMatrix: reads [x_L, mlp]
  int64_t width = 0;                // n, columns of all features
  int64_t mlp_width = 0;            // of what `head` reads behind x_L
  int64_t widest = 0;               // outputs of a step, at most
  int64_t linear_scratch = 0;       // floats that any of the matrices asks for

  // The chain that begins with Features::first[i].
  const Chain& reader(int i) const;
  bool joins() const { return cross == Cross::kVector || cross == Cross::kMatrix; }
};

// Floats of scratch for a block of rows.
int64_t program_scratch(const Program& program, const Features& features);

// What the other part of a split adds; by default nothing, which scores rows of all fields.
struct Given {
  Share share;
  const float* row = nullptr;  // [n] a row of all features that holds those of the other part; where the program joins
};

// logits [rows] of at most kLinearRows rows, whose ids were checked.
void run(const Kernels& kernels, const Program& program, const Features& features, const FeatureRows& input,
         const Given& given, float* logits, Scratch scratch);

// Computes what one row of a part adds to the rows of the other part, into pieces of `kept`: see Note [Shares].
int64_t share_scratch(const Program& program, const Features& features);
Given share_of(const Kernels& kernels, const Program& program, const Features& features, const FeatureRows& row,
               Scratch& kept);

}  // namespace afm::serve
