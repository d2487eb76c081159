// ise_fast._C: importing it registers the CPU operators (their static initialisers run) and tells how it was built.
#include <pybind11/pybind11.h>

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
}
