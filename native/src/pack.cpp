// Packing: from the plan's tensors to panels, and the sizes of everything for an image size.
#include <algorithm>
#include <limits>

#include "network.h"

namespace effnet {

namespace {

// By rows from this many output rows: below, the rows that neighbours compute twice cost more than sharing channels
// does.
constexpr int kRowsToShare = 20;
// Below this many pixels a panel's weights are read more often than its inputs, so that threads share the panels.
constexpr int kPixelsToShare = 100;

// Channels that go through a ring together: more make it leave the first cache, fewer read the input more often.
constexpr int kSliceChannels = 2 * kUnit;

Buffer copy_padded(const float* values, int count, float scale = 1) {
  Buffer out(padded(count));
  for (int i = 0; i < count; ++i) out.data()[i] = values[i] * scale;
  return out;
}

// (rows, columns) -> (rows, padded columns)
Buffer copy_rows(const float* values, int rows, int columns, float scale) {
  const int width = padded(columns);
  Buffer out(static_cast<size_t>(rows) * width);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c)
      out.data()[static_cast<size_t>(r) * width + c] = values[static_cast<size_t>(r) * columns + c] * scale;
  return out;
}

// (rows, columns) -> (units of columns, rows, kUnit)
Buffer copy_units(const float* values, int rows, int columns, float scale) {
  Buffer out(static_cast<size_t>(rows) * padded(columns));
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; ++c)
      out.data()[(static_cast<size_t>(c / kUnit) * rows + r) * kUnit + c % kUnit] =
          values[static_cast<size_t>(r) * columns + c] * scale;
  return out;
}

std::vector<Slice> slice(int channels, const std::vector<Matrix::Panel>& panels) {
  std::vector<Slice> slices;
  size_t panel = 0;
  for (int channel = 0; channel < channels; channel += kSliceChannels) {
    const int width = std::min(kSliceChannels, channels - channel), first = static_cast<int>(panel);
    while (panel < panels.size() && panels[panel].channel < channel + width) ++panel;
    slices.push_back({channel, width, first, static_cast<int>(panel)});
  }
  return slices;
}

}  // namespace

Axis::Axis(int in, int kernel, int stride, bool same) : in(in), out((in - 1) / stride + 1), before(kernel / 2) {
  if (same) before = std::max((out - 1) * stride + kernel - in, 0) / 2;
  window = (out - 1) * stride + kernel;
  inside = std::min(in, window - before);
}

Matrix Network::pack(const float* weights, const float* bias, int taps, int depth, int columns, float weight_scale,
                     float bias_scale, bool half) const {
  Matrix matrix;
  matrix.taps = taps, matrix.depth = depth;
  matrix.bias = copy_padded(bias, columns, bias_scale);
  const int lanes = kernels.lanes, rows = taps * depth;
  // With half vectors, columns are padded to a multiple of 8 instead of a vector
  const bool halves = half && kernels.half_lanes && columns > lanes && (columns - 1) % lanes < lanes / 2;
  int vectors = halves ? columns / lanes : padded(columns) / lanes;
  const int total = vectors * lanes + (halves ? lanes / 2 : 0);
  matrix.weights = Buffer(static_cast<size_t>(rows) * total);
  float* next = matrix.weights.data();
  int channel = 0;
  const auto add_panel = [&](int width) {
    matrix.panels.push_back({channel, width, next});
    const int used = std::min(width, columns - channel);
    for (int r = 0; r < rows; ++r, next += width)
      for (int c = 0; c < used; ++c) next[c] = weights[static_cast<size_t>(r) * columns + channel + c] * weight_scale;
    channel += width;
  };
  if (halves) --vectors;
  for (; vectors;) {
    const int take = std::min(vectors, kernels.panel_vectors);
    add_panel(take * lanes);
    vectors -= take;
  }
  if (halves) add_panel(lanes + lanes / 2);
  return matrix;
}

Network::Network(const Plan& plan, const Kernels& kernels)
    : kernels(kernels), channels(plan.channels), classes(plan.classes), embedding(plan.embedding) {
  scale_ = plan.silu ? kSiluScale : 1;
  activation_ = {plan.silu ? Activation::kSilu : Activation::kClamp, plan.low, plan.high, 1 / scale_};
  for (const Op& op : plan.ops) {
    layers_.push_back(pack_layer(op));
    Layer& layer = layers_.back();
    layer.slices = slice(padded(op.kind == OpKind::kStem ? op.outputs : op.middle), layer.first.panels);
    features = std::max(features, op.feature);
  }
}

