#include "worker/runner/decode_graphs.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <utility>

#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/status_macros.h"

namespace tessera::worker {
namespace {

void Append(int64_t bucket, std::string& to) {
  to += fmt::format("{}{}", to.empty() ? "" : " ", bucket);
}

}  // namespace

std::vector<int64_t> DecodeBuckets(int64_t max_rows) {
  std::vector<int64_t> buckets;
  for (int64_t rows = 1; rows < max_rows; rows *= 2) {
    buckets.push_back(rows);
  }
  if (max_rows >= 1) {
    buckets.push_back(max_rows);
  }
  std::reverse(buckets.begin(), buckets.end());
  return buckets;
}

int64_t DecodeBucketOf(int64_t num_rows, int64_t max_rows) {
  if (num_rows < 1 || num_rows > max_rows) {
    return 0;
  }
  int64_t bucket = 1;
  while (bucket < num_rows) {
    bucket *= 2;
  }
  return std::min(bucket, max_rows);
}

absl::StatusOr<int64_t> AgreeOnBuckets(Communicator& group, int64_t max_rows,
                                       int64_t num_buckets) {
  using Report = std::array<int64_t, 2>;
  const auto size = static_cast<size_t>(group.size());
  const Report own = {max_rows, num_buckets};
  std::vector<Report> all(size);
  const std::vector<int64_t> bytes(size, sizeof(Report));
  TESSERA_RETURN_IF_ERROR(group.AllGather(std::as_bytes(std::span(own)), bytes,
                                          std::as_writable_bytes(std::span(all))));
  int64_t least = num_buckets;
  for (const auto& [rows, buckets] : all) {
    least = std::min(least, rows == max_rows ? buckets : 0);
  }
  return least;
}

DecodeGraphs::Report DecodeGraphs::Capture(kernels::StreamGraphFactory& factory,
                                           kernels::Stream& stream, const Budget& budget,
                                           Clock* clock, EnqueueStep enqueue) {
  Report report;
  const absl::Time begin = clock->Now();
  absl::Duration last;
  bool goes_on = budget.time > absl::ZeroDuration();
  for (const int64_t num_rows : DecodeBuckets(max_rows_)) {
    goes_on = goes_on && report.time + last <= budget.time;
    if (!goes_on) {
      Append(num_rows, report.eager);
      continue;
    }
    Step step;
    step.num_rows = num_rows;
    absl::StatusOr<std::unique_ptr<kernels::StreamGraph>> graph = factory.Capture(
        stream, [&] { return enqueue(num_rows, &step.collective_bytes); });
    const absl::Duration time = clock->Now() - begin;
    last = time - std::exchange(report.time, time);
    const int64_t bytes =
        report.device_bytes + (graph.ok() ? (*graph)->device_bytes() : 0);
    if (!graph.ok() || bytes > budget.device_bytes) {
      report.error = graph.status();
      goes_on = false;
      Append(num_rows, report.eager);
      continue;
    }
    step.graph = *std::move(graph);
    report.device_bytes = bytes;
    report.num_nodes = std::max(report.num_nodes, step.graph->num_nodes());
    Append(num_rows, report.captured);
    steps_.push_back(std::move(step));
  }
  return report;
}

std::string DecodeGraphs::KeepFirst(int64_t num_buckets) {
  std::string dropped;
  for (int64_t i = num_buckets; i < this->num_buckets(); ++i) {
    Append(steps_[static_cast<size_t>(i)].num_rows, dropped);
  }
  steps_.resize(static_cast<size_t>(std::min(num_buckets, this->num_buckets())));
  return dropped;
}

const DecodeGraphs::Step* DecodeGraphs::Find(int64_t num_rows) const {
  const int64_t bucket = DecodeBucketOf(num_rows, max_rows_);
  for (const Step& step : steps_) {
    if (step.num_rows == bucket) {
      return &step;
    }
  }
  return nullptr;
}

}  // namespace tessera::worker
