// One rank, driven by plans written by hand: whatever number of drafts a step may verify,
// the tokens are those of decoding one at a time. What the scheduler makes of it is in
// group_speculation_test.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "kernels/tensor_view.h"
#include "model/tensors/checkpoint.h"
#include "proto/step_plan.h"
#include "worker/layers/step_context.h"

namespace tessera {
namespace {

constexpr uint32_t kSequences = 6;
constexpr size_t kTokens = 40;  // generated, of each
constexpr uint32_t kBlocks = 6;
constexpr uint32_t kMaxDrafts = 5;

// Sequences of 3 to 8 prompt tokens; greedy, seeded and penalised sampling by turns.
class Rank {
 public:
  // Drafts less likely than `min_chance` are not made, where the drafter can tell.
  Rank(const char* folder, int64_t num_speculative_tokens, double min_chance = 0) {
    auto model = cli::LoadModel(folder);
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    const auto engram = cli::ResidentEngram(*model_, Clock::Real());
    EXPECT_TRUE(engram.ok()) << engram.status();
    cli::RankOptions options;
    options.runner.block_size = model_->config.default_block_size();
    options.runner.num_blocks = kSequences * kBlocks;
    if (keeps_tail()) {
      options.runner.num_tail_blocks = options.runner.num_blocks;
    }
    options.runner.max_slots = kSequences;
    options.runner.num_speculative_tokens = num_speculative_tokens;
    options.runner.min_draft_chance = min_chance;
    auto ranks = cli::AssembleLocalGroup(*model_, {}, options, *engram, Clock::Real());
    EXPECT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
  }

  void Trace(worker::TraceSink* sink) { ranks_.front().runner->SetTrace(sink, false); }

  bool keeps_tail() const { return model_->config.tail_tokens() > 0; }

  absl::StatusOr<proto::StepResult> Execute(proto::StepPlan plan) {
    for (proto::SlotAdmission& admission : plan.admissions) {
      admission.tail_blocks = keeps_tail() ? admission.blocks : std::vector<uint32_t>();
    }
    plan.epoch = 1;
    plan.step = ++step_;
    plan.placement_version = 1;
    return ranks_.front().runner->Execute(plan);
  }

