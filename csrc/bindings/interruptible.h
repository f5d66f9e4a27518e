// How the engine is run: without the GIL, and so that Ctrl-C is heard.
#pragma once

#include <pthread.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <exception>

#include "engine/interrupt.h"

namespace bptt {

namespace py = pybind11;

// The thread that runs signal handlers. A forked child has one thread, and that is it.
inline std::atomic<unsigned long> main_thread{0};

inline void remember_main_thread() {
  const py::object thread = py::module_::import("threading").attr("main_thread")();
  main_thread = thread.attr("ident").cast<unsigned long>();
  pthread_atfork(nullptr, nullptr, [] { main_thread = PyThread_get_thread_ident(); });
}

// Whether a signal handler raised an exception (KeyboardInterrupt, usually). Other threads never
// take the GIL here: while the interpreter ends, that would unwind them in the midst of the engine.
inline bool signal_raised() {
  if (PyThread_get_thread_ident() != main_thread) return false;
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// Calls f() without the GIL. Taking it back may unwind this thread, if the interpreter ends
// meanwhile; pybind11's own guard would do it in a destructor, which ends the process.
template <class F>
void without_gil(F&& f) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    f();
  } catch (...) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (error) std::rethrow_exception(error);
}

// Runs f(interrupt) without the GIL; raises what a signal handler raised meanwhile.
template <class F>
void run_interruptibly(F&& f) {
  Interrupt interrupt(signal_raised);
  without_gil([&] { f(interrupt); });
  if (interrupt.stopped()) throw py::error_already_set();
}

}  // namespace bptt
