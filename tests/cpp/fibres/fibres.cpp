// Compiled without ThreadSanitizer, to which only the accesses of kernels are shown, and with
// BPTT_RACES where they are: a fibre is a thread to it then, and nothing orders the memory of two
// but barriers and counters.
#include "fibres/fibres.h"

#include <ucontext.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <sstream>

#ifdef BPTT_RACES
#include <sanitizer/tsan_interface.h>
#define BPTT_TSAN(...) __VA_ARGS__
#else
#define BPTT_TSAN(...)
#endif

namespace bptt::fibres {
namespace {

struct Barrier {
  int expected = 0, arrived = 0;
  unsigned phase = 0;
  char order[2] = {};  // what ThreadSanitizer takes for a lock; of phases in turn
};

// 32 threads of a block that multiply together. One may be at the next product while another reads
// what was there for the last.
struct Warp {
  Barrier barrier;
  WarpOperands operands[2];
};

struct Block {
  int index;
  std::unique_ptr<unsigned char[]> shared;
  Barrier barrier;
  std::vector<Warp> warps;
  Barrier* cluster;
  Block* peers;
  int begun = 0, ended = 0;  // threads
};

constexpr int kMostPlaces = 64;

struct Fibre {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Block* block;
  int thread;
  bool done = false;
  // What it waits for, if anything.
  const Barrier* barrier = nullptr;
  unsigned phase = 0;
  const unsigned* counter = nullptr;
  unsigned value = 0;
  Place place = {};
  void* tsan = nullptr;
  bool been[kMostPlaces] = {};

  bool ready() const {
    if (barrier && barrier->phase == phase) return false;
    return !counter || static_cast<int>(__atomic_load_n(counter, __ATOMIC_RELAXED) - value) >= 0;
  }
};

constexpr std::size_t kStack = std::size_t{128} << 10;

// Of the launch that runs.
struct State {
  Launch launch;
  const std::function<void()>* kernel;
  std::vector<Block> blocks;
  std::vector<Barrier> clusters;
  std::vector<Fibre> fibres;
  Fibre* running = nullptr;
  ucontext_t scheduler;
  void* scheduler_tsan = nullptr;
  char begin_and_end = 0;  // orders the launch with what is before and after it
  std::string fault;
  // Not a vector: its functions may be merged with those of a file that ThreadSanitizer looks into.
  Place places[kMostPlaces];
  int placed = 0;
};
State* state;

void fail(const std::string& fault) {
  if (state->fault.empty()) state->fault = fault;
}

bool same(const Place& a, const Place& b) {
  return a.line == b.line && a.first == b.first && std::strcmp(a.word, b.word) == 0 &&
         std::strcmp(a.file, b.file) == 0;
}

// The number of a place, which it gets when someone first comes there.
int number_of(const Place& place) {
  int i = 0;
  while (i < state->placed && !same(state->places[i], place)) ++i;
  if (i == kMostPlaces) std::abort();
  if (i == state->placed) state->places[state->placed++] = place;
  return i;
}

void switch_to_scheduler() {
  BPTT_TSAN(__tsan_switch_to_fiber(state->scheduler_tsan, __tsan_switch_to_fiber_no_sync);)
  swapcontext(&state->running->context, &state->scheduler);
}

void switch_to(Fibre& fibre) {
  state->running = &fibre;
  BPTT_TSAN(__tsan_switch_to_fiber(fibre.tsan, __tsan_switch_to_fiber_no_sync);)
  swapcontext(&state->scheduler, &fibre.context);
}

void wait_at(Barrier& barrier, Place place) {
  Fibre& fibre = *state->running;
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    ++barrier.phase;
  } else {
    fibre.barrier = &barrier, fibre.phase = barrier.phase, fibre.place = place;
    switch_to_scheduler();
    fibre.barrier = nullptr;
  }
}

void reach(Barrier& barrier, Place place) {
  if (!is_there(place)) return;
  [[maybe_unused]] char* const order = &barrier.order[barrier.phase % 2];
  BPTT_TSAN(__tsan_release(order);)
  wait_at(barrier, place);
  BPTT_TSAN(__tsan_acquire(order);)
}

void run_fibre() {
  BPTT_TSAN(__tsan_acquire(&state->begin_and_end);)
  ++state->running->block->begun;
  (*state->kernel)();
  ++state->running->block->ended;
  BPTT_TSAN(__tsan_release(&state->begin_and_end);)
  state->running->done = true;
  switch_to_scheduler();
}

void prepare() {
  const Launch& launch = state->launch;
  state->clusters.resize(static_cast<std::size_t>(launch.blocks / launch.cluster));
  for (Barrier& cluster : state->clusters) cluster.expected = launch.cluster * launch.threads;
  state->blocks.resize(static_cast<std::size_t>(launch.blocks));
  state->fibres.resize(state->blocks.size() * static_cast<std::size_t>(launch.threads));
  auto fibre = state->fibres.begin();
  for (int b = 0; b < launch.blocks; ++b) {
    Block& block = state->blocks[static_cast<std::size_t>(b)];
    block.index = b;
    block.shared.reset(new unsigned char[launch.shared_bytes + 1]);
    std::memset(block.shared.get(), 0xff, launch.shared_bytes);
    block.barrier.expected = launch.threads;
    block.warps.resize(static_cast<std::size_t>(launch.threads + 31) / 32);
    for (Warp& warp : block.warps) warp.barrier.expected = 32;
    block.cluster = &state->clusters[static_cast<std::size_t>(b / launch.cluster)];
    block.peers = &state->blocks[static_cast<std::size_t>(b / launch.cluster * launch.cluster)];
    for (int i = 0; i < launch.threads; ++i, ++fibre) {
      fibre->block = &block;
      fibre->thread = i;
      fibre->stack.reset(new char[kStack]);
      getcontext(&fibre->context);
      fibre->context.uc_stack.ss_sp = fibre->stack.get();
      fibre->context.uc_stack.ss_size = kStack;
      makecontext(&fibre->context, run_fibre, 0);
      BPTT_TSAN(fibre->tsan = __tsan_create_fiber(0);)
    }
  }
}

void report_deadlock(const std::vector<Fibre*>& alive) {
  const Fibre& one = *alive[0];
  std::ostringstream what;
  what << alive.size() << " threads wait for ever; thread " << one.thread << " of block "
       << one.block->index << " at the " << (one.counter ? "counter" : one.place.word)
       << " of line " << one.place.line;
  fail(what.str());
}

void run_all() {
  std::mt19937 random(state->launch.seed);
  const bool in_order = state->launch.seed % 2 == 1 && state->launch.blocks <= 8;
  const auto threads = static_cast<std::size_t>(state->launch.threads);
  const std::size_t first = random() % state->blocks.size() * threads;
  std::vector<Fibre*> alive;
  for (Fibre& fibre : state->fibres) alive.push_back(&fibre);
  while (!alive.empty()) {
    const std::size_t n = alive.size();
    std::size_t at = (in_order ? first : random()) % n, tried = 0;
    while (tried < n && !alive[at]->ready()) ++tried, at = (at + 1) % n;
    if (tried == n) return report_deadlock(alive);
    switch_to(*alive[at]);
    if (!alive[at]->done) continue;
    BPTT_TSAN(__tsan_destroy_fiber(alive[at]->tsan);)
    alive[at] = alive.back();
    alive.pop_back();
  }
}

}  // namespace

