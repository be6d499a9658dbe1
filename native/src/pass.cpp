// One image through the network, as one member of a team of threads sees it.
//
// A block with squeeze-excite is computed in two parts. First its inner map: of a few channels at a time, rows of the
// expansion go into a ring of as many rows as the kernel has, and the depthwise convolution reads them there, so that
// the expanded map, the largest tensor, never leaves the first two caches. The activated result is stored and summed.
// Then the gates are computed from the sums, and the projection reads the stored map. Without squeeze-excite nothing
// must be known of the whole map, and a few rows at a time go all the way.
#include <algorithm>
#include <cstring>

#include "network.h"

namespace effnet {

namespace {

int share(int count, int member, int members) {
  return static_cast<int>(static_cast<int64_t>(count) * member / members);
}

struct Range {
  int first, last;
  Range(int count, int member, int members)
      : first(share(count, member, members)), last(share(count, member + 1, members)) {}
  Range(int first, int last) : first(first), last(last) {}
};

}  // namespace

class Pass {
 public:
  Pass(const Network& network, const Shape& shape, Workspace& w, int member, int members, const Image& image,
       const Outputs& out)
      : net_(network),
        kernels_(network.kernels),
        shape_(shape),
        w_(w),
        scratch_(w.scratch[member]),
        member_(member),
        members_(members),
        image_(image),
        out_(out),
        in_map_(w.maps[0].data()),
        out_map_(w.maps[1].data()) {}

  void run() {
    const bool stem_is_produced = net_.stem_is_produced() && !out_.features;
    for (size_t i = 0; i < net_.layers_.size(); ++i) {
      const Layer& layer = net_.layers_[i];
      const LayerShape& s = shape_.layers[i];
      switch (layer.op.kind) {
        case OpKind::kStem:
          if (stem_is_produced) continue;
          stem_map(layer, s);
          break;
        case OpKind::kMBConv:
          mbconv(layer, s, i == 1 && stem_is_produced);
          break;
        case OpKind::kFused:
          fused(layer, s);
          break;
        case OpKind::kHead:
          head(layer, s);
          continue;
        case OpKind::kClassifier:
          classifier(layer);
          continue;
      }
      wait();
      std::swap(in_map_, out_map_);
      if (layer.op.feature && out_.features) copy_feature(layer, s, out_.features[layer.op.feature - 1]);
    }
  }

 private:
  void wait() { w_.barrier.wait(members_); }
  Range part(int count) const { return {count, member_, members_}; }

  GemmCall product(const Matrix& matrix, const Matrix::Panel& panel, Epilogue epilogue) const {
    GemmCall call{};
    call.taps = scratch_.taps.data();
    call.tap_count = matrix.taps;
    call.depth = matrix.depth;
    call.weights = panel.weights;
    call.width = panel.width;
    call.bias = matrix.bias.data() + panel.channel;
    call.epilogue = epilogue;
    call.activation = net_.activation_;
    return call;
  }

  // ---- stem

  // Points the taps at the rows of the input that output row `row` sees, normalized and padded.
  void read_input(const LayerShape& s, const Op& op, int row) {
    const int channels = op.inputs, k = op.kernel, window = s.columns.window, inside = s.columns.inside;
    const bool planes = image_.kind == InputKind::kPlanes;
    const size_t line = static_cast<size_t>(window) * channels, before = s.columns.before;
    for (int ky = 0; ky < k; ++ky) {
      const int y = row * op.stride - s.rows.before + ky;
      const bool outside = y < 0 || y >= s.rows.in;
      float* to = scratch_.input.data() + ky * line;
      const size_t pixel = static_cast<size_t>(y) * s.columns.in;
      if (planes) {
        for (int c = 0; c < channels; ++c, to += window) {
          scratch_.taps[c * k + ky] = outside ? w_.zeros.data() : to;
          if (outside) continue;
          const float* plane =
              static_cast<const float*>(image_.data) + static_cast<size_t>(c) * s.rows.in * s.columns.in;
          pad(to, before, inside, window, 1);
          std::memcpy(to + before, plane + pixel, inside * sizeof(float));
        }
        continue;
      }
      scratch_.taps[ky] = outside ? w_.zeros.data() : to;
      if (outside) continue;
      pad(to, before, inside, window, channels);
      if (image_.kind == InputKind::kBytes)
        kernels_.normalize_bytes(static_cast<const uint8_t*>(image_.data) + pixel * channels, inside, channels,
                                 image_.scale, image_.shift, to + before * channels);
      else
        kernels_.normalize_floats(static_cast<const float*>(image_.data) + pixel * channels, inside, channels,
                                  image_.scale, image_.shift, to + before * channels);
    }
  }

