// DiskSlots: copies of host blocks of one rank in a file, written and read by a thread of
// its own, so that no step waits for a disk. The step thread hands it operations and asks
// later, in any step, which are done: in the order of handing over, so that a count says
// it all.
//
// The file has one slot for each disk block and each disk tail block, allocated when it
// is made (no write can find the disk full later), readable by its owner alone. It starts
// empty and goes with the process: nothing is kept across restarts. A slot is a record:
//
//   [0, 8)    magic "TESSKVD1"
//   [8, 16)   epoch
//   [16, 24)  content: the number that plans give to what the block holds
//   [24, 28)  slot
//   [28, 32)  1 for a tail block, else 0
//   [32, 40)  bytes of the block
//   [40, 44)  CRC32C of these bytes, made when the block came from the device
//   [44, 48)  CRC32C of [0, 44)
//   [48, ..)  the bytes
//
// little-endian, from a multiple of 4 KiB on. A fetch compares all of it: what differs,
// or is cut short, is a failed operation, never content.
//
// Memory: `num_buffers` records of the larger block, each of which is one operation under
// way; who hands operations over has no more of them. An epoch that begins while the disk
// hangs in an operation of the one before has no disk: all of its operations fail.
#ifndef TESSERA_WORKER_RUNNER_DISK_SLOTS_H_
#define TESSERA_WORKER_RUNNER_DISK_SLOTS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <sys/types.h>
#include <unistd.h>

#include "common/clock.h"

namespace tessera::worker {

// Step thread, but for its own.
class DiskSlots {
 public:
  struct Kind {
    int64_t num_slots = 0;
    size_t block_bytes = 0;
  };
  struct Options {
    std::string path;              // of the file; its folder exists
    Kind kinds[2];                 // of blocks, of tail blocks
    Clock* clock = Clock::Real();  // must outlive it
    int64_t num_buffers = 0;       // at least one
    // For tests of a disk that fails: what writes.
    ssize_t (*write)(int, const void*, size_t, off_t) = ::pwrite;
  };
  // Which content of which slot, and where it goes or comes from.
  struct Operation {
    uint32_t host = 0;
    uint32_t slot = 0;
    uint64_t content = 0;
    bool tail = false;
  };
  // An operation that is done. Of a fetch that succeeded, what was written and its
  // CRC32C; valid until the next call.
  struct Done {
    Operation operation;
    bool fetch = false;
    bool failed = false;
    std::span<const std::byte> bytes = {};
    uint32_t crc = 0;
  };

  // Makes the file, empty, and starts the thread. kInvalidArgument: no buffers, or sizes
  // beyond a file's, or a folder or a size that the disk does not have (stays so);
  // kFailedPrecondition: another process uses the file; kUnavailable: it cannot be made.
  static absl::StatusOr<std::unique_ptr<DiskSlots>> Create(const Options& options);
  // Waits for the operation under way; removes the file.
  ~DiskSlots();
  DiskSlots(const DiskSlots&) = delete;
  DiskSlots& operator=(const DiskSlots&) = delete;

  // Of a slot in the file, with `block_bytes` of content.
  static int64_t SlotBytes(int64_t block_bytes);

  // Hands over the write of a host block, whose bytes are copied here, or the read of a
  // slot. Allocates nothing, waits for nobody. kInvalidArgument: a slot that there is
  // not; kResourceExhausted: num_buffers operations are under way.
  absl::Status Spill(const Operation& operation, std::span<const std::byte> bytes,
                     uint32_t crc);
  absl::Status Fetch(const Operation& operation);

  // The oldest operation that was not returned yet, if it is done; else false.
  bool Take(Done* done);

  // A new epoch: operations under way are forgotten, and no slot has content. Waits up to
  // two seconds for the operation that is being carried out.
  void Begin(uint64_t epoch);

 private:
  // One place of the ring: written by the step thread before it is submitted, by the
  // other one until it is completed.
  struct Entry {
    Operation operation;
    uint64_t epoch = 0;
    uint32_t crc = 0;
    bool fetch = false;
    bool failed = false;
    std::vector<std::byte> record;
  };

  DiskSlots() = default;
  absl::Status Open(const Options& options);
  // Hands over an operation whose record is filled by `fill`.
  absl::Status Submit(const Operation& operation, bool fetch,
                      absl::FunctionRef<void(Entry&)> fill);
  void Run();
  void Write(Entry* entry) const;
  void Read(Entry* entry) const;
  size_t BytesOf(const Operation& operation) const {
    return kinds_[operation.tail ? 1 : 0].block_bytes;
  }
  off_t OffsetOf(const Operation& operation) const;

  std::string path_;
  int fd_ = -1;
  Clock* clock_ = nullptr;
  ssize_t (*write_)(int, const void*, size_t, off_t) = nullptr;
  Kind kinds_[2];
  int64_t strides_[2] = {};
  std::vector<Entry> ring_;

  // Of the step thread.
  uint64_t epoch_ = 0;
  uint64_t taken_ = 0;  // operations
  // In this epoch, of which no operation is carried out; they are queued here instead.
  bool hangs_ = false;
  std::deque<Done> refused_;

  // Rising counts; what an entry holds is published by the count that passes it.
  std::atomic<uint64_t> submitted_ = 0;
  std::atomic<uint64_t> completed_ = 0;
  std::atomic<uint64_t> skip_ = 0;  // operations before it fail without being tried
  std::atomic<uint32_t> wakeups_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_DISK_SLOTS_H_
