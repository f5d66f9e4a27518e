// Losses: the bits of the formulas in T, taken output by output, and their value against the same
// formulas in long double.
#include <cmath>
#include <limits>
#include <vector>

#include "arrays.h"
#include "isa.h"
#include "random.h"

namespace bptt::test {
namespace {

enum class Outputs { moderate, huge, special };
inline constexpr const char* kOutputsNames[] = {"moderate", "huge", "special"};

struct Case {
  Index rows, outputs;
  Index padding;  // of a row of o
  bool weighted;
  Outputs kind;
  Index gap;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "rows " << c.rows << ", outputs " << c.outputs << ", padding " << c.padding
             << ", weighted " << c.weighted << ", outputs "
             << kOutputsNames[static_cast<int>(c.kind)] << ", gap " << c.gap;
}

template <class T>
T random_output(Outputs kind, Random& random) {
  switch (kind) {
    case Outputs::huge: return std::ldexp(random.uniform<T>(), 100);
    case Outputs::special: return random.special<T>();
    default: return 8 * random.uniform<T>();
  }
}

// The arrays of a call.
template <class T>
struct Rows {
  Rows(const Case& c, Random& random)
      : stride(c.outputs + c.padding),
        o(c.rows == 0 ? 0 : (c.rows - 1) * stride + c.outputs, c.gap),
        target(c.rows * c.outputs, c.gap),
        ids(c.rows, c.gap),
        weights(c.weighted ? c.rows : 0, c.gap),
        losses(c.rows, c.gap) {
    for (Index r = 0; r < c.rows; ++r) {
      for (Index j = 0; j < c.outputs; ++j) {
        o[r * stride + j] = random_output<T>(c.kind, random);
        target[r * c.outputs + j] = random_output<T>(c.kind, random);
      }
      ids[r] = random.below(c.outputs);
    }
    for (T& weight : weights) weight = random.below(4) == 0 ? T(0) : random.spread<T>();
    for (Index r = 0; r < weights.size(); ++r) {
      if (weights[r] == 0) ids[r] = -100;  // nothing of such a row is read
    }
    call = {c.rows,
            c.outputs,
            o.get(),
            stride,
            target.get(),
            ids.get(),
            c.weighted ? weights.get() : nullptr,
            T(0.125),
            losses.get()};
  }
  T weight(Index row) const { return weights.size() ? weights[row] : T(1); }