  // Zeroes the columns before and after the `inside` ones.
  static void pad(float* row, size_t before, int inside, int window, int width) {
    std::memset(row, 0, before * width * sizeof(float));
    std::memset(row + (before + inside) * width, 0, (window - before - inside) * width * sizeof(float));
  }

  // Some panels of the first `columns` pixels of the stem's row that the taps point at; `out` is where the first is
  // stored.
  void stem_row(const Layer& layer, int columns, int first, int last, float* out, ptrdiff_t stride) {
    const bool planes = image_.kind == InputKind::kPlanes;
    const Matrix& matrix = planes ? layer.planar : layer.first;
    for (int p = first; p < last; ++p) {
      GemmCall call = product(matrix, matrix.panels[p], Epilogue::kActivateOut);
      call.a_stride = layer.op.stride * (planes ? 1 : layer.op.inputs);
      call.out = out + (matrix.panels[p].channel - matrix.panels[first].channel);
      call.out_stride = stride;
      kernels_.gemm(call, columns);
    }
  }

  void stem_map(const Layer& layer, const LayerShape& s) {
    const int width = padded(layer.op.outputs);
    const Range rows = part(s.rows.out);
    for (int row = rows.first; row < rows.last; ++row) {
      read_input(s, layer.op, row);
      stem_row(layer, s.columns.out, 0, static_cast<int>(layer.first.panels.size()),
               out_map_ + static_cast<size_t>(row) * s.columns.out * width, width);
    }
  }

  // ---- MBConv

  void mbconv(const Layer& layer, const LayerShape& s, bool from_stem) {
    const Op& op = layer.op;
    const int middle = padded(op.middle), count = static_cast<int>(layer.slices.size());
    const Range rows = s.by_rows ? part(s.rows.out) : Range(0, s.rows.out);
    const Range slices = s.by_rows ? Range(0, count) : part(count);
    std::fill(scratch_.produced.begin(), scratch_.produced.end(), -1);
    for (int row = rows.first; row < rows.last; row += s.group) {
      const int last = std::min(row + s.group, rows.last);
      float* map =
          s.whole ? scratch_.group.data() : w_.middle.data() + static_cast<size_t>(row) * s.columns.out * middle;
      for (int i = slices.first; i < slices.last; ++i) {
        const size_t ring = s.whole ? static_cast<size_t>(op.kernel) * s.columns.window * layer.slices[i].channel : 0;
        depthwise_rows(layer, s, i, row, last, from_stem, scratch_.ring.data() + ring, map);
      }
      if (s.whole)
        project(layer, s, layer.project.weights.data(), map, row * s.columns.out, last * s.columns.out,
                {0, panels(layer)});
    }
    if (!s.whole)
      finish(layer, s, rows,
             {slices.first < count ? layer.slices[slices.first].channel : middle,
              slices.last < count ? layer.slices[slices.last].channel : middle});
  }

  static int panels(const Layer& layer) { return static_cast<int>(layer.project.panels.size()); }

