#include "coordinator/console/expert_loads.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "common/check.h"

namespace tessera::coordinator {
namespace {

std::span<const uint64_t> Row(const std::vector<uint64_t>& counts,
                              const ExpertShape& shape, int64_t layer) {
  const auto width = static_cast<size_t>(shape.num_experts());
  return std::span(counts).subspan(static_cast<size_t>(layer) * width, width);
}

void AddTo(std::span<const uint32_t> counts, std::vector<uint64_t>* sums) {
  for (size_t i = 0; i < counts.size(); ++i) {
    (*sums)[i] += counts[i];
  }
}

}  // namespace

std::span<const uint64_t> ExpertLoadCounts::recent_of(const ExpertShape& shape,
                                                      int64_t layer) const {
  return Row(recent, shape, layer);
}

std::span<const uint64_t> ExpertLoadCounts::total_of(const ExpertShape& shape,
                                                     int64_t layer) const {
  return Row(total, shape, layer);
}

std::optional<double> ImbalanceOf(std::span<const uint64_t> counts) {
  const uint64_t sum = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  if (sum == 0) {
    return std::nullopt;
  }
  return static_cast<double>(*std::max_element(counts.begin(), counts.end())) *
         static_cast<double>(counts.size()) / static_cast<double>(sum);
}

ExpertLoads::ExpertLoads(ExpertShape shape, Clock* clock)
    : shape_(std::move(shape)),
      clock_(clock),
      slice_start_(clock->Now()),
      total_(shape_.num_counts()) {
  slices_.fill(Counts(shape_.num_counts()));
}

void ExpertLoads::AdvanceTo(absl::Time now) {
  for (size_t i = 0; i < kSlices && slice_start_ + kSlice <= now; ++i) {
    open_ = (open_ + 1) % kSlices;
    std::fill(slices_[open_].begin(), slices_[open_].end(), 0);
    slice_start_ += kSlice;
  }
  if (slice_start_ + kSlice <= now) {
    slice_start_ = now;  // Everything is older than the window, and empty by now.
  }
}

void ExpertLoads::Add(std::span<const uint32_t> counts) {
  TESSERA_CHECK(counts.size() == shape_.num_counts());
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  AdvanceTo(now);
  AddTo(counts, &slices_[open_]);
  AddTo(counts, &total_);
}

ExpertLoadCounts ExpertLoads::Read() {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  AdvanceTo(now);
  ExpertLoadCounts read = {.recent = Counts(shape_.num_counts()), .total = total_};
  for (const Counts& slice : slices_) {
    for (size_t i = 0; i < slice.size(); ++i) {
      read.recent[i] += slice[i];
    }
  }
  return read;
}

}  // namespace tessera::coordinator