// Where values are scaled (see kernels/activation.h): after each activation; not between blocks.
Layer Network::pack_layer(const Op& op) const {
  Layer layer;
  layer.op = op;
  layer.op.tensors.clear();
  size_t next = 0;
  const auto tensor = [&] { return op.tensors[next++]; };
  const float s = scale_, unscale = 1 / scale_;
  const int k = op.kernel;
  const float* weights = tensor();
  switch (op.kind) {
    case OpKind::kStem: {
      const float* bias = tensor();
      layer.first = pack(weights, bias, k, k * op.inputs, op.outputs, s, s, false);
      // (k, k, inputs, outputs) -> (inputs, k, k, outputs)
      std::vector<float> planar(static_cast<size_t>(k) * k * op.inputs * op.outputs);
      for (int ky = 0; ky < k; ++ky)
        for (int kx = 0; kx < k; ++kx)
          for (int c = 0; c < op.inputs; ++c)
            std::copy_n(weights + (static_cast<size_t>(ky * k + kx) * op.inputs + c) * op.outputs, op.outputs,
                        planar.data() + (static_cast<size_t>(c * k + ky) * k + kx) * op.outputs);
      layer.planar = pack(planar.data(), bias, op.inputs * k, k, op.outputs, s, s, false);
      return layer;
    }
    case OpKind::kHead:
      layer.first = pack(weights, tensor(), 1, op.inputs, op.outputs, s, s, false);
      return layer;
    case OpKind::kClassifier:  // its input is the mean of unscaled values
      layer.first = pack(weights, tensor(), 1, op.inputs, op.outputs, 1, 1, false);
      return layer;
    case OpKind::kMBConv:
      if (op.expands) {
        layer.first = pack(weights, tensor(), 1, op.inputs, op.middle, s, s, false);
        weights = tensor();
      }
      layer.depthwise = copy_units(weights, k * k, op.middle, op.expands ? 1 : s);
      layer.depthwise_bias = copy_padded(tensor(), op.middle, s);
      break;
    case OpKind::kFused:
      layer.first = pack(weights, tensor(), k, k * op.inputs, op.middle, s, s, false);
  }
  if (op.squeezed) {
    weights = tensor();
    layer.reduce = copy_rows(weights, op.middle, op.squeezed, unscale);
    layer.reduce_bias = copy_padded(tensor(), op.squeezed);
    weights = tensor();
    layer.gate = copy_units(weights, op.squeezed, op.middle, 1);
    layer.gate_bias = copy_padded(tensor(), op.middle);
  }
  if (op.kind == OpKind::kMBConv || op.expands) {
    weights = tensor();
    layer.project = pack(weights, tensor(), 1, op.middle, op.outputs, unscale, 1, true);
  }
  return layer;
}

// Multiply-adds of a layer, without squeeze-excite.
static double layer_macs(const Op& op, const LayerShape& s) {
  const double in = static_cast<double>(s.rows.in) * s.columns.in,
               out = static_cast<double>(s.rows.out) * s.columns.out;
  const double k = static_cast<double>(op.kernel) * op.kernel;
  switch (op.kind) {
    case OpKind::kMBConv:
      return (op.expands ? in * op.inputs * op.middle : 0) + out * op.middle * (k + op.outputs);
    case OpKind::kFused:
      return out * op.middle * (k * op.inputs + (op.expands ? op.outputs : 0));
    case OpKind::kClassifier:
      return static_cast<double>(op.inputs) * op.outputs;
    default:
      return out * k * op.inputs * op.outputs;
  }
}

// Whether the first block makes the stem's rows as it needs them, so that the stem's map, the largest of all, is never
// stored: if that block has no expansion, and does not add its input.
bool Network::stem_is_produced() const {
  const Op& first = layers_[1].op;
  return first.kind == OpKind::kMBConv && !first.expands && !first.residual;
}

