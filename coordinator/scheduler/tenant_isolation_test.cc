// What a tenant can see of another's cached prompts: nothing. A request whose prompt
// another tenant has cached is planned as one that nobody has, step by step and block by
// block, so that no time, no counter and no order can tell the two apart.
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "coordinator/scheduler/scheduler.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/stub_worker.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StubWorker;

constexpr int64_t kBlocks = 8;
constexpr int64_t kHostBlocks = 8;
constexpr int64_t kBlockSize = 4;

std::vector<int32_t> Prompt(int32_t first) {
  std::vector<int32_t> prompt(18);
  for (size_t i = 0; i < prompt.size(); ++i) {
    prompt[i] = first + static_cast<int32_t>(i);
  }
  return prompt;
}

// A scheduler with a worker, and the plans that a request took.
class Server {
 public:
  Server() {
    SchedulerOptions options;
    options.max_num_seqs = 4;
    options.max_num_batched_tokens = 8;
    options.max_model_len = 28;
    options.block_size = kBlockSize;
    options.num_blocks = kBlocks;
    options.num_host_blocks = kHostBlocks;
    options.prefix_hash_key = {3, 4};
    auto scheduler = Scheduler::Create(options);
    EXPECT_THAT(scheduler, IsOk());
    scheduler_ = *std::move(scheduler);
    scheduler_->StartEpoch(1);
  }

  // Runs one request to its end.
  std::vector<proto::StepPlan> Run(const std::string& tenant,
                                   std::vector<int32_t> prompt) {
    SequenceSpec spec;
    spec.id = ++last_id_;
    spec.tenant = tenant;
    spec.prompt = std::move(prompt);
    spec.max_tokens = 4;
    spec.deadline = absl::InfiniteFuture();
    EXPECT_THAT(scheduler_->Enqueue(std::move(spec)), IsOk());
    std::vector<proto::StepPlan> plans;
    for (bool ended = false; !ended && plans.size() < 100;) {
      PlannedStep step = scheduler_->Plan(absl::UnixEpoch());
      plans.push_back(std::move(step.plans[0]));
      auto result = worker_.Execute(plans.back());
      EXPECT_THAT(result, IsOk());
      const auto accepted = scheduler_->Accept({&*result, 1});
      EXPECT_THAT(accepted, IsOk());
      ended = !accepted->empty() && accepted->back().length_reached;
    }
    cached_tokens = scheduler_->cached_tokens(last_id_);
    scheduler_->Finish(last_id_);
    return plans;
  }

  SchedulerStats stats() const { return scheduler_->stats(); }

  int64_t cached_tokens = 0;  // of the last request

 private:
  std::unique_ptr<Scheduler> scheduler_;
  StubWorker worker_{{.num_blocks = kBlocks,
                      .block_size = kBlockSize,
                      .max_num_seqs = 4,
                      .max_num_batched_tokens = 8,
                      .num_host_blocks = kHostBlocks}};
  SequenceId last_id_ = 0;
};

TEST(TenantIsolation, AForeignHitIsPlannedLikeAMiss) {
  for (const bool on_host : {false, true}) {
    SCOPED_TRACE(on_host ? "cached on the host" : "cached on the device");
    Server foreign;
    Server missing;
    foreign.Run("a", Prompt(100));
    missing.Run("a", Prompt(300));
    if (on_host) {
      foreign.Run("a", Prompt(500));
      missing.Run("a", Prompt(500));
    }
    const auto hit = foreign.Run("b", Prompt(100));
    const auto miss = missing.Run("b", Prompt(100));
    EXPECT_EQ(hit, miss);
    EXPECT_EQ(foreign.cached_tokens, 0);
    EXPECT_EQ(foreign.stats().prefix_hit_tokens, missing.stats().prefix_hit_tokens);
    EXPECT_EQ(foreign.stats().prefix_query_tokens, missing.stats().prefix_query_tokens);
    EXPECT_EQ(foreign.stats().tiers.restored_blocks,
              missing.stats().tiers.restored_blocks);
    EXPECT_EQ(foreign.stats().blocks_cached, missing.stats().blocks_cached);
  }
}

TEST(TenantIsolation, AHitOfItsOwnIsPlannedWithLessWork) {
  Server server;
  const size_t cold = server.Run("a", Prompt(100)).size();
  const size_t warm = server.Run("a", Prompt(100)).size();
  EXPECT_EQ(server.cached_tokens, 16);
  EXPECT_LT(warm, cold) << "else the test above could not fail";
}

}  // namespace
}  // namespace tessera::coordinator
