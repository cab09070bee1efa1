#include "worker/runner/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "gtest/gtest.h"

#include "common/counter_rng.h"
#include "proto/step_plan.h"

namespace tessera::worker {
namespace {

const std::vector<float> kLogits = {0.0f, 2.0f, 1.0f, 2.0f, -1.0f};

int32_t SampleOne(const std::vector<float>& logits, const proto::SamplingParams& params,
                  const std::vector<int32_t>& tokens = {}, int64_t prompt_length = 0) {
  Sampler sampler(static_cast<int64_t>(logits.size()));
  const auto token = sampler.Sample<float>(logits, params, {tokens, prompt_length});
  EXPECT_TRUE(token.ok()) << token.status();
  return token.ok() ? token->token : -1;
}

TEST(Sampler, GreedyTakesTheLowerOfTwoEqualTokens) {
  EXPECT_EQ(SampleOne(kLogits, {.temperature = 0}), 1);
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargestAtAnyLength) {
  std::mt19937 random(3);
  const std::vector<float> values = {-0.0f, 0.0f, -1.0f, -1e-40f, 1e-40f, -3e38f, 2.5f};
  for (size_t size = 1; size < 100; ++size) {
    // Few kinds of values, so that the largest one is there several times.
    const size_t kinds = 1 + random() % values.size();
    std::vector<float> logits(size);
    for (float& logit : logits) {
      logit = values[random() % kinds];
    }
    const std::vector<double> wide(logits.begin(), logits.end());
    const auto first = std::max_element(logits.begin(), logits.end()) - logits.begin();
    EXPECT_EQ(SampleOne(logits, {.temperature = 0}), first) << size;
    Sampler sampler(static_cast<int64_t>(size));
    EXPECT_EQ(*sampler.Choose<double>(wide, {.temperature = 0}, {}), first) << size;
    // A bias of nothing takes the general way.
    EXPECT_EQ(SampleOne(logits, {.temperature = 0, .logit_bias = {{0, 0.0f}}}), first);
  }
}

TEST(Sampler, RefusesALogitThatIsNotFinite) {
  constexpr size_t kSize = 37;
  Sampler sampler(kSize, kSize - 3);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
        std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    for (size_t at = 0; at < kSize; ++at) {
      std::vector<float> logits(kSize, 0.0f);
      logits[at] = bad;
      for (const float temperature : {0.0f, 1.0f}) {
        const auto token =
            sampler.Sample<float>(logits, {.temperature = temperature}, {});
        EXPECT_EQ(token.status().code(), absl::StatusCode::kDataLoss) << at;
      }
    }
  }
}

TEST(Sampler, TheDrawDependsOnSeedChoiceAndPositionAlone) {
  const proto::SamplingParams params = {.seed = 11, .choice_index = 2};
  const std::vector<int32_t> tokens = {1, 2, 3};
  const int32_t first = SampleOne(kLogits, params, tokens, 3);
  // The same sampler object, after other draws, gives the same token.
  Sampler sampler(5);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    ASSERT_TRUE(sampler.Sample<float>(kLogits, {.seed = seed}, {tokens, 3}).ok());
  }
  EXPECT_EQ(sampler.Sample<float>(kLogits, params, {tokens, 3})->token, first);
}

TEST(Sampler, FrequenciesFollowTheSoftmax) {
  std::map<int32_t, int> counts;
  constexpr int kDraws = 20000;
  Sampler sampler(5);
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    ++counts[sampler.Sample<float>(kLogits, {.temperature = 0.7f, .seed = seed}, {})
                 ->token];
  }
  double total = 0;
  for (const float logit : kLogits) {
    total += std::exp(logit / 0.7);
  }
  for (size_t i = 0; i < kLogits.size(); ++i) {
    const double expected = std::exp(kLogits[i] / 0.7) / total;
    EXPECT_NEAR(counts[static_cast<int32_t>(i)] / double{kDraws}, expected, 0.012) << i;
  }
}

TEST(Sampler, TopKTopPAndMinPCutTheTail) {
  const std::vector<float> logits = {3.0f, 2.0f, 1.0f, 0.0f};
  for (uint64_t seed = 0; seed < 300; ++seed) {
    EXPECT_LE(SampleOne(logits, {.top_k = 2, .seed = seed}), 1);
    // Probabilities .64 .24 .09 .03: 0.8 needs two tokens, 0.5 only one.
    EXPECT_LE(SampleOne(logits, {.top_p = 0.8f, .seed = seed}), 1);
    EXPECT_EQ(SampleOne(logits, {.top_p = 0.5f, .seed = seed}), 0);
    // exp(-1) = .37 stays, exp(-2) = .14 goes.
    EXPECT_LE(SampleOne(logits, {.min_p = 0.2f, .seed = seed}), 1);
  }
}

