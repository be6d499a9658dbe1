/* The C interface of effnet-native. Every function that can fail returns 0 (or null) and leaves a message, of the
   calling thread, in effnet_native_error(). */
#ifndef EFFNET_NATIVE_H
#define EFFNET_NATIVE_H

#include <stdint.h>

#if defined(_WIN32)
#define EFFNET_API __declspec(dllexport)
#else
#define EFFNET_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct effnet_engine effnet_engine;

/* The version of this interface and of the plans it reads. */
EFFNET_API int effnet_native_version(void);
EFFNET_API const char* effnet_native_error(void);
/* The instruction sets that this machine supports, fastest first, separated by spaces. */
EFFNET_API const char* effnet_native_instruction_sets(void);

/* ops: op_fields integers, weights: the layers' tensors, as src/plan.h tells; both are copied.
   activation: 0 ReLU, 1 SiLU, 2 ReLU6. instruction_set: a name, or "" for the fastest. */
EFFNET_API effnet_engine* effnet_native_open(const int32_t* ops, int64_t op_fields, int activation,
                                             const float* weights, int64_t weight_count, int threads,
                                             const char* instruction_set, int spin_microseconds);
EFFNET_API void effnet_native_close(effnet_engine* engine);
EFFNET_API const char* effnet_native_instruction_set(const effnet_engine* engine);

/* kind: 0 uint8 (count, height, width, channels), 1 float32 of the same shape: both become value * scale + shift, per
   channel; 2 float32 (count, channels, height, width), normalized. Outputs may be null; features is an array of as many
   pointers as the plan numbers, each float32 (count, rows, columns, channels). */
EFFNET_API int effnet_native_run(effnet_engine* engine, int kind, const void* images, int count, int height, int width,
                                 const float* scale, const float* shift, float* logits, float* embedding,
                                 float* const* features);
/* shape: rows, columns and channels of a map. */
EFFNET_API int effnet_native_feature_shape(const effnet_engine* engine, int index, int height, int width, int* shape);

#ifdef __cplusplus
}
#endif
#endif