  // Rows first … last of a slice of the inner map; `out` is where row `first` is stored.
  void depthwise_rows(const Layer& layer, const LayerShape& s, int index, int first, int last, bool from_stem,
                      float* ring, float* out) {
    const Op& op = layer.op;
    const Slice& slice = layer.slices[index];
    const int k = op.kernel, middle = padded(op.middle), width = slice.width;
    const size_t line = static_cast<size_t>(s.columns.window) * width, before = s.columns.before;
    int& produced = scratch_.produced[index];  // rows of the input up to this one are in the ring, or are past
    if (produced < 0) {
      for (int r = 0; r < k; ++r) pad(ring + r * line, before, s.columns.inside, s.columns.window, width);
      produced = std::max(0, first * op.stride - s.rows.before);
    }
    const float* rows[32];
    DepthwiseCall call{rows,
                       0,
                       0,
                       k,
                       op.stride,
                       width,
                       width,
                       layer.depthwise.data() + static_cast<size_t>(slice.channel) * k * k,
                       layer.depthwise_bias.data() + slice.channel,
                       out + slice.channel,
                       middle,
                       s.columns.out,
                       nullptr,
                       net_.activation_};
    for (int row = first; row < last; ++row, call.out += static_cast<size_t>(s.columns.out) * middle) {
      const int top = row * op.stride - s.rows.before, need = std::min(s.rows.in, top + k);
      for (; produced < need; ++produced)
        produce(layer, s, index, from_stem, produced, ring + (produced % k) * line + before * width);
      call.first_tap = std::max(0, -top);
      call.last_tap = std::min(k, s.rows.in - top);
      for (int ky = call.first_tap; ky < call.last_tap; ++ky) rows[ky] = ring + ((top + ky) % k) * line;
      if (op.squeezed) {
        call.sums = w_.sums.data() + (s.by_rows ? static_cast<size_t>(row) * middle : 0) + slice.channel;
        if (s.by_rows || row == 0) std::memset(call.sums, 0, width * sizeof(float));
      }
      kernels_.depthwise(call);
    }
  }

  // One row of what the depthwise convolution reads, of one slice of channels.
  void produce(const Layer& layer, const LayerShape& s, int index, bool from_stem, int row, float* out) {
    const Slice& slice = layer.slices[index];
    if (from_stem) {
      const Layer& stem = net_.layers_.front();
      const Slice& panels = stem.slices[index];
      read_input(shape_.layers.front(), stem.op, row);
      stem_row(stem, s.columns.inside, panels.first_panel, panels.last_panel, out, slice.width);
      return;
    }
    const int inputs = padded(layer.op.inputs);
    const float* in = in_map_ + static_cast<size_t>(row) * s.columns.in * inputs;
    if (!layer.op.expands) {
      for (int x = 0; x < s.columns.inside; ++x, out += slice.width, in += inputs)
        std::memcpy(out, in + slice.channel, slice.width * sizeof(float));
      return;
    }
    scratch_.taps[0] = in;
    for (int p = slice.first_panel; p < slice.last_panel; ++p) {
      GemmCall call = product(layer.first, layer.first.panels[p], Epilogue::kActivate);
      call.a_stride = inputs;
      call.out = out + (layer.first.panels[p].channel - slice.channel);
      call.out_stride = slice.width;
      kernels_.gemm(call, s.columns.inside);
    }
  }

  // ---- Fused-MBConv

