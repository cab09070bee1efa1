#include "worker/comm/expert_items.h"

#include <algorithm>

namespace tessera::worker {

ExpertItems::ExpertItems(std::span<const int> expert_owner, int rank, int64_t max_items)
    : local_of_expert_(expert_owner.size(), -1),
      row_of_item_(static_cast<size_t>(max_items)) {
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

kernels::TensorView ExpertItems::row_of_item() {
  return {row_of_item_.data(), kernels::DType::kI32, {num_items()}};
}

kernels::TensorView ExpertItems::item_offsets() {
  return {offsets_.data(), kernels::DType::kI32, {static_cast<int64_t>(offsets_.size())}};
}

}  // namespace tessera::worker
