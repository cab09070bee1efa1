#include "worker/runner/disk_slots.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <iterator>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/crc32c.h"

namespace tessera::worker {
namespace {

constexpr int64_t kSlotAlignment = 4096;
constexpr size_t kHeaderBytes = 48;
constexpr size_t kHeaderCrcAt = 44;
constexpr char kMagic[8] = {'T', 'E', 'S', 'S', 'K', 'V', 'D', '1'};
constexpr absl::Duration kLongestWait = absl::Seconds(2);

// The little-endian header of a record; x86-64 and AArch64 store so.
template <typename T>
std::byte* Put(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(value));
  return at + sizeof(value);
}

void PutHeader(const DiskSlots::Operation& operation, uint64_t epoch, uint64_t bytes,
               uint32_t crc, std::byte* header) {
  std::memcpy(header, kMagic, sizeof(kMagic));
  std::byte* at = header + sizeof(kMagic);
  at = Put(at, epoch);
  at = Put(at, operation.content);
  at = Put(at, operation.slot);
  at = Put(at, uint32_t{operation.tail ? 1u : 0u});
  at = Put(at, bytes);
  at = Put(at, crc);
  Put(at, engram_store::Crc32c({header, kHeaderCrcAt}));
}

// Whether the same options would meet the same error again.
bool StaysSo(int error) {
  constexpr int kErrors[] = {EACCES, EDQUOT, EFBIG,   EISDIR, ELOOP,      ENAMETOOLONG,
                             ENOENT, ENOSPC, ENOTDIR, EPERM,  EOPNOTSUPP, EROFS};
  return std::find(std::begin(kErrors), std::end(kErrors), error) != std::end(kErrors);
}

// `option`: what to change where it stays so.
absl::Status Refusal(int error, std::string_view what, const std::string& path,
                     std::string_view option) {
  if (StaysSo(error)) {
    return InvalidArgumentF("{}: cannot {} {}: {}", option, what, path,
                            std::strerror(error));
  }
  return StatusF(absl::StatusCode::kUnavailable, "cannot {} {}: {}", what, path,
                 std::strerror(error));
}

// Reserves `size` bytes of `fd`. Asks for the free space first: allocating what a file
// system does not have can take it minutes to find out.
absl::Status Reserve(int fd, int64_t size, const std::string& path) {
  struct statvfs disk = {};
  if (::fstatvfs(fd, &disk) != 0) {
    return Refusal(errno, "measure", path, "--kv-disk-dir");
  }
  const double free =
      static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  if (static_cast<double>(size) > free) {
    return InvalidArgumentF(
        "--kv-disk-gib: {} needs {:.1f} GiB, its file system has {:.1f} GiB free", path,
        std::ldexp(static_cast<double>(size), -30), std::ldexp(free, -30));
  }
  const int error = size == 0 ? 0 : ::posix_fallocate(fd, 0, size);
  return error == 0 ? absl::OkStatus()
                    : Refusal(error, "allocate", path, "--kv-disk-gib");
}

}  // namespace

int64_t DiskSlots::SlotBytes(int64_t block_bytes) {
  const int64_t bytes = block_bytes + static_cast<int64_t>(kHeaderBytes);
  return (bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}

absl::StatusOr<std::unique_ptr<DiskSlots>> DiskSlots::Create(const Options& options) {
  if (options.num_buffers < 1) {
    return InvalidArgumentF("{} buffers for disk copies, expected at least one",
                            options.num_buffers);
  }
  std::unique_ptr<DiskSlots> disk(new DiskSlots());
  disk->write_ = options.write;
  disk->clock_ = options.clock;
  TESSERA_RETURN_IF_ERROR(disk->Open(options));
  const size_t largest =
      std::max(options.kinds[0].block_bytes, options.kinds[1].block_bytes);
  disk->ring_ = std::vector<Entry>(static_cast<size_t>(options.num_buffers));
  for (Entry& entry : disk->ring_) {
    entry.record.resize(kHeaderBytes + largest);
  }
  disk->thread_ = std::thread([raw = disk.get()] { raw->Run(); });
  return disk;
}

absl::Status DiskSlots::Open(const Options& options) {
  int64_t size = 0;
  for (size_t i = 0; i < 2; ++i) {
    kinds_[i] = options.kinds[i];
    strides_[i] = SlotBytes(static_cast<int64_t>(kinds_[i].block_bytes));
    int64_t bytes = 0;
    if (__builtin_mul_overflow(kinds_[i].num_slots, strides_[i], &bytes) ||
        __builtin_add_overflow(size, bytes, &size) || kinds_[i].num_slots < 0) {
      return InvalidArgumentF("{} disk blocks of {} bytes, expected fewer",
                              kinds_[i].num_slots, strides_[i]);
    }
  }
  const int fd =
      ::open(options.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    return Refusal(errno, "open", options.path, "--kv-disk-dir");
  }
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    ::close(fd);
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "{} is in use: give each server a --kv-disk-dir of its own",
                   options.path);
  }
  fd_ = fd;
  path_ = options.path;
  if (::fchmod(fd, 0600) != 0 || ::ftruncate(fd, 0) != 0) {
    return Refusal(errno, "empty", path_, "--kv-disk-dir");
  }
  return Reserve(fd, size, path_);
}

DiskSlots::~DiskSlots() {
  if (thread_.joinable()) {
    stop_.store(true, std::memory_order_release);
    wakeups_.fetch_add(1, std::memory_order_release);
    wakeups_.notify_one();
    thread_.join();
  }
  if (fd_ >= 0) {
    ::unlink(path_.c_str());
    ::close(fd_);
  }
}

