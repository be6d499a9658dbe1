// Memory for weights and maps: aligned to cache lines, zeroed, in huge pages where the system gives them.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace effnet {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t floats) : size_(floats) {
    if (!floats) return;
    constexpr size_t huge = size_t{2} << 20;
    const size_t bytes = floats * sizeof(float), alignment = bytes >= huge ? huge : 64;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    data_ = static_cast<float*>(std::aligned_alloc(alignment, rounded));
    if (!data_) throw std::bad_alloc();
#ifdef __linux__
    if (alignment == huge) madvise(data_, rounded, MADV_HUGEPAGE);  // fewer TLB misses; a refusal costs nothing
#endif
    std::memset(data_, 0, rounded);
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  float* data() { return data_; }
  const float* data() const { return data_; }
  size_t size() const { return size_; }
  // Makes room for that many, forgetting what it held.
  void reserve(size_t floats) {
    if (floats > size_) *this = Buffer(floats);
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  float* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace effnet