  Index stride;
  GuardedArray<T> o, target;
  GuardedArray<std::int64_t> ids;
  GuardedArray<T> weights;
  GuardedArray<double> losses;
  LossRows<T> call;
};

// The loss of one row, not weighted, and its gradient in place of the outputs.
template <class T>
double squared_error(std::vector<T>& o, const Rows<T>& rows, Index row) {
  double sum = 0;
  const Index outputs = rows.call.outputs;
  for (Index j = 0; j < outputs; ++j) {
    T& value = o[static_cast<std::size_t>(j)];
    value -= rows.target[row * outputs + j];
    sum += static_cast<double>(value) * static_cast<double>(value);
  }
  return sum / 2;
}

template <class T>
double cross_entropy(std::vector<T>& o, const Rows<T>& rows, Index row) {
  T largest = o[0];
  for (T value : o) {
    if (value != value) largest = value;
    if (value > largest) largest = value;
  }
  for (T& value : o) value -= largest;
  const auto id = static_cast<std::size_t>(rows.ids[row]);
  const T at_id = o[id];
  kernels<T>().exp(o.data(), o.data(), static_cast<Index>(o.size()));
  T total = 0;
  for (T value : o) total += value;
  for (T& value : o) value /= total;
  o[id] -= T(1);
  return std::log(static_cast<double>(total)) - static_cast<double>(at_id);
}

template <class T>
using RowLoss = double (*)(std::vector<T>&, const Rows<T>&, Index);

template <class T>
void check_loss(LossId id, RowLoss<T> row_loss, const Case& c, Random& random) {
  const Scope scope(
      [&](std::ostream& out) { out << kLossNames[static_cast<int>(id)] << ", " << c; });
  Rows<T> rows(c, random);
  std::vector<std::vector<T>> before;
  for (Index r = 0; r < c.rows; ++r) {
    const T* o = rows.o.get() + r * rows.stride;
    before.emplace_back(o, o + c.outputs);
  }
  kernels<T>().losses[static_cast<int>(id)](rows.call);

  for (Index r = 0; r < c.rows; ++r) {
    std::vector<T>& o = before[static_cast<std::size_t>(r)];
    const bool counts = rows.weight(r) != 0;  // a weight of 0 selects
    const double loss = counts ? row_loss(o, rows, r) * static_cast<double>(rows.weight(r)) : 0.0;
    if (!same_bits(rows.losses[r], loss)) CHECK_EQUAL(rows.losses[r], loss);
    for (Index j = 0; j < c.outputs; ++j) {
      const T whole = o[static_cast<std::size_t>(j)] * rows.weight(r) * rows.call.scale;
      const T gradient = counts ? whole : T(0);
      const T got = rows.o[r * rows.stride + j];
      if (!same_bits(got, gradient)) CHECK_EQUAL(got, gradient);
    }
    for (Index j = c.outputs; j < rows.stride && r + 1 < c.rows; ++j) {
      CHECK(is_canary(rows.o[r * rows.stride + j]));
    }
  }
  CHECK(rows.o.intact() && rows.losses.intact());
}

template <class T>
void every_count_of_outputs() {
  Random random(13);
  for (Index outputs = 1; outputs <= 2 * kernels<T>().lanes + 1; ++outputs) {
    for (Index rows : {0, 1, 2, 7}) {
      for (Outputs kind : {Outputs::moderate, Outputs::huge, Outputs::special}) {
        for (bool weighted : {false, true}) {
          const Case c{rows,     outputs, random.below(4),
                       weighted, kind,    random.below(kernels<T>().lanes + 1)};
          check_loss<T>(LossId::squared_error, squared_error<T>, c, random);
          check_loss<T>(LossId::cross_entropy, cross_entropy<T>, c, random);
        }
      }
    }
  }
}

// softmax and log-sum-exp in long double.
template <class T>
void cross_entropy_is_accurate() {
  Random random(14);
  constexpr Index kOutputs = 37;
  const long double eps = std::numeric_limits<T>::epsilon();
  for (int repeat = 0; repeat < 200; ++repeat) {
    Rows<T> rows({1, kOutputs, 0, false, Outputs::moderate, 0}, random);
    std::vector<long double> exact;
    long double total = 0;
    for (T o : rows.o) {
      exact.push_back(std::exp(static_cast<long double>(o)));
      total += exact.back();
    }
    const long double loss = std::log(total) - static_cast<long double>(rows.o[rows.ids[0]]);
    kernels<T>().losses[static_cast<int>(LossId::cross_entropy)](rows.call);
    // exp and the subtraction of the largest err by eps (1 + |o - largest|), the sum by eps each.
    const long double tolerance = (kOutputs + 2 * 16) * eps;
    CHECK_AT_MOST(std::fabs(rows.losses[0] - loss), tolerance);
    for (Index j = 0; j < kOutputs; ++j) {
      const long double softmax = exact[static_cast<std::size_t>(j)] / total;
      const long double gradient = (softmax - (j == rows.ids[0])) / 8;
      CHECK_AT_MOST(std::fabs(rows.o[j] - gradient), tolerance / 8);
    }
  }
}

template <class T>
void cross_entropy_at_the_edges() {
  const T inf = std::numeric_limits<T>::infinity();
  const T big = std::numeric_limits<T>::max() / 4;
  const auto loss_of = [](std::vector<T> o, std::int64_t id) {
    double loss = -1;
    const Index outputs = static_cast<Index>(o.size());
    kernels<T>().losses[static_cast<int>(LossId::cross_entropy)](
        {1, outputs, o.data(), outputs, nullptr, &id, nullptr, T(1), &loss});
    return loss;
  };
  CHECK_EQUAL(loss_of({T(3)}, 0), 0.0);  // one class is certain
  CHECK_EQUAL(loss_of({big, T(0)}, 0), 0.0);
  CHECK_EQUAL(loss_of({big, T(0)}, 1), static_cast<double>(big));
  CHECK_EQUAL(loss_of({T(1), -inf}, 0), 0.0);
  CHECK_EQUAL(loss_of({T(1), -inf}, 1), std::numeric_limits<double>::infinity());
  CHECK(std::isnan(loss_of({inf, T(1)}, 1)));
  CHECK(std::isnan(loss_of({T(1), std::numeric_limits<T>::quiet_NaN(), T(2)}, 0)));
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"float32: every count of outputs", every_count_of_outputs<float>},
       {"float64: every count of outputs", every_count_of_outputs<double>},
       {"float32: cross entropy is accurate", cross_entropy_is_accurate<float>},
       {"float64: cross entropy is accurate", cross_entropy_is_accurate<double>},
       {"float32: cross entropy at the edges", cross_entropy_at_the_edges<float>},
       {"float64: cross entropy at the edges", cross_entropy_at_the_edges<double>}});
}
