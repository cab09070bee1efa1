// DecodeGraphs: a rank's decode steps as graphs of its stream, one for each bucket: a
// padded number of rows, so that a few captures serve every batch. A step whose rank with
// most work has T rows (StepPlan::decode_rows) runs in the smallest bucket that holds T,
// on every rank, filled up with padding rows. The ranks of a group launch the same
// graphs, whose collectives meet: what one of them has not captured, none keeps.
#ifndef TESSERA_WORKER_RUNNER_DECODE_GRAPHS_H_
#define TESSERA_WORKER_RUNNER_DECODE_GRAPHS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "kernels/runtime/stream_graph.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {

// 1, 2, 4, … below max_rows, and max_rows; falling. None below 1.
std::vector<int64_t> DecodeBuckets(int64_t max_rows);
// The smallest of them that holds `num_rows` rows; 0: none, or there are no rows.
int64_t DecodeBucketOf(int64_t num_rows, int64_t max_rows);

// Collective; start-up. Of the numbers of buckets that the ranks of `group` have, from
// the largest bucket down, the least; 0 where their max_rows differ. The group's errors.
absl::StatusOr<int64_t> AgreeOnBuckets(Communicator& group, int64_t max_rows,
                                       int64_t num_buckets);

// Step thread only. It goes before the backend and the stream.
class DecodeGraphs {
 public:
  // Bounds of all captures together.
  struct Budget {
    absl::Duration time;
    int64_t device_bytes = 0;
  };
  struct Step {
    int64_t num_rows = 0;  // with padding
    std::unique_ptr<kernels::StreamGraph> graph;
    int64_t collective_bytes = 0;  // of a launch
  };
  // Enqueues a step of `num_rows` rows on the stream that is being captured, and says in
  // `collective_bytes` what it moves between ranks.
  using EnqueueStep =
      absl::FunctionRef<absl::Status(int64_t num_rows, int64_t* collective_bytes)>;

  // What there was to capture, for logs.
  struct Report {
    std::string captured;   // buckets: "64 32 16"
    std::string eager;      // those that the budget, or an error, left
    int64_t num_nodes = 0;  // of the largest
    int64_t device_bytes = 0;
    absl::Duration time;
    absl::Status error;  // which ended it; OK: all, or the budget
  };

  explicit DecodeGraphs(int64_t max_rows) : max_rows_(max_rows) {}

  // Start-up, after a step has run: what is made at a first call must be there. From the
  // largest bucket down, until a graph would exceed the budget: one more takes as long as
  // the last, and one that brings its bytes beyond is dropped. Errors of the capture end
  // it; what was captured before stays.
  Report Capture(kernels::StreamGraphFactory& factory, kernels::Stream& stream,
                 const Budget& budget, Clock* clock, EnqueueStep enqueue);

  // The first so many of DecodeBuckets have graphs.
  int64_t num_buckets() const { return static_cast<int64_t>(steps_.size()); }
  // Drops the others, and says which: "2 1".
  std::string KeepFirst(int64_t num_buckets);

  // The graph for a step of `num_rows` rows; null: its bucket has none.
  const Step* Find(int64_t num_rows) const;

 private:
  const int64_t max_rows_;
  std::vector<Step> steps_;  // falling
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_DECODE_GRAPHS_H_
