// ise_fast._C: importing it registers the CPU operators (their static initialisers run), tells how it was built and
// lets Ctrl-C reach a running operator; how far running searches are.
#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "../csrc/interrupt.h"
#include "../csrc/search_progress.h"

namespace {

// The exception that Python raised (in a signal handler, as a rule KeyboardInterrupt), on its way through C++. torch's
// own pybind11 knows it by the base class and calls set_error.
class RaisedByHandler : public pybind11::builtin_exception {
public:
  RaisedByHandler() : pybind11::builtin_exception("interrupted") {
    PyErr_Fetch(&error_->type, &error_->value, &error_->traceback);
  }
  void set_error() const override {
    PyErr_Restore(std::exchange(error_->type, nullptr), std::exchange(error_->value, nullptr),
                  std::exchange(error_->traceback, nullptr));
  }

private:
  struct Error {  // shared by the copies of the exception
    PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
    ~Error() {
      if (type == nullptr) return;
      const PyGILState_STATE state = PyGILState_Ensure();
      Py_XDECREF(type);
      Py_XDECREF(value);
      Py_XDECREF(traceback);
      PyGILState_Release(state);
    }
  };
  std::shared_ptr<Error> error_ = std::make_shared<Error>();
};

unsigned long main_thread = 0;

// Runs the handlers of signals that have arrived. Python does so in its main thread only: the others need not wait for
// the interpreter's lock.
void run_signal_handlers() {
  if (PyThread_get_thread_ident() != main_thread) return;
  const PyGILState_STATE state = PyGILState_Ensure();
  std::shared_ptr<RaisedByHandler> raised;
  if (PyErr_CheckSignals() != 0) raised = std::make_shared<RaisedByHandler>();
  PyGILState_Release(state);
  if (raised) throw *raised;
}

// Has torch refuse memory that csrc/cuda could not get (allocate.h): its error, type and text, goes up from here.
void ask_torch_for_memory(int64_t bytes, int device, bool last) {
  const PyGILState_STATE state = PyGILState_Ensure();
  std::shared_ptr<RaisedByHandler> raised;
  try {
    pybind11::module_::import("ise_fast._library").attr("ask_torch_for_memory")(bytes, device, last);
  } catch (pybind11::error_already_set& error) {
    error.restore();
    raised = std::make_shared<RaisedByHandler>();
  }
  PyGILState_Release(state);
  if (raised) throw *raised;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "CPU operators of ise_fast and build information";
  m.def("build_info", [] {
    pybind11::dict info;
    info["compiler"] = ISE_FAST_COMPILER;
    info["cuda"] = ISE_FAST_CUDA;
    info["cuda_architectures"] = ISE_FAST_CUDA_ARCHITECTURES;
    info["torch_target"] = "2.10";
    return info;
  });
  m.def("interrupt_hook", [] { return reinterpret_cast<uintptr_t>(&run_signal_handlers); });
  m.def("search_progress",
        [] { return std::pair(ise_fast::search_pieces_done.load(), ise_fast::search_pieces.load()); });
  m.def("memory_hook", [] { return reinterpret_cast<uintptr_t>(&ask_torch_for_memory); });
  const pybind11::object thread = pybind11::module_::import("threading").attr("main_thread")();
  main_thread = thread.attr("ident").cast<unsigned long>();
  ise_fast::interrupt_check = &run_signal_handlers;
}
