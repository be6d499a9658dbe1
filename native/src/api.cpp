// The C interface: arguments checked, exceptions turned into messages.
#include <cstring>
#include <exception>
#include <string>

#include "../include/effnet_native.h"
#include "engine.h"

using namespace effnet;

struct effnet_engine : Engine {
  using Engine::Engine;
};

namespace {

constexpr int kVersion = 1;
thread_local std::string last_error;

#if defined(__x86_64__)
const Kernels* const kAll[] = {&kAvx512Kernels, &kAvx2Kernels, &kPortableKernels};
#else
const Kernels* const kAll[] = {&kPortableKernels};
#endif

const Kernels& choose(const std::string& name) {
  for (const Kernels* kernels : kAll) {
    if (!name.empty() && name != kernels->name) continue;
    if (kernels->supported()) return *kernels;
    if (!name.empty()) throw Error("this processor does not support " + name);
  }
  throw Error("unknown instruction set " + name + ": use one of " + effnet_native_instruction_sets());
}

template <class Work>
auto guarded(Work work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    last_error = "not enough memory";
  } catch (const std::exception& error) {
    last_error = error.what();
  }
  return {};
}

void require(bool condition, const char* message) {
  if (!condition) throw Error(message);
}

}  // namespace

int effnet_native_version(void) { return kVersion; }

const char* effnet_native_error(void) { return last_error.c_str(); }

const char* effnet_native_instruction_sets(void) {
  static const std::string names = [] {
    std::string joined;
    for (const Kernels* kernels : kAll)
      if (kernels->supported()) joined += (joined.empty() ? "" : " ") + std::string(kernels->name);
    return joined;
  }();
  return names.c_str();
}

effnet_engine* effnet_native_open(const int32_t* ops, int64_t op_fields, int activation, const float* weights,
                                  int64_t weight_count, int threads, const char* instruction_set,
                                  int spin_microseconds) {
  return guarded([&] {
    require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
    require(spin_microseconds >= 0 && spin_microseconds <= 1000000, "spin_microseconds must be 0 to 1,000,000");
    const Kernels& kernels = choose(instruction_set ? instruction_set : "");
    return new effnet_engine(read_plan(ops, op_fields, activation, weights, weight_count), kernels, threads,
                             spin_microseconds);
  });
}

void effnet_native_close(effnet_engine* engine) { delete engine; }

const char* effnet_native_instruction_set(const effnet_engine* engine) { return engine->network().kernels.name; }

int effnet_native_run(effnet_engine* engine, int kind, const void* images, int count, int height, int width,
                      const float* scale, const float* shift, float* logits, float* embedding, float* const* features) {
  return guarded([&] {
    require(engine && images, "no engine or no images");
    require(kind >= 0 && kind <= 2, "unknown kind of images");
    require(kind == 2 || (scale && shift), "pixels need scale and shift");
    require(count >= 1 && height >= 1 && width >= 1 && height <= 1 << 15 && width <= 1 << 15,
            "image size out of range");
    engine->run({static_cast<InputKind>(kind), images, scale, shift, count, height, width}, logits, embedding,
                features);
    return 1;
  });
}

int effnet_native_feature_shape(const effnet_engine* engine, int index, int height, int width, int* shape) {
  return guarded([&] {
    require(engine && shape && index >= 0 && index < engine->network().features, "no such feature map");
    require(height >= 1 && width >= 1 && height <= 1 << 15 && width <= 1 << 15, "image size out of range");
    engine->feature_shape(index, height, width, shape);
    return 1;
  });
}
