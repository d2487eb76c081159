// A CUDA runtime without a device. nvcc's host code registers its kernels here, PTX and all, and launches them; memory
// is the host's, and everything is done when the call returns.
#include "runtime.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <unordered_map>

#include "machine.h"

namespace ptx {
namespace {

struct Image {
  const char* text;
  std::size_t bytes;
  std::unique_ptr<Module> module;
};
std::vector<std::unique_ptr<Image>>& images() {
  static std::vector<std::unique_ptr<Image>> all;
  return all;
}

struct Registered {
  Image* image;
  std::string symbol;
};
std::unordered_map<const void*, Registered>& functions() {
  static std::unordered_map<const void*, Registered> all;
  return all;
}

// How nvcc wraps the PTX that it leaves in a host object (--no-compress: as text).
struct FatBinaryWrapper {
  int magic, version;
  const unsigned char* data;
};
struct FatBinary {
  std::uint32_t magic;
  std::uint16_t version, header_bytes;
  std::uint64_t bytes;
};

struct Configuration {
  dim3 grid, block;
  std::size_t shared_bytes;
  cudaStream_t stream;
} pushed;

std::string last_error;

const Module& module_of(Image& image) {
  if (!image.module) {
    const std::string all(image.text, image.bytes);
    const std::size_t begin = all.find(".version");
    if (begin == std::string::npos) throw std::runtime_error("no PTX in the library: was it compressed?");
    image.module = parse(all.substr(begin, all.find('\0', begin) - begin));
  }
  return *image.module;
}

const Kernel& kernel_of(const Registered& function) {
  for (const auto& kernel : module_of(*function.image).kernels) {
    if (kernel->symbol == function.symbol) return *kernel;
  }
  throw std::runtime_error("no PTX of the kernel " + function.symbol);
}

void launch(const Registered& function, dim3 grid, dim3 block, void** arguments, std::size_t shared_bytes) {
  const Kernel& kernel = kernel_of(function);
  counts().events.push_back({"launch",
                             kernel.name,
                             {{"grid_x", grid.x},
                              {"grid_y", grid.y},
                              {"grid_z", grid.z},
                              {"threads", block.x * block.y * block.z},
                              {"static_shared", kernel.static_shared},
                              {"dynamic_shared", static_cast<std::int64_t>(shared_bytes)}}});
  KernelCounts& of_kernel = counts().of(kernel);
  Launch launch{kernel, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes, {}, {}, of_kernel, {}};
  launch.limit = settings().limit;
  launch.parameters.resize(static_cast<std::size_t>(kernel.parameter_bytes));
  for (std::size_t i = 0; i < kernel.parameters.size(); ++i) {
    const Parameter& parameter = kernel.parameters[i];
    std::memcpy(launch.parameters.data() + parameter.offset, arguments[i], static_cast<std::size_t>(parameter.bytes));
  }
  launch.shuffled = settings().schedule != 0;
  launch.random.seed(settings().schedule * 7919 + of_kernel.launches);
  launch.ranges = allocated();
  if (settings().executes) run(launch);
}

}  // namespace

Settings& settings() {
  static Settings all;
  return all;
}

}  // namespace ptx

using ptx::counts;

extern "C" {

// Every kernel of the library, a line each: its symbol, its name, and why it cannot be run, if so. For Python.
__attribute__((visibility("default"))) void ptx_write_kernels(const char* path) {
  std::ofstream out(path);
  for (const auto& image : ptx::images()) {
    for (const auto& kernel : ptx::module_of(*image).kernels) {
      out << kernel->symbol << '\t' << kernel->name << '\t' << kernel->refusal << '\n';
    }
  }
}

void** __cudaRegisterFatBinary(void* wrapper) {
  const auto* binary = static_cast<const ptx::FatBinaryWrapper*>(wrapper)->data;
  ptx::FatBinary header;
  std::memcpy(&header, binary, sizeof header);
  auto image = std::make_unique<ptx::Image>();
  image->text = reinterpret_cast<const char*>(binary);
  image->bytes = header.header_bytes + header.bytes;
  ptx::images().push_back(std::move(image));
  return reinterpret_cast<void**>(ptx::images().back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) {  // for managed memory, which no kernel has; named in what nvcc writes all the same
  return 1;
}
void __cudaRegisterFunction(void** image, const char* host, char*, const char* device, int, uint3*, uint3*, dim3*,
                            dim3*, int*) {
  ptx::functions()[host] = {reinterpret_cast<ptx::Image*>(image), device};
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, std::size_t, int, int) {}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream) {
  ptx::pushed = {grid, block, shared_bytes, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared_bytes, void* stream) {
  *grid = ptx::pushed.grid;
  *block = ptx::pushed.block;
  *shared_bytes = ptx::pushed.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = ptx::pushed.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
// A finding of the interpreter is the error of the launch: the host code throws it with the kernel's name.
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, std::size_t shared_bytes,
                             cudaStream_t) {
  ptx::last_error.clear();
  try {
    ptx::launch(ptx::functions().at(function), grid, block, arguments, shared_bytes);
  } catch (const std::exception& error) {
    ptx::last_error = error.what();
  }
  return ptx::last_error.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, std::size_t shared_bytes,
                               cudaStream_t stream) {
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, arguments, shared_bytes, stream);
}

cudaError_t cudaGetLastError() {
  return ptx::last_error.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}
const char* cudaGetErrorString(cudaError_t) {
  return ptx::last_error.c_str();
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = ptx::settings().multiprocessors;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = ptx::settings().shared_bytes;
      break;
    default:
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = *total = ptx::settings().memory_bytes;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  counts().events.push_back(
      {kind == cudaMemcpyDeviceToHost ? "read_back" : "copy", "", {{"bytes", static_cast<std::int64_t>(bytes)}}});
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
  counts().events.push_back({"fill", "", {{"bytes", static_cast<std::int64_t>(bytes)}}});
  std::memset(to, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** to, std::size_t bytes, unsigned) {
  *to = std::malloc(bytes);
  return *to == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}

}  // extern "C"
