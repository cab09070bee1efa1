#include "worker/comm/expert_exchange.h"

#include <limits>

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/fp8_products.h"
#include "worker/comm/local_exchange.h"
#include "worker/comm/routed_rounds.h"

namespace tessera::worker {
namespace {

absl::Status CheckOptions(const ExpertExchangeOptions& options, kernels::DType dtype,
                          int num_ranks) {
  if (options.max_tokens < 1 || options.hidden_size < 1 ||
      options.experts_per_token < 1) {
    return InvalidArgumentF(
        "expert exchange of {} tokens of {} values to {} experts, expected at least 1",
        options.max_tokens, options.hidden_size, options.experts_per_token);
  }
  const auto num_experts = static_cast<int64_t>(options.expert_owner.size());
  if (options.experts_per_token > num_experts) {
    return InvalidArgumentF("{} experts per token of {} experts",
                            options.experts_per_token, num_experts);
  }
  if (options.rounds.min_rows < 1 || options.rounds.max_round_rows < 1) {
    return InvalidArgumentF("rounds from {} rows on of {} at most, expected at least 1",
                            options.rounds.min_rows, options.rounds.max_round_rows);
  }
  if (options.rows == DispatchRows::kFp8 && dtype != kernels::DType::kF32) {
    return InvalidArgumentF("expert exchange of FP8 rows made of {}, expected F32",
                            model::DTypeName(dtype));
  }
  for (size_t expert = 0; expert < options.expert_owner.size(); ++expert) {
    const int owner = options.expert_owner[expert];
    if (owner < 0 || owner >= num_ranks) {
      return InvalidArgumentF("expert {} is on rank {} of {}", expert, owner, num_ranks);
    }
  }
  // Items are indexed with int32, and the buffers' bytes (8 per value at most) with
  // int64.
  int64_t items = 0;
  int64_t bytes = 0;
  if (options.hidden_size > std::numeric_limits<int32_t>::max() ||
      __builtin_mul_overflow(options.max_tokens, options.experts_per_token, &items) ||
      __builtin_mul_overflow(items, int64_t{num_ranks}, &items) ||
      items > std::numeric_limits<int32_t>::max() ||
      __builtin_mul_overflow(items, options.hidden_size * 8, &bytes)) {
    return InvalidArgumentF(
        "expert exchange of {} tokens x {} experts x {} ranks, expected less than 2^31",
        options.max_tokens, options.experts_per_token, num_ranks);
  }
  return absl::OkStatus();
}

absl::Status CheckGroups(const ExchangeGroups& groups) {
  if (groups.node == nullptr && groups.rail == nullptr) {
    return absl::OkStatus();
  }
  if (groups.node == nullptr || groups.rail == nullptr || groups.node->size() < 2 ||
      groups.rail->size() < 2 ||
      groups.node->size() * groups.rail->size() != groups.ep->size() ||
      groups.rail->rank() * groups.node->size() + groups.node->rank() !=
          groups.ep->rank()) {
    return InvalidArgumentF("the node and rail of rank {} do not make up the {} ranks",
                            groups.ep->rank(), groups.ep->size());
  }
  return absl::OkStatus();
}

}  // namespace

int64_t DispatchRowBytes(const ExpertExchangeOptions& options, int64_t element_bytes) {
  switch (options.rows) {
    case DispatchRows::kActivations:
      break;
    case DispatchRows::kFp8:
      return kernels::Fp8RowFormat(options.hidden_size).packed_bytes();
  }
  return options.hidden_size * element_bytes;
}

absl::StatusOr<std::unique_ptr<ExpertExchange>> ExpertExchange::Create(
    const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
    const ExchangeGroups& groups) {
  TESSERA_RETURN_IF_ERROR(
      CheckOptions(options, backend->activation_dtype(), groups.ep->size()));
  TESSERA_RETURN_IF_ERROR(CheckGroups(groups));
  if (groups.ep->size() == 1) {
    return LocalExchange::Create(options, backend);
  }
  return RoutedRounds::Create(options, backend, groups);
}

absl::Status ExpertExchange::Send(kernels::Stream& /*stream*/, const ExchangeRows& rows) {
  sent_ = rows;
  return absl::OkStatus();
}

absl::StatusOr<ExpertBatch> ExpertExchange::Receive(kernels::Stream& stream) {
  return Dispatch(stream, sent_.x, sent_.expert_ids, sent_.weights);
}

absl::Status ExpertExchange::Finish(kernels::Stream& stream) {
  return Combine(stream, sent_.out);
}

}  // namespace tessera::worker
