#include "coordinator/api/access/limited_engine.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "tests/testing/fake_engine.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

constexpr absl::StatusCode kExhausted = absl::StatusCode::kResourceExhausted;

class QuietSink final : public RequestSink {
 public:
  void OnToken(const TokenEvent&) override {}
  void OnChoiceFinished(const ChoiceFinished&) override {}
  void OnDone(const RequestUsage&) override {}
  void OnError(const absl::Status&) override {}
};

class LimitedEngineTest : public ::testing::Test {
 protected:
  void Grant(const TenantPolicy& policy) { rates_.SetPolicies({policy}, {}); }

  absl::Status Submit(const std::string& tenant, int64_t prompt_tokens) {
    RequestSpec spec;
    spec.request_id = std::to_string(next_id_++);
    spec.tenant = tenant;
    spec.prompt_ids.assign(static_cast<size_t>(prompt_tokens), 1);
    spec.max_tokens = 4;
    RequestLimits limits;
    limits.vocab_size = limits.num_token_ids = 10;
    limits.max_model_len = 1000;
    auto request =
        ValidatedRequest::Create(std::move(spec), limits, clock_.Now(), 1, nullptr);
    EXPECT_THAT(request, IsOk());
    return limited_.Submit(*std::move(request), std::make_shared<QuietSink>());
  }

  absl::Duration Wait(const absl::Status& status) {
    const auto refusal = RateRefusalOf(status);
    EXPECT_TRUE(refusal.has_value()) << status;
    return refusal.has_value() ? refusal->retry_after : absl::ZeroDuration();
  }

  SimulatedClock clock_{absl::FromUnixSeconds(1000)};
  RateLimiter rates_{&clock_};
  tests::FakeEngine engine_;
  LimitedEngine limited_{&engine_, &rates_};
  int next_id_ = 0;
};

TEST_F(LimitedEngineTest, TenantsWithoutAGrantAreNotLimited) {
  Grant({.name = "a", .requests_per_minute = 1});
  for (int i = 0; i < 100; ++i) {
    EXPECT_THAT(Submit("b", 100), IsOk());
  }
}

TEST_F(LimitedEngineTest, RequestsFlowInEvenly) {
  Grant({.name = "a", .requests_per_minute = 60});
  for (int i = 0; i < 60; ++i) {
    EXPECT_THAT(Submit("a", 1), IsOk());
  }
  const absl::Status refused = Submit("a", 1);
  EXPECT_THAT(refused, StatusIs(kExhausted));
  EXPECT_EQ(Wait(refused), absl::Seconds(1));
  EXPECT_EQ(engine_.num_submitted(), 60u);
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Submit("a", 1), IsOk());
  EXPECT_THAT(Submit("a", 1), StatusIs(kExhausted));
}

TEST_F(LimitedEngineTest, CompletionsAreChargedWhenTheyEndAndMayLeaveADebt) {
  Grant({.name = "a", .tokens_per_minute = 120});
  EXPECT_THAT(Submit("a", 100), IsOk());
  for (int i = 0; i < 80; ++i) {
    engine_.Token(0, i, "x");
  }
  EXPECT_EQ(rates_.state("a").tokens.remaining, 20);
  engine_.Finish(0, 80);
  EXPECT_EQ(rates_.state("a").tokens.remaining, 0);
  // 60 tokens of debt and 20 of the prompt, at two a second.
  EXPECT_EQ(Wait(Submit("a", 20)), absl::Seconds(40));
  clock_.Advance(absl::Seconds(40));
  EXPECT_THAT(Submit("a", 20), IsOk());
}

TEST_F(LimitedEngineTest, ARequestLargerThanTheGrantIsRefusedForGood) {
  Grant({.name = "a", .tokens_per_minute = 50});
  EXPECT_EQ(Wait(Submit("a", 51)), absl::InfiniteDuration());
  EXPECT_EQ(rates_.state("a").tokens.remaining, 50);
}

TEST_F(LimitedEngineTest, ConcurrencyCountsUntilTheEndHoweverItComes) {
  Grant({.name = "a", .max_concurrent_requests = 2});
  EXPECT_THAT(Submit("a", 1), IsOk());
  EXPECT_THAT(Submit("a", 1), IsOk());
  EXPECT_THAT(Submit("a", 1), StatusIs(kExhausted));
  engine_.submitted(0).sink->OnError(absl::CancelledError(""));
  EXPECT_THAT(Submit("a", 1), IsOk());
  EXPECT_THAT(Submit("a", 1), StatusIs(kExhausted));
}

TEST_F(LimitedEngineTest, WhatTheEngineRefusesCostsNoTokens) {
  Grant({.name = "a", .tokens_per_minute = 50, .max_concurrent_requests = 1});
  engine_.Refuse(absl::UnavailableError("no group"));
  const absl::Status status = Submit("a", 30);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_FALSE(RateRefusalOf(status).has_value());
  EXPECT_EQ(rates_.state("a").tokens.remaining, 50);
  engine_.Refuse(absl::OkStatus());
  EXPECT_THAT(Submit("a", 30), IsOk());
}

TEST_F(LimitedEngineTest, ANewGrantKeepsWhatWasUsed) {
  Grant({.name = "a", .tokens_per_minute = 100});
  EXPECT_THAT(Submit("a", 60), IsOk());
  Grant({.name = "a", .tokens_per_minute = 200});
  EXPECT_EQ(rates_.state("a").tokens.remaining, 140);
  EXPECT_EQ(rates_.state("a").tokens.limit, 200);
}

}  // namespace
}  // namespace tessera::coordinator
