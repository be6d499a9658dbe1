// What an instruction set must provide: the inner loops, as a table of functions. Everything else (plans, blocks,
// threads) is compiled once, for any machine.
//
// Maps are (rows, columns, channels), channels padded to a multiple of kUnit with weights of zero.
#pragma once

#include <cstddef>
#include <cstdint>

namespace effnet {

constexpr int kUnit = 16;

inline int padded(int channels) { return (channels + kUnit - 1) / kUnit * kUnit; }

constexpr float kSiluScale = -23.083120654223414f;  // −16 / ln 2: see kernels/activation.h

enum class Activation : int32_t { kClamp = 0, kSilu = 1 };

// Of a product of matrices: what is done with a finished tile.
enum class Epilogue : int {
  kBias = 0,         // out = x
  kAdd = 1,          // out = x + residual
  kActivate = 2,     // out = act(x), scaled as silu is
  kActivateOut = 3,  // out = act(x) / scale, plus the residual if there is one
  kPool = 4,         // out[channel] += act(x) over the rows
};

struct ActivationCall {
  Activation kind = Activation::kClamp;
  float low = 0, high = 0;  // of kClamp
  float unscale = 1;        // 1 / scale
};

// out (rows × width) = epilogue(bias + sum over taps of A(tap) · B(tap)). A convolution of k × k is a product with k
// taps, one per kernel row, each k · channels deep: in a row of pixels those values are contiguous.
struct GemmCall {
  const float* const* taps;  // per tap, where row 0 of A starts
  int tap_count;
  int depth;             // columns of A per tap
  ptrdiff_t a_stride;    // floats between rows of A
  const float* weights;  // B, (taps · depth, width)
  int width;             // columns: a whole number of vectors, or one vector and a half
  const float* bias;     // (width)
  float* out;
  ptrdiff_t out_stride;
  const float* residual;  // same stride as out; or null
  Epilogue epilogue;
  ActivationCall activation;
};

struct DepthwiseCall {
  const float* const* rows;  // per kernel row, where the first column's window starts; rows outside are not read
  int first_tap, last_tap;   // kernel rows inside the map
  int kernel, stride;
  int width;             // channels, a multiple of kUnit
  ptrdiff_t row_stride;  // floats between columns of the input
  const float* weights;  // (kUnit channels, kernel · kernel, kUnit) by units
  const float* bias;
  float* out;
  ptrdiff_t out_stride;
  int columns;  // of the output
  float* sums;  // (width): sums of the row's activated values; or null
  ActivationCall activation;
};

struct Kernels {
  const char* name;
  int lanes;
  int half_lanes;       // width of an additional half vector in a product; 0: none
  int panel_vectors;    // columns of a product that are computed together, in vectors
  bool (*supported)();  // by this processor and its operating system
  void (*gemm)(const GemmCall&, int rows);
  void (*depthwise)(const DepthwiseCall&);
  // out[0 … width) += sum over c < channels of values[c] · weights[c][0 … width); width a multiple of kUnit
  void (*accumulate)(const float* values, int channels, const float* weights, int width, float* out);
  // gates = sigmoid(bias + squeezed · weights) for units of channels; weights (units, squeezed, kUnit)
  void (*gate)(const float* squeezed, int count, const float* weights, const float* bias, int units, float* gates);
  void (*activate)(float* values, int count, const ActivationCall&);  // unscaled: silu(x), clamp(x)
  void (*scale_columns)(float* map, int rows, ptrdiff_t stride, int first, int last, const float* gates);
  void (*scale_rows)(const float* weights, int rows, int width, const float* gates, float* out);
  void (*add)(float* out, const float* values, int count);
  // Pixels to normalized values: out = value · scale[channel] + shift[channel]
  void (*normalize_bytes)(const uint8_t* pixels, int columns, int channels, const float* scale, const float* shift,
                          float* out);
  void (*normalize_floats)(const float* pixels, int columns, int channels, const float* scale, const float* shift,
                           float* out);
};

extern const Kernels kAvx512Kernels, kAvx2Kernels, kPortableKernels;

}  // namespace effnet
