#include "plan.h"

#include <cmath>
#include <limits>

namespace effnet {

namespace {

constexpr int kMaxChannels = 1 << 16, kMaxKernel = 31;

void require(bool condition, size_t index, const char* what) {
  if (!condition) throw Error("layer " + std::to_string(index) + " of the plan: " + what);
}

// Hands out the tensors of `weights` in order.
class Reader {
 public:
  Reader(const float* weights, int64_t count) : next_(weights), left_(count) {}
  void take(Op& op, std::initializer_list<int64_t> shape) {
    int64_t size = 1;
    for (const int64_t side : shape) size *= side;  // sides are bounded: at most 31 · 31 · 2^16 · 2^16 < 2^63
    if (size > left_) throw Error("the plan has too few weights for its layers");
    op.tensors.push_back(next_);
    next_ += size;
    left_ -= size;
  }
  int64_t left() const { return left_; }

 private:
  const float* next_;
  int64_t left_;
};

Op read_op(const int32_t* f, size_t index) {
  Op op{};
  require(f[0] >= 0 && f[0] <= 4, index, "unknown kind of layer");
  op.kind = static_cast<OpKind>(f[0]);
  op.inputs = f[1], op.middle = f[2], op.outputs = f[3], op.kernel = f[4], op.stride = f[5], op.squeezed = f[6];
  for (int i = 7; i < 10; ++i) require(f[i] == 0 || f[i] == 1, index, "a flag must be 0 or 1");
  op.expands = f[7], op.residual = f[8], op.same = f[9], op.feature = f[10];
  require(f[11] == 0, index, "the last field must be 0");
  const bool block = op.kind == OpKind::kMBConv || op.kind == OpKind::kFused;
  const auto channels = [](int n) { return n >= 1 && n <= kMaxChannels; };
  require(channels(op.inputs) && channels(op.outputs), index, "channels out of range");
  require(block ? channels(op.middle) : op.middle == 0, index, "inner channels out of range");
  require(op.kernel >= 1 && op.kernel <= kMaxKernel && op.kernel % 2 == 1, index, "the kernel must be odd, 1 to 31");
  require(op.stride == 1 || op.stride == 2, index, "the stride must be 1 or 2");
  require(op.squeezed >= 0 && op.squeezed <= kMaxChannels && (block || !op.squeezed), index,
          "squeeze-excite out of range");
  require(!op.residual || (block && op.stride == 1 && op.inputs == op.outputs), index, "its residual does not fit");
  require(op.feature >= 0 && op.feature <= 1024, index, "number of the feature map out of range");
  if (op.kind == OpKind::kMBConv) require(op.expands || op.middle == op.inputs, index, "it must expand");
  if (op.kind == OpKind::kFused && !op.expands)
    require(op.middle == op.outputs && !op.squeezed, index, "it must project");
  if (op.kind == OpKind::kHead || op.kind == OpKind::kClassifier)
    require(op.kernel == 1 && op.stride == 1 && !op.expands, index, "it must be a product of matrices");
  return op;
}

void take_squeeze_excite(Op& op, Reader& reader) {
  if (!op.squeezed) return;
  reader.take(op, {op.middle, op.squeezed}), reader.take(op, {op.squeezed});
  reader.take(op, {op.squeezed, op.middle}), reader.take(op, {op.middle});
}

void take_tensors(Op& op, Reader& reader) {
  switch (op.kind) {
    case OpKind::kStem:
      reader.take(op, {op.kernel, op.kernel, op.inputs, op.outputs}), reader.take(op, {op.outputs});
      break;
    case OpKind::kMBConv:
      if (op.expands) reader.take(op, {op.inputs, op.middle}), reader.take(op, {op.middle});
      reader.take(op, {op.kernel, op.kernel, op.middle}), reader.take(op, {op.middle});
      take_squeeze_excite(op, reader);
      reader.take(op, {op.middle, op.outputs}), reader.take(op, {op.outputs});
      break;
    case OpKind::kFused:
      reader.take(op, {op.kernel, op.kernel, op.inputs, op.middle}), reader.take(op, {op.middle});
      take_squeeze_excite(op, reader);
      if (op.expands) reader.take(op, {op.middle, op.outputs}), reader.take(op, {op.outputs});
      break;
    case OpKind::kHead:
    case OpKind::kClassifier:
      reader.take(op, {op.inputs, op.outputs}), reader.take(op, {op.outputs});
  }
}

}  // namespace

Plan read_plan(const int32_t* ops, int64_t op_fields, int activation, const float* weights, int64_t weight_count) {
  if (!ops || !weights || op_fields <= 0 || op_fields % kOpFields || op_fields / kOpFields > 4096)
    throw Error("the plan has no layers, or too many");
  if (activation < 0 || activation > 2) throw Error("unknown activation of the plan");
  Plan plan;
  plan.silu = activation == 1;
  plan.high = activation == 2 ? 6.0f : std::numeric_limits<float>::max();
  Reader reader(weights, weight_count);
  const size_t count = op_fields / kOpFields;
  for (size_t i = 0; i < count; ++i) {
    Op op = read_op(ops + i * kOpFields, i);
    require(i ? op.inputs == plan.ops.back().outputs : op.kind == OpKind::kStem, i, "it does not fit the one before");
    const bool head = op.kind == OpKind::kHead, classifier = op.kind == OpKind::kClassifier;
    require(!i || op.kind != OpKind::kStem, i, "a second stem");
    require(classifier ? i + 1 == count && plan.ops.back().kind == OpKind::kHead
                       : plan.ops.empty() || plan.ops.back().kind != OpKind::kHead,
            i, "head and classifier must come last");
    take_tensors(op, reader);
    if (head) plan.embedding = op.outputs;
    if (classifier) plan.classes = op.outputs;
    plan.ops.push_back(std::move(op));
  }
  if (!plan.embedding) throw Error("the plan has no head");
  if (reader.left()) throw Error("the plan has more weights than its layers take");
  for (int64_t i = 0; i < weight_count; ++i)
    if (!std::isfinite(weights[i])) throw Error("a weight of the plan is not finite");
  plan.channels = plan.ops.front().inputs;
  return plan;
}

}  // namespace effnet
