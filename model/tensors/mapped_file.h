// MappedFile: a regular file mapped read-only. Pages are read when they are touched and
// belong to the page cache, so several processes on a host share one copy. It checks
// nothing of what is inside.
#ifndef TESSERA_MODEL_TENSORS_MAPPED_FILE_H_
#define TESSERA_MODEL_TENSORS_MAPPED_FILE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace tessera::model {

// Owns the mapping; thread-safe. The file must not be truncated while it is mapped:
// touching a page beyond its new end kills the process, as with any mapping.
class MappedFile {
 public:
  // kNotFound: no such file. kInvalidArgument: not a regular file, or not readable.
  // An empty file maps to an empty span.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::span<const std::byte> bytes_;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_MAPPED_FILE_H_
