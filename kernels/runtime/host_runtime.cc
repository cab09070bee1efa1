#include "kernels/runtime/host_runtime.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "fmt/format.h"
#include <sys/mman.h>

#include "common/status.h"

namespace tessera::kernels {
namespace {

constexpr size_t kCacheLine = 64;
constexpr size_t kHugePage = size_t{2} << 20;

// Calls visit(byte offset in the view, byte offset in the dense array, bytes) for every
// row.
template <typename Visit>
void ForEachRow(const TensorView& view, Visit visit) {
  if (view.empty()) {
    return;
  }
  const size_t bits = model::DTypeBits(view.dtype);
  const int last = view.rank - 1;
  const size_t row_bytes = static_cast<size_t>(view.dim(last)) * bits / 8;
  const int64_t rows = view.num_elements() / view.dim(last);
  for (int64_t row = 0; row < rows; ++row) {
    int64_t offset = 0;
    int64_t rest = row;
    for (int axis = last - 1; axis >= 0; --axis) {
      offset += rest % view.dim(axis) * view.stride(axis);
      rest /= view.dim(axis);
    }
    visit(static_cast<size_t>(offset) * bits / 8, static_cast<size_t>(row) * row_bytes,
          row_bytes);
  }
}

absl::Status OutOfMemory(size_t bytes) {
  return absl::ResourceExhaustedError(
      fmt::format("cannot allocate {} bytes of host memory", bytes));
}

// Large buffers come from the kernel zeroed, page by page at their first touch: a cache
// that is never filled costs neither time nor memory.
absl::StatusOr<DeviceBuffer> AllocatePages(size_t bytes) {
  const size_t mapped = bytes + kHugePage;
  void* const base = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return OutOfMemory(bytes);
  }
  const auto address = reinterpret_cast<uintptr_t>(base);
  void* const aligned =
      reinterpret_cast<void*>((address + kHugePage - 1) / kHugePage * kHugePage);
  // Advice only: without huge pages the memory is as good, a little slower.
  static_cast<void>(::madvise(aligned, bytes, MADV_HUGEPAGE));
  return DeviceBuffer(aligned, bytes, [base, mapped](void*) { ::munmap(base, mapped); });
}

}  // namespace

absl::StatusOr<DeviceBuffer> AllocateHost(size_t bytes) {
  if (bytes > std::numeric_limits<size_t>::max() / 2) {
    return OutOfMemory(bytes);
  }
  if (bytes >= kHugePage) {
    return AllocatePages(bytes);
  }
  // aligned_alloc wants a multiple of the alignment; an empty buffer still has an
  // address.
  const size_t rounded = (bytes / kCacheLine + 1) * kCacheLine;
  void* memory = std::aligned_alloc(kCacheLine, rounded);
  if (memory == nullptr) {
    return OutOfMemory(bytes);
  }
  std::memset(memory, 0, rounded);
  return DeviceBuffer(memory, bytes, [](void* data) { std::free(data); });
}

void CopyDenseToView(const void* dense, TensorView view) {
  ForEachRow(view, [&](size_t in_view, size_t in_dense, size_t bytes) {
    std::memcpy(static_cast<std::byte*>(view.data) + in_view,
                static_cast<const std::byte*>(dense) + in_dense, bytes);
  });
}

void CopyViewToDense(TensorView view, void* dense) {
  ForEachRow(view, [&](size_t in_view, size_t in_dense, size_t bytes) {
    std::memcpy(static_cast<std::byte*>(dense) + in_dense,
                static_cast<const std::byte*>(view.data) + in_view, bytes);
  });
}

}  // namespace tessera::kernels
