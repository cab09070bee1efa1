// RowMemory: the pages that packed rows lie in. Private memory, a memfd that other
// processes of this host may map, or a read-only mapping of a file. It knows no rows.
//
// Life: created writable, filled by one thread or by threads on disjoint parts, then
// sealed; from Seal on nobody can change a byte. A sealed memfd can be neither written
// nor resized by anyone, the owner included, so a client may trust it without copying.
#ifndef TESSERA_ENGRAM_STORE_TABLE_ROW_MEMORY_H_
#define TESSERA_ENGRAM_STORE_TABLE_ROW_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tessera::engram_store {

// Owns its mapping and file descriptor. Thread-safe once sealed.
class RowMemory {
 public:
  // Zeroed anonymous memory, on huge pages where the kernel has them. kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<RowMemory>> AllocatePrivate(uint64_t bytes);

  // Zeroed memory behind a memfd of this process, all of it taken, on huge pages where
  // the kernel finds them (about 1 s of its time per GiB). kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<RowMemory>> AllocateShared(uint64_t bytes);

  // The whole file, read-only and sealed at once. kNotFound, kInvalidArgument for
  // anything but a regular file that is not empty.
  static absl::StatusOr<std::unique_ptr<RowMemory>> MapFile(const std::string& path);

  // The sealed memfd `file` of process `process`, read-only, every page mapped: no read
  // faults later. kUnavailable when it cannot
  // be opened (another host, container or user, or the process is gone), kDataLoss when
  // it is not sealed.
  static absl::StatusOr<std::unique_ptr<RowMemory>> MapShared(int64_t process, int file);

  ~RowMemory();
  RowMemory(const RowMemory&) = delete;
  RowMemory& operator=(const RowMemory&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Only before Seal.
  std::span<std::byte> mutable_bytes();

  // kInternal when the kernel refuses.
  absl::Status Seal();

  // The memfd, or -1.
  int file() const { return shared_ ? file_ : -1; }

 private:
  RowMemory(int file, std::byte* data, size_t size, bool shared, bool sealed)
      : file_(file), data_(data), size_(size), shared_(shared), sealed_(sealed) {}

  int file_;
  std::byte* data_;
  size_t size_;
  bool shared_;
  bool sealed_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_ROW_MEMORY_H_
