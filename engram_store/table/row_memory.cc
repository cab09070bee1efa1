#include "engram_store/table/row_memory.h"

#include <cerrno>
#include <limits>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {
namespace {

// What makes a memfd constant for good.
constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

std::string LastError() { return std::generic_category().message(errno); }

absl::Status CheckSize(uint64_t bytes) {
  if (bytes == 0 ||
      bytes > static_cast<uint64_t>(std::numeric_limits<ptrdiff_t>::max())) {
    return InvalidArgumentF("row memory of {} bytes", bytes);
  }
  return absl::OkStatus();
}

absl::Status OutOfMemory(uint64_t bytes) {
  return StatusF(absl::StatusCode::kResourceExhausted,
                 "{} bytes for engram rows cannot be mapped: {}", bytes, LastError());
}

// Huge pages cut TLB misses of random rows; a kernel without them just keeps small pages.
void AdviseRandomRows(void* data, size_t size) {
  (void)madvise(data, size, MADV_HUGEPAGE);
  (void)madvise(data, size, MADV_DONTDUMP);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowMemory>> RowMemory::AllocatePrivate(uint64_t bytes) {
  TESSERA_RETURN_IF_ERROR(CheckSize(bytes));
  void* data =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return OutOfMemory(bytes);
  }
  AdviseRandomRows(data, bytes);
  return std::unique_ptr<RowMemory>(
      new RowMemory(-1, static_cast<std::byte*>(data), bytes, false, false));
}

absl::StatusOr<std::unique_ptr<RowMemory>> RowMemory::AllocateShared(uint64_t bytes) {
  TESSERA_RETURN_IF_ERROR(CheckSize(bytes));
  const int file = memfd_create("tessera-engram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (file < 0) {
    return OutOfMemory(bytes);
  }
  // posix_fallocate takes the pages now: a full memory shows here and not as SIGBUS
  // later.
  errno = posix_fallocate(file, 0, static_cast<off_t>(bytes));
  if (errno != 0) {
    const absl::Status status = OutOfMemory(bytes);
    close(file);
    return status;
  }
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (data == MAP_FAILED) {
    const absl::Status status = OutOfMemory(bytes);
    close(file);
    return status;
  }
  AdviseRandomRows(data, bytes);
  return std::unique_ptr<RowMemory>(
      new RowMemory(file, static_cast<std::byte*>(data), bytes, true, false));
}

absl::StatusOr<std::unique_ptr<RowMemory>> RowMemory::MapFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return StatusF(absl::StatusCode::kNotFound, "{} cannot be opened: {}", path,
                   LastError());
  }
  struct stat info {};
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= 0) {
    close(file);
    return InvalidArgumentF("{} is no regular file with content", path);
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);  // The mapping keeps the file.
  if (data == MAP_FAILED) {
    return OutOfMemory(size);
  }
  return std::unique_ptr<RowMemory>(
      new RowMemory(-1, static_cast<std::byte*>(data), size, false, true));
}

absl::StatusOr<std::unique_ptr<RowMemory>> RowMemory::MapShared(int64_t process,
                                                                int file) {
  const std::string path = fmt::format("/proc/{}/fd/{}", process, file);
  const int own = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (own < 0) {
    return UnavailableF("shared memory of process {} cannot be opened: {}", process,
                        LastError());
  }
  struct stat info {};
  const int seals = fcntl(own, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals || fstat(own, &info) != 0 ||
      info.st_size <= 0) {
    close(own);
    return DataLossF("descriptor {} of process {} is no sealed segment", file, process);
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, own, 0);
  if (data == MAP_FAILED) {
    const absl::Status status = OutOfMemory(size);
    close(own);
    return status;
  }
  AdviseRandomRows(data, size);
  return std::unique_ptr<RowMemory>(
      new RowMemory(own, static_cast<std::byte*>(data), size, true, true));
}

RowMemory::~RowMemory() {
  if (data_ != nullptr) {
    munmap(data_, size_);
  }
  if (file_ >= 0) {
    close(file_);
  }
}

std::span<std::byte> RowMemory::mutable_bytes() {
  TESSERA_CHECK(!sealed_);
  return {data_, size_};
}

absl::Status RowMemory::Seal() {
  if (sealed_) {
    return absl::OkStatus();
  }
  if (!shared_) {
    if (mprotect(data_, size_, PROT_READ) != 0) {
      return InternalF("row memory cannot be made read-only: {}", LastError());
    }
    sealed_ = true;
    return absl::OkStatus();
  }
  // F_SEAL_WRITE is refused while a mapping exists that could become writable; afterwards
  // only a read-only descriptor can be mapped (kernels before 6.7).
  munmap(data_, size_);
  data_ = nullptr;
  if (fcntl(file_, F_ADD_SEALS, kSeals) != 0) {
    return InternalF("memfd cannot be sealed: {}", LastError());
  }
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<RowMemory> view,
                           MapShared(getpid(), file_));
  std::swap(data_, view->data_);
  sealed_ = true;
  return absl::OkStatus();
}

}  // namespace tessera::engram_store