// The definition of a draw: everything sorted, then top_k, min_p, top_p and the inverse
// of the distribution.
int32_t DrawSorted(const std::vector<float>& logits, const proto::SamplingParams& params,
                   uint64_t position) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (params.top_k > 0) {
    order.resize(std::min(order.size(), static_cast<size_t>(params.top_k)));
  }
  std::vector<double> weights;
  double total = 0;
  for (const size_t token : order) {
    const double below = double{logits[token]} - double{logits[order[0]]};
    const double weight = std::exp(below / double{params.temperature});
    if (weight < double{params.min_p}) {
      break;
    }
    weights.push_back(weight);
    total += weight;
  }
  double kept = 0;
  size_t count = 0;
  while (count < weights.size() &&
         (count == 0 || params.top_p == 1 || kept < total * double{params.top_p})) {
    kept += weights[count++];
  }
  const double target =
      CounterRng(params.seed, params.choice_index).Uniform(position) * kept;
  double sum = 0;
  for (size_t rank = 0; rank < count; ++rank) {
    sum += weights[rank];
    if (target < sum) {
      return static_cast<int32_t>(order[rank]);
    }
  }
  return static_cast<int32_t>(order[count - 1]);
}

TEST(Sampler, ADrawIsThatOfTheSortedVocabulary) {
  constexpr size_t kVocab = 3000;
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal(0, 2);
  Sampler sampler(kVocab);
  for (uint64_t seed = 0; seed < 400; ++seed) {
    std::vector<float> logits(kVocab);
    for (float& logit : logits) {
      logit = std::round(normal(random) * 8) / 8;  // many are equal
    }
    const proto::SamplingParams params = {.temperature = seed % 3 == 0 ? 5.0F : 0.8F,
                                          .top_p = seed % 5 < 2 ? 1.0F : 0.97F,
                                          .top_k = seed % 4 == 1 ? 700 : 0,
                                          .min_p = seed % 7 == 3 ? 0.01F : 0.0F,
                                          .seed = seed};
    EXPECT_EQ(sampler.Choose<float>(logits, params, {}).value(),
              DrawSorted(logits, params, 0))
        << "seed " << seed;
  }
}

TEST(Sampler, PenaltiesCountPromptAndOutputAsTheyShould) {
  const std::vector<float> logits = {1.0f, 0.9f};
  const proto::SamplingParams greedy = {.temperature = 0};
  proto::SamplingParams presence = greedy;
  presence.presence_penalty = 0.5f;
  // Token 0 in the prompt does not count for presence, in the output it does.
  EXPECT_EQ(SampleOne(logits, presence, {0}, 1), 0);
  EXPECT_EQ(SampleOne(logits, presence, {0}, 0), 1);
  proto::SamplingParams frequency = greedy;
  frequency.frequency_penalty = 0.06f;
  EXPECT_EQ(SampleOne(logits, frequency, {0}, 0), 0);
  EXPECT_EQ(SampleOne(logits, frequency, {0, 0}, 0), 1);
  proto::SamplingParams repetition = greedy;
  repetition.repetition_penalty = 1.2f;
  EXPECT_EQ(SampleOne(logits, repetition, {0}, 1), 1);
}

TEST(Sampler, MinTokensMasksTheStopIds) {
  const proto::SamplingParams params = {
      .temperature = 0, .min_tokens = 2, .stop_token_ids = {1, 3}};
  EXPECT_EQ(SampleOne(kLogits, params, {9 % 5, 0}, 1), 2);
  EXPECT_EQ(SampleOne(kLogits, params, {0, 0, 0}, 1), 1);
}

TEST(Sampler, LogitBiasMovesTheChoice) {
  EXPECT_EQ(SampleOne(kLogits, {.temperature = 0, .logit_bias = {{4, 10.0f}}}), 4);
}

// One request would end a step for all: its next one has no input.
TEST(Sampler, AnIdWithoutATokenIsNeverChosenWhateverItsBias) {
  Sampler sampler(5, 4);
  proto::SamplingParams params = {.temperature = 0, .logit_bias = {{4, 100.0f}}};
  EXPECT_EQ(sampler.Choose<float>(kLogits, params, {}).value(), 1);
  params.temperature = 1;
  for (params.seed = 0; params.seed < 50; ++params.seed) {
    EXPECT_LT(sampler.Choose<float>(kLogits, params, {}).value(), 4);
  }
}

TEST(Sampler, OnlyWhatTheMaskAllowsIsChosen) {
  Sampler sampler(5);
  const std::vector<uint32_t> mask = {0b10100};
  const SamplingHistory history = {.tokens = {}, .prompt_length = 0, .mask = mask};
  EXPECT_EQ(sampler.Choose<float>(kLogits, {.temperature = 0}, history).value(), 2);
  proto::SamplingParams params = {.temperature = 2, .logit_bias = {{1, 100.0f}}};
  std::map<int32_t, int> counts;
  for (params.seed = 0; params.seed < 200; ++params.seed) {
    ++counts[sampler.Choose<float>(kLogits, params, history).value()];
  }
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_GT(counts[2], 0);
  EXPECT_GT(counts[4], 0);
}

