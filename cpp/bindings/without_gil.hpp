// Computing without Python's lock, so that other Python threads run meanwhile, and with Ctrl-C at work.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "malis/support/interrupt.hpp"

namespace malis::bindings {

namespace py = pybind11;

// Python handles signals on its main thread alone, between two of its own instructions. While the core computes there are
// none, so it asks Python now and then whether there is a signal; what the handler raises, KeyboardInterrupt for Ctrl-C,
// ends the call.
class WithoutGil {
  public:
    WithoutGil() : main_(is_main_thread()) {
        if (main_) interruptible_.emplace(handle_signals);
    }

  private:
    static bool is_main_thread() {
        const py::module_ threading = py::module_::import("threading");
        const py::object main = threading.attr("main_thread")().attr("ident"), here = threading.attr("get_ident")();
        return main.equal(here);
    }
    static void handle_signals() {
        const py::gil_scoped_acquire lock;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }

    const bool main_;  // found out before the lock is released
    const py::gil_scoped_release release_;
    std::optional<Interruptible> interruptible_;
};

}  // namespace malis::bindings
