// KvTransfer: moves blocks of the KV cache between the ranks of a group, checksummed, in
// one AllToAllV for all that a step hands over. It knows bytes and ids; which block goes
// where is the plans' to say, and the memory of the caches the caller's. Works over any
// Communicator (the EP group of all R ranks). All memory is allocated at Create.
//
// A message, per block, messages to one rank one after the other:
//
//   offset  size   field
//   0       8      epoch of the step
//   8       8      number of the step
//   16      8      id: the plans of sender and receiver name the same
//   24      8      n = bytes of the payload
//   32      4      CRC32C of the payload, made by the sender
//   36      28     zero
//   64      n      payload
//
// Integers are of the host's byte order: the ranks of a group run on one architecture.
#ifndef TESSERA_WORKER_COMM_KV_TRANSFER_H_
#define TESSERA_WORKER_COMM_KV_TRANSFER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "worker/comm/communicator.h"

namespace tessera::worker {

struct KvTransferOptions {
  int64_t max_messages = 0;       // that a rank sends in a step at most, and receives
  int64_t max_payload_bytes = 0;  // of each
};

// A payload that came as it was sent. A view, valid until the next Begin.
struct ReceivedPayload {
  std::span<const std::byte> bytes;
  uint32_t crc = 0;  // CRC32C
};

// Step thread only. A step: Begin, Stage for each message to send, Exchange, Take for
// each message to receive, Finish. After an error the group's epoch is over: nothing but
// the Begin of a later one may follow.
class KvTransfer {
 public:
  // `group` must outlive it. kInvalidArgument: no message, or sizes that overflow;
  // kResourceExhausted: the system has too little memory.
  static absl::StatusOr<std::unique_ptr<KvTransfer>> Create(
      const KvTransferOptions& options, Communicator* group);

  void Begin(uint64_t epoch, uint64_t step);

  // Room for the payload of the next message, which goes to rank `to`, no lower than the
  // one before; to be filled before Exchange. kInvalidArgument: a rank that does not
  // exist or is out of order, or more than the options allow.
  absl::StatusOr<std::span<std::byte>> Stage(int to, uint64_t id, int64_t num_bytes);

  // Collective: every rank of the group calls it, with messages or without. Errors as
  // Communicator's; kInternal: more came than the options allow.
  absl::Status Exchange();

  // The next message of rank `from`, in the order of its Stage calls. kDataLoss: it is
  // not the one that is expected, there is none, or it was damaged on its way.
  absl::StatusOr<ReceivedPayload> Take(int from, uint64_t id, int64_t num_bytes);

  // kDataLoss: something came that nobody took.
  absl::Status Finish() const;

  // Payload of this step's messages, as staged.
  int64_t sent_bytes() const { return sent_bytes_; }

 private:
  KvTransfer(const KvTransferOptions& options, Communicator* group);

  const KvTransferOptions options_;
  Communicator* const group_;
  const size_t capacity_;  // of either buffer
  std::unique_ptr<std::byte[]> send_;
  std::unique_ptr<std::byte[]> recv_;
  std::vector<int64_t> send_counts_;  // bytes, by rank
  std::vector<int64_t> recv_counts_;
  std::vector<int64_t> taken_;  // of those
  uint64_t epoch_ = 0;
  uint64_t step_ = 0;
  int64_t num_staged_ = 0;
  int64_t staged_bytes_ = 0;  // of `send_`
  int64_t sent_bytes_ = 0;
  int last_to_ = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_KV_TRANSFER_H_