  void fused(const Layer& layer, const LayerShape& s) {
    const Op& op = layer.op;
    const int middle = padded(op.middle), count = static_cast<int>(layer.slices.size());
    const Range rows = s.by_rows ? part(s.rows.out) : Range(0, s.rows.out);
    const Range slices = s.by_rows ? Range(0, count) : part(count);
    const Range own(slices.first < slices.last ? layer.slices[slices.first].first_panel : 0,
                    slices.first < slices.last ? layer.slices[slices.last - 1].last_panel : 0);
    const int k = op.kernel, columns = s.columns.out;
    const size_t line = static_cast<size_t>(s.columns.window) * op.inputs, before = s.columns.before;
    for (int r = 0; r < k; ++r)
      pad(scratch_.ring.data() + r * line, before, s.columns.inside, s.columns.window, op.inputs);
    int produced = std::max(0, rows.first * op.stride - s.rows.before);
    for (int row = rows.first; row < rows.last; ++row) {
      const int top = row * op.stride - s.rows.before, need = std::min(s.rows.in, top + k);
      for (; produced < need; ++produced)
        copy_row(op, s, produced, scratch_.ring.data() + (produced % k) * line + before * op.inputs);
      for (int ky = 0; ky < k; ++ky) {
        const int y = top + ky;
        scratch_.taps[ky] = y < 0 || y >= s.rows.in ? w_.zeros.data() : scratch_.ring.data() + (y % k) * line;
      }
      const int in_group = s.whole ? (row - rows.first) % s.group : row;
      float* map = s.whole ? scratch_.group.data() : w_.middle.data();
      for (int i = own.first; i < own.last; ++i) {
        const Matrix::Panel& panel = layer.first.panels[i];
        GemmCall call = product(layer.first, panel, op.expands ? Epilogue::kActivate : Epilogue::kActivateOut);
        call.a_stride = static_cast<ptrdiff_t>(op.stride) * op.inputs;
        call.out_stride = middle;
        call.out = (op.expands ? map + static_cast<size_t>(in_group) * columns * middle
                               : out_map_ + static_cast<size_t>(row) * columns * middle) +
                   panel.channel;
        if (op.residual && !op.expands)
          call.residual = in_map_ + static_cast<size_t>(row) * columns * middle + panel.channel;
        kernels_.gemm(call, columns);
        if (op.squeezed) sum_row(s, middle, row, panel);
      }
      if (s.whole && op.expands && (in_group == s.group - 1 || row == rows.last - 1))
        project(layer, s, layer.project.weights.data(), map, (row - in_group) * columns, (row + 1) * columns,
                {0, panels(layer)});
    }
    if (!s.whole && op.expands)
      finish(layer, s, rows,
             {slices.first < count ? layer.slices[slices.first].channel : middle,
              slices.last < count ? layer.slices[slices.last].channel : middle});
  }

  void copy_row(const Op& op, const LayerShape& s, int row, float* out) {
    const int width = padded(op.inputs);
    const float* in = in_map_ + static_cast<size_t>(row) * s.columns.in * width;
    if (width == op.inputs) {
      std::memcpy(out, in, static_cast<size_t>(s.columns.inside) * width * sizeof(float));
      return;
    }
    for (int x = 0; x < s.columns.inside; ++x, in += width, out += op.inputs)
      std::memcpy(out, in, op.inputs * sizeof(float));
  }

  void sum_row(const LayerShape& s, int middle, int row, const Matrix::Panel& panel) {
    float* sums = w_.sums.data() + (s.by_rows ? static_cast<size_t>(row) * middle : 0) + panel.channel;
    if (s.by_rows || row == 0) std::memset(sums, 0, panel.width * sizeof(float));
    const float* map = w_.middle.data() + static_cast<size_t>(row) * s.columns.out * middle + panel.channel;
    for (int x = 0; x < s.columns.out; ++x, map += middle) kernels_.add(sums, map, panel.width);
  }

  // ---- squeeze-excite and projection of a stored inner map, of which this member made `rows` and `channels`

