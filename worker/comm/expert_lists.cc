#include "worker/comm/expert_lists.h"

#include <cstddef>
#include <iterator>
#include <memory>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

absl::StatusOr<kernels::DeviceBuffer> MakeDeviceInts(kernels::KernelBackend* backend,
                                                     std::span<const int32_t> values) {
  TESSERA_ASSIGN_OR_RETURN(kernels::DeviceBuffer memory,
                           backend->Allocate(values.size_bytes()));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Stream> stream,
                           backend->CreateStream());
  backend->Upload(*stream, values.data(),
                  TensorView(memory.data(), DType::kI32, {std::ssize(values)}));
  TESSERA_RETURN_IF_ERROR(stream->Synchronize());
  return memory;
}

absl::StatusOr<ExpertLists> ExpertLists::Create(const ExpertExchangeOptions& options,
                                                int rank, int64_t max_rows,
                                                kernels::KernelBackend* backend) {
  ExpertLists lists;
  lists.backend_ = backend;
  lists.max_rows_ = max_rows;
  lists.experts_per_token_ = options.experts_per_token;
  lists.dtype_ = backend->activation_dtype();
  lists.has_weights_ = options.weights_travel;
  lists.num_experts_ = std::ssize(options.expert_owner);
  std::vector<int32_t> local_of_expert(options.expert_owner.size(), -1);
  for (size_t expert = 0; expert < local_of_expert.size(); ++expert) {
    if (options.expert_owner[expert] == rank) {
      local_of_expert[expert] = static_cast<int32_t>(lists.local_experts_.size());
      lists.local_experts_.push_back(static_cast<int>(expert));
    }
  }
  const auto items = static_cast<size_t>(max_rows * options.experts_per_token);
  TESSERA_ASSIGN_OR_RETURN(lists.local_of_expert_,
                           MakeDeviceInts(backend, local_of_expert));
  TESSERA_ASSIGN_OR_RETURN(
      lists.item_offsets_,
      backend->Allocate((lists.local_experts_.size() + 1) * sizeof(int32_t)));
  TESSERA_ASSIGN_OR_RETURN(lists.row_of_item_,
                           backend->Allocate(items * sizeof(int32_t)));
  TESSERA_ASSIGN_OR_RETURN(lists.row_of_slot_,
                           backend->Allocate(items * sizeof(int32_t)));
  if (lists.has_weights_) {
    TESSERA_ASSIGN_OR_RETURN(lists.item_weights_,
                             backend->Allocate(model::DTypeBytes(lists.dtype_, items)));
  }
  const int32_t none = 0;
  TESSERA_ASSIGN_OR_RETURN(lists.fault_, MakeDeviceInts(backend, {&none, 1}));
  return lists;
}

void ExpertLists::List(kernels::Stream& stream, TensorView expert_ids,
                       TensorView weights) {
  num_rows_ = expert_ids.dim(0);
  TESSERA_CHECK_LE(num_rows_, max_rows_);
  backend_->ListExpertItems(
      stream, {.expert_ids = expert_ids,
               .local_of_expert = {local_of_expert_.data(), DType::kI32, {num_experts_}},
               .weights = has_weights_ ? weights : TensorView(),
               .item_offsets = item_offsets(),
               .row_of_item = row_of_item(),
               .row_of_slot = row_of_slot(),
               .item_weights = item_weights(),
               .fault = fault()});
}

TensorView ExpertLists::item_offsets() const {
  return {item_offsets_.data(), DType::kI32, {std::ssize(local_experts_) + 1}};
}

TensorView ExpertLists::row_of_item() const {
  return {row_of_item_.data(), DType::kI32, {num_rows_ * experts_per_token_}};
}

TensorView ExpertLists::item_weights() const {
  if (!has_weights_) {
    return {};
  }
  return {item_weights_.data(), dtype_, {num_rows_ * experts_per_token_}};
}

TensorView ExpertLists::row_of_slot() const {
  return {row_of_slot_.data(), DType::kI32, {num_rows_, experts_per_token_}};
}

TensorView ExpertLists::fault() const { return {fault_.data(), DType::kI32, {1}}; }

absl::Status ExpertLists::Check() {
  const int32_t slot = std::exchange(*static_cast<int32_t*>(fault_.data()), 0) - 1;
  if (slot < 0) {
    return absl::OkStatus();
  }
  return InternalF("row {} slot {} of a dispatch goes to no expert that there is",
                   slot / experts_per_token_, slot % experts_per_token_);
}

}  // namespace tessera::worker
