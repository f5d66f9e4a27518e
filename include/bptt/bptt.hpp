// bptt for C++17: a recurrent layer with its weights and gradients, over the functions of bptt.h.
#pragma once

#include <bptt/bptt.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace bptt {

// What a function of bptt.h returned.
class Error : public std::runtime_error {
 public:
  Error(int status, const std::string& message) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

inline void check(int status) {
  if (status != BPTT_OK) throw Error(status, bptt_error_message());
}

// The parameters of a layer, or their gradients.
template <class T>
struct Weights {
  std::vector<T> w_ih;  // (G H, I)
  std::vector<T> w_hh;  // (G H, H)
  std::vector<T> b_ih;  // (G H)
  std::vector<T> b_hh;  // (G H)

  // f(w) for each array.
  template <class F>
  void for_each(F&& f) {
    for (auto* w : {&w_ih, &w_hh, &b_ih, &b_hh}) f(*w);
  }
};

// A layer that begins at a state of zeros, over batches of any length: forward, then backward.
template <class T>
class Recurrent {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "float or double");

 public:
  Recurrent(std::string cell, std::int64_t inputs, std::int64_t hidden)
      : cell_(std::move(cell)), inputs_(inputs), hidden_(hidden) {
    expect(inputs >= 1 && hidden >= 1, "inputs, hidden: expected sizes of at least 1");
    bptt_cell shape = BPTT_CELL_INIT;
    check(bptt_describe_cell(cell_.c_str(), &shape));
    shape_ = shape;
    const auto i = static_cast<std::size_t>(inputs), h = static_cast<std::size_t>(hidden);
    const std::size_t sums = static_cast<std::size_t>(shape.gates) * h;
    for (Weights<T>* w : {&weights, &gradients}) {
      w->w_ih.resize(sums * i);
      w->w_hh.resize(sums * h);
      w->b_ih.resize(sums);
      w->b_hh.resize(sums);
    }
  }

  Weights<T> weights, gradients;
  bptt_options options = BPTT_OPTIONS_INIT;

  std::int64_t hidden() const { return hidden_; }

  // y (T, B, H) of x (T, B, I), which has to stay until the way back. `lengths` (B) may be null.
  const std::vector<T>& forward(const T* x, std::int64_t steps, std::int64_t batch,
                                const std::int32_t* lengths = nullptr) {
    expect(steps >= 0 && batch >= 0, "steps, batch: expected sizes of at least 0");
    steps_ = steps;
    batch_ = batch;
    x_ = x;
    lengths_ = lengths;
    const auto rows = static_cast<std::size_t>(batch * hidden_);
    const std::size_t all = static_cast<std::size_t>(steps) * rows;
    y_.resize(all);
    c_.resize(shape_.states > 1 ? all : 0);
    saved_.resize(static_cast<std::size_t>(shape_.saved) * all);
    last_h_.resize(rows);
    const bptt_layer layer = this->layer();
    const bptt_record record = this->record();
    check(bptt_forward(&layer, &record, &options));
    return y_;
  }

  const std::vector<T>& last_h() const { return last_h_; }  // (B, H)

  // `gradients` of the loss, given those by y (T, B, H) and by last_h (B, H); either may be null,
  // and so may dx (T, B, I), where the gradient of x goes.
  void backward(const T* dy, const T* dlast_h, T* dx = nullptr) {
    bptt_incoming incoming = BPTT_INCOMING_INIT;
    incoming.y = dy;
    incoming.last_h = dlast_h;
    bptt_gradients into = BPTT_GRADIENTS_INIT;
    into.x = dx;
    into.w_ih = gradients.w_ih.data();
    into.w_hh = gradients.w_hh.data();
    into.b_ih = gradients.b_ih.data();
    into.b_hh = gradients.b_hh.data();
    const bptt_layer layer = this->layer();
    const bptt_record record = this->record();
    check(bptt_backward(&layer, &record, &incoming, &into, &options));
  }

 private:
  static void expect(bool holds, const char* what) {
    if (!holds) throw Error(BPTT_INVALID_ARGUMENT, what);
  }

  // Made anew for each pass: the object may have been moved, or its weights.
  bptt_layer layer() const {
    bptt_layer layer = BPTT_LAYER_INIT;
    layer.cell = cell_.c_str();
    layer.dtype = std::is_same_v<T, float> ? BPTT_FLOAT32 : BPTT_FLOAT64;
    layer.steps = steps_;
    layer.batch = batch_;
    layer.inputs = inputs_;
    layer.hidden = hidden_;
    layer.x = x_;
    layer.w_ih = weights.w_ih.data();
    layer.w_hh = weights.w_hh.data();
    layer.b_ih = weights.b_ih.data();
    layer.b_hh = weights.b_hh.data();
    layer.lengths = lengths_;
    return layer;
  }

  bptt_record record() {
    bptt_record record = BPTT_RECORD_INIT;
    record.y = y_.data();
    record.c_y = c_.empty() ? nullptr : c_.data();
    record.saved = saved_.empty() ? nullptr : saved_.data();
    record.last_h = last_h_.data();
    return record;
  }

  std::string cell_;
  std::int64_t inputs_, hidden_, steps_ = 0, batch_ = 0;
  const T* x_ = nullptr;
  const std::int32_t* lengths_ = nullptr;
  bptt_cell shape_ = BPTT_CELL_INIT;
  std::vector<T> y_, c_, saved_, last_h_;
};

}  // namespace bptt
