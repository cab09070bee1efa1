#include "worker/comm/expert_items.h"

#include <algorithm>
#include <cstring>

namespace tessera::worker {

ExpertItems::ExpertItems(std::span<const int> expert_owner, int rank, int64_t max_items,
                         std::optional<kernels::DType> weights)
    : local_of_expert_(expert_owner.size(), -1),
      row_of_item_(static_cast<size_t>(max_items)),
      weight_dtype_(weights),
      weight_bytes_(weights.has_value() ? model::DTypeBytes(*weights, 1) : 0),
      item_weights_(static_cast<size_t>(max_items) * weight_bytes_) {
  for (size_t expert = 0; expert < expert_owner.size(); ++expert) {
    if (expert_owner[expert] == rank) {
      local_of_expert_[expert] = static_cast<int32_t>(local_experts_.size());
      local_experts_.push_back(static_cast<int>(expert));
    }
  }
  offsets_.assign(local_experts_.size() + 1, 0);
  cursors_.assign(local_experts_.size(), 0);
}

void ExpertItems::Begin() { std::fill(offsets_.begin(), offsets_.end(), 0); }

void ExpertItems::Offset() {
  for (size_t i = 0; i < cursors_.size(); ++i) {
    offsets_[i + 1] += offsets_[i];
    cursors_[i] = offsets_[i];
  }
}

void ExpertItems::SetWeight(int32_t item, const std::byte* weight) {
  if (weight_bytes_ == 0) {
    return;
  }
  std::memcpy(item_weights_.data() + static_cast<size_t>(item) * weight_bytes_, weight,
              weight_bytes_);
}

kernels::TensorView ExpertItems::item_weights() {
  if (!weight_dtype_.has_value()) {
    return {};
  }
  return {item_weights_.data(), *weight_dtype_, {num_items()}};
}

kernels::TensorView ExpertItems::row_of_item() {
  return {row_of_item_.data(), kernels::DType::kI32, {num_items()}};
}

kernels::TensorView ExpertItems::item_offsets() {
  return {offsets_.data(), kernels::DType::kI32, {static_cast<int64_t>(offsets_.size())}};
}

}  // namespace tessera::worker