std::shared_ptr<const Shape> Network::make_shape(int height, int width) const {
  auto shape = std::make_shared<Shape>();
  shape->height = height, shape->width = width;
  const auto grow = [](size_t& most, size_t floats) { most = std::max(most, floats); };
  int rows = height, columns = width;
  for (const Layer& layer : layers_) {
    const Op& op = layer.op;
    LayerShape s{Axis(rows, op.kernel, op.stride, op.same),
                 Axis(columns, op.kernel, op.stride, op.same),
                 false,
                 false,
                 false,
                 false,
                 0};
    const size_t pixels = static_cast<size_t>(s.rows.out) * s.columns.out;
    const size_t middle = padded(op.middle), k = op.kernel, window = s.columns.window;
    const bool block = op.kind == OpKind::kMBConv || op.kind == OpKind::kFused;
    if (pixels * std::max<size_t>(middle, padded(op.outputs)) > size_t{1} << 33) throw Error("the image is too large");
    s.by_rows = s.rows.out >= kRowsToShare;
    s.project_by_panel = pixels < kPixelsToShare;
    s.scale_weights = op.squeezed && pixels / 2 > static_cast<size_t>(op.outputs);
    s.whole = s.by_rows && !op.squeezed;
    s.group = s.whole ? std::max(1, 56 / s.columns.out) : s.rows.out;
    grow(shape->zeros, window * std::max(op.inputs, kUnit));
    grow(shape->channels, std::max<size_t>(middle, padded(op.outputs)));
    if (op.kind == OpKind::kStem) grow(shape->input, k * window * op.inputs);
    grow(shape->feature_map, pixels * padded(op.outputs));
    if (block || (op.kind == OpKind::kStem && !stem_is_produced())) grow(shape->map, pixels * padded(op.outputs));
    if (op.kind == OpKind::kMBConv) {
      int widest = 0;
      for (const Slice& slice : layer.slices) widest = std::max(widest, slice.width);
      grow(shape->ring, k * window * (s.whole ? middle : static_cast<size_t>(widest)));
    }
    if (op.kind == OpKind::kFused) grow(shape->ring, k * window * op.inputs);
    if (s.whole)
      grow(shape->group, static_cast<size_t>(s.group) * s.columns.out * middle);
    else
      grow(shape->middle, pixels * middle);
    if (op.squeezed) {
      grow(shape->sums, (s.by_rows ? s.rows.out : 1) * middle);
      if (s.scale_weights) grow(shape->scaled, layer.project.weights.size());
    }
    shape->macs += layer_macs(op, s);
    rows = s.rows.out, columns = s.columns.out;
    shape->layers.push_back(s);
  }
  return shape;
}

void Network::feature_shape(int index, int height, int width, int* shape) const {
  int rows = height, columns = width;
  for (const Layer& layer : layers_) {
    rows = Axis(rows, layer.op.kernel, layer.op.stride, layer.op.same).out;
    columns = Axis(columns, layer.op.kernel, layer.op.stride, layer.op.same).out;
    if (layer.op.feature == index + 1) {
      shape[0] = rows, shape[1] = columns, shape[2] = layer.op.outputs;
      return;
    }
  }
  throw Error("no such feature map");
}

void Network::reserve(Workspace& workspace, const Shape& shape, int members, bool features) const {
  for (Buffer& map : workspace.maps) map.reserve(features ? shape.feature_map : shape.map);
  workspace.middle.reserve(shape.middle);
  workspace.sums.reserve(shape.sums);
  workspace.means.reserve(shape.channels);
  workspace.gates.reserve(shape.channels);
  size_t squeezed = 0, taps = 0, slices = 0;
  for (const Layer& layer : layers_) {
    squeezed = std::max<size_t>(squeezed, padded(layer.op.squeezed));
    taps = std::max<size_t>(taps, layer.op.kernel * (layer.op.kind == OpKind::kStem ? layer.op.inputs : 1));
    slices = std::max(slices, layer.slices.size());
  }
  workspace.partial.reserve(kChunks * squeezed);
  workspace.pooled.reserve(padded(embedding));
  workspace.logits.reserve(padded(classes));
  workspace.zeros.reserve(shape.zeros);
  if (static_cast<int>(workspace.scratch.size()) < members) workspace.scratch.resize(members);
  for (int member = 0; member < members; ++member) {
    Workspace::Scratch& scratch = workspace.scratch[member];
    scratch.ring.reserve(shape.ring);
    scratch.input.reserve(shape.input);
    scratch.scaled.reserve(shape.scaled);
    scratch.group.reserve(shape.group);
    scratch.gates.reserve(shape.channels);
    scratch.squeezed.reserve(squeezed);
    scratch.taps.resize(std::max(taps, scratch.taps.size()));
    scratch.produced.resize(std::max(slices, scratch.produced.size()));
  }
}

}  // namespace effnet