 private:
  std::unique_ptr<cli::LoadedModel> model_;
  std::vector<cli::AssembledRank> ranks_;
  uint64_t step_ = 0;
};

proto::StepPlan Prefill() {
  proto::StepPlan plan;
  for (uint32_t slot = 0; slot < kSequences; ++slot) {
    proto::SlotAdmission admission;
    admission.slot = slot;
    admission.prompt_length = 3 + slot;
    admission.sampling.seed = 7 + slot;
    admission.sampling.temperature = slot % 3 == 0 ? 0.0f : 0.8f;
    admission.sampling.frequency_penalty = slot % 3 == 1 ? 0.5f : 0.0f;
    admission.sampling.repetition_penalty = slot % 3 == 1 ? 1.2f : 1.0f;
    for (uint32_t i = 0; i < kBlocks; ++i) {
      admission.blocks.push_back(slot * kBlocks + i);
    }
    plan.admissions.push_back(admission);
    proto::SlotWork work{.slot = slot, .from_sample = false, .sample = true};
    for (uint32_t i = 0; i < admission.prompt_length; ++i) {
      work.tokens.push_back(static_cast<int32_t>((11 * i + 3 * slot) % 61));
    }
    plan.work.push_back(work);
  }
  return plan;
}

using Tokens = std::vector<std::vector<int32_t>>;

// `draft_count` says how many drafts a sequence asks for in a step.
template <typename DraftCount>
Tokens Generate(Rank& rank, const DraftCount& draft_count, proto::StepCounters* total) {
  Tokens tokens(kSequences);
  proto::StepPlan plan = Prefill();
  while (!plan.work.empty()) {
    const auto result = rank.Execute(plan);
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) {
      return tokens;
    }
    for (const proto::SampledToken& token : result->sampled) {
      EXPECT_EQ(token.position, 3 + token.slot + tokens[token.slot].size());
      tokens[token.slot].push_back(token.token);
    }
    total->num_drafts += result->counters.num_drafts;
    total->num_draft_tokens += result->counters.num_draft_tokens;
    for (size_t i = 0; i < proto::kMaxDrafts; ++i) {
      total->accepted_drafts[i] += result->counters.accepted_drafts[i];
    }
    plan = proto::StepPlan();
    for (uint32_t slot = 0; slot < kSequences; ++slot) {
      if (tokens[slot].size() < kTokens) {
        plan.work.push_back({.slot = slot,
                             .from_sample = true,
                             .sample = true,
                             .tokens = {},
                             .num_drafts = draft_count()});
      }
    }
  }
  for (std::vector<int32_t>& sequence : tokens) {
    sequence.resize(kTokens);
  }
  return tokens;
}

class SpeculativeSteps : public ::testing::TestWithParam<const char*> {};

TEST_P(SpeculativeSteps, AnyNumberOfDraftsGivesTheTokensOfNone) {
  Rank plain(GetParam(), 0);
  proto::StepCounters none;
  const Tokens expected = Generate(
      plain, [] { return 0u; }, &none);
  EXPECT_EQ(none.num_draft_tokens, 0u);
  for (const uint32_t k : {1u, 3u, 5u}) {
    Rank rank(GetParam(), k);
    proto::StepCounters total;
    EXPECT_EQ(Generate(
                  rank, [&] { return k; }, &total),
              expected)
        << k << " drafts";
    EXPECT_GT(total.num_draft_tokens, 0u);
  }
  const uint64_t seed = 5;
  std::mt19937_64 random(seed);
  Rank rank(GetParam(), kMaxDrafts);
  proto::StepCounters total;
  const auto any = [&] { return static_cast<uint32_t>(random() % (kMaxDrafts + 1)); };
  EXPECT_EQ(Generate(rank, any, &total), expected) << "seed " << seed;
}

// A draft layer that took in another position, another token or other streams than it
// was trained on would draft by chance: one token of thousands.
TEST(SpeculativeStepsOfTheDemoModel, OftenVerifyTheirDrafts) {
  Rank rank("models/demo", 3);
  proto::StepCounters total;
  Generate(
      rank, [] { return 3u; }, &total);
  EXPECT_GT(total.accepted_drafts[0], total.num_drafts / 3);
  EXPECT_GT(total.accepted_drafts[1], total.accepted_drafts[0] / 3);
  EXPECT_GT(total.accepted_drafts[2], 0u);
}

TEST_P(SpeculativeSteps, RefusesDraftsThatItWasNotMadeFor) {
  Rank rank(GetParam(), 2);
  ASSERT_TRUE(rank.Execute(Prefill()).ok());
  proto::StepPlan plan;
  plan.work.push_back(
      {.slot = 0, .from_sample = true, .sample = true, .tokens = {}, .num_drafts = 3});
  EXPECT_EQ(rank.Execute(plan).status().code(), absl::StatusCode::kInvalidArgument);
}

// The tokens of the last step.
class TokenSink final : public worker::TraceSink {
 public:
  void Record(std::string_view what, int64_t, kernels::TensorView rows) override {
    if (what == "token_ids") {
      tokens_.assign(rows.as<int32_t>(), rows.as<int32_t>() + rows.dim(0));
    }
  }
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  std::vector<int32_t> tokens_;
};

// Recordings of what a drafter makes of a prompt, by their reference.
class Recordings {
 public:
  explicit Recordings(const std::string& folder) {
    auto file = model::Checkpoint::OpenFile(folder + "/golden.safetensors");
    EXPECT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
  }

