#include "engine.h"

#include <algorithm>

#ifndef _WIN32
#include <unistd.h>
#endif

namespace effnet {

namespace {

// Multiply-adds of an image for each thread of a team that shares it: with less, waiting for one another costs more.
constexpr double kMacsToShare = 5e6;

int process_id() {
#ifdef _WIN32
  return 1;  // it has no fork
#else
  return static_cast<int>(getpid());
#endif
}

}  // namespace

// A workspace of the engine's for as long as it is needed.
class Engine::Lease {
 public:
  explicit Lease(State& state) : state_(state) {
    const std::lock_guard<std::mutex> lock(state.mutex);
    if (state.workspaces.empty()) {
      workspace_ = std::make_unique<Workspace>();
    } else {
      workspace_ = std::move(state.workspaces.back());
      state.workspaces.pop_back();
    }
  }
  ~Lease() {
    const std::lock_guard<std::mutex> lock(state_.mutex);
    state_.workspaces.push_back(std::move(workspace_));
  }
  Lease(const Lease&) = delete;
  Workspace& operator*() { return *workspace_; }

 private:
  State& state_;
  std::unique_ptr<Workspace> workspace_;
};

Engine::Engine(const Plan& plan, const Kernels& kernels, int threads, int spin_microseconds)
    : network_(plan, kernels),
      threads_(threads),
      spin_microseconds_(spin_microseconds),
      state_(new State(threads, spin_microseconds)),
      process_(process_id()) {}

Engine::~Engine() {
  if (process_ == process_id()) delete state_.load();
}

Engine::State& Engine::state() {
  const int process = process_id();
  if (process_.load(std::memory_order_acquire) != process) {
    // The first call in a forked process. Its callers race for the exchange; the old state cannot be freed
    State* old = state_.load();
    State* fresh = new State(threads_, spin_microseconds_);
    if (state_.compare_exchange_strong(old, fresh))
      process_.store(process, std::memory_order_release);
    else
      delete fresh;
    while (process_.load(std::memory_order_acquire) != process) pause();
  }
  return *state_.load(std::memory_order_acquire);
}

std::shared_ptr<const Shape> Engine::shape(State& state, int height, int width) {
  const std::lock_guard<std::mutex> lock(state.mutex);
  const std::pair<int, int> size(height, width);
  if (const auto found = state.shapes.find(size); found != state.shapes.end()) return found->second;
  if (state.shapes.size() >= 64) state.shapes.clear();  // photos of ever new sizes
  return state.shapes[size] = network_.make_shape(height, width);
}

void Engine::run(const Images& images, float* logits, float* embedding, float* const* features) {
  State& state = this->state();
  const std::shared_ptr<const Shape> shape = this->shape(state, images.height, images.width);
  const size_t pixels = static_cast<size_t>(images.height) * images.width * network_.channels;
  const size_t bytes = pixels * (images.kind == InputKind::kBytes ? 1 : sizeof(float));
  std::vector<size_t> feature_sizes;
  for (int i = 0; features && i < network_.features; ++i) {
    int sides[3];
    feature_shape(i, images.height, images.width, sides);
    feature_sizes.push_back(static_cast<size_t>(sides[0]) * sides[1] * sides[2]);
  }
  const auto compute = [&](int i, Workspace& workspace, int member, int members) {
    const Image image{images.kind, static_cast<const char*>(images.data) + i * bytes, images.scale, images.shift};
    float* maps[1025];
    for (size_t f = 0; f < feature_sizes.size(); ++f) maps[f] = features[f] + i * feature_sizes[f];
    const Outputs out{logits ? logits + static_cast<size_t>(i) * network_.classes : nullptr,
                      embedding ? embedding + static_cast<size_t>(i) * network_.embedding : nullptr,
                      features ? maps : nullptr};
    network_.run(*shape, workspace, member, members, image, out);
  };
  // As many images as there are threads are computed at once, each by one thread: no waiting for one another. The whole
  // team shares each of the rest.
  const bool small = shape->macs < kMacsToShare * threads_;
  const int alone = small ? images.count : images.count / threads_ * threads_;
  if (threads_ > 1 && !(small && images.count == 1)) {
    Lease shared(state);
    network_.reserve(*shared, *shape, threads_, features);
    std::vector<std::unique_ptr<Lease>> own;
    for (int member = 0; alone && member < threads_; ++member) {
      own.push_back(std::make_unique<Lease>(state));
      network_.reserve(**own.back(), *shape, 1, features);
    }
    std::atomic<int> next{0};
    if (state.team.try_run([&](int member) {
          for (int i; (i = next.fetch_add(1)) < alone;) compute(i, **own[member], 0, 1);
          for (int i = alone; i < images.count; ++i) compute(i, *shared, member, threads_);
        }))
      return;
  }
  Lease own(state);
  network_.reserve(*own, *shape, 1, features);
  for (int i = 0; i < images.count; ++i) compute(i, *own, 0, 1);
}

void Engine::feature_shape(int index, int height, int width, int* shape) const {
  network_.feature_shape(index, height, width, shape);
}

}  // namespace effnet