off_t DiskSlots::OffsetOf(const Operation& operation) const {
  const int64_t begin = operation.tail ? kinds_[0].num_slots * strides_[0] : 0;
  return begin + strides_[operation.tail ? 1 : 0] * int64_t{operation.slot};
}

absl::Status DiskSlots::Submit(const Operation& operation, bool fetch,
                               absl::FunctionRef<void(Entry&)> fill) {
  const Kind& kind = kinds_[operation.tail ? 1 : 0];
  if (int64_t{operation.slot} >= kind.num_slots) {
    return InvalidArgumentF("disk slot {} of a {}, expected less than {}", operation.slot,
                            operation.tail ? "tail block" : "kv block", kind.num_slots);
  }
  const uint64_t submitted = submitted_.load(std::memory_order_relaxed);
  const uint64_t under_way = hangs_ ? refused_.size() : submitted - taken_;
  if (under_way == ring_.size()) {
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "{} disk copies are under way already", ring_.size());
  }
  if (hangs_) {
    refused_.push_back(
        {.operation = operation, .fetch = fetch, .failed = true, .bytes = {}, .crc = 0});
    return absl::OkStatus();
  }
  Entry& entry = ring_[submitted % ring_.size()];
  entry.operation = operation;
  entry.epoch = epoch_;
  entry.fetch = fetch;
  entry.failed = false;
  fill(entry);
  submitted_.store(submitted + 1, std::memory_order_release);
  wakeups_.fetch_add(1, std::memory_order_release);
  wakeups_.notify_one();
  return absl::OkStatus();
}

absl::Status DiskSlots::Spill(const Operation& operation,
                              std::span<const std::byte> bytes, uint32_t crc) {
  return Submit(operation, /*fetch=*/false, [&](Entry& entry) {
    entry.crc = crc;
    PutHeader(operation, epoch_, bytes.size(), crc, entry.record.data());
    std::copy(bytes.begin(), bytes.end(), entry.record.begin() + kHeaderBytes);
  });
}

absl::Status DiskSlots::Fetch(const Operation& operation) {
  return Submit(operation, /*fetch=*/true, [](Entry&) {});
}

bool DiskSlots::Take(Done* done) {
  if (hangs_) {
    if (refused_.empty()) {
      return false;
    }
    *done = refused_.front();
    refused_.pop_front();
    return true;
  }
  if (taken_ == completed_.load(std::memory_order_acquire)) {
    return false;
  }
  const Entry& entry = ring_[taken_++ % ring_.size()];
  *done = {
      .operation = entry.operation,
      .fetch = entry.fetch,
      .failed = entry.failed,
      .bytes = std::span(entry.record).subspan(kHeaderBytes, BytesOf(entry.operation)),
      .crc = entry.crc};
  return true;
}

void DiskSlots::Begin(uint64_t epoch) {
  epoch_ = epoch;
  const uint64_t submitted = submitted_.load(std::memory_order_relaxed);
  skip_.store(submitted, std::memory_order_release);
  const auto give_up = clock_->Now() + kLongestWait;
  while (completed_.load(std::memory_order_acquire) != submitted &&
         clock_->Now() < give_up) {
    clock_->Sleep(absl::Milliseconds(1));
  }
  taken_ = completed_.load(std::memory_order_acquire);
  hangs_ = taken_ != submitted;
  refused_.clear();
}

void DiskSlots::Run() {
  for (uint64_t next = 0;;) {
    const uint32_t wakeups = wakeups_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire)) {
      return;
    }
    if (next == submitted_.load(std::memory_order_acquire)) {
      wakeups_.wait(wakeups, std::memory_order_acquire);
      continue;
    }
    Entry& entry = ring_[next % ring_.size()];
    if (next < skip_.load(std::memory_order_acquire)) {
      entry.failed = true;
    } else if (entry.fetch) {
      Read(&entry);
    } else {
      Write(&entry);
    }
    completed_.store(++next, std::memory_order_release);
  }
}

void DiskSlots::Write(Entry* entry) const {
  const size_t size = kHeaderBytes + BytesOf(entry->operation);
  size_t done = 0;
  while (done < size && !entry->failed) {
    const ssize_t count = write_(fd_, entry->record.data() + done, size - done,
                                 OffsetOf(entry->operation) + static_cast<off_t>(done));
    done += count > 0 ? static_cast<size_t>(count) : 0;
    entry->failed = count == 0 || (count < 0 && errno != EINTR);
  }
}

void DiskSlots::Read(Entry* entry) const {
  const size_t size = kHeaderBytes + BytesOf(entry->operation);
  size_t done = 0;
  while (done < size && !entry->failed) {
    const ssize_t count = ::pread(fd_, entry->record.data() + done, size - done,
                                  OffsetOf(entry->operation) + static_cast<off_t>(done));
    done += count > 0 ? static_cast<size_t>(count) : 0;
    entry->failed = count == 0 || (count < 0 && errno != EINTR);
  }
  if (entry->failed) {
    return;
  }
  const std::span<const std::byte> bytes =
      std::span(entry->record).subspan(kHeaderBytes, BytesOf(entry->operation));
  entry->crc = engram_store::Crc32c(bytes);
  std::byte header[kHeaderBytes];
  PutHeader(entry->operation, entry->epoch, bytes.size(), entry->crc, header);
  entry->failed = !std::equal(header, header + kHeaderBytes, entry->record.begin());
}

}  // namespace tessera::worker