int thread_index() { return state->running->thread; }
int threads_of_block() { return state->launch.threads; }
int block_index() { return state->running->block->index; }
int blocks_of_grid() { return state->launch.blocks; }
unsigned char* shared_memory() { return state->running->block->shared.get(); }

unsigned char* shared_memory_of_peer(int rank) {
  Block& peer = state->running->block->peers[rank];
  if (peer.begun == 0) fail("a store to a block that has not begun");
  if (peer.ended == state->launch.threads) fail("a store to a block that has ended");
  return peer.shared.get();
}

void reach_block_barrier(Place place) { reach(state->running->block->barrier, place); }
void reach_cluster_barrier(Place place) { reach(*state->running->block->cluster, place); }

void wait_for(const unsigned* counter, unsigned value) {
  Fibre& fibre = *state->running;
  fibre.counter = counter, fibre.value = value;
  switch_to_scheduler();
  fibre.counter = nullptr;
}

const WarpOperands& operands_of_warp(const LaneOperands& mine) {
  const Fibre& fibre = *state->running;
  Warp& warp = fibre.block->warps[static_cast<std::size_t>(fibre.thread / 32)];
  WarpOperands& operands = warp.operands[warp.barrier.phase % 2];
  operands.lanes[fibre.thread % 32] = mine;
  wait_at(warp.barrier, {"mma", __FILE__, __LINE__});
  return operands;
}

bool is_there(Place place) {
  place.first = true;
  bool& been = state->running->been[number_of(place)];
  if (been) {
    place.first = false;
    number_of(place);
  }
  been = true;
  return !state->launch.without || !same(*state->launch.without, place);
}

Outcome launch(const Launch& launch, const std::function<void()>& kernel) {
  if (launch.blocks == 0) return {};
  State mine;
  mine.launch = launch;
  mine.kernel = &kernel;
  state = &mine;
  BPTT_TSAN(mine.scheduler_tsan = __tsan_get_current_fiber();)
  prepare();
  BPTT_TSAN(__tsan_release(&mine.begin_and_end);)
  run_all();
  BPTT_TSAN(__tsan_acquire(&mine.begin_and_end);)
  state = nullptr;
  return {mine.fault, {mine.places, mine.places + mine.placed}};
}

}  // namespace bptt::fibres