  void finish(const Layer& layer, const LayerShape& s, Range rows, Range channels) {
    const Op& op = layer.op;
    const int middle = padded(op.middle), pixels = s.rows.out * s.columns.out;
    const float* weights = layer.project.weights.data();
    const float* gates = nullptr;
    Range own(rows.first * s.columns.out, rows.last * s.columns.out), columns(0, panels(layer));
    if (op.squeezed) {
      gates = squeeze_excite(layer, s, channels);
      if (!s.by_rows) {
        if (!s.scale_weights)
          kernels_.scale_columns(w_.middle.data(), pixels, middle, channels.first, channels.last, gates);
        wait();
      }
    } else if (!s.by_rows) {
      wait();
    }
    if (!s.by_rows) {
      own = s.project_by_panel ? Range(0, pixels) : part(pixels);
      if (s.project_by_panel) columns = part(panels(layer));
    }
    if (gates && s.scale_weights) {
      for (int p = columns.first; p < columns.last; ++p) {
        const Matrix::Panel& panel = layer.project.panels[p];
        kernels_.scale_rows(panel.weights, op.middle, panel.width, gates,
                            scratch_.scaled.data() + (panel.weights - weights));
      }
      weights = scratch_.scaled.data();
    }
    // Few rows at a time, so that what the gates scaled is still in the cache
    const int step = s.by_rows ? 56 : std::max(1, pixels);
    for (int first = own.first; first < own.last; first += step) {
      const int last = std::min(first + step, own.last);
      float* map = w_.middle.data() + static_cast<size_t>(first) * middle;
      if (gates && s.by_rows && !s.scale_weights) kernels_.scale_columns(map, last - first, middle, 0, middle, gates);
      project(layer, s, weights, map, first, last, columns);
    }
  }

  // The gates of the block's inner channels: all of them if threads share rows, else those of `channels`.
  const float* squeeze_excite(const Layer& layer, const LayerShape& s, Range channels) {
    const Op& op = layer.op;
    const int middle = padded(op.middle), width = padded(op.squeezed), units = middle / kUnit;
    wait();
    const float mean = 1.0f / static_cast<float>(s.rows.out * s.columns.out);
    const Range chunks = part(kChunks);
    for (int chunk = chunks.first; chunk < chunks.last; ++chunk) {
      const Range unit(units, chunk, kChunks);
      const int first = unit.first * kUnit, count = (unit.last - unit.first) * kUnit;
      float* means = w_.means.data() + first;
      if (!count) continue;
      std::memset(means, 0, count * sizeof(float));
      const int lines = s.by_rows ? s.rows.out : 1;
      for (int row = 0; row < lines; ++row)
        kernels_.add(means, w_.sums.data() + static_cast<size_t>(row) * middle + first, count);
      for (int c = 0; c < count; ++c) means[c] *= mean;
      float* partial = w_.partial.data() + static_cast<size_t>(chunk) * width;
      std::memset(partial, 0, width * sizeof(float));
      kernels_.accumulate(means, std::min(count, op.middle - first),
                          layer.reduce.data() + static_cast<size_t>(first) * width, width, partial);
    }
    wait();
    float* squeezed = scratch_.squeezed.data();
    std::memcpy(squeezed, layer.reduce_bias.data(), width * sizeof(float));
    for (int chunk = 0; chunk < kChunks; ++chunk)
      if (Range unit(units, chunk, kChunks); unit.first < unit.last)
        kernels_.add(squeezed, w_.partial.data() + static_cast<size_t>(chunk) * width, width);
    kernels_.activate(squeezed, width, net_.activation_);
    float* gates = s.by_rows ? scratch_.gates.data() : w_.gates.data();
    const Range unit = s.by_rows ? Range(0, units) : Range(channels.first / kUnit, channels.last / kUnit);
    kernels_.gate(squeezed, op.squeezed, layer.gate.data() + static_cast<size_t>(unit.first) * op.squeezed * kUnit,
                  layer.gate_bias.data() + unit.first * kUnit, unit.last - unit.first, gates + unit.first * kUnit);
    return gates;
  }

