#include "coordinator/scheduler/scheduler_options_check.h"

#include <functional>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

SchedulerOptions GoodOptions() {
  SchedulerOptions options;
  options.max_model_len = 64;
  options.num_blocks = 4;
  return options;
}

TEST(CheckSchedulerOptions, RefusesEachValueThatCannotWork) {
  EXPECT_THAT(CheckSchedulerOptions(GoodOptions()), IsOk());
  using Change = std::function<void(SchedulerOptions*)>;
  const Change changes[] = {
      [](auto* options) { options->num_dp_ranks = 0; },
      [](auto* options) { options->max_num_seqs = 0; },
      [](auto* options) { options->max_num_batched_tokens = 0; },
      [](auto* options) { options->max_waiting = 0; },
      [](auto* options) { options->max_model_len = 1; },
      [](auto* options) { options->num_blocks = 3; },
      [](auto* options) { options->num_speculative_tokens = -1; },
      [](auto* options) { options->prefill_cost_tokens = -1; },
      [](auto* options) { options->tenants = {{.name = "a", .weight = 0}}; },
      [](auto* options) {
        options->tenants = {{.name = "a"}, {.name = "a"}};
      },
      [](auto* options) { options->other_tenants.max_running_tokens = -1; },
  };
  int idx = 0;
  for (const Change& change : changes) {
    SchedulerOptions options = GoodOptions();
    change(&options);
    EXPECT_THAT(CheckSchedulerOptions(options),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << "change " << idx;
    ++idx;
  }
}

}  // namespace
}  // namespace tessera::coordinator
