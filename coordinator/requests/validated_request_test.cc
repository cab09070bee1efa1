#include "coordinator/requests/validated_request.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kHuge = 1'000'000'000'000'000'000;

RequestLimits SmallLimits() {
  RequestLimits limits;
  limits.vocab_size = 100;
  limits.num_token_ids = 90;
  limits.image_token_id = 40;
  limits.max_model_len = 32;
  limits.max_choices = 4;
  limits.max_logprobs = 5;
  limits.max_stop_strings = 2;
  limits.max_stop_bytes = 8;
  limits.max_stop_token_ids = 3;
  limits.max_logit_bias = 2;
  limits.eos_token_ids = {1};
  return limits;
}

RequestSpec GoodSpec() {
  RequestSpec spec;
  spec.request_id = "request";
  spec.prompt_ids = {5, 6, 7};
  return spec;
}

absl::StatusOr<ValidatedRequest> Validate(RequestSpec spec, FieldError* error = nullptr) {
  return ValidatedRequest::Create(std::move(spec), SmallLimits(), absl::UnixEpoch(), 77,
                                  error);
}

struct BadCase {
  const char* name;
  const char* param;
  const char* code;
  std::function<void(RequestSpec*)> change;
};

void PrintTo(const BadCase& bad, std::ostream* out) { *out << bad.name; }

class BadRequest : public testing::TestWithParam<BadCase> {};

TEST_P(BadRequest, IsRefusedWithTheFieldThatIsWrong) {
  RequestSpec spec = GoodSpec();
  GetParam().change(&spec);
  FieldError error;
  const auto request = Validate(std::move(spec), &error);
  ASSERT_FALSE(request.ok());
  EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(error.status, request.status());
  EXPECT_EQ(error.param, GetParam().param);
  EXPECT_EQ(error.code, GetParam().code);
}

