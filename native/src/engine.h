// An engine: a network, its team of threads, and memory for the callers that run it at the same time.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "network.h"

namespace effnet {

struct Images {
  InputKind kind;
  const void* data;  // one after another
  const float *scale, *shift;
  int count, height, width;
};

class Engine {
 public:
  Engine(const Plan& plan, const Kernels& kernels, int threads, int spin_microseconds);
  ~Engine();

  const Network& network() const { return network_; }
  // logits (count, classes), embedding (count, embedding), features[i] (count, rows, columns, channels); each may be
  // null. Any number of threads may call it at once: one has the team, the others compute on their own thread.
  void run(const Images& images, float* logits, float* embedding, float* const* features);
  // (rows, columns, channels) of map i of features().
  void feature_shape(int index, int height, int width, int* shape) const;

 private:
  // What a process must not inherit: after a fork its threads are gone, and a lock may be held by one of them.
  struct State {
    State(int threads, int spin_microseconds) : team(threads, spin_microseconds) {}
    Team team;
    std::mutex mutex;
    std::vector<std::unique_ptr<Workspace>> workspaces;
    std::map<std::pair<int, int>, std::shared_ptr<const Shape>> shapes;
  };
  class Lease;

  State& state();
  std::shared_ptr<const Shape> shape(State& state, int height, int width);

  const Network network_;
  const int threads_, spin_microseconds_;
  std::atomic<State*> state_{nullptr};
  std::atomic<int> process_{0};
};

}  // namespace effnet
