#include "worker/service/read_ahead_executor.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "tests/testing/status_matchers.h"

namespace tessera::worker {
namespace {

using engram_store::EngramHash;
using proto::StepPlan;
using proto::StepResult;
using testing::IsOk;

// Keeps plans until they are asked for.
class IdleExecutor final : public proto::StepExecutor {
 public:
  absl::Status Submit(StepPlan) override { return absl::OkStatus(); }
  absl::Status SubmitLate(proto::LateInput) override { return absl::OkStatus(); }
  absl::StatusOr<StepResult> Wait(absl::Time) override { return StepResult{}; }
  void Abort(absl::Status) override {}
};

class NotingSource final : public engram_store::EngramSource {
 public:
  std::string_view name() const override { return "noting"; }
  std::span<const engram_store::TableInfo> tables() const override { return tables_; }
  engram_store::PendingRows Issue(size_t, std::span<const uint32_t>,
                                  std::span<std::byte>) override {
    return {};
  }
  absl::Status Wait(engram_store::PendingRows, absl::Time) override {
    return absl::OkStatus();
  }
  void Prefetch(size_t table, std::span<const uint32_t> row_ids) override {
    noted.emplace_back(table, std::vector(row_ids.begin(), row_ids.end()));
  }
  engram_store::EngramSourceStats stats() const override { return {}; }

  std::vector<std::pair<size_t, std::vector<uint32_t>>> noted;

 private:
  std::vector<engram_store::TableInfo> tables_ = std::vector<engram_store::TableInfo>(2);
};

class ReadAheadExecutorTest : public ::testing::Test {
 protected:
  ReadAheadExecutorTest() {
    model::EngramConfig config;
    config.contract = model::EngramContract::kV41;
    config.layer_ids = {1, 3};
    config.max_ngram = 3;
    config.num_heads = 2;
    config.head_dim = 32;
    config.bucket_bases = {50, 50};
    config.compressed_vocab_size = kVocab;
    config.pad_token_id = 2;
    std::vector<int32_t> ids(kVocab);
    for (int32_t i = 0; i < kVocab; ++i) {
      ids[static_cast<size_t>(i)] = i;
    }
    hash_ = std::make_unique<EngramHash>(EngramHash::Create(config, ids).value());
    executor_ = std::make_unique<ReadAheadExecutor>(
        ReadAheadOptions{.max_slots = 4, .max_ngram = 3},
        std::make_unique<IdleExecutor>(), hash_.get(), &source_);
  }

  // Of tokens [begin, end) of a sequence, by the whole sequence.
  std::vector<uint32_t> Rows(int64_t table, const std::vector<int32_t>& tokens,
                             int64_t begin) {
    std::vector<uint32_t> rows((tokens.size() - static_cast<size_t>(begin)) *
                               static_cast<size_t>(hash_->num_columns()));
    hash_->RowIds(table, tokens, begin, true, {}, rows);
    return rows;
  }

  void Submit(StepPlan plan) { ASSERT_THAT(executor_->Submit(std::move(plan)), IsOk()); }

  static StepPlan Chunk(std::vector<int32_t> tokens, bool sample = false) {
    StepPlan plan;
    plan.work.push_back({.slot = 1, .sample = sample, .tokens = std::move(tokens)});
    return plan;
  }

  static constexpr int32_t kVocab = 100;
  std::unique_ptr<EngramHash> hash_;
  NotingSource source_;
  std::unique_ptr<ReadAheadExecutor> executor_;
};

TEST_F(ReadAheadExecutorTest, RowsOfAChunkAreThoseOfItsPlaceInTheSequence) {
  const std::vector<int32_t> prompt = {5, 17, 42, 5, 17, 99, 0};
  StepPlan first = Chunk({5, 17, 42});
  first.admissions.push_back({.slot = 1});
  Submit(std::move(first));
  EXPECT_TRUE(source_.noted.empty());  // Nothing runs before it.
  Submit(Chunk({5, 17}));
  Submit(Chunk({99, 0}, /*sample=*/true));
  ASSERT_EQ(source_.noted.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const int64_t begin = i < 2 ? 3 : 5;
    const auto end = prompt.begin() + begin + 2;
    EXPECT_EQ(source_.noted[i].first, i % 2);
    EXPECT_EQ(source_.noted[i].second,
              Rows(static_cast<int64_t>(i % 2), {prompt.begin(), end}, begin));
  }
  // What was sampled is not known here.
  StepPlan next;
  next.work.push_back({.slot = 1, .from_sample = true, .sample = true});
  Submit(std::move(next));
  Submit(Chunk({7}));
  EXPECT_EQ(source_.noted.size(), 4u);
}

TEST_F(ReadAheadExecutorTest, AHistoryIsLookedBackInto) {
  Submit({});
  StepPlan plan = Chunk({99, 0});
  plan.admissions.push_back({.slot = 1, .history = {5, 17, 42, 5, 17}});
  Submit(std::move(plan));
  ASSERT_EQ(source_.noted.size(), 2u);
  EXPECT_EQ(source_.noted[1].second, Rows(1, {5, 17, 42, 5, 17, 99, 0}, 5));
}

TEST_F(ReadAheadExecutorTest, WithNothingInFlightItSaysNothing) {
  StepPlan plan = Chunk({99, 0});
  plan.admissions.push_back({.slot = 1});
  Submit(std::move(plan));
  ASSERT_THAT(executor_->Wait(absl::InfiniteFuture()), IsOk());
  Submit(Chunk({1}));
  EXPECT_TRUE(source_.noted.empty());
}

TEST_F(ReadAheadExecutorTest, PlansThatTheRankWillRefuseAreLeftToIt) {
  Submit({});
  StepPlan plan = Chunk({99, 100});  // No such token.
  plan.admissions.push_back({.slot = 1});
  plan.admissions.push_back({.slot = 77});
  plan.work.push_back({.slot = 78, .tokens = {1}});
  plan.work.push_back({.slot = 2, .tokens = {1}});  // Never admitted.
  plan.releases = {79};
  Submit(std::move(plan));
  EXPECT_TRUE(source_.noted.empty());
}

}  // namespace
}  // namespace tessera::worker