  std::vector<int32_t> Ids(const std::string& name) const {
    const auto tensor = file_->Find(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    const auto* values = reinterpret_cast<const int32_t*>(tensor->data.data());
    return {values, values + tensor->data.size() / sizeof(int32_t)};
  }

  int32_t ArgMax(const std::string& name) const {
    const auto tensor = file_->Find(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    const auto* values = reinterpret_cast<const float*>(tensor->data.data());
    const size_t count = tensor->data.size() / sizeof(float);
    return static_cast<int32_t>(std::max_element(values, values + count) - values);
  }

  // The sampled token and the drafts after it.
  std::vector<int32_t> SampledAndDrafts(const std::string& prompt) const {
    std::vector<int32_t> tokens = {ArgMax(prompt + "last_logits")};
    if (file_->Find(prompt + "dspark.tokens").ok()) {
      for (const int32_t token : Ids(prompt + "dspark.tokens")) {
        tokens.push_back(token);
      }
    } else {
      tokens.push_back(ArgMax(prompt + "mtp.last_logits"));
      tokens.push_back(ArgMax(prompt + "mtp.second_logits"));
    }
    return tokens;
  }

 private:
  std::unique_ptr<model::Checkpoint> file_;
};

// Weights are random, so that hardly a draft is accepted: what is drafted is compared.
class RecordedDrafts : public ::testing::TestWithParam<const char*> {};

TEST_P(RecordedDrafts, AreWhatAStepVerifies) {
  const std::string folder = std::string("tests/data/") + GetParam();
  const Recordings recordings(folder);
  for (const int size : {1, 5, 127, 128, 130}) {
    const std::string prompt = "prompt" + std::to_string(size) + ".";
    const std::vector<int32_t> expected = recordings.SampledAndDrafts(prompt);
    const auto num_drafts = static_cast<uint32_t>(expected.size() - 1);
    Rank rank(folder.c_str(), num_drafts);
    TokenSink sink;
    rank.Trace(&sink);
    proto::StepPlan plan;
    proto::SlotAdmission admission;
    admission.prompt_length = static_cast<uint32_t>(size);
    admission.sampling.temperature = 0;
    admission.blocks.resize(16);
    std::iota(admission.blocks.begin(), admission.blocks.end(), 0);
    plan.admissions.push_back(admission);
    plan.work.push_back({.slot = 0,
                         .from_sample = false,
                         .sample = true,
                         .tokens = recordings.Ids(prompt + "ids")});
    ASSERT_TRUE(rank.Execute(plan).ok());
    proto::StepPlan next;
    next.work.push_back({.slot = 0,
                         .from_sample = true,
                         .sample = true,
                         .tokens = {},
                         .num_drafts = num_drafts});
    ASSERT_TRUE(rank.Execute(next).ok());
    EXPECT_EQ(sink.tokens(), expected) << prompt;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RecordedDrafts,
                         ::testing::Values("v3", "v32", "v4", "v4_0731", "v41"),
                         [](const auto& test) { return std::string(test.param); });

INSTANTIATE_TEST_SUITE_P(Models, SpeculativeSteps,
                         ::testing::Values("models/demo", "tests/data/v3",
                                           "tests/data/v32", "tests/data/v4",
                                           "tests/data/v4_0731", "tests/data/v41"));

TEST(SpeculativeStepsOfBlocks, CutDraftsThatAreUnlikelyToStand) {
  const auto three = [] { return 3u; };
  proto::StepCounters all;
  proto::StepCounters likely;
  proto::StepCounters certain;
  Rank keeps_all("tests/data/v4_0731", 3, 0.0);
  const Tokens expected = Generate(keeps_all, three, &all);
  Rank cuts("tests/data/v4_0731", 3, 0.3);
  EXPECT_EQ(Generate(cuts, three, &likely), expected);
  Rank cuts_most("tests/data/v4_0731", 3, 1.0);
  EXPECT_EQ(Generate(cuts_most, three, &certain), expected);
  EXPECT_EQ(all.num_draft_tokens, 3 * all.num_drafts);
  EXPECT_LT(likely.num_draft_tokens, 3 * likely.num_drafts);
  EXPECT_LT(certain.num_draft_tokens, likely.num_draft_tokens);
}

TEST(SpeculativeStepsOfBlocks, RefuseMoreDraftsThanABlockHas) {
  auto model = cli::LoadModel("tests/data/v4_0731");
  ASSERT_TRUE(model.ok()) << model.status();
  cli::RankOptions options;
  options.runner.block_size = 128;
  options.runner.num_blocks = 1;
  options.runner.num_tail_blocks = 1;
  options.runner.num_speculative_tokens = 6;
  EXPECT_EQ(
      cli::AssembleLocalGroup(**model, {}, options,
                              *cli::ResidentEngram(**model, Clock::Real()), Clock::Real())
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera
