// Runs the threads of a kernel as fibres of one thread of a CPU, which change at the words that
// order memory. Who is next is drawn from a seed: each time, or if it is odd and blocks are few
// once, and then a block runs as far as it can before the next one begins.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace bptt::fibres {

// Where a word stands in a kernel.
struct Place {
  const char* word;
  const char* file;
  int line;
  bool first = false;  // when a thread comes there for the first time, or any later one
};

struct Launch {
  int blocks, threads;
  int cluster = 1;               // blocks of each; a divisor of `blocks`
  std::size_t shared_bytes = 0;  // of a block; NaN at the start
  unsigned seed = 0;
  const Place* without = nullptr;  // a word that is not there
};

struct Outcome {
  std::string fault;          // what a chip would not forgive; empty if there is none
  std::vector<Place> places;  // of the words that order memory, in the order they were first met
};

// One at a time. Faults: threads that wait for ever, and a store to the shared memory of a block
// that has not begun or has ended.
Outcome launch(const Launch& launch, const std::function<void()>& kernel);

// What a running fibre asks for, by the words in words.h.
int thread_index();
int threads_of_block();
int block_index();
int blocks_of_grid();
unsigned char* shared_memory();
unsigned char* shared_memory_of_peer(int rank);
void reach_block_barrier(Place place);
void reach_cluster_barrier(Place place);
// Lets others run until the counter has come so far.
void wait_for(const unsigned* counter, unsigned value);
// What the lanes of a warp multiply, each its part of two matrices: registers of one or two values.
struct LaneOperands {
  float left[4][2], right[2][2];
};
struct WarpOperands {
  LaneOperands lanes[32];
};
// Waits until all lanes of the warp are there, each with its part; valid until they are once more.
// Orders no memory.
const WarpOperands& operands_of_warp(const LaneOperands& mine);
// Whether the word is there: false of the one that `Launch::without` names.
bool is_there(Place place);

}  // namespace bptt::fibres
