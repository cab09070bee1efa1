#include "worker/runner/decode_graphs.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/runtime/stream_graph.h"

namespace tessera::worker {
namespace {

using Buckets = std::vector<int64_t>;

TEST(DecodeBuckets, ArePowersOfTwoAndTheLargestBatch) {
  EXPECT_EQ(DecodeBuckets(0), Buckets());
  EXPECT_EQ(DecodeBuckets(1), Buckets({1}));
  EXPECT_EQ(DecodeBuckets(2), Buckets({2, 1}));
  EXPECT_EQ(DecodeBuckets(12), Buckets({12, 8, 4, 2, 1}));
  EXPECT_EQ(DecodeBuckets(16), Buckets({16, 8, 4, 2, 1}));
}

TEST(DecodeBuckets, AStepBelongsToTheSmallestThatHoldsIt) {
  for (const int64_t max_rows : {1, 2, 3, 12, 16, 64, 100}) {
    const Buckets buckets = DecodeBuckets(max_rows);
    for (int64_t rows = 1; rows <= max_rows; ++rows) {
      int64_t smallest = max_rows;
      for (const int64_t bucket : buckets) {
        smallest = bucket >= rows ? bucket : smallest;
      }
      EXPECT_EQ(DecodeBucketOf(rows, max_rows), smallest) << rows << " of " << max_rows;
    }
    EXPECT_EQ(DecodeBucketOf(0, max_rows), 0);
    EXPECT_EQ(DecodeBucketOf(max_rows + 1, max_rows), 0);
  }
}

TEST(DecodeSteps, AreThoseOfOneTokenWithLogitsPerSequence) {
  const StepRun decode = {.slot = 0, .begin = 7, .count = 1, .sample = true};
  const StepRun prefill = {.slot = 1, .begin = 0, .count = 1, .sample = false};
  const StepRun last_chunk = {.slot = 1, .begin = 0, .count = 3, .sample = true};
  const StepRun drafts = {
      .slot = 1, .begin = 9, .count = 3, .num_drafts = 2, .sample = true};
  EXPECT_TRUE(IsDecodeStep(std::vector<StepRun>{decode}));
  EXPECT_TRUE(IsDecodeStep(std::vector<StepRun>{decode, decode}));
  EXPECT_FALSE(IsDecodeStep({}));
  for (const StepRun& other : {prefill, last_chunk, drafts}) {
    EXPECT_FALSE(IsDecodeStep(std::vector<StepRun>{other}));
    EXPECT_FALSE(IsDecodeStep(std::vector<StepRun>{decode, other}));
    EXPECT_FALSE(IsDecodeStep(std::vector<StepRun>{other, decode}));
  }
}

class NoStream final : public kernels::Stream {
 public:
  absl::Status Synchronize() override { return absl::OkStatus(); }
};

class FakeGraph final : public kernels::StreamGraph {
 public:
  FakeGraph(int64_t num_rows, int64_t device_bytes)
      : num_rows_(num_rows), device_bytes_(device_bytes) {}
  absl::Status Launch(kernels::Stream& /*stream*/) override { return absl::OkStatus(); }
  int64_t num_nodes() const override { return 10 * num_rows_; }
  int64_t device_bytes() const override { return device_bytes_; }

 private:
  const int64_t num_rows_;
  const int64_t device_bytes_;
};

// Each capture takes a second and 100 bytes.
class FakeFactory final : public kernels::StreamGraphFactory {
 public:
  explicit FakeFactory(SimulatedClock* clock) : clock_(clock) {}
  absl::StatusOr<std::unique_ptr<kernels::StreamGraph>> Capture(
      kernels::Stream& /*stream*/, absl::FunctionRef<absl::Status()> enqueue) override {
    clock_->Advance(absl::Seconds(1));
    if (const absl::Status status = enqueue(); !status.ok()) {
      return status;
    }
    return std::make_unique<FakeGraph>(last_rows, 100);
  }

  int64_t last_rows = 0;

