// Pages of mapped files, which are memory only as long as somebody wants them to be.
#ifndef TESSERA_COMMON_MAPPED_PAGES_H_
#define TESSERA_COMMON_MAPPED_PAGES_H_

#include <cstddef>
#include <span>

namespace tessera {

// The pages that lie whole inside this stretch of a read-only mapped file need not stay
// in this process's memory: what is touched again is read again.
void DropPages(std::span<const std::byte> mapped);

}  // namespace tessera

#endif  // TESSERA_COMMON_MAPPED_PAGES_H_
