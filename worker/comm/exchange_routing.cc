#include "worker/comm/exchange_routing.h"

#include "common/status.h"

namespace tessera::worker {

absl::Status CheckRouting(const ExpertExchangeOptions& options, kernels::TensorView x,
                          kernels::TensorView expert_ids) {
  const int64_t num_tokens = x.dim(0);
  const int64_t k = options.experts_per_token;
  if (num_tokens > options.max_tokens) {
    return InternalF("dispatch of {} tokens, expected at most {}", num_tokens,
                     options.max_tokens);
  }
  if (x.rank != 2 || x.dim(1) != options.hidden_size) {
    return InternalF("dispatch of rows of {} values, expected {}", x.dim(1),
                     options.hidden_size);
  }
  if (expert_ids.rank != 2 || expert_ids.dtype != kernels::DType::kI32 ||
      expert_ids.dim(0) != num_tokens || expert_ids.dim(1) != k) {
    return InternalF("expert ids [{}, {}] of {}, expected [{}, {}] of I32",
                     expert_ids.dim(0), expert_ids.dim(1),
                     model::DTypeName(expert_ids.dtype), num_tokens, k);
  }
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

}  // namespace tessera::worker
