#include "cli/speculative_options.h"

#include <string>

#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOkAndHolds;
using ::tessera::testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

model::ModelConfig WithMtp() {
  model::ModelConfig config;
  config.draft = model::DraftKind::kMtpNormed;
  config.num_draft_layers = 1;
  return config;
}

model::ModelConfig WithDspark() {
  model::ModelConfig config;
  config.draft = model::DraftKind::kDspark;
  config.dspark.emplace();
  config.dspark->block_size = 5;
  return config;
}

absl::StatusOr<int64_t> OfConfig(const std::string& json,
                                 const model::ModelConfig& config) {
  return SpeculativeTokensOf({.tokens = {}, .config = json}, config);
}

TEST(SpeculativeOptions, IsOffByDefault) {
  EXPECT_THAT(SpeculativeTokensOf({}, WithMtp()), IsOkAndHolds(0));
  EXPECT_THAT(SpeculativeTokensOf({}, model::ModelConfig()), IsOkAndHolds(0));
}

TEST(SpeculativeOptions, TakesTheNumberOrTheJsonOfVllm) {
  EXPECT_THAT(SpeculativeTokensOf({.tokens = 3, .config = ""}, WithMtp()),
              IsOkAndHolds(3));
  EXPECT_THAT(OfConfig(R"({"method":"mtp","num_speculative_tokens":2})", WithMtp()),
              IsOkAndHolds(2));
  EXPECT_THAT(OfConfig(R"({"method":"deepseek_mtp"})", WithMtp()), IsOkAndHolds(1));
  EXPECT_THAT(OfConfig(R"({"method":"dspark"})", WithDspark()), IsOkAndHolds(5));
}

TEST(SpeculativeOptions, RefusesBothAtOnce) {
  EXPECT_THAT(
      SpeculativeTokensOf({.tokens = 3, .config = R"({"method":"mtp"})"}, WithMtp()),
      StatusIs(kInvalid));
}

TEST(SpeculativeOptions, RefusesWhatTheModelCannotDraft) {
  EXPECT_THAT(SpeculativeTokensOf({.tokens = 1, .config = ""}, model::ModelConfig()),
              StatusIs(kInvalid));
  EXPECT_THAT(SpeculativeTokensOf({.tokens = 6, .config = ""}, WithDspark()),
              StatusIs(kInvalid));
  EXPECT_THAT(OfConfig(R"({"method":"dspark"})", WithMtp()), StatusIs(kInvalid));
  EXPECT_THAT(OfConfig(R"({"method":"mtp"})", WithDspark()), StatusIs(kInvalid));
}

TEST(SpeculativeOptions, RefusesJsonThatMeansSomethingElse) {
  for (const char* json : {"mtp", "[]", "{}", R"({"method":"eagle"})",
                           R"({"method":"mtp","num_speculative_tokens":-1})",
                           R"({"method":"mtp","num_speculative_tokens":17})",
                           R"({"method":"mtp","model":"other"})"}) {
    EXPECT_THAT(OfConfig(json, WithMtp()), StatusIs(kInvalid)) << json;
  }
}

}  // namespace
}  // namespace tessera::cli
