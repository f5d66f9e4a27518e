// DLPack 1.x, as far as it is used here: how a library of tensors shows one, and takes memory as
// one, by functions of C. Of the standard's header only declarations, with its names
// (https://dmlc.github.io/dlpack/latest/c_api.html).
#pragma once

#include <cstdint>

namespace bptt::dlpack {

inline constexpr std::uint32_t kMajorVersion = 1, kMinorVersion = 3;
inline constexpr std::int32_t kDLCPU = 1;
inline constexpr std::uint8_t kDLFloat = 2;

struct DLPackVersion {
  std::uint32_t major, minor;
};

struct DLDevice {
  std::int32_t device_type, device_id;
};

struct DLDataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t *shape, *strides;  // in items
  std::uint64_t byte_offset;
};

struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

// What the capsule `__dlpack_c_exchange_api__` of a class of tensors holds.
struct DLPackExchangeAPI {
  struct {
    DLPackVersion version;
    void* prev_api;
  } header;
  void* managed_tensor_allocator;
  void* managed_tensor_from_py_object_no_sync;
  int (*managed_tensor_to_py_object_no_sync)(DLManagedTensorVersioned* tensor, void** object);
  int (*dltensor_from_py_object_no_sync)(void* object, DLTensor* out);  // may be null
  void* current_work_stream;
};

}  // namespace bptt::dlpack
