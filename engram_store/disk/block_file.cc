#include "engram_store/disk/block_file.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/row_memory.h"
#include "engram_store/table/table_file_header.h"

namespace tessera::engram_store {
namespace {

std::string LastError() { return std::generic_category().message(errno); }

class SystemFile final : public BlockFile {
 public:
  SystemFile(std::string path, int file, uint64_t size)
      : path_(std::move(path)), file_(file), size_(size) {}
  ~SystemFile() override { close(file_); }
  SystemFile(const SystemFile&) = delete;
  SystemFile& operator=(const SystemFile&) = delete;

  const std::string& name() const override { return path_; }
  uint64_t size() const override { return size_; }

  absl::Status Read(uint64_t offset, std::span<std::byte> destination) const override {
    const uint64_t wanted =
        offset >= size_ ? 0 : std::min<uint64_t>(destination.size(), size_ - offset);
    uint64_t done = 0;
    while (done < wanted) {
      const ssize_t got =
          pread(file_, destination.data() + done, destination.size() - done,
                static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got < 0) {
        return UnavailableF("{}: {} bytes at {} cannot be read: {}", path_,
                            destination.size(), offset, LastError());
      }
      if (got == 0) {
        return DataLossF("{} ends at {}, it had {} bytes", path_, offset + done, size_);
      }
      done += static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const int file_;
  const uint64_t size_;
};

// Some file systems take the flag and then refuse to read.
bool CanRead(int file) {
  const auto page = RowMemory::AllocatePrivate(kFilePageBytes);
  return page.ok() && pread(file, (*page)->mutable_bytes().data(), kFilePageBytes, 0) > 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BlockFile>> OpenBlockFile(const std::string& path) {
  int file = open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (file >= 0 && !CanRead(file)) {
    close(file);
    file = -1;
  }
  if (file < 0) {
    file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
      (void)posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM);
    }
  }
  if (file < 0) {
    return errno == ENOENT ? StatusF(absl::StatusCode::kNotFound, "{} is not there", path)
                           : InvalidArgumentF("{} cannot be read: {}", path, LastError());
  }
  struct stat facts = {};
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_size <= 0) {
    close(file);
    return InvalidArgumentF("{} is not a regular file with content", path);
  }
  return std::make_unique<SystemFile>(path, file, static_cast<uint64_t>(facts.st_size));
}

}  // namespace tessera::engram_store
