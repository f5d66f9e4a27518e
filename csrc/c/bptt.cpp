// The C interface: structs of any version to the engine's, and exceptions to codes.
#include "bptt/bptt.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "dispatch/dispatch.h"
#include "engine/scratch.h"
#include "sequences/passes.h"

namespace bptt {
namespace {

thread_local std::string message;

// A struct as this version has it: what the caller's has not is zero, and what this one has not has
// to be, since nobody would heed it.
template <class S>
S read(const char* name, const S* given) {
  if (!given) throw std::invalid_argument(std::string(name) + ": expected a struct, got NULL");
  std::size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  if (size < sizeof size) {
    throw std::invalid_argument(std::string(name) + ": expected struct_size to be set");
  }
  const auto* const bytes = reinterpret_cast<const unsigned char*>(given);
  const bool heeded = size <= sizeof(S) || std::all_of(bytes + sizeof(S), bytes + size,
                                                       [](unsigned char b) { return b == 0; });
  if (!heeded) {
    throw std::invalid_argument(std::string(name) + ": a member is set that this version, " +
                                BPTT_VERSION + ", does not have");
  }
  S found{};
  std::memcpy(&found, given, std::min(size, sizeof(S)));
  return found;
}

void expect(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// The callback of the call that this thread makes, which alone asks.
thread_local const bptt_options* asking = nullptr;

class Asking {
 public:
  explicit Asking(const bptt_options& options) : outer_(asking) { asking = &options; }
  ~Asking() { asking = outer_; }
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;

 private:
  const bptt_options* outer_;
};

bool asked() { return asking->interrupt && asking->interrupt(asking->context) != 0; }

Execution execution_of(const bptt_options& o) {
  constexpr int kMost = 1024;
  expect(o.threads >= 0 && o.threads <= kMost, "threads: expected a number from 0 to 1024");
  // Once: to ask takes longer than a small call.
  static const int cpus =
      static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 1024U));
  return {o.threads ? o.threads : cpus, !o.keep_subnormals};
}

CellId cell_of(const char* name) {
  expect(name != nullptr, "cell: expected a name, got NULL");
  const auto id = find_cell(name);
  if (!id) throw std::invalid_argument("cell: unknown name '" + std::string(name) + "'");
  return *id;
}

// Of the state, zeros where there is none: in scratch of the frame that is open.
template <class T>
const T* state_or_zeros(const void* given, Index count) {
  if (given) return static_cast<const T*>(given);
  T* const zeros = Buffer<T>(count).get();
  std::fill_n(zeros, count, T{});
  return zeros;
}

// Whether there can be arrays of four times so many values of float64.
bool countable(std::initializer_list<std::int64_t> sizes) {
  std::int64_t bytes = 4 * static_cast<std::int64_t>(sizeof(double));
  for (std::int64_t size : sizes) {
    if (__builtin_mul_overflow(bytes, size, &bytes)) return false;
  }
  return true;
}

template <class T>
Layer<T> layer_of(const bptt_layer& l) {
  const auto of = [](const void* p) { return static_cast<const T*>(p); };
  const CellId id = cell_of(l.cell);
  const bool has_c = shape_of(id).states > 1;
  expect(l.steps >= 0 && l.batch >= 0, "steps, batch: expected sizes of at least 0");
  expect(l.inputs >= 1 && l.hidden >= 1, "inputs, hidden: expected sizes of at least 1");
  expect(countable({l.hidden, std::max(l.inputs, l.hidden)}) &&
             countable({std::max<std::int64_t>(l.steps, 1), l.batch, std::max(l.inputs, l.hidden)}),
         "steps, batch, inputs, hidden: expected sizes of arrays that memory can hold");
  expect(l.x || l.steps == 0 || l.batch == 0, "x: expected an array, got NULL");
  expect(l.w_ih && l.w_hh, "w_ih, w_hh: expected arrays, got NULL");
  expect(has_c || !l.c, "c: expected NULL of a cell without c");
  expect(!has_c || !l.h == !l.c, "h, c: expected both or neither");
  const Padded padded{l.steps, l.batch, l.lengths, l.reset, l.reverse != 0};
  expect(padded.valid(), "lengths: expected lengths from 0 to steps");
  const Index count = l.batch * l.hidden;
  return {
      id,         padded,
      l.inputs,   l.hidden,
      of(l.x),    {state_or_zeros<T>(l.h, count), has_c ? state_or_zeros<T>(l.c, count) : nullptr},
      of(l.w_ih), of(l.w_hh),
      of(l.b_ih), of(l.b_hh)};
}

bool plain(const bptt_layer& l) { return !l.lengths && !l.reset && !l.reverse; }

template <class T>
void run_forward(const bptt_layer& given, const bptt_record& r, const Execution& execution,
                 Interrupt& interrupt) {
  const Layer<T> layer = layer_of<T>(given);
  const auto to = [](void* p) { return static_cast<T*>(p); };
  const bool has_c = layer.state.c != nullptr, empty = given.steps * given.batch == 0;
  expect(r.y || empty, "y: expected an array, got NULL");
  expect(has_c || (!r.c_y && !r.last_c), "c_y, last_c: expected NULL of a cell without c");
  const Index count = given.batch * given.hidden;
  const auto or_scratch = [&](void* p) { return p ? to(p) : Buffer<T>(count).get(); };
  forward(layer, Record<T>{to(r.y), to(r.c_y), shape_of(layer.cell).saved ? to(r.saved) : nullptr},
          State<T>{or_scratch(r.last_h), has_c ? or_scratch(r.last_c) : nullptr}, execution,
          interrupt);
}

template <class T>
void run_backward(const bptt_layer& given, const bptt_record& r, const bptt_incoming& in,
                  const bptt_gradients& g, const Execution& execution, Interrupt& interrupt) {
  const Layer<T> layer = layer_of<T>(given);
  const auto of = [](const void* p) { return static_cast<const T*>(p); };
  const auto to = [](void* p) { return static_cast<T*>(p); };
  const bool has_c = layer.state.c != nullptr, empty = given.steps * given.batch == 0;
  expect((r.y && !r.c_y == !has_c) || empty, "y, c_y: expected what the pass forward wrote");
  expect(has_c || (!in.last_c && !g.c), "c: expected NULL of a cell without c");
  expect(!g.b_ih || given.b_ih, "b_ih: expected NULL of a layer without this bias");
  expect(!g.b_hh || given.b_hh, "b_hh: expected NULL of a layer without this bias");
  const bool of_rows = g.x || g.h || g.c;
  expect(!g.accumulate || !of_rows || plain(given),
         "accumulate: expected 0 where gradients of x or of the state are scattered");
  const Record<const T> record{of(r.y), of(r.c_y),
                               shape_of(layer.cell).saved ? of(r.saved) : nullptr};
  const Gradients<T> gradients{
      to(g.x),    to(g.h),    to(g.c), to(g.w_ih), to(g.w_hh),
      to(g.b_ih), to(g.b_hh), nullptr, nullptr,    g.accumulate ? Write::add : Write::overwrite};
  backward(layer, record, of(in.y), State<const T>{of(in.last_h), of(in.last_c)}, gradients,
           execution, interrupt);
}

// The status of f(), whose exceptions end here.
template <class F>
int guarded(F&& f) {
  const auto fails = [](bptt_status status, const char* what) {
    try {
      message = what;
    } catch (...) {
      message.clear();
    }
    return status;
  };
  try {
    return f();
  } catch (const std::invalid_argument& error) {
    return fails(BPTT_INVALID_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    return fails(BPTT_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    return fails(BPTT_INTERNAL_ERROR, error.what());
  } catch (...) {
    return fails(BPTT_INTERNAL_ERROR, "unknown error");
  }
}

// Runs f(T{}, execution, interrupt) in the dtype of a layer.
template <class F>
int run(const bptt_layer& layer, const bptt_options* given, F&& f) {
  const bptt_options options = given ? read("options", given) : bptt_options BPTT_OPTIONS_INIT;
  const Execution execution = execution_of(options);
  const Asking callback(options);
  const Scratch::Frame frame;
  Interrupt interrupt(asked);
  if (layer.dtype == BPTT_FLOAT32) {
    f(float{}, execution, interrupt);
  } else {
    expect(layer.dtype == BPTT_FLOAT64, "dtype: expected BPTT_FLOAT32 or BPTT_FLOAT64");
    f(double{}, execution, interrupt);
  }
  if (!interrupt.stopped()) return BPTT_OK;
  message = "interrupted";
  return BPTT_INTERRUPTED;
}

}  // namespace
}  // namespace bptt

int bptt_forward(const bptt_layer* layer, const bptt_record* record, const bptt_options* options) {
  using namespace bptt;
  return guarded([&] {
    const bptt_layer l = read("layer", layer);
    const bptt_record r = read("record", record);
    return run(l, options, [&](auto zero, const Execution& execution, Interrupt& interrupt) {
      run_forward<decltype(zero)>(l, r, execution, interrupt);
    });
  });
}

int bptt_backward(const bptt_layer* layer, const bptt_record* record, const bptt_incoming* incoming,
                  const bptt_gradients* gradients, const bptt_options* options) {
  using namespace bptt;
  return guarded([&] {
    const bptt_layer l = read("layer", layer);
    const bptt_record r = read("record", record);
    const bptt_incoming in = read("incoming", incoming);
    const bptt_gradients g = read("gradients", gradients);
    return run(l, options, [&](auto zero, const Execution& execution, Interrupt& interrupt) {
      run_backward<decltype(zero)>(l, r, in, g, execution, interrupt);
    });
  });
}

int bptt_describe_cell(const char* name, bptt_cell* cell) {
  using namespace bptt;
  return guarded([&] {
    bptt_cell found = read("cell", const_cast<const bptt_cell*>(cell));
    const CellShape& shape = shape_of(cell_of(name));
    found.gates = static_cast<std::int32_t>(shape.gates);
    found.states = static_cast<std::int32_t>(shape.states);
    found.saved = static_cast<std::int32_t>(shape.saved);
    std::memcpy(cell, &found, std::min(found.struct_size, sizeof found));
    return BPTT_OK;
  });
}

const char* bptt_error_message(void) { return bptt::message.c_str(); }

const char* bptt_version(void) { return BPTT_VERSION; }

const char* bptt_isa(void) {
  const char* found = nullptr;
  bptt::guarded([&] {
    found = bptt::kernel_table().name;
    return BPTT_OK;
  });
  return found;
}
