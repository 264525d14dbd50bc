// The threads of a block as fibers of one thread.
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>

#include "cuda_runtime_api.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

int processors = 2, shared_bytes = 99 * 1024, launches = 0;
unsigned char* dynamic_shared = nullptr;

namespace {

constexpr size_t kStack = 64 * 1024;
enum class Wait { kReady, kWarp, kBlock, kDone };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Wait wait = Wait::kReady;
  unsigned mask = 0;
  uint64_t value = 0;
  Given seen;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
size_t current = 0;
const std::function<void()>* running = nullptr;
std::mt19937 order(12345);

[[noreturn]] void stuck(const char* why) {
  std::fprintf(stderr, "emulated CUDA: %s (block %u, thread %zu)\n", why, blockIdx.x, current);
  std::abort();
}

void body() {
  (*running)();
  fibers[current].wait = Wait::kDone;
  swapcontext(&fibers[current].context, &scheduler);
}

void pause(Wait wait) {
  const size_t self = current;
  fibers[self].wait = wait;
  swapcontext(&fibers[self].context, &scheduler);
}

// Lets the lanes of a warp go on that have all come; whether there were any.
bool release_warp(size_t first) {
  bool any = false;
  for (size_t l = 0; l < 32 && first + l < fibers.size(); ++l) {
    Fiber& fiber = fibers[first + l];
    if (fiber.wait != Wait::kWarp) continue;
    const unsigned mask = fiber.mask;
    if (!(mask >> l & 1)) stuck("a lane is not in its own mask");
    bool all = true;
    for (size_t k = 0; k < 32 && all; ++k) {
      if (!(mask >> k & 1)) continue;
      if (first + k >= fibers.size() || fibers[first + k].wait == Wait::kDone) stuck("a lane of a mask has ended");
      all = fibers[first + k].wait == Wait::kWarp && fibers[first + k].mask == mask;
    }
    if (!all) continue;
    Given given{};
    for (size_t k = 0; k < 32; ++k)
      if (mask >> k & 1) given.of[k] = fibers[first + k].value;
    for (size_t k = 0; k < 32; ++k) {
      if (!(mask >> k & 1)) continue;
      fibers[first + k].seen = given;
      fibers[first + k].wait = Wait::kReady;
    }
    any = true;
  }
  return any;
}

bool release() {
  bool any = false, all_at_barrier = true, left = false;
  for (size_t first = 0; first < fibers.size(); first += 32) any = release_warp(first) || any;
  if (any) return true;
  for (const Fiber& fiber : fibers) {
    if (fiber.wait == Wait::kDone) continue;
    left = true;
    all_at_barrier = all_at_barrier && fiber.wait == Wait::kBlock;
  }
  if (!left) return false;
  if (!all_at_barrier) stuck("threads wait for others that do not come");
  for (Fiber& fiber : fibers)
    if (fiber.wait == Wait::kBlock) fiber.wait = Wait::kReady;
  return true;
}

void run_block() {
  for (Fiber& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, body, 0);
    fiber.wait = Wait::kReady;
  }
  std::vector<size_t> turn(fibers.size());
  for (size_t i = 0; i < turn.size(); ++i) turn[i] = i;
  do {
    std::shuffle(turn.begin(), turn.end(), order);
    for (const size_t i : turn) {
      if (fibers[i].wait != Wait::kReady) continue;
      current = i;
      const auto x = static_cast<unsigned>(i);
      threadIdx = dim3(x % blockDim.x, x / blockDim.x, 0);
      swapcontext(&scheduler, &fibers[i].context);
    }
  } while (release());
}

}  // namespace

int lane() { return static_cast<int>(current % 32); }

Given meet(unsigned mask, uint64_t value) {
  Fiber& self = fibers[current];
  self.mask = mask;
  self.value = value;
  pause(Wait::kWarp);
  return fibers[current].seen;
}

void meet_block() { pause(Wait::kBlock); }

void launch(dim3 grid, dim3 block, size_t dynamic_bytes, const std::function<void()>& kernel) {
  ++launches;
  const size_t threads = size_t{block.x} * block.y;
  while (fibers.size() > threads) fibers.pop_back();
  while (fibers.size() < threads) {
    fibers.emplace_back();
    fibers.back().stack.reset(new char[kStack]);
  }
  std::vector<unsigned char> shared(dynamic_bytes, 0xA5);
  dynamic_shared = shared.data();
  gridDim = grid;
  blockDim = block;
  running = &kernel;
  std::vector<std::pair<unsigned, unsigned>> blocks;
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) blocks.emplace_back(x, y);
  std::shuffle(blocks.begin(), blocks.end(), order);
  for (const auto& [x, y] : blocks) {
    blockIdx = dim3(x, y, 0);
    run_block();
  }
}

}  // namespace emulated