// Expands to the rows that every real-valued field must refuse.
#define REAL_ROWS(field, below, above)                                                  \
  BadCase{#field "_below", #field, "", [](RequestSpec* s) { s->field = below; }},       \
      BadCase{#field "_above", #field, "", [](RequestSpec* s) { s->field = above; }},   \
      BadCase{#field "_nan", #field, "", [](RequestSpec* s) { s->field = kNan; }},      \
      BadCase{#field "_inf", #field, "", [](RequestSpec* s) { s->field = kInfinity; }}, \
      BadCase{#field "_minus_inf", #field, "",                                          \
              [](RequestSpec* s) { s->field = -kInfinity; }},                           \
      BadCase {                                                                         \
#field "_huge", #field, "", [](RequestSpec * s) { s->field = 1e18; }                \
  }

#define INTEGER_ROWS(field, below, above)                                             \
  BadCase{#field "_below", #field, "", [](RequestSpec* s) { s->field = below; }},     \
      BadCase{#field "_above", #field, "", [](RequestSpec* s) { s->field = above; }}, \
      BadCase{#field "_huge", #field, "", [](RequestSpec* s) { s->field = kHuge; }},  \
      BadCase {                                                                       \
#field "_minus_huge", #field, "", [](RequestSpec * s) { s->field = -kHuge; }      \
  }

INSTANTIATE_TEST_SUITE_P(
    Reals, BadRequest,
    testing::Values(REAL_ROWS(temperature, -0.1, 2.1), REAL_ROWS(top_p, 0.0, 1.1),
                    REAL_ROWS(min_p, -0.1, 1.1), REAL_ROWS(repetition_penalty, 0.0, 10.1),
                    REAL_ROWS(presence_penalty, -2.1, 2.1),
                    REAL_ROWS(frequency_penalty, -2.1, 2.1),
                    // Positive as a double, zero as the float that the sampler gets.
                    BadCase{"top_p_tiny", "top_p", "",
                            [](RequestSpec* s) { s->top_p = 1e-300; }}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Integers, BadRequest,
    testing::Values(INTEGER_ROWS(top_k, -2, int64_t{1} << 31), INTEGER_ROWS(n, 0, 5),
                    INTEGER_ROWS(logprobs, -1, 6), INTEGER_ROWS(min_tokens, -1, 30),
                    BadCase{"max_tokens_zero", "max_tokens", "",
                            [](RequestSpec* s) { s->max_tokens = 0; }},
                    BadCase{"max_tokens_negative", "max_tokens", "",
                            [](RequestSpec* s) { s->max_tokens = -1; }},
                    BadCase{"max_tokens_over_context", "max_tokens",
                            "context_length_exceeded",
                            [](RequestSpec* s) { s->max_tokens = 30; }},
                    BadCase{"max_tokens_huge", "max_tokens", "context_length_exceeded",
                            [](RequestSpec* s) { s->max_tokens = kHuge; }},
                    BadCase{"min_over_max", "min_tokens", "",
                            [](RequestSpec* s) {
                              s->max_tokens = 4;
                              s->min_tokens = 5;
                            }}),
    [](const auto& row) { return row.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Lists, BadRequest,
    testing::Values(
        BadCase{"prompt_of_an_image", "prompt", "",
                [](RequestSpec* s) {
                  s->prompt_ids = {5, 40, 6};
                }},
        BadCase{"no_request_id", "request_id", "",
                [](RequestSpec* s) { s->request_id = ""; }},
        BadCase{"long_request_id", "request_id", "",
                [](RequestSpec* s) { s->request_id = std::string(257, 'x'); }},
        BadCase{"long_tenant", "tenant", "",
                [](RequestSpec* s) { s->tenant = std::string(257, 'x'); }},
        BadCase{"empty_prompt", "prompt", "", [](RequestSpec* s) { s->prompt_ids = {}; }},
        BadCase{"prompt_fills_context", "prompt", "context_length_exceeded",
                [](RequestSpec* s) { s->prompt_ids.assign(32, 3); }},
        BadCase{"prompt_over_context", "prompt", "context_length_exceeded",
                [](RequestSpec* s) { s->prompt_ids.assign(1000, 3); }},
        BadCase{"negative_prompt_id", "prompt", "",
                [](RequestSpec* s) {
                  s->prompt_ids = {1, -1};
                }},
        BadCase{"prompt_id_without_token", "prompt", "",
                [](RequestSpec* s) { s->prompt_ids = {90}; }},
        BadCase{"too_many_stops", "stop", "",
                [](RequestSpec* s) {
                  s->stop = {"a", "b", "c"};
                }},
        BadCase{"empty_stop", "stop", "", [](RequestSpec* s) { s->stop = {""}; }},
        BadCase{"long_stop", "stop", "", [](RequestSpec* s) { s->stop = {"123456789"}; }},
        BadCase{"negative_stop_id", "stop_token_ids", "",
                [](RequestSpec* s) { s->stop_token_ids = {-1}; }},
        BadCase{"stop_id_over_vocabulary", "stop_token_ids", "",
                [](RequestSpec* s) { s->stop_token_ids = {100}; }},
        BadCase{"too_many_stop_ids", "stop_token_ids", "",
                [](RequestSpec* s) {
                  s->stop_token_ids = {1, 2, 3, 4};
                }},
        BadCase{"bias_of_negative_id", "logit_bias", "",
                [](RequestSpec* s) {
                  s->logit_bias = {{-1, 1.0}};
                }},
        BadCase{"bias_over_vocabulary", "logit_bias", "",
                [](RequestSpec* s) {
                  s->logit_bias = {{100, 1.0}};
                }},
        BadCase{"bias_above", "logit_bias", "",
                [](RequestSpec* s) {
                  s->logit_bias = {{1, 100.5}};
                }},
        BadCase{"bias_below", "logit_bias", "",
                [](RequestSpec* s) {
                  s->logit_bias = {{1, -100.5}};
                }},
        BadCase{"bias_nan", "logit_bias", "",
                [](RequestSpec* s) {
                  s->logit_bias = {{1, kNan}};
                }},
        BadCase{"bias_twice", "logit_bias", "",
                [](RequestSpec* s) {
                  s->logit_bias = {{1, 1.0}, {1, 2.0}};
                }},
        BadCase{"too_many_biases", "logit_bias", "",
                [](RequestSpec* s) {
                  s->logit_bias = {{1, 1.0}, {2, 1.0}, {3, 1.0}};
                }},
        BadCase{"zero_timeout", "timeout", "",
                [](RequestSpec* s) { s->timeout = absl::ZeroDuration(); }},
        BadCase{"negative_timeout", "timeout", "",
                [](RequestSpec* s) { s->timeout = -absl::Seconds(1); }},
        BadCase{"infinite_timeout", "timeout", "",
                [](RequestSpec* s) { s->timeout = absl::InfiniteDuration(); }}),
    [](const auto& row) { return row.param.name; });

TEST(ValidatedRequest, DefaultsLeaveTheDistributionAloneAndFillTheContext) {
  const auto request = Validate(GoodSpec());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->max_tokens(), 29);
  EXPECT_EQ(request->num_choices(), 1);
  EXPECT_EQ(request->arrival(), absl::UnixEpoch());
  EXPECT_EQ(request->deadline(), absl::UnixEpoch() + absl::Minutes(10));
  proto::SamplingParams expected;
  expected.seed = 77;
  expected.choice_index = 2;
  EXPECT_EQ(request->sampling(2), expected);
}

// Tools that are offered bring a grammar that nobody asked for.
TEST(ValidatedRequest, AnAdvisoryGrammarGivesWayToWhatWasAskedFor) {
  for (const bool advisory : {true, false}) {
    RequestSpec spec = GoodSpec();
    spec.min_tokens = 2;
    spec.grammar = GrammarSpec();
    spec.grammar->advisory = advisory;
    const auto request = Validate(spec);
    ASSERT_EQ(request.ok(), advisory);
    if (advisory) {
      EXPECT_FALSE(request->grammar_spec().has_value());
      EXPECT_EQ(request->sampling(0).min_tokens, 2);
    }
  }
}

TEST(ValidatedRequest, EdgesOfEveryRangeAreAccepted) {
  RequestSpec spec = GoodSpec();
  spec.max_tokens = 29;
  spec.min_tokens = 29;
  spec.temperature = 0.0;
  spec.top_p = 1.0;
  spec.top_k = std::numeric_limits<int32_t>::max();
  spec.min_p = 1.0;
  spec.repetition_penalty = 10.0;
  spec.presence_penalty = -2.0;
  spec.frequency_penalty = 2.0;
  spec.seed = std::numeric_limits<int64_t>::min();
  spec.n = 4;
  spec.logprobs = 5;
  spec.stop = {"12345678", "x"};
  spec.logit_bias = {{99, 100.0}, {0, -100.0}};
  spec.timeout = absl::Hours(1);
  const auto request = Validate(spec);
  ASSERT_TRUE(request.ok()) << request.status();
  const proto::SamplingParams params = request->sampling(0);
  EXPECT_EQ(params.top_k, 0);
  EXPECT_EQ(params.min_tokens, 29);
  EXPECT_EQ(params.seed, uint64_t{1} << 63);
  EXPECT_EQ(params.num_logprobs, 5);
  EXPECT_THAT(params.logit_bias,
              testing::ElementsAre(std::pair(0, -100.0f), std::pair(99, 100.0f)));
  EXPECT_EQ(request->num_choices(), 4);
  EXPECT_EQ(request->deadline(), absl::UnixEpoch() + absl::Hours(1));
}

TEST(ValidatedRequest, TopKOfMinusOneMeansAllTokens) {
  RequestSpec spec = GoodSpec();
  spec.top_k = -1;
  ASSERT_TRUE(Validate(spec).ok());
  EXPECT_EQ(Validate(spec)->sampling(0).top_k, 0);
  spec.top_k = 7;
  EXPECT_EQ(Validate(spec)->sampling(0).top_k, 7);
}

TEST(ValidatedRequest, EosStopsUnlessItIsIgnored) {
  RequestSpec spec = GoodSpec();
  spec.stop_token_ids = {9, 9, 1};
  EXPECT_THAT(Validate(spec)->stop_token_ids(), testing::ElementsAre(9, 1));
  spec.stop_token_ids = {9};
  EXPECT_THAT(Validate(spec)->stop_token_ids(), testing::ElementsAre(9, 1));
  spec.ignore_eos = true;
  EXPECT_THAT(Validate(spec)->stop_token_ids(), testing::ElementsAre(9));
}

TEST(ValidatedRequest, StopIdsReachTheSamplerWhileMinTokensMasksThem) {
  RequestSpec spec = GoodSpec();
  EXPECT_THAT(Validate(spec)->sampling(0).stop_token_ids, testing::IsEmpty());
  spec.min_tokens = 2;
  EXPECT_THAT(Validate(spec)->sampling(0).stop_token_ids, testing::ElementsAre(1));
}

TEST(ValidatedRequest, TheClientsSeedWinsOverTheDefaultOne) {
  RequestSpec spec = GoodSpec();
  spec.seed = 0;
  EXPECT_EQ(Validate(spec)->sampling(0).seed, 0u);
}

}  // namespace
}  // namespace tessera::coordinator
