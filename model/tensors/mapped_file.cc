#include "model/tensors/mapped_file.h"

#include <cerrno>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/status/statusor.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/status.h"

namespace tessera::model {
namespace {

absl::Status SystemError(const std::string& path, const char* what, int error) {
  const absl::StatusCode code =
      error == ENOENT ? absl::StatusCode::kNotFound : absl::StatusCode::kInvalidArgument;
  return StatusF(code, "cannot {} {}: {}", what, path,
                 std::generic_category().message(error));
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: a pipe under this name is refused below instead of waited for.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    return SystemError(path, "open", errno);
  }
  const absl::Cleanup close_descriptor = [descriptor] { ::close(descriptor); };
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) {
    return SystemError(path, "stat", errno);
  }
  if (!S_ISREG(status.st_mode)) {
    return InvalidArgumentF("{} is not a regular file", path);
  }
  const size_t size = static_cast<size_t>(status.st_size);
  if (size == 0) {
    return std::unique_ptr<MappedFile>(new MappedFile({}));
  }
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  if (address == MAP_FAILED) {
    return SystemError(path, "map", errno);
  }
  return std::unique_ptr<MappedFile>(
      new MappedFile({static_cast<const std::byte*>(address), size}));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
}

}  // namespace tessera::model