  // Pixels first … last of the output, for some panels of its channels; `map` is where pixel `first` of the inner map
  // is.
  void project(const Layer& layer, const LayerShape&, const float* weights, const float* map, int first, int last,
               Range columns) {
    const Op& op = layer.op;
    const int outputs = padded(op.outputs);
    scratch_.taps[0] = map;
    for (int p = columns.first; p < columns.last; ++p) {
      const Matrix::Panel& panel = layer.project.panels[p];
      GemmCall call = product(layer.project, panel, op.residual ? Epilogue::kAdd : Epilogue::kBias);
      call.weights = weights + (panel.weights - layer.project.weights.data());
      call.a_stride = padded(op.middle);
      const size_t offset = static_cast<size_t>(first) * outputs + panel.channel;
      call.out = out_map_ + offset;
      call.out_stride = outputs;
      if (op.residual) call.residual = in_map_ + offset;
      kernels_.gemm(call, last - first);
    }
  }

  // ---- head

  void head(const Layer& layer, const LayerShape& s) {
    const int pixels = s.rows.in * s.columns.in;
    const float mean = net_.activation_.unscale / static_cast<float>(pixels);
    const Range columns = part(static_cast<int>(layer.first.panels.size()));
    scratch_.taps[0] = in_map_;
    for (int p = columns.first; p < columns.last; ++p) {
      const Matrix::Panel& panel = layer.first.panels[p];
      float* pooled = w_.pooled.data() + panel.channel;
      std::memset(pooled, 0, panel.width * sizeof(float));
      GemmCall call = product(layer.first, panel, Epilogue::kPool);
      call.a_stride = padded(layer.op.inputs);
      call.out = pooled;
      kernels_.gemm(call, pixels);
      for (int c = 0; c < panel.width; ++c) pooled[c] *= mean;
      if (out_.embedding) copy_panel(panel, pooled, net_.embedding, out_.embedding);
      if (!layer.op.feature || !out_.features) continue;
      call.epilogue = Epilogue::kActivateOut;
      call.out = out_map_ + panel.channel;
      call.out_stride = padded(layer.op.outputs);
      kernels_.gemm(call, pixels);
    }
    wait();
    if (!layer.op.feature || !out_.features) return;
    std::swap(in_map_, out_map_);
    copy_feature(layer, s, out_.features[layer.op.feature - 1]);
  }

  void classifier(const Layer& layer) {
    if (!out_.logits) return;
    const Range columns = part(static_cast<int>(layer.first.panels.size()));
    scratch_.taps[0] = w_.pooled.data();
    for (int p = columns.first; p < columns.last; ++p) {
      const Matrix::Panel& panel = layer.first.panels[p];
      GemmCall call = product(layer.first, panel, Epilogue::kBias);
      call.out = w_.logits.data() + panel.channel;
      kernels_.gemm(call, 1);
      copy_panel(panel, call.out, net_.classes, out_.logits);
    }
    wait();
  }

  static void copy_panel(const Matrix::Panel& panel, const float* values, int count, float* out) {
    const int used = std::min(panel.width, count - panel.channel);  // the last panels may be all padding
    if (used > 0) std::memcpy(out + panel.channel, values, used * sizeof(float));
  }

  void copy_feature(const Layer& layer, const LayerShape& s, float* out) {
    const int outputs = layer.op.outputs, width = padded(outputs);
    const Range pixels = part(s.rows.out * s.columns.out);
    for (int i = pixels.first; i < pixels.last; ++i)
      std::memcpy(out + static_cast<size_t>(i) * outputs, in_map_ + static_cast<size_t>(i) * width,
                  outputs * sizeof(float));
  }

  const Network& net_;
  const Kernels& kernels_;
  const Shape& shape_;
  Workspace& w_;
  Workspace::Scratch& scratch_;
  const int member_, members_;
  const Image image_;
  const Outputs out_;
  float *in_map_, *out_map_;
};

void Network::run(const Shape& shape, Workspace& workspace, int member, int members, const Image& image,
                  const Outputs& out) const {
  Pass(*this, shape, workspace, member, members, image, out).run();
}

}  // namespace effnet
