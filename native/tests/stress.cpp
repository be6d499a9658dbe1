// Random plans on every instruction set and several threads, built with a sanitizer by `make native-sanitize`: no
// error of memory, no undefined behavior, no race, the same bits for any number of threads, and lying plans are
// refused.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "../include/effnet_native.h"

namespace {

std::mt19937 generator(1);

int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

void check(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s (%s)\n", what.c_str(), effnet_native_error());
  std::exit(1);
}

struct RandomPlan {
  std::vector<int32_t> ops;
  std::vector<float> weights;
  int activation = pick(0, 2), channels = pick(1, 4), features = 0;

  RandomPlan() {
    int inputs = pick(1, 40);
    add(0, channels, 0, inputs, 3, pick(1, 2), 0, false, false);
    take(9 * channels * inputs + inputs, 9 * channels);
    for (int blocks = pick(1, 5); blocks--;) {
      const bool fused = pick(0, 2) == 0, same_size = pick(0, 1);
      const int stride = same_size ? 1 : pick(1, 2), outputs = same_size ? inputs : pick(1, 70), k = 2 * pick(0, 3) + 1;
      const bool expands = pick(0, 2) > 0;
      const int middle = expands ? pick(1, 90) : fused ? outputs : inputs;
      const int squeezed = fused && !expands ? 0 : pick(0, 1) * pick(1, 20);
      add(fused ? 2 : 1, inputs, middle, outputs, k, stride, squeezed, expands,
          stride == 1 && inputs == outputs && pick(0, 1));
      if (fused) {
        take(k * k * inputs * middle + middle, k * k * inputs);
      } else {
        if (expands) take(inputs * middle + middle, inputs);
        take(k * k * middle + middle, k * k);
      }
      if (squeezed) take(2 * middle * squeezed + squeezed + middle, middle);
      if (!fused || expands) take(middle * outputs + outputs, middle);
      inputs = outputs;
    }
    const int head = pick(1, 100), classes = pick(1, 40);
    add(3, inputs, 0, head, 1, 1, 0, false, false);
    take(inputs * head + head, inputs);
    add(4, head, 0, classes, 1, 1, 0, false, false);
    take(head * classes + classes, head);
    classes_ = classes;
    embedding_ = head;
  }

  void add(int kind, int inputs, int middle, int outputs, int k, int stride, int squeezed, bool expands,
           bool residual) {
    const int feature = kind < 4 ? ++features : 0;
    ops.insert(ops.end(),
               {kind, inputs, middle, outputs, k, stride, squeezed, expands, residual, pick(0, 1), feature, 0});
  }

  void take(int count, int fan_in) {
    std::normal_distribution<float> values(0, 1.4f / std::sqrt(static_cast<float>(fan_in)));
    for (int i = 0; i < count; ++i) weights.push_back(values(generator));
  }

  effnet_engine* open(int threads, const std::string& instruction_set, int spin = 20) const {
    return effnet_native_open(ops.data(), ops.size(), activation, weights.data(), weights.size(), threads,
                              instruction_set.c_str(), spin);
  }

  int classes_, embedding_;
};

std::vector<float> run(effnet_engine* engine, const RandomPlan& plan, int count, int height, int width, bool planes,
                       bool with_features) {
  std::vector<float> images(static_cast<size_t>(count) * height * width * plan.channels), scale(plan.channels, 0.7f),
      shift(plan.channels, -0.2f);
  std::mt19937 noise(7);
  for (float& value : images) value = std::normal_distribution<float>(0, 1)(noise);
  std::vector<float> logits(static_cast<size_t>(count) * plan.classes_),
      embedding(static_cast<size_t>(count) * plan.embedding_);
  std::vector<std::vector<float>> maps(with_features ? plan.features : 0);
  std::vector<float*> pointers;
  for (size_t i = 0; i < maps.size(); ++i) {
    int shape[3];
    check(effnet_native_feature_shape(engine, static_cast<int>(i), height, width, shape), "feature_shape");
    maps[i].resize(static_cast<size_t>(count) * shape[0] * shape[1] * shape[2]);
    pointers.push_back(maps[i].data());
  }
  check(effnet_native_run(engine, planes ? 2 : 1, images.data(), count, height, width, scale.data(), shift.data(),
                          logits.data(), embedding.data(), with_features ? pointers.data() : nullptr),
        "run");
  logits.insert(logits.end(), embedding.begin(), embedding.end());
  for (const auto& map : maps) logits.insert(logits.end(), map.begin(), map.end());
  return logits;
}

float difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 1e-6f, most = 0;
  for (size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::fabs(b[i])), most = std::max(most, std::fabs(a[i] - b[i]));
  return most / largest;
}

void compare(const std::vector<std::string>& instruction_sets) {
  const RandomPlan plan;
  const int count = pick(1, 5), height = pick(1, 60), width = pick(1, 60);
  const bool planes = pick(0, 1), features = pick(0, 1);
  effnet_engine* reference = plan.open(1, "portable");
  check(reference, "open");
  const std::vector<float> expected = run(reference, plan, count, height, width, planes, features);
  effnet_native_close(reference);
  for (const std::string& instruction_set : instruction_sets) {
    std::vector<float> first;
    for (int threads = 1; threads <= 3; ++threads) {
      effnet_engine* engine = plan.open(threads, instruction_set);
      check(engine, "open");
      const std::vector<float> out = run(engine, plan, count, height, width, planes, features);
      if (first.empty()) first = out;
      check(out == first, "the same bits for any number of threads, " + instruction_set);
      check(difference(out, expected) < 1e-4f, instruction_set + " agrees with portable");
      effnet_native_close(engine);
    }
  }
}

void call_at_once(const std::string& instruction_set) {
  const RandomPlan plan;
  effnet_engine* engine = plan.open(2, instruction_set, 0);
  check(engine, "open");
  const std::vector<float> expected = run(engine, plan, 3, 40, 40, false, false);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&] {
      for (int j = 0; j < 20; ++j) check(run(engine, plan, 3, 40, 40, false, false) == expected, "callers at once");
    });
  for (std::thread& caller : callers) caller.join();
  effnet_native_close(engine);
}

void lie() {
  RandomPlan plan;
  const int32_t values[] = {-1, 0, 1, 2, 3, 5, 31, 1000, 1 << 16, 2147483647, -2147483647 - 1};
  for (int i = 0; i < 30; ++i) {
    RandomPlan changed = plan;
    changed.ops[pick(0, static_cast<int>(changed.ops.size()) - 1)] = values[pick(0, 10)];
    if (pick(0, 3) == 0) changed.weights.resize(pick(0, static_cast<int>(changed.weights.size())));
    effnet_engine* engine = changed.open(2, "");
    if (!engine) continue;
    if (changed.ops[1] == plan.channels) run(engine, changed, 1, pick(1, 20), pick(1, 20), false, false);
    effnet_native_close(engine);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  std::istringstream names(effnet_native_instruction_sets());
  std::vector<std::string> instruction_sets;
  for (std::string name; names >> name;) instruction_sets.push_back(name);
  for (int i = 0; i < rounds; ++i) {
    compare(instruction_sets);
    lie();
    if (i % 5 == 0) call_at_once(instruction_sets[i / 5 % instruction_sets.size()]);
  }
  std::printf("%d random plans on %s: no error\n", rounds, effnet_native_instruction_sets());
}
