// A network ready to run: weights packed for one instruction set, and the walk over its blocks.
//
// The same bits come out for any number of threads: each sum is taken in an order that the sizes alone decide.
#pragma once

#include <memory>
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "plan.h"
#include "threads.h"

namespace effnet {

// Squeeze-excite sums its inputs in this many parts, whatever the number of threads.
constexpr int kChunks = 8;

// One dimension of a convolution.
struct Axis {
  int in, out, before;  // before: padding at the start
  int window;           // columns of the padded input that the outputs see
  int inside;           // of those, columns of the input
  Axis(int in, int kernel, int stride, bool same);
};

// B of a product, cut into panels of a few vectors, each packed as a tile reads it.
struct Matrix {
  struct Panel {
    int channel, width;
    const float* weights;
  };
  int taps = 0, depth = 0;  // rows: taps · depth
  std::vector<Panel> panels;
  Buffer weights, bias;
};

// Inner channels of a block that go through the ring together: some panels of its first product.
struct Slice {
  int channel, width;
  int first_panel, last_panel;  // none if the block does not expand
};

struct Layer {
  Op op;
  std::vector<Slice> slices;
  Matrix first;   // expansion, k × k convolution, stem, head or classifier
  Matrix planar;  // of the stem: for input whose channels lie in planes
  Matrix project;
  Buffer depthwise, depthwise_bias, reduce, reduce_bias, gate, gate_bias;
};

// What the size of the image decides.
struct LayerShape {
  Axis rows, columns;
  bool by_rows;           // threads share the rows, else the channels
  bool project_by_panel;  // threads share the projection's output channels, else its rows
  bool scale_weights;     // the gates scale the projection's weights, else its input
  bool whole;             // the whole block row by row: its inner map is never stored
  int group;              // output rows that are projected together
};

struct Shape {
  int height, width;
  std::vector<LayerShape> layers;
  double macs = 0;
  // Floats of the largest buffer of each kind
  size_t map = 0, feature_map = 0, middle = 0, sums = 0, ring = 0, input = 0, scaled = 0, group = 0, zeros = 0,
         channels = 0;
};

enum class InputKind : int {
  kBytes = 0,
  kFloats = 1,
  kPlanes = 2
};  // (H, W, C) of bytes or floats; normalized (C, H, W)

struct Image {
  InputKind kind;
  const void* data;
  const float *scale, *shift;  // per channel, of kBytes and kFloats: value · scale + shift
};

struct Outputs {
  float* logits = nullptr;
  float* embedding = nullptr;
  float* const* features = nullptr;  // (rows, columns, channels) each
};

// Memory for one image that is computed, by the whole team or by one thread.
struct Workspace {
  struct Scratch {  // of one thread
    Buffer ring, input, scaled, group, gates, squeezed;
    std::vector<const float*> taps;
    std::vector<int> produced;
  };
  Buffer maps[2], middle, sums, means, gates, partial, pooled, logits, zeros;
  std::vector<Scratch> scratch;
  Barrier barrier;
};

class Network {
 public:
  Network(const Plan& plan, const Kernels& kernels);

  std::shared_ptr<const Shape> make_shape(int height, int width) const;
  void feature_shape(int index, int height, int width, int* shape) const;
  void reserve(Workspace& workspace, const Shape& shape, int members, bool features) const;
  // One member's part of an image; all members of the team call it with the same arguments.
  void run(const Shape& shape, Workspace& workspace, int member, int members, const Image& image,
           const Outputs& out) const;

  const Kernels& kernels;
  int channels, classes, embedding, features = 0;

 private:
  friend class Pass;
  Matrix pack(const float* weights, const float* bias, int taps, int depth, int columns, float weight_scale,
              float bias_scale, bool half) const;
  Layer pack_layer(const Op& op) const;
  bool stem_is_produced() const;

  ActivationCall activation_;
  float scale_;  // activated values are this many times what they are
  std::vector<Layer> layers_;
};

}  // namespace effnet
