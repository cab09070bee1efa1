#include "common/mapped_pages.h"

#include <cstdint>

#include <sys/mman.h>

namespace tessera {

void DropPages(std::span<const std::byte> mapped) {
  constexpr uintptr_t kPageBytes = 4096;
  const auto at = reinterpret_cast<uintptr_t>(mapped.data());
  const uintptr_t begin = (at + kPageBytes - 1) / kPageBytes * kPageBytes;
  const uintptr_t end = (at + mapped.size()) / kPageBytes * kPageBytes;
  if (begin < end) {
    // Advice, which may be refused.
    static_cast<void>(
        ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED));
  }
}

}  // namespace tessera
