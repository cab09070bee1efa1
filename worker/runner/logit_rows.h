// LogitRows: the logits of a few rows of a step over the whole vocabulary, on the host of
// every rank of a TP group. Each rank computes its shard of the head; the shards are
// gathered. It knows neither which head it runs nor what is drawn from the rows.
#ifndef TESSERA_WORKER_RUNNER_LOGIT_ROWS_H_
#define TESSERA_WORKER_RUNNER_LOGIT_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"
#include "proto/step_plan.h"
#include "worker/comm/stream_communicator.h"
#include "worker/layers/step_context.h"
#include "worker/runner/sampler.h"

namespace tessera::worker {

// Step thread only. Allocates at Create only.
class LogitRows {
 public:
  struct Options {
    int64_t max_rows = 0;
    int64_t vocab_size = 0;   // V
    int64_t vocab_shard = 0;  // V_local, of this rank
  };

  // logits (out) [n, V_local] of streams [n, M, d].
  using Head =
      absl::FunctionRef<void(kernels::TensorView streams, kernels::TensorView logits)>;

  // kResourceExhausted: memory. `backend` and `tp` must outlive it.
  static absl::StatusOr<LogitRows> Create(const Options& options,
                                          kernels::KernelBackend* backend,
                                          StreamCommunicator* tp);

  // Runs `head` for streams [n, M, d], n <= max_rows, and gathers. Collective over the TP
  // group, whose ranks give the same rows. Errors are those of the gathering.
  absl::Status Compute(const StepContext& context, kernels::TensorView streams,
                       Head head);

  // The two halves of Compute, for a head that is part of a graph. Project only enqueues
  // where the group's collectives do, at addresses that depend on n alone; Collect takes
  // the first `num_rows` of the `num_projected` rows that it, or a launch of the graph,
  // left.
  absl::Status Project(const StepContext& context, kernels::TensorView streams,
                       Head head);
  absl::Status Collect(const StepContext& context, int64_t num_projected,
                       int64_t num_rows);

  // [n, V] on the host, of the last Compute or Collect.
  kernels::TensorView logits() const;

  // What Sampler::Sample, Sampler::Score and Sampler::Choose say of row `row` of
  // logits().
  absl::StatusOr<proto::SampledToken> Sample(int64_t row, Sampler& sampler,
                                             const proto::SamplingParams& params,
                                             const SamplingHistory& history) const;
  absl::StatusOr<proto::SampledToken> Score(int64_t row, Sampler& sampler, int32_t token,
                                            int64_t position, int32_t num_logprobs) const;
  absl::StatusOr<int32_t> Choose(int64_t row, Sampler& sampler,
                                 const proto::SamplingParams& params,
                                 const SamplingHistory& history) const;

  int64_t max_rows() const { return options_.max_rows; }

 private:
  void InterleaveShards(int64_t num_projected);
  int64_t ShardBegin(int rank) const { return options_.vocab_size * rank / tp_->size(); }

  Options options_;
  kernels::KernelBackend* backend_ = nullptr;
  StreamCommunicator* tp_ = nullptr;
  kernels::DType dtype_ = kernels::DType::kF32;
  int64_t num_rows_ = 0;                  // of logits()
  kernels::DeviceBuffer shard_;           // [max_rows, V_local]
  kernels::DeviceBuffer gathered_;        // tp > 1: [tp][rows][V_rank]
  std::vector<std::byte> host_gathered_;  // the same, where there are several rows
  std::vector<std::byte> host_;           // [max_rows, V]
  std::vector<int64_t> gather_counts_;    // [tp] bytes
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_LOGIT_ROWS_H_