TEST(Sampler, WhereNothingIsLeftNothingIsSampled) {
  Sampler sampler(5);
  const std::vector<uint32_t> mask = {0};
  const SamplingHistory history = {.tokens = {}, .prompt_length = 0, .mask = mask};
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(sampler.Choose<float>(kLogits, {.temperature = temperature}, history)
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(sampler
                  .Choose<float>(kLogits,
                                 {.temperature = temperature,
                                  .min_tokens = 1,
                                  .stop_token_ids = {1},
                                  .allowed_token_ids = {1}},
                                 {})
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument);
  }
}

// The grammar is complete: its end is all that may come, though min_tokens forbids it.
TEST(Sampler, MinTokensYieldToTheMask) {
  Sampler sampler(5);
  const std::vector<uint32_t> mask = {0b01000};
  const SamplingHistory history = {.tokens = {}, .prompt_length = 0, .mask = mask};
  const proto::SamplingParams params = {.min_tokens = 2, .stop_token_ids = {3}};
  EXPECT_EQ(sampler.Choose<float>(kLogits, params, history).value(), 3);
}

TEST(Sampler, LogprobsAreOfTheRawLogits) {
  Sampler sampler(5);
  const auto token = sampler.Sample<float>(
      kLogits, {.temperature = 0, .num_logprobs = 3, .logit_bias = {{4, 10.0f}}}, {});
  double total = 0;
  for (const float logit : kLogits) {
    total += std::exp(static_cast<double>(logit));
  }
  EXPECT_NEAR(token->logprob, -1.0 - std::log(total), 1e-6);
  ASSERT_EQ(token->top.size(), 3u);
  EXPECT_EQ(token->top[0].token, 1);
  EXPECT_EQ(token->top[1].token, 3);
  EXPECT_EQ(token->top[2].token, 2);
}

// Draws many times and returns how often each token came.
std::map<int32_t, int> Draw(const proto::SamplingParams& params,
                            const std::vector<int32_t>& tokens, int64_t prompt_length) {
  std::map<int32_t, int> counts;
  Sampler sampler(static_cast<int64_t>(kLogits.size()));
  proto::SamplingParams seeded = params;
  for (seeded.seed = 0; seeded.seed < 500; ++seeded.seed) {
    ++counts[sampler.Sample<float>(kLogits, seeded, {tokens, prompt_length})->token];
  }
  return counts;
}

TEST(Sampler, OnlyAllowedTokensAreDrawn) {
  const auto counts = Draw({.temperature = 2, .allowed_token_ids = {0, 4}}, {}, 0);
  EXPECT_EQ(counts.size(), 2u);
  EXPECT_TRUE(counts.contains(0) && counts.contains(4));
  EXPECT_EQ(SampleOne(kLogits, {.temperature = 0, .allowed_token_ids = {2, 4}}), 2);
}

TEST(Sampler, ABadWordIsNeverCompleted) {
  const proto::SamplingParams params = {.temperature = 0, .bad_words = {{1}, {3, 3}}};
  EXPECT_EQ(SampleOne(kLogits, params, {0}, 1), 3);
  EXPECT_EQ(SampleOne(kLogits, params, {0, 3}, 1), 2) << "3 was generated before";
  EXPECT_EQ(SampleOne(kLogits, params, {0, 3}, 2), 3) << "of the prompt nothing counts";
  const proto::SamplingParams hot = {.temperature = 2, .bad_words = {{1}, {3, 3}}};
  EXPECT_FALSE(Draw(hot, {0, 3}, 1).contains(1));
  EXPECT_FALSE(Draw(hot, {0, 3}, 1).contains(3));
}

TEST(Sampler, BadWordsGiveWayWhereNothingElseIsLeft) {
  EXPECT_EQ(
      SampleOne(kLogits,
                {.temperature = 0, .bad_words = {{1}, {2}}, .allowed_token_ids = {1, 2}}),
      1);
}

TEST(Sampler, AScoreIsTheLogSoftmaxWithTheBestBesideIt) {
  Sampler sampler(5);
  const auto scored = sampler.Score<float>(kLogits, 4, 9, 2);
  ASSERT_TRUE(scored.ok()) << scored.status();
  double sum = 0;
  for (const float logit : kLogits) {
    sum += std::exp(static_cast<double>(logit));
  }
  EXPECT_EQ(scored->token, 4);
  EXPECT_EQ(scored->position, 9u);
  EXPECT_NEAR(scored->logprob, -1.0 - std::log(sum), 1e-6);
  ASSERT_EQ(scored->top.size(), 2u);
  EXPECT_EQ(scored->top[0].token, 1);
  EXPECT_EQ(scored->top[1].token, 3);
  const std::vector<float> damaged = {0.0f, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_EQ(Sampler(2).Score<float>(damaged, 0, 1, 0).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tessera::worker
