#include "engram_store/table/row_memory.h"

#include <cerrno>
#include <cstdint>
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

constexpr size_t kPage = 4096;
// Of x86-64 and of ARM64 with 4 KiB pages.
constexpr size_t kHugePage = size_t{2} << 20;
// Linux 5.14 and 6.1; headers may be older than the kernel.
constexpr int kPopulateRead = 22;
constexpr int kPopulateWrite = 23;
constexpr int kCollapse = 25;

// Huge pages cut TLB misses of random rows; a kernel without them just keeps small pages.
void AdviseRandomRows(void* data, size_t size) {
  (void)madvise(data, size, MADV_HUGEPAGE);
  (void)madvise(data, size, MADV_DONTDUMP);
}

// As mmap of the whole file from its start, at a multiple of a huge page: the kernel maps
// a huge page as one only where address and offset agree. MAP_FAILED as mmap.
void* MapAligned(size_t size, int protection, int file) {
  const size_t room = size + kHugePage;
  void* const reserved =
      mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) {
    return MAP_FAILED;
  }
  const auto start = reinterpret_cast<uintptr_t>(reserved);
  const uintptr_t aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
  void* const data = mmap(reinterpret_cast<void*>(aligned), size, protection,
                          MAP_SHARED | MAP_FIXED, file, 0);
  if (data == MAP_FAILED) {
    munmap(reserved, room);
    return MAP_FAILED;
  }
  const uintptr_t end = (aligned + size + kPage - 1) / kPage * kPage;
  if (aligned > start) {
    munmap(reserved, aligned - start);
  }
  if (start + room > end) {
    munmap(reinterpret_cast<void*>(end), start + room - end);
  }
  return data;
}

// Takes the pages of a new memfd, so that a full memory shows here and not as SIGBUS
// later: huge ones where the kernel finds them. Systems keep them from shared memory by
// default (shmem_enabled), but give them to a process that asks for a range: random rows
// of 264 bytes come 3 to 8 times as fast. A range has to hold a page first. False, with
// errno, when there is not enough memory.
bool TakePages(std::byte* data, size_t size, int file) {
  bool asks = true;
  for (size_t at = 0; asks && at + kHugePage <= size; at += kHugePage) {
    asks = madvise(data + at, kPage, kPopulateWrite) == 0;
  }
  if (asks) {
    (void)madvise(data, size, kCollapse);
  }
  if (madvise(data, size, kPopulateWrite) == 0) {
    return true;
  }
  if (errno != EINVAL) {
    return false;
  }
  errno = posix_fallocate(file, 0, static_cast<off_t>(size));
  return errno == 0;
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
  void* data = MAP_FAILED;
  if (ftruncate(file, static_cast<off_t>(bytes)) == 0) {
    data = MapAligned(bytes, PROT_READ | PROT_WRITE, file);
  }
  if (data == MAP_FAILED) {
    const absl::Status status = OutOfMemory(bytes);
    close(file);
    return status;
  }
  AdviseRandomRows(data, bytes);
  auto memory = std::unique_ptr<RowMemory>(
      new RowMemory(file, static_cast<std::byte*>(data), bytes, true, false));
  if (!TakePages(memory->data_, bytes, file)) {
    return OutOfMemory(bytes);
  }
  return memory;
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
  void* data = MapAligned(size, PROT_READ, own);
  if (data == MAP_FAILED) {
    const absl::Status status = OutOfMemory(size);
    close(own);
    return status;
  }
  AdviseRandomRows(data, size);
  // Now, or the first rows of every page would be late by a page fault.
  (void)madvise(data, size, kPopulateRead);
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
