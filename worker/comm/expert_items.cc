#include "worker/comm/expert_items.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "common/check.h"

namespace tessera::worker {
namespace {

// Of one item.
size_t WeightBytes(std::optional<kernels::DType> weights) {
  return weights.has_value() ? model::DTypeBytes(*weights, 1) : 0;
}

}  // namespace

ExpertItems::ExpertItems(std::span<const int> expert_owner, int rank, int64_t max_items,
                         std::optional<kernels::DType> weights,
                         kernels::DeviceBuffer memory)
    : local_of_expert_(expert_owner.size(), -1),
      weight_dtype_(weights),
      weight_bytes_(WeightBytes(weights)),
      memory_(std::move(memory)) {
  TESSERA_CHECK_LE(MemoryBytes(expert_owner, max_items, weights), memory_.size_bytes());
  item_weights_ = static_cast<std::byte*>(memory_.data());
  row_of_item_ = reinterpret_cast<int32_t*>(
      item_weights_ + static_cast<size_t>(max_items) * weight_bytes_);
  offsets_ = row_of_item_ + max_items;
  for (size_t expert = 0; expert < expert_owner.size(); ++expert) {
    if (expert_owner[expert] == rank) {
      local_of_expert_[expert] = static_cast<int32_t>(local_experts_.size());
      local_experts_.push_back(static_cast<int>(expert));
    }
  }
  cursors_.assign(local_experts_.size(), 0);
}

size_t ExpertItems::MemoryBytes(std::span<const int> expert_owner, int64_t max_items,
                                std::optional<kernels::DType> weights) {
  return static_cast<size_t>(max_items) * (WeightBytes(weights) + sizeof(int32_t)) +
         (expert_owner.size() + 1) * sizeof(int32_t);
}

void ExpertItems::Begin() { std::fill(offsets().begin(), offsets().end(), 0); }

void ExpertItems::Offset() {
  for (size_t i = 0; i < cursors_.size(); ++i) {
    offsets()[i + 1] += offsets()[i];
    cursors_[i] = offsets()[i];
  }
}

void ExpertItems::SetWeight(int32_t item, const std::byte* weight) {
  if (weight_bytes_ == 0) {
    return;
  }
  std::memcpy(item_weights_ + static_cast<size_t>(item) * weight_bytes_, weight,
              weight_bytes_);
}

kernels::TensorView ExpertItems::item_weights() {
  if (!weight_dtype_.has_value()) {
    return {};
  }
  return {item_weights_, *weight_dtype_, {num_items()}};
}

kernels::TensorView ExpertItems::row_of_item() {
  return {row_of_item_, kernels::DType::kI32, {num_items()}};
}

kernels::TensorView ExpertItems::item_offsets() {
  return {offsets_, kernels::DType::kI32, {std::ssize(local_experts_) + 1}};
}

}  // namespace tessera::worker
