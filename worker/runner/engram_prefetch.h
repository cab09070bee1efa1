// EngramPrefetch: asks for a step's table rows before the forward pass starts, and hands
// them to the Engram layers when these need them: rows that the backend's device reads
// itself (kernels/engram_reader.h), or those that the source gathers. It hashes each
// token with its true lookback, taken from the sequence's own token ids, so that
// chunking, prefix hits and preemption cannot change a row.
#ifndef TESSERA_WORKER_RUNNER_ENGRAM_PREFETCH_H_
#define TESSERA_WORKER_RUNNER_ENGRAM_PREFETCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/hashing/engram_hash.h"
#include "kernels/engram_reader.h"
#include "kernels/kernel_backend.h"
#include "model/config/model_config.h"
#include "worker/layers/engram_layer.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

// Step thread only. Allocates at Create only.
class EngramPrefetch final : public EngramRows {
 public:
  struct Options {
    int64_t max_tokens = 0;
    absl::Duration timeout = absl::Seconds(5);  // of one step's rows
  };

  // All must outlive it, and so must the streams of its Awaits. kInvalidArgument: the
  // source's tables are not those of the config (layers, rows, width, format).
  static absl::StatusOr<std::unique_ptr<EngramPrefetch>> Create(
      const model::ModelConfig& config, const Options& options,
      const engram_store::EngramHash* hash, engram_store::EngramSource* source,
      kernels::KernelBackend* backend, Clock* clock);

  // Starts a step; then one Add per run of tokens; then Issue.
  void Begin();
  // Tokens sequence[begin..) of one sequence are computed in this step.
  void Add(std::span<const int32_t> sequence, int64_t begin);
  // Errors of EngramReader::Begin.
  absl::Status Issue();

  absl::StatusOr<kernels::TensorView> Await(const StepContext& context,
                                            int64_t index) override;
  kernels::DType format() const override { return source_->tables()[0].format; }

  // Brings the rows of all tables to the device, as an Await of each would, for a forward
  // pass that was captured and takes what lies there. Instead of the step's Awaits.
  // Errors of Await.
  absl::Status Stage(const StepContext& context);
  // Hands out whatever lies where the last Stage brought rows: those of a step's first
  // tokens, and of further tokens what earlier steps left. Asks nobody, waits for
  // nothing.
  EngramRows* staged() { return &staged_; }

  // Waits for what was issued and not awaited (a step that failed half-way): the source
  // must not write into memory that the next step uses.
  void Drain();
  // Once the step's stream was synchronised: errors of EngramReader::Check.
  absl::Status Check() { return reader_->Check(); }

  // Row ids of the current step, [T * C] of one engram layer; for traces and counters.
  std::span<const uint32_t> row_ids(int64_t index) const;
  int64_t wait_ns() const { return wait_ns_; }
  int64_t num_rows() const;

 private:
  struct Table {
    std::vector<uint32_t> row_ids;  // [max_tokens * C]
    std::span<std::byte> landing;   // where the source puts them; empty: the device reads
    engram_store::PendingRows pending;
    const void* on_device = nullptr;  // the same for each step
    bool in_flight = false;
    int64_t row_bytes = 0;
  };
  EngramPrefetch(const engram_store::EngramHash* hash, engram_store::EngramSource* source,
                 std::unique_ptr<kernels::EngramReader> reader, Clock* clock,
                 absl::Duration timeout)
      : hash_(hash),
        source_(source),
        reader_(std::move(reader)),
        clock_(clock),
        timeout_(timeout) {}

  class StagedRows final : public EngramRows {
   public:
    explicit StagedRows(const EngramPrefetch* prefetch) : prefetch_(prefetch) {}
    absl::StatusOr<kernels::TensorView> Await(const StepContext& context,
                                              int64_t index) override;
    kernels::DType format() const override { return prefetch_->format(); }

   private:
    const EngramPrefetch* const prefetch_;
  };

  // Until the source has put the rows of a table where they land.
  absl::Status AwaitSource(size_t index);
  // Rows of `num_tokens` tokens where they lie on the device.
  kernels::TensorView DeviceRows(size_t index, int64_t num_tokens) const;

  const engram_store::EngramHash* const hash_;
  engram_store::EngramSource* const source_;
  const std::unique_ptr<kernels::EngramReader> reader_;
  Clock* const clock_;
  const absl::Duration timeout_;
  int64_t columns_ = 0;
  int64_t max_ngram_ = 0;
  int64_t num_tokens_ = 0;
  int64_t wait_ns_ = 0;
  absl::Time deadline_;
  std::vector<Table> tables_;
  StagedRows staged_{this};
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_ENGRAM_PREFETCH_H_
