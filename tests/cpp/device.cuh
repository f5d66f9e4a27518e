// Memory and launches of a GPU, by CUDA's runtime; for the test and the bench of the kernels alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

namespace bptt::test {

#define BPTT_CUDA(call) ::bptt::test::demand(call, #call, __LINE__)

inline void demand(cudaError_t status, const char* call, int line) {
  if (status == cudaSuccess) return;
  std::printf("line %d: %s: %s\n", line, call, cudaGetErrorString(status));
  std::exit(3);
}

// Copies of the host's arrays, each of which has one however often it is named.
class OnDevice {
 public:
  ~OnDevice() {
    for (auto& [host, copy] : copies_) cudaFree(copy.device);
  }

  template <class T>
  T* of(const std::vector<T>& array) {
    Copy& copy = copies_[array.data()];
    if (array.empty()) return nullptr;
    if (!copy.device) {
      copy.bytes = array.size() * sizeof(T);
      BPTT_CUDA(cudaMalloc(&copy.device, copy.bytes));
      BPTT_CUDA(cudaMemcpy(copy.device, array.data(), copy.bytes, cudaMemcpyHostToDevice));
    }
    return static_cast<T*>(copy.device);
  }
  template <class T>
  void update(const std::vector<T>& array) {
    if (T* const device = of(array)) {
      BPTT_CUDA(cudaMemcpy(device, array.data(), array.size() * sizeof(T), cudaMemcpyHostToDevice));
    }
  }
  template <class T>
  void fetch(std::vector<T>& array) {
    if (T* const device = of(array)) {
      BPTT_CUDA(cudaMemcpy(array.data(), device, array.size() * sizeof(T), cudaMemcpyDeviceToHost));
    }
  }

 private:
  struct Copy {
    void* device = nullptr;
    std::size_t bytes = 0;
  };
  std::map<const void*, Copy> copies_;
};

struct DeviceLaunch {
  int blocks, threads;
  int cluster = 1;           // blocks of a cluster
  bool cooperative = false;  // whether all blocks have to run at the same time
  std::size_t shared_bytes = 0;
};

// On the default stream.
template <class... Args>
void launch_on_device(const DeviceLaunch& launch, void (*kernel)(Args...), Args... args) {
  const auto* const function = reinterpret_cast<const void*>(kernel);
  BPTT_CUDA(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(launch.shared_bytes)));
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (launch.cluster > 1) {
    BPTT_CUDA(cudaFuncSetAttribute(function, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(launch.cluster), 1, 1};
  }
  if (launch.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(launch.blocks));
  config.blockDim = dim3(static_cast<unsigned>(launch.threads));
  config.dynamicSmemBytes = launch.shared_bytes;
  config.attrs = attributes;
  config.numAttrs = count;
  void* pointers[] = {&args...};
  BPTT_CUDA(cudaLaunchKernelExC(&config, function, pointers));
}

// Milliseconds that the device takes for `work`, the least of some times.
template <class F>
float device_ms(F&& work) {
  cudaEvent_t begin, end;
  BPTT_CUDA(cudaEventCreate(&begin));
  BPTT_CUDA(cudaEventCreate(&end));
  float least = 0;
  for (int i = 0; i < 6; ++i) {
    BPTT_CUDA(cudaEventRecord(begin));
    work();
    BPTT_CUDA(cudaEventRecord(end));
    BPTT_CUDA(cudaEventSynchronize(end));
    float ms = 0;
    BPTT_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i == 1 || (i > 1 && ms < least)) least = ms;  // the first warms up
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return least;
}

}  // namespace bptt::test
