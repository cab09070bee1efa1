// StubWorker: a rank without a model, for tests of everything that makes plans. It keeps
// its slots purely from StepPlans, as a worker does, and refuses a plan that a worker
// could not execute. Its KV memory holds, for every position, a hash of all tokens up to
// it, so that it notices a block that was reused too early, shared wrongly or never
// filled; its tail memory likewise, of which each token sees the last `tail_tokens`
// positions and itself. The token it samples is a function of the sequence's own history
// and sampling parameters alone: a test computes the same function and compares. Its
// drafts are right or wrong by chance, and often fewer than the plan allows.
#ifndef TESSERA_TESTS_TESTING_STUB_WORKER_H_
#define TESSERA_TESTS_TESTING_STUB_WORKER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "proto/step_plan.h"
#include "tests/testing/stub_disk.h"

namespace tessera::testing {

// The hash of a history; start from 0.
uint64_t StubHistoryHash(uint64_t hash, int32_t token);

// The token that every stub samples after the tokens `history`, of which `prompt_length`
// are the prompt's, in [0, vocab_size).
int32_t StubToken(std::span<const int32_t> history, uint32_t prompt_length,
                  const proto::SamplingParams& sampling, int32_t vocab_size);

struct StubWorkerOptions {
  int64_t num_blocks = 64;
  int64_t block_size = 16;
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 512;
  int64_t max_model_len = int64_t{1} << 20;
  int32_t vocab_size = 1000;
  int64_t num_tail_blocks = 0;  // 0: a model that keeps none
  int64_t tail_tokens = 0;
  int64_t num_host_blocks = 0;
  int64_t num_host_tail_blocks = 0;
  StubDiskOptions disk = {};
  int64_t num_speculative_tokens = 0;
  uint64_t right_drafts_percent = 60;
  // A plan that asks for expert counts gets so many: the first is the number of tokens of
  // the steps that count, the others are 0.
  int64_t num_expert_counts = 0;
};

// Blocks of one step on their way between the stubs of a group, by the id that both plans
// give them.
struct StubTransfer {
  uint32_t to = 0;  // DP rank
  bool tail = false;
  std::vector<uint64_t> rows;
};
using StubTransfers = std::map<uint64_t, StubTransfer>;

// External synchronisation.
class StubWorker {
 public:
  explicit StubWorker(const StubWorkerOptions& options);

  // kFailedPrecondition: the plan is not the next one or cannot be executed. kDataLoss:
  // the KV memory does not hold what the plan's history says.
  // Masked work takes the masks of `late`, which then answers the plan. What the plan
  // receives is taken out of `transfers`, into which every rank of the group has put what
  // it sends; this one is DP rank `dp_rank`.
  absl::StatusOr<proto::StepResult> Execute(const proto::StepPlan& plan,
                                            const proto::LateInput* late = nullptr,
                                            StubTransfers* transfers = nullptr,
                                            uint32_t dp_rank = 0);

  // Adds what the plan, which is executed next, sends.
  absl::Status Send(const proto::StepPlan& plan, StubTransfers* transfers) const;

  int64_t num_live_slots() const;

 private:
  struct Slot {
    bool live = false;
    std::vector<int32_t> tokens;   // computed ones
    std::vector<uint64_t> hashes;  // of the history up to each
    std::vector<uint32_t> blocks;
    size_t tail_begin = 0;
    std::vector<uint32_t> tail_blocks;  // from index tail_begin on
    uint32_t prompt_length = 0;
    proto::SamplingParams sampling;
    std::vector<uint32_t> mask;  // of this step
    int32_t sample = 0;
    uint64_t sample_step = 0;  // 0: none
    size_t last_count = 0;     // tokens of the last work that stand
  };

  // One kind of memory, with what of it was copied to the host.
  struct Memory {
    size_t width = 0;              // rows of a block
    std::vector<uint64_t> device;  // [blocks, width]
    std::vector<uint64_t> host;    // [host blocks, width]
    std::vector<bool> written;     // [host blocks]

    Memory(int64_t num_blocks, int64_t num_host_blocks, int64_t block_size);
    void Clear();
    absl::Status Copy(const proto::BlockCopy& copy, bool restore);
  };

  absl::Status Begin(const proto::StepPlan& plan);
  absl::Status CopyBlocks(const proto::StepPlan& plan, StubTransfers* transfers,
                          uint32_t dp_rank);
  absl::Status CopyDisk(const proto::StepPlan& plan, proto::StepResult* result);
  absl::Status Receive(const proto::BlockTransfer& receive, StubTransfers* transfers,
                       uint32_t dp_rank);
  absl::Status Admit(const proto::SlotAdmission& admission);
  absl::Status Append(const proto::BlockAppend& append);
  absl::Status Work(const proto::SlotWork& work, uint64_t step,
                    proto::StepResult* result);
  // The drafts that a slot has after its sampled token, at most `num_drafts`.
  std::vector<int32_t> Drafts(const Slot& slot, int32_t sampled,
                              uint32_t num_drafts) const;
  // Samples after the last of the slot's tokens before its `num_drafts` drafts, and after
  // each that stands; forgets the others.
  void Verify(const proto::SlotWork& work, size_t num_drafts, proto::StepResult* result);
  absl::Status CheckMemory(uint32_t slot) const;
  // Every tail row that the last `count` tokens see is there.
  absl::Status CheckTail(uint32_t slot, size_t count) const;
  absl::Status CheckBlocks(std::span<const uint32_t> blocks, int64_t num_blocks) const;
  // Gives the slots of masked work their masks.
  absl::Status TakeMasks(const proto::StepPlan& plan, const proto::LateInput* late);
  void PushToken(Slot* slot, int32_t token);
  // Appends a token that is computed, and stores its rows.
  absl::Status Compute(uint32_t slot, int32_t token);
  // Index of a position's row in tail_memory_; absent where no block is named.
  std::optional<size_t> TailRow(const Slot& slot, size_t position) const;
  bool IsLive(uint32_t slot) const { return slot < slots_.size() && slots_[slot].live; }

  const StubWorkerOptions options_;
  std::vector<Slot> slots_;
  Memory memory_;
  Memory tail_memory_;
  StubDisk<std::vector<uint64_t>> disk_;
  uint64_t epoch_ = 0;
  uint64_t step_ = 0;
  uint32_t counted_tokens_ = 0;  // since the last report
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_STUB_WORKER_H_
