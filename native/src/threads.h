// A team of threads that runs one function together: the caller and waiting workers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace effnet {

// Lets the members of a team wait for one another. They are awake for a moment, since the others are nearly there, and
// then sleep: on a machine with fewer free cores than members, whoever waits awake keeps the others from arriving.
class Barrier {
 public:
  void wait(int members);

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> generation_{0};
  std::atomic<int> asleep_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
};

class Team {
 public:
  // spin_microseconds: how long an idle worker waits awake for the next call. Longer answers faster, and costs others
  // time.
  Team(int threads, int spin_microseconds);
  ~Team();
  Team(const Team&) = delete;

  int threads() const { return threads_; }
  // Runs work(member) for every member; false, without running it, if another caller has the team. Not reentrant.
  bool try_run(const std::function<void(int member)>& work);

 private:
  void start();
  void serve(int member);

  const int threads_, spin_microseconds_;
  std::mutex taken_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  const std::function<void(int)>* work_ = nullptr;
  std::atomic<unsigned> call_{0};
  std::atomic<int> asleep_{0};
  Barrier finished_;
  std::atomic<bool> quit_{false};
};

void pause();  // tells the processor that this is a loop of waiting

}  // namespace effnet
