#include "bindings/xla.h"

#include <new>
#include <string>
#include <string_view>

#include "bindings/defaults.h"
#include "bindings/xla_arguments.h"
#include "dispatch/dispatch.h"
#include "sequences/passes.h"

namespace bptt {
namespace {

// There is no way to hear Ctrl-C in the midst of an execution.
bool never() { return false; }

// What both handlers read of their operands.
template <class T>
struct Read {
  Layer<T> layer;
  Index steps, batch, inputs, hidden, gates, saved;
};

template <class T>
Read<T> read_layer(std::string_view name, bool reverse, const Operands& in) {
  const auto id = find_cell(std::string(name));
  if (!id) throw std::invalid_argument("cell: unknown name '" + std::string(name) + "'");
  const CellShape& cell = shape_of(*id);
  const auto x = in.buffer(Place::x).dimensions(), w_hh = in.buffer(Place::w_hh).dimensions();
  if (x.size() != 3 || w_hh.size() != 2) throw std::invalid_argument("x, w_hh: unexpected rank");
  const Index t = x[0], b = x[1], i = x[2], h = w_hh[1], sums = cell.gates * h;
  if (i < 1 || h < 1) throw std::invalid_argument("x, w_hh: expected sizes of at least 1");
  const bool has_c = cell.states > 1;
  if (has_c != in.has(Place::c)) throw unexpected(Place::c, "presence");
  const auto required = [&](Place place, std::initializer_list<Index> shape) {
    return data_of<T>(place, in.buffer(place), shape);
  };
  const bool* const reset = in.get<bool>(Place::reset, {t, b});
  const Padded padded{t, b, in.get<std::int32_t>(Place::lengths, {b}),
                      reinterpret_cast<const std::uint8_t*>(reset), reverse};
  if (!padded.valid()) {
    throw std::invalid_argument("lengths: expected lengths from 0 to the steps of x");
  }
  return {{*id,
           padded,
           i,
           h,
           required(Place::x, {t, b, i}),
           {required(Place::h, {b, h}), in.get<T>(Place::c, {b, h})},
           required(Place::w_ih, {sums, i}),
           required(Place::w_hh, {sums, h}),
           in.get<T>(Place::b_ih, {sums}),
           in.get<T>(Place::b_hh, {sums})},
          t,
          b,
          i,
          h,
          cell.gates,
          cell.saved};
}

template <class T>
void run_forward(std::string_view cell, bool reverse, const Operands& in, const Results& out) {
  const Read<T> r = read_layer<T>(cell, reverse, in);
  out.expect_among({Place::y, Place::c_y, Place::saved, Place::last_h, Place::last_c});
  const Record<T> record{out.get<T>(Place::y, {r.steps, r.batch, r.hidden}),
                         out.get<T>(Place::c_y, {r.steps, r.batch, r.hidden}),
                         out.get<T>(Place::saved, {r.steps, r.batch, r.saved, r.hidden})};
  const State<T> last{out.get<T>(Place::last_h, {r.batch, r.hidden}),
                      out.get<T>(Place::last_c, {r.batch, r.hidden})};
  const bool has_c = r.layer.state.c;
  if (!record.y || !last.s || has_c != (last.c != nullptr)) throw unexpected(Place::y, "absence");
  if (record.c && !has_c) throw unexpected(Place::c_y, "presence");
  if (record.saved && r.saved == 0) throw unexpected(Place::saved, "presence");
  Interrupt interrupt(never);
  forward(r.layer, record, last, default_execution(), interrupt);
}

// What comes in stands at the places of y and the last state, behind what the layer kept.
template <class T>
void run_backward(std::string_view cell, bool reverse, bool per_row, const Operands& in,
                  const Operands& incoming, const Results& out) {
  const Read<T> r = read_layer<T>(cell, reverse, in);
  const Index t = r.steps, b = r.batch, h = r.hidden, sums = r.gates * h;
  const Record<const T> record{in.get<T>(Place::y, {t, b, h}), in.get<T>(Place::c_y, {t, b, h}),
                               in.get<T>(Place::saved, {t, b, r.saved, h})};
  const bool has_c = r.layer.state.c;
  if (!record.y || has_c != (record.c != nullptr)) throw unexpected(Place::y, "absence");
  out.expect_among(
      {Place::x, Place::h, Place::c, Place::w_ih, Place::w_hh, Place::b_ih, Place::b_hh});
  if (!has_c && (out.has(Place::c) || incoming.has(Place::last_c))) {
    throw unexpected(Place::c, "presence");
  }
  if (per_row && (in.has(Place::lengths) || in.has(Place::reset))) {
    throw std::invalid_argument("per_row: expected sequences that have all steps");
  }
  const T* const dy = incoming.get<T>(Place::y, {t, b, h});
  const State<const T> dlast{incoming.get<T>(Place::last_h, {b, h}),
                             incoming.get<T>(Place::last_c, {b, h})};
  const auto matrix = [&](Place place, Index columns) {
    return per_row ? out.get<T>(place, {b, sums, columns}) : out.get<T>(place, {sums, columns});
  };
  const auto bias = [&](Place place) {
    return per_row ? out.get<T>(place, {b, sums}) : out.get<T>(place, {sums});
  };
  const Gradients<T> gradients{out.get<T>(Place::x, {t, b, r.inputs}),
                               out.get<T>(Place::h, {b, h}),
                               out.get<T>(Place::c, {b, h}),
                               matrix(Place::w_ih, r.inputs),
                               matrix(Place::w_hh, h),
                               bias(Place::b_ih),
                               bias(Place::b_hh),
                               nullptr,
                               nullptr,
                               Write::overwrite,
                               per_row ? OfRows::each : OfRows::sum};
  Interrupt interrupt(never);
  backward(r.layer, record, dy, dlast, gradients, default_execution(), interrupt);
}

// f(T{}), in the dtype of x; what it throws becomes XLA's error.
template <class F>
ffi::Error guarded(const Operands& in, F&& f) {
  try {
    const auto dtype = in.buffer(Place::x).element_type();
    if (dtype == ffi::DataType::F32) {
      f(float{});
    } else if (dtype == ffi::DataType::F64) {
      f(double{});
    } else {
      throw unexpected(Place::x, "dtype");
    }
    return ffi::Error::Success();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "bptt: out of memory");
  } catch (const std::invalid_argument& error) {
    return ffi::Error::InvalidArgument(std::string("bptt: ") + error.what());
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("bptt: ") + error.what());
  }
}

