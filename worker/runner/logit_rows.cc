#include "worker/runner/logit_rows.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"
#include "proto/step_plan.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

// Calls `visit` with row `row` of host logits as a span of what they are.
template <typename Visit>
auto VisitRow(TensorView logits, int64_t row, const Visit& visit) {
  const auto vocab = static_cast<size_t>(logits.dim(1));
  return logits.dtype == DType::kF64
             ? visit(std::span<const double>(logits.row<double>(row), vocab))
             : visit(std::span<const float>(logits.row<float>(row), vocab));
}

}  // namespace

absl::StatusOr<LogitRows> LogitRows::Create(const Options& options,
                                            kernels::KernelBackend* backend,
                                            StreamCommunicator* tp) {
  LogitRows rows;
  rows.options_ = options;
  rows.backend_ = backend;
  rows.tp_ = tp;
  rows.dtype_ = backend->activation_dtype();
  const auto bytes = [&](int64_t width) {
    return model::DTypeBytes(rows.dtype_, static_cast<size_t>(options.max_rows * width));
  };
  TESSERA_ASSIGN_OR_RETURN(rows.shard_, backend->Allocate(bytes(options.vocab_shard)));
  rows.host_.resize(bytes(options.vocab_size));
  if (tp->size() > 1) {
    TESSERA_ASSIGN_OR_RETURN(rows.gathered_,
                             backend->Allocate(bytes(options.vocab_size)));
    rows.host_gathered_.resize(options.max_rows > 1 ? bytes(options.vocab_size) : 0);
  }
  rows.gather_counts_.resize(static_cast<size_t>(tp->size()));
  return rows;
}

TensorView LogitRows::logits() const {
  // Views carry no constness; nobody writes through this one.
  return {const_cast<std::byte*>(host_.data()), dtype_, {num_rows_, options_.vocab_size}};
}

absl::Status LogitRows::Compute(const StepContext& context, TensorView streams,
                                Head head) {
  TESSERA_RETURN_IF_ERROR(Project(context, streams, head));
  return Collect(context, streams.dim(0), streams.dim(0));
}

absl::Status LogitRows::Project(const StepContext& context, TensorView streams,
                                Head head) {
  const int64_t num_rows = streams.dim(0);
  TESSERA_CHECK_LE(num_rows, options_.max_rows);
  const TensorView shard(shard_.data(), dtype_, {num_rows, options_.vocab_shard});
  head(streams, shard);
  const int tp_size = tp_->size();
  if (tp_size == 1) {
    return absl::OkStatus();
  }
  const auto bytes = [&](int64_t width) {
    return static_cast<int64_t>(
        model::DTypeBytes(dtype_, static_cast<size_t>(num_rows * width)));
  };
  for (int rank = 0; rank < tp_size; ++rank) {
    gather_counts_[static_cast<size_t>(rank)] =
        bytes(ShardBegin(rank + 1) - ShardBegin(rank));
  }
  return GatherOverTp(context,
                      {static_cast<const std::byte*>(shard.data),
                       static_cast<size_t>(bytes(options_.vocab_shard))},
                      gather_counts_,
                      {static_cast<std::byte*>(gathered_.data()),
                       static_cast<size_t>(bytes(options_.vocab_size))});
}

absl::Status LogitRows::Collect(const StepContext& context, int64_t num_projected,
                                int64_t num_rows) {
  TESSERA_CHECK_LE(num_rows, num_projected);
  num_rows_ = num_rows;
  // A copy to the host waits where it cannot give up, so it comes after this.
  TESSERA_RETURN_IF_ERROR(context.wait->Synchronize(*context.stream));
  // One row's shards lie as the row does.
  const bool by_shards = tp_->size() > 1 && num_projected > 1;
  backend_->Download(*context.stream,
                     {tp_->size() > 1 ? gathered_.data() : shard_.data(),
                      dtype_,
                      {by_shards ? num_projected : num_rows, options_.vocab_size}},
                     by_shards ? host_gathered_.data() : host_.data());
  TESSERA_RETURN_IF_ERROR(context.stream->Synchronize());
  if (by_shards) {
    InterleaveShards(num_projected);
  }
  return absl::OkStatus();
}

// [tp][num_projected][V_rank] -> [rows][V].
void LogitRows::InterleaveShards(int64_t num_projected) {
  const auto element = static_cast<int64_t>(model::DTypeBytes(dtype_, 1));
  const std::byte* from = host_gathered_.data();
  for (int rank = 0; rank < tp_->size(); ++rank) {
    const int64_t begin = ShardBegin(rank);
    const int64_t piece = (ShardBegin(rank + 1) - begin) * element;
    for (int64_t row = 0; row < num_rows_; ++row) {
      std::memcpy(host_.data() + (row * options_.vocab_size + begin) * element,
                  from + row * piece, static_cast<size_t>(piece));
    }
    from += num_projected * piece;
  }
}

absl::StatusOr<proto::SampledToken> LogitRows::Sample(
    int64_t row, Sampler& sampler, const proto::SamplingParams& params,
    const SamplingHistory& history) const {
  return VisitRow(logits(), row, [&]<typename T>(std::span<const T> values) {
    return sampler.Sample<T>(values, params, history);
  });
}

absl::StatusOr<proto::SampledToken> LogitRows::Score(int64_t row, Sampler& sampler,
                                                     int32_t token, int64_t position,
                                                     int32_t num_logprobs) const {
  return VisitRow(logits(), row, [&]<typename T>(std::span<const T> values) {
    return sampler.Score<T>(values, token, position, num_logprobs);
  });
}

absl::StatusOr<int32_t> LogitRows::Choose(int64_t row, Sampler& sampler,
                                          const proto::SamplingParams& params,
                                          const SamplingHistory& history) const {
  return VisitRow(logits(), row, [&]<typename T>(std::span<const T> values) {
    return sampler.Choose<T>(values, params, history);
  });
}

}  // namespace tessera::worker
