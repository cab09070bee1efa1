// DeviceBuffer: owned memory of a backend's device. Allocated at start-up only; steps
// allocate nothing.
#ifndef TESSERA_KERNELS_RUNTIME_DEVICE_BUFFER_H_
#define TESSERA_KERNELS_RUNTIME_DEVICE_BUFFER_H_

#include <cstddef>
#include <functional>
#include <utility>

namespace tessera::kernels {

// Movable, not copyable. `release` frees the memory in the way it was allocated.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(void* data, size_t size_bytes, std::function<void(void*)> release)
      : data_(data), size_bytes_(size_bytes), release_(std::move(release)) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) {
      release_(data_);
    }
  }

  void* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
  std::function<void(void*)> release_;
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_RUNTIME_DEVICE_BUFFER_H_