ffi::Error layer_handler(std::string_view cell, bool reverse, std::int64_t operands,
                         std::int64_t results, ffi::RemainingArgs args, ffi::RemainingRets rets) {
  const Operands in(args, operands);
  const Results out(rets, results);
  return guarded(in, [&](auto zero) { run_forward<decltype(zero)>(cell, reverse, in, out); });
}

ffi::Error backward_handler(std::string_view cell, bool reverse, bool per_row,
                            std::int64_t operands, std::int64_t incoming, std::int64_t results,
                            ffi::RemainingArgs args, ffi::RemainingRets rets) {
  const Operands in(args, operands), into(args, incoming, OperandSet(operands).count());
  const Results out(rets, results);
  return guarded(
      in, [&](auto zero) { run_backward<decltype(zero)>(cell, reverse, per_row, in, into, out); });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER(bptt_layer, layer_handler,
                       ffi::Ffi::Bind()
                           .Attr<std::string_view>("cell")
                           .Attr<bool>("reverse")
                           .Attr<std::int64_t>("operands")
                           .Attr<std::int64_t>("results")
                           .RemainingArgs()
                           .RemainingRets());

XLA_FFI_DEFINE_HANDLER(bptt_layer_backward, backward_handler,
                       ffi::Ffi::Bind()
                           .Attr<std::string_view>("cell")
                           .Attr<bool>("reverse")
                           .Attr<bool>("per_row")
                           .Attr<std::int64_t>("operands")
                           .Attr<std::int64_t>("incoming")
                           .Attr<std::int64_t>("results")
                           .RemainingArgs()
                           .RemainingRets());

void publish_xla(pybind11::module_& m) {
  namespace py = pybind11;
  m.attr("xla_ffi") = std::to_string(XLA_FFI_API_MAJOR) + "." + std::to_string(XLA_FFI_API_MINOR);
  m.def("xla_handlers", [] {
    const auto capsule = [](XLA_FFI_Handler* handler) {
      return py::capsule(reinterpret_cast<void*>(handler));
    };
    py::dict found;
    found["bptt_layer"] = capsule(bptt_layer);
    found["bptt_layer_backward"] = capsule(bptt_layer_backward);
    return found;
  });
}

}  // namespace bptt
