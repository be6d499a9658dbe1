#include "threads.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace effnet {

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How long a member waits awake for the others. Longer than their parts of a layer differ, since waking up takes a
// virtual machine up to 100 microseconds; shorter than the time slices in which a busy machine gives their cores to
// others.
constexpr std::chrono::microseconds kAwake{500};

void Barrier::wait(int members) {
  if (members == 1) return;
  const int generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1);  // sequentially consistent with asleep_: whoever falls asleep now is seen
    if (asleep_.load()) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
      }
      wake_.notify_all();
    }
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 256; ++i) {
      if (generation_.load(std::memory_order_acquire) != generation) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() - start < kAwake);
  std::unique_lock<std::mutex> lock(mutex_);
  asleep_.fetch_add(1);
  wake_.wait(lock, [&] { return generation_.load() != generation; });
  asleep_.fetch_sub(1);
}

Team::Team(int threads, int spin_microseconds) : threads_(threads), spin_microseconds_(spin_microseconds) {}

void Team::start() {
  for (int member = 1; member < threads_; ++member) workers_.emplace_back([this, member] { serve(member); });
}

Team::~Team() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    quit_ = true;
    call_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

bool Team::try_run(const std::function<void(int)>& work) {
  const std::unique_lock<std::mutex> taken(taken_, std::try_to_lock);
  if (!taken) return false;
  if (workers_.empty() && threads_ > 1) start();
  work_ = &work;
  call_.fetch_add(1);  // sequentially consistent with asleep_, so that a worker that falls asleep now is seen
  if (asleep_.load()) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
    }
    wake_.notify_all();
  }
  work(0);
  finished_.wait(threads_);
  return true;
}

void Team::serve(int member) {
  unsigned seen = 0;
  while (true) {
    const auto start = std::chrono::steady_clock::now();
    while (call_.load(std::memory_order_acquire) == seen) {
      for (int i = 0; i < 64 && call_.load(std::memory_order_acquire) == seen; ++i) pause();
      if (call_.load(std::memory_order_acquire) != seen) break;
      if (std::chrono::steady_clock::now() - start < std::chrono::microseconds(spin_microseconds_)) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_.fetch_add(1);
      wake_.wait(lock, [&] { return call_.load() != seen; });
      asleep_.fetch_sub(1);
    }
    seen = call_.load(std::memory_order_acquire);
    if (quit_) return;
    (*work_)(member);
    finished_.wait(threads_);
  }
}

}  // namespace effnet
