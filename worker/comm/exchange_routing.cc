#include "worker/comm/exchange_routing.h"

#include <algorithm>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/expert_items.h"

namespace tessera::worker {

absl::Status CheckShapes(const ExpertExchangeOptions& options, kernels::TensorView x,
                         kernels::TensorView expert_ids, kernels::TensorView weights) {
  const int64_t num_tokens = x.dim(0);
  const int64_t k = options.experts_per_token;
  if (num_tokens > options.max_tokens) {
    return InternalF("dispatch of {} tokens, expected at most {}", num_tokens,
                     options.max_tokens);
  }
  if (x.rank != 2 || x.dim(1) != options.hidden_size || !x.is_contiguous()) {
    return InternalF("dispatch of rows of {} values, expected {}, contiguous", x.dim(1),
                     options.hidden_size);
  }
  if (expert_ids.rank != 2 || expert_ids.dtype != kernels::DType::kI32 ||
      expert_ids.dim(0) != num_tokens || expert_ids.dim(1) != k ||
      !expert_ids.is_contiguous()) {
    return InternalF("expert ids [{}, {}] of {}, expected [{}, {}] of I32, contiguous",
                     expert_ids.dim(0), expert_ids.dim(1),
                     model::DTypeName(expert_ids.dtype), num_tokens, k);
  }
  if (weights.rank != 2 || weights.dtype != x.dtype || weights.dim(0) != num_tokens ||
      weights.dim(1) != k || !weights.is_contiguous()) {
    return InternalF("routing weights [{}, {}] of {}, expected [{}, {}] of {}",
                     weights.dim(0), weights.dim(1), model::DTypeName(weights.dtype),
                     num_tokens, k, model::DTypeName(x.dtype));
  }
  return absl::OkStatus();
}

absl::Status CheckRouting(const ExpertExchangeOptions& options, kernels::TensorView x,
                          kernels::TensorView expert_ids, kernels::TensorView weights) {
  TESSERA_RETURN_IF_ERROR(CheckShapes(options, x, expert_ids, weights));
  const int64_t num_tokens = expert_ids.dim(0);
  const int64_t k = expert_ids.dim(1);
  const auto num_experts = static_cast<int32_t>(options.expert_owner.size());
  for (int64_t t = 0; t < num_tokens; ++t) {
    for (int64_t j = 0; j < k; ++j) {
      const int32_t expert = expert_ids.row<int32_t>(t)[j];
      if (expert < 0 || expert >= num_experts) {
        return InternalF("token {} slot {} goes to expert {} of {}", t, j, expert,
                         num_experts);
      }
    }
  }
  return absl::OkStatus();
}

std::optional<kernels::DType> TravellingWeights(const ExpertExchangeOptions& options,
                                                kernels::DType rows) {
  return options.weights_travel ? std::optional(rows) : std::nullopt;
}

absl::StatusOr<kernels::DeviceBuffer> AllocateOnes(const ExpertExchangeOptions& options,
                                                   kernels::KernelBackend* backend) {
  kernels::DeviceBuffer ones;
  if (!options.weights_travel) {
    return ones;
  }
  const kernels::DType dtype = backend->activation_dtype();
  const auto slots = static_cast<size_t>(options.max_tokens * options.experts_per_token);
  TESSERA_ASSIGN_OR_RETURN(ones, backend->Allocate(model::DTypeBytes(dtype, slots)));
  const auto fill = [&]<typename T>(T one) {
    std::fill_n(static_cast<T*>(ones.data()), slots, one);
  };
  dtype == kernels::DType::kF64 ? fill(1.0) : fill(1.0F);
  return ones;
}

absl::StatusOr<ExchangeLists> AllocateLists(const ExpertExchangeOptions& options,
                                            int64_t max_items,
                                            kernels::KernelBackend* backend) {
  const kernels::DType dtype = backend->activation_dtype();
  const auto slots = static_cast<size_t>(options.max_tokens * options.experts_per_token);
  ExchangeLists lists;
  TESSERA_ASSIGN_OR_RETURN(lists.items, backend->Allocate(ExpertItems::MemoryBytes(
                                            options.expert_owner, max_items,
                                            TravellingWeights(options, dtype))));
  TESSERA_ASSIGN_OR_RETURN(lists.row_of_slot, backend->Allocate(slots * sizeof(int32_t)));
  TESSERA_ASSIGN_OR_RETURN(lists.ones, AllocateOnes(options, backend));
  return lists;
}

}  // namespace tessera::worker