 private:
  SimulatedClock* const clock_;
};

class DecodeGraphsTest : public ::testing::Test {
 protected:
  DecodeGraphs::Report Capture(DecodeGraphs& graphs, absl::Duration time,
                               int64_t device_bytes, int64_t fails_at = 0) {
    return graphs.Capture(factory_, stream_, {.time = time, .device_bytes = device_bytes},
                          &clock_, [&](int64_t num_rows, int64_t* collective_bytes) {
                            factory_.last_rows = num_rows;
                            *collective_bytes = 7 * num_rows;
                            return num_rows == fails_at ? absl::InternalError("planted")
                                                        : absl::OkStatus();
                          });
  }
  // Of the graph that a step of `num_rows` gets; 0: none.
  static int64_t RowsOf(const DecodeGraphs& graphs, int64_t num_rows) {
    const DecodeGraphs::Step* const step = graphs.Find(num_rows);
    return step == nullptr ? 0 : step->num_rows;
  }

  SimulatedClock clock_;
  NoStream stream_;
  FakeFactory factory_{&clock_};
};

TEST_F(DecodeGraphsTest, AreCapturedForEveryBucket) {
  DecodeGraphs graphs(12);
  EXPECT_EQ(graphs.Find(1), nullptr);
  const auto report = Capture(graphs, absl::Seconds(60), 10000);
  EXPECT_EQ(report.captured, "12 8 4 2 1");
  EXPECT_EQ(report.eager, "");
  EXPECT_EQ(report.num_nodes, 120);
  EXPECT_EQ(report.device_bytes, 500);
  EXPECT_EQ(report.time, absl::Seconds(5));
  EXPECT_TRUE(report.error.ok());
  const Buckets expected = {0, 1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0};
  for (int64_t rows = 0; rows < std::ssize(expected); ++rows) {
    EXPECT_EQ(RowsOf(graphs, rows), expected[static_cast<size_t>(rows)]) << rows;
  }
  EXPECT_EQ(graphs.Find(3)->collective_bytes, 28);
}

TEST_F(DecodeGraphsTest, EndWhereTheNextCaptureWouldTakeTooLong) {
  DecodeGraphs graphs(12);
  const auto report = Capture(graphs, absl::Milliseconds(3500), 10000);
  EXPECT_EQ(report.captured, "12 8 4");
  EXPECT_EQ(report.eager, "2 1");
  EXPECT_EQ(report.time, absl::Seconds(3));
  EXPECT_TRUE(report.error.ok());
  EXPECT_EQ(RowsOf(graphs, 5), 8);
  EXPECT_EQ(RowsOf(graphs, 2), 0) << "no larger bucket stands in";
}

TEST_F(DecodeGraphsTest, EndWhereTheirBytesExceedTheBudget) {
  DecodeGraphs graphs(12);
  const auto report = Capture(graphs, absl::Seconds(60), 250);
  EXPECT_EQ(report.captured, "12 8");
  EXPECT_EQ(report.eager, "4 2 1");
  EXPECT_EQ(report.device_bytes, 200);
  EXPECT_EQ(RowsOf(graphs, 4), 0);
}

TEST_F(DecodeGraphsTest, AreNoneWithoutABudget) {
  DecodeGraphs graphs(4);
  const auto report = Capture(graphs, absl::ZeroDuration(), 10000);
  EXPECT_EQ(report.captured, "");
  EXPECT_EQ(report.eager, "4 2 1");
  EXPECT_EQ(report.time, absl::ZeroDuration());
  EXPECT_EQ(RowsOf(graphs, 1), 0);
}

TEST_F(DecodeGraphsTest, KeepWhatWasCapturedBeforeAnError) {
  DecodeGraphs graphs(12);
  const auto report = Capture(graphs, absl::Seconds(60), 10000, 4);
  EXPECT_EQ(report.captured, "12 8");
  EXPECT_EQ(report.eager, "4 2 1");
  EXPECT_EQ(report.error, absl::InternalError("planted"));
  EXPECT_EQ(RowsOf(graphs, 9), 12);
  EXPECT_EQ(RowsOf(graphs, 1), 0);
}

}  // namespace
}  // namespace tessera::worker
