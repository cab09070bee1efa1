#include "worker/runner/decode_graphs.h"

#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/runtime/stream_graph.h"
#include "worker/comm/in_process/in_process_group.h"

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

// What each rank of a group hears.
std::vector<int64_t> Agreed(const std::vector<std::pair<int64_t, int64_t>>& reports) {
  auto group = CreateInProcessGroup("test", static_cast<int>(reports.size()),
                                    {.timeout = absl::Seconds(60)}, Clock::Real());
  EXPECT_TRUE(group.ok()) << group.status();
  std::vector<int64_t> heard(reports.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    threads.emplace_back([&, rank] {
      const auto agreed =
          AgreeOnBuckets(*(*group)[rank], reports[rank].first, reports[rank].second);
      EXPECT_TRUE(agreed.ok()) << agreed.status();
      heard[rank] = agreed.value_or(-1);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return heard;
}

TEST(DecodeBuckets, OfAGroupAreThoseThatEveryRankHas) {
  EXPECT_EQ(Agreed({{12, 5}}), Buckets({5}));
  EXPECT_EQ(Agreed({{12, 5}, {12, 3}, {12, 4}}), Buckets({3, 3, 3}));
  EXPECT_EQ(Agreed({{12, 5}, {12, 0}}), Buckets({0, 0}));
  EXPECT_EQ(Agreed({{12, 5}, {16, 5}}), Buckets({0, 0})) << "other buckets";
}

TEST(DecodeBuckets, OfAGroupThatHasEndedAreItsError) {
  auto group = CreateInProcessGroup("test", 2, {}, Clock::Real());
  ASSERT_TRUE(group.ok()) << group.status();
  (*group)[1]->Abort("planted");
  EXPECT_EQ(AgreeOnBuckets(*(*group)[0], 12, 5).status().code(),
            absl::StatusCode::kAborted);
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

TEST_F(DecodeGraphsTest, KeepNoneThatAnotherRankLacks) {
  DecodeGraphs graphs(12);
  Capture(graphs, absl::Milliseconds(4500), 10000);
  EXPECT_EQ(graphs.num_buckets(), 4);
  EXPECT_EQ(graphs.KeepFirst(5), "");
  EXPECT_EQ(graphs.num_buckets(), 4);
  EXPECT_EQ(graphs.KeepFirst(2), "4 2");
  EXPECT_EQ(graphs.num_buckets(), 2);
  EXPECT_EQ(RowsOf(graphs, 5), 8);
  EXPECT_EQ(RowsOf(graphs, 4), 0);
  EXPECT_EQ(graphs.KeepFirst(0), "12 8");
  EXPECT_EQ(RowsOf(graphs, 12), 0);
}

}  // namespace
}  // namespace tessera::worker
