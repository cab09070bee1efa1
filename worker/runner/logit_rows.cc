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
                                            Communicator* tp) {
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
    rows.gathered_.resize(bytes(options.vocab_size));
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
  Project(streams, head);
  return Collect(context, streams.dim(0));
}

void LogitRows::Project(TensorView streams, Head head) const {
  TESSERA_CHECK_LE(streams.dim(0), options_.max_rows);
  head(streams, Shard(streams.dim(0)));
}

absl::Status LogitRows::Collect(const StepContext& context, int64_t num_rows) {
  TESSERA_CHECK_LE(num_rows, options_.max_rows);
  num_rows_ = num_rows;
  const TensorView shard = Shard(num_rows);
  if (tp_->size() == 1) {
    backend_->Download(*context.stream, shard, host_.data());
    return context.stream->Synchronize();
  }
  return GatherShards(context, shard);
}

absl::Status LogitRows::GatherShards(const StepContext& context, TensorView shard) {
  const int tp_size = tp_->size();
  const int64_t vocab = options_.vocab_size;
  const auto element = static_cast<int64_t>(model::DTypeBytes(dtype_, 1));
  const auto shard_begin = [&](int rank) { return vocab * rank / tp_size; };
  for (int rank = 0; rank < tp_size; ++rank) {
    gather_counts_[static_cast<size_t>(rank)] =
        num_rows_ * (shard_begin(rank + 1) - shard_begin(rank)) * element;
  }
  const int64_t total = num_rows_ * vocab * element;
  TESSERA_RETURN_IF_ERROR(TimedCollective(context, total, [&] {
    return tp_->AllGather(
        {static_cast<const std::byte*>(shard.data),
         static_cast<size_t>(num_rows_ * options_.vocab_shard * element)},
        gather_counts_,
        std::span<std::byte>(gathered_).first(static_cast<size_t>(total)));
  }));
  // [tp][rows][V_rank] -> [rows][V].
  int64_t offset = 0;
  for (int rank = 0; rank < tp_size; ++rank) {
    const int64_t begin = shard_begin(rank);
    const int64_t piece = (shard_begin(rank + 1) - begin) * element;
    for (int64_t row = 0; row < num_rows_; ++row) {
      std::memcpy(host_.data() + (row * vocab + begin) * element,
                  gathered_.data() + offset + row * piece, static_cast<size_t>(piece));
    }
    offset += gather_counts_[static_cast<size_t>(rank)];
  }
  return absl::OkStatus();
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
