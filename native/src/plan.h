// A plan: the network as a flat list of layers with their weights, batch norm folded, as Python wrote it.
//
// `ops` holds kOpFields integers a layer, `weights` the layers' tensors one after another in the order given at `Op`.
// Both come from a file or a caller that is not trusted: everything is checked before it is used.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace effnet {

// A message for the caller: what is wrong with the arguments.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class OpKind : int32_t { kStem = 0, kMBConv = 1, kFused = 2, kHead = 3, kClassifier = 4 };

// Tensors of each kind, in this order; a convolution's last axis is its output channels:
//   stem        kernel (k, k, inputs, outputs), bias
//   mbconv      [expansion (inputs, middle), bias]  depthwise (k, k, middle), bias
//               [reduce (middle, squeezed), bias, gate (squeezed, middle), bias]  projection (middle, outputs), bias
//   fused       kernel (k, k, inputs, middle or outputs), bias  [squeeze-excite]  [projection, bias]
//   head        (inputs, outputs), bias
//   classifier  (inputs, outputs), bias
struct Op {
  OpKind kind;
  int inputs, middle, outputs;  // middle: channels inside the block; 0 of the others
  int kernel, stride, squeezed;
  bool expands;  // mbconv: has an expansion; fused: has a projection
  bool residual;
  bool same;    // 'same' padding as TensorFlow's, else kernel / 2 on every side
  int feature;  // the map after it is number feature - 1 of features(); 0: none
  std::vector<const float*> tensors;
};

constexpr int kOpFields = 12;

struct Plan {
  std::vector<Op> ops;
  bool silu = false;
  float low = 0, high = 0;  // of the clamp, if not silu
  int channels = 0, classes = 0, embedding = 0;
};

// Reads and checks a plan; throws Error. activation: 0 ReLU, 1 SiLU, 2 ReLU6. The tensors point into `weights`.
Plan read_plan(const int32_t* ops, int64_t op_fields, int activation, const float* weights, int64_t weight_count);

}  // namespace effnet
