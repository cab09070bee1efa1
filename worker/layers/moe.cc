#include "worker/layers/moe.h"

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

// Tokens [begin, begin + count) of T that rank `rank` of `size` dispatches.
struct Share {
  int64_t begin;
  int64_t count;
};

kernels::RouterScore ScoreOf(model::RouterKind router) {
  switch (router) {
    case model::RouterKind::kSigmoid:
      return kernels::RouterScore::kSigmoid;
    case model::RouterKind::kSqrtSoftplus:
      break;
  }
  return kernels::RouterScore::kSqrtSoftplus;
}

Share ShareOf(int64_t tokens, int rank, int size) {
  const int64_t begin = tokens * rank / size;
  return {begin, tokens * (rank + 1) / size - begin};
}

}  // namespace

Moe::Moe(const model::ModelConfig& config, int64_t layer, const MoeWeights& weights,
         ExpertExchange* exchange)
    : moe_(config.moe_of(layer)),
      score_(ScoreOf(config.router)),
      swiglu_limit_(config.swiglu_limit),
      hidden_(config.hidden_size),
      layer_(layer),
      weights_(weights),
      exchange_(exchange),
      gather_counts_(8) {
  if (weights_.shared.has_value()) {
    shared_.emplace(*weights_.shared, swiglu_limit_);
  }
}

size_t Moe::scratch_bytes(int64_t max_tokens) const {
  const size_t shared = shared_.has_value() ? shared_->scratch_bytes(max_tokens) : 0;
  return ScratchArena::Bytes(DType::kF64,
                             max_tokens * (3 * moe_.experts_per_token + hidden_)) +
         shared + 5 * ScratchArena::kAlignment;
}

absl::Status Moe::ExchangeShare(const StepContext& context, const ExchangeRows& share,
                                absl::FunctionRef<void()> meanwhile) {
  if (!exchange_->is_capturable()) {  // what waits for ranks has a deadline
    TESSERA_RETURN_IF_ERROR(context.wait->Synchronize(*context.stream));
  }
  const absl::Duration before = exchange_->host_time();
  TESSERA_RETURN_IF_ERROR(exchange_->Send(*context.stream, share));
  meanwhile();
  for (int64_t round = 0; round < exchange_->num_rounds(); ++round) {
    TESSERA_ASSIGN_OR_RETURN(const ExpertBatch batch,
                             exchange_->Receive(*context.stream));
    context.backend->GroupedExperts(*context.stream, {.x = batch.rows,
                                                      .row_of_item = batch.row_of_item,
                                                      .item_offsets = batch.item_offsets,
                                                      .experts = weights_.experts,
                                                      .swiglu_limit = swiglu_limit_,
                                                      .item_weights = batch.item_weights,
                                                      .out = batch.out});
  }
  TESSERA_RETURN_IF_ERROR(exchange_->Finish(*context.stream));
  const int64_t output_bytes =
      moe_.experts_per_token * hidden_ * static_cast<int64_t>(sizeof(float));
  BookCollective(context, exchange_->host_time() - before,
                 share.x.dim(0) * (exchange_->row_bytes() + output_bytes));
  return absl::OkStatus();
}

absl::Status Moe::RoutedExperts(const StepContext& context, const ExchangeRows& rows,
                                absl::FunctionRef<void()> meanwhile) {
  const int tp_size = context.tp->size();
  const Share share = ShareOf(context.num_tokens, context.tp->rank(), tp_size);
  TESSERA_RETURN_IF_ERROR(
      ExchangeShare(context,
                    {.x = rows.x.Rows(share.begin, share.count),
                     .expert_ids = rows.expert_ids.Rows(share.begin, share.count),
                     .weights = rows.weights.Rows(share.begin, share.count),
                     .out = rows.out.Rows(share.begin, share.count)},
                    meanwhile));
  if (tp_size == 1 || context.num_tokens == 0) {
    return absl::OkStatus();
  }
  const auto row_bytes = static_cast<int64_t>(
      model::DTypeBytes(rows.out.dtype, static_cast<size_t>(hidden_)));
  for (int rank = 0; rank < tp_size; ++rank) {
    gather_counts_[static_cast<size_t>(rank)] =
        ShareOf(context.num_tokens, rank, tp_size).count * row_bytes;
  }
  auto* const bytes = static_cast<std::byte*>(rows.out.data);
  return GatherOverTp(
      context,
      {bytes + share.begin * row_bytes, static_cast<size_t>(share.count * row_bytes)},
      std::span<const int64_t>(gather_counts_).first(static_cast<size_t>(tp_size)),
      {bytes, static_cast<size_t>(context.num_tokens * row_bytes)});
}

void Moe::Route(const StepContext& context, TensorView x, TensorView expert_ids,
                TensorView weights) {
  ScratchArena::Scope scope(context.scratch);
  TensorView fixed_ids;  // of rank 0: picked by score
  if (weights_.fixed_experts != nullptr) {
    fixed_ids =
        context.scratch->Take(DType::kI32, {expert_ids.dim(0), expert_ids.dim(1)});
    context.backend->LookupExperts(*context.stream, weights_.fixed_experts,
                                   context.token_ids, fixed_ids);
  }
  context.backend->Route(*context.stream, {.x = x,
                                           .gate = weights_.router,
                                           .score = score_,
                                           .fixed_ids = fixed_ids,
                                           .bias = weights_.router_bias,
                                           .num_groups = moe_.num_groups,
                                           .top_groups = moe_.top_groups,
                                           .normalize = moe_.normalize_weights,
                                           .scaling = moe_.scaling_factor,
                                           .positions = context.paged.positions,
                                           .expert_ids = expert_ids,
                                           .weights = weights});
}

absl::Status Moe::Forward(const StepContext& context, TensorView x, TensorView out) {
  ScratchArena::Scope scope(context.scratch);
  const int64_t tokens = context.num_tokens;
  const int64_t slots = moe_.experts_per_token;
  const TensorView expert_ids = context.scratch->Take(DType::kI32, {tokens, slots});
  const TensorView weights = context.scratch->Take(context.dtype(), {tokens, slots});
  Route(context, x, expert_ids, weights);
  context.Trace("router.ids", layer_, expert_ids);
  context.Trace("router.weights", layer_, weights);
  TensorView shared;
  if (shared_.has_value()) {
    shared = context.scratch->Take(context.dtype(), {tokens, hidden_});
  }
  TESSERA_RETURN_IF_ERROR(RoutedExperts(
      context, {.x = x, .expert_ids = expert_ids, .weights = weights, .out = out}, [&] {
        if (context.routed_loads != nullptr) {
          context.routed_loads->Count(*context.stream, layer_, expert_ids);
        }
        if (shared_.has_value()) {
          shared_->Partial(context, x, shared);
        }
      }));
  if (!shared_.has_value()) {
    return absl::OkStatus();
  }
  TESSERA_RETURN_IF_ERROR(ReduceOverTp(context, shared));
  context.backend->Add(*context.stream, shared, out);
  return absl::OkStatus();
}

}  // namespace tessera::worker
