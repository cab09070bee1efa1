// BlockFile: a file that is read by whole pages at any place, by many threads at once:
// the seam between the rows on disk and the operating system, which tests replace.
#ifndef TESSERA_ENGRAM_STORE_DISK_BLOCK_FILE_H_
#define TESSERA_ENGRAM_STORE_DISK_BLOCK_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tessera::engram_store {

// Thread-safe.
class BlockFile {
 public:
  virtual ~BlockFile() = default;

  // For messages: the path.
  virtual const std::string& name() const = 0;
  // Bytes; the file must not change while it is open.
  virtual uint64_t size() const = 0;

  // Reads from `offset`, a multiple of kFilePageBytes, to `destination`: whole pages, at
  // a page boundary of memory. Of a page that the file ends in, only the file's bytes are
  // written. kUnavailable: the disk gives an error. kDataLoss: the file is shorter than
  // it was.
  virtual absl::Status Read(uint64_t offset, std::span<std::byte> destination) const = 0;
};

// A file of the operating system, past the page cache where the file system can
// (O_DIRECT): what is read takes no memory but the caller's. Elsewhere through it,
// without read-ahead. kNotFound; kInvalidArgument for anything but a regular file that is
// not empty.
absl::StatusOr<std::unique_ptr<BlockFile>> OpenBlockFile(const std::string& path);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_DISK_BLOCK_FILE_H_
