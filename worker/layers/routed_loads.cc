#include "worker/layers/routed_loads.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "common/status_macros.h"

namespace tessera::worker {

using kernels::TensorView;

RoutedLoads::RoutedLoads(const model::ModelConfig& config)
    : config_(config),
      num_layers_(config.num_layers - config.num_dense_layers),
      width_(std::max(config.moe.num_experts, config.draft_moe.num_experts)),
      counts_(config) {}

absl::StatusOr<std::unique_ptr<RoutedLoads>> RoutedLoads::Create(
    const model::ModelConfig& config, int64_t draft_runs,
    kernels::KernelBackend* backend) {
  std::unique_ptr<RoutedLoads> loads(new RoutedLoads(config));
  loads->backend_ = backend;
  loads->max_draft_rows_ = config.num_draft_layers * std::max<int64_t>(draft_runs, 1);
  loads->counted_.resize(static_cast<size_t>(loads->num_layers_));
  loads->draft_of_.reserve(static_cast<size_t>(loads->max_draft_rows_));
  const int64_t rows = loads->num_layers_ + loads->max_draft_rows_;
  TESSERA_ASSIGN_OR_RETURN(
      loads->items_,
      backend->Allocate(static_cast<size_t>(rows * loads->width_) * sizeof(int32_t)));
  return loads;
}

void RoutedLoads::Begin(bool counts) {
  counts_items_ = counts;
  imbalance_ = 0;
  std::fill(counted_.begin(), counted_.end(), false);
  draft_of_.clear();
}

void RoutedLoads::Count(kernels::Stream& stream, int64_t layer, TensorView expert_ids) {
  if (expert_ids.empty()) {
    return;
  }
  int64_t row = layer - config_.num_dense_layers;
  if (layer < config_.num_layers) {
    counted_[static_cast<size_t>(row)] = true;
  } else {
    if (static_cast<int64_t>(draft_of_.size()) == max_draft_rows_) {
      return;
    }
    row = num_layers_ + static_cast<int64_t>(draft_of_.size());
    draft_of_.push_back(layer);
  }
  backend_->CountExperts(
      stream, expert_ids,
      TensorView(Row(row), kernels::DType::kI32, {config_.moe_of(layer).num_experts}));
}

void RoutedLoads::CountedByGraph() { std::fill(counted_.begin(), counted_.end(), true); }

void RoutedLoads::Finish() {
  for (int64_t row = 0; row < num_layers_; ++row) {
    if (counted_[static_cast<size_t>(row)]) {
      Read(config_.num_dense_layers + row, Row(row));
    }
  }
  for (size_t i = 0; i < draft_of_.size(); ++i) {
    Read(draft_of_[i], Row(num_layers_ + static_cast<int64_t>(i)));
  }
  draft_of_.clear();
}

void RoutedLoads::Read(int64_t layer, const int32_t* items) {
  const std::span<const int32_t> load(
      items, static_cast<size_t>(config_.moe_of(layer).num_experts));
  // Of real items: padding rows have none.
  const int64_t total = std::accumulate(load.begin(), load.end(), int64_t{0});
  if (total > 0) {
    const auto largest = static_cast<float>(*std::max_element(load.begin(), load.end()));
    const float mean = static_cast<float>(total) / static_cast<float>(load.size());
    imbalance_ = std::max(imbalance_, largest / mean);
  }
  if (counts_items_) {
    counts_.Add(layer, load);
  }
}

}  // namespace tessera::worker
