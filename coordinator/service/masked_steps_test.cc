// Sequences with a grammar in the step loop: masks reach the ranks in time whatever
// becomes of the sequences, and the tokens are those of the grammar.
#include <memory>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"

#include "coordinator/grammar/grammar.h"
#include "tests/testing/engine_fixture.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/stub_tokenizer.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;

// Allows two tokens after each one, by its number in the text: 2n and 2n + 1 (modulo the
// vocabulary); and nothing from `dead_after` on.
class PairGrammar final : public Grammar {
 public:
  explicit PairGrammar(size_t dead_after = 1000) : dead_after_(dead_after) {}

  class Matcher final : public GrammarMatcher {
   public:
    explicit Matcher(size_t dead_after) : dead_after_(dead_after) {}
    absl::Status Accept(int32_t token) override {
      if (token / 2 != Pair()) {
        return absl::InternalError("another pair");
      }
      ++count_;
      return absl::OkStatus();
    }
    absl::Status FillMask(std::span<uint32_t> words) override {
      if (count_ >= dead_after_) {
        return absl::InternalError("nothing may come next");
      }
      words[0] = uint32_t{3} << (2 * Pair());
      return absl::OkStatus();
    }

   private:
    int32_t Pair() const { return static_cast<int32_t>(count_ % (kTestVocabSize / 2)); }
    const size_t dead_after_;
    size_t count_ = 0;
  };

  std::unique_ptr<GrammarMatcher> NewMatcher(std::optional<int32_t>) const override {
    return std::make_unique<Matcher>(dead_after_);
  }
  size_t num_words() const override { return 1; }
  size_t size_bytes() const override { return 1; }

 private:
  const size_t dead_after_;
};

void ExpectPairs(const std::vector<int32_t>& tokens, size_t count) {
  ASSERT_EQ(tokens.size(), count);
  for (size_t i = 0; i < count; ++i) {
    EXPECT_EQ(tokens[i] / 2, static_cast<int32_t>(i % (kTestVocabSize / 2))) << i;
  }
}

class MaskedStepsTest : public ::testing::Test {
 protected:
  void Start(const EngineOptions& options) {
    provider_ =
        std::make_unique<StubGroupProvider>(options, &clock_, absl::Milliseconds(10));
    auto core =
        EngineCore::Create(options, provider_.get(), &tokenizer_, &clock_, nullptr);
    ASSERT_THAT(core, IsOk());
    core_ = *std::move(core);
  }

  // Turns at most `count` times, until idle.
  void Run(int count = 2000) {
    for (int i = 0; i < count; ++i) {
      if (const auto epoch = core_->TakeFormRequest()) {
        auto formed = provider_->Form(*epoch);
        core_->FormFinished(*epoch, formed.status(),
                            formed.ok() ? *std::move(formed) : RankExecutors());
      }
      if (!core_->Advance()) {
        return;
      }
    }
  }

  std::shared_ptr<RecordingSink> Submit(RequestSpec spec, size_t dead_after = 1000) {
    auto sink = std::make_shared<RecordingSink>();
    spec.grammar = GrammarSpec();
    ValidatedRequest request = Validate(spec, clock_.Now());
    request.SetGrammar(std::make_shared<PairGrammar>(dead_after));
    core_->Submit(std::move(request), sink);
    return sink;
  }

  std::shared_ptr<RecordingSink> SubmitFree(const RequestSpec& spec) {
    auto sink = std::make_shared<RecordingSink>();
    core_->Submit(Validate(spec, clock_.Now()), sink);
    return sink;
  }

  SimulatedClock clock_;
  testing::StubTokenizer tokenizer_ = testing::StubTokenizer::Letters(kTestVocabSize);
  std::unique_ptr<StubGroupProvider> provider_;
  std::unique_ptr<EngineCore> core_;
};

TEST_F(MaskedStepsTest, EveryChoiceFollowsItsGrammarBesideFreeOnes) {
  EngineOptions options = SmallEngineOptions();
  options.scheduler.num_dp_ranks = 2;
  options.tp = 2;
  options.scheduler.num_speculative_tokens = 3;
  Start(options);
  RequestSpec spec = MakeRequestSpec("masked", 40, 30);
  spec.n = 3;
  const RequestSpec free_spec = MakeRequestSpec("free", 9, 25);
  const auto masked = Submit(spec);
  const auto unmasked = SubmitFree(free_spec);
  Run();
  ASSERT_TRUE(masked->ended() && unmasked->ended());
  EXPECT_THAT(masked->status(), IsOk());
  for (int32_t choice = 0; choice < 3; ++choice) {
    ExpectPairs(masked->tokens(choice), 30);
    EXPECT_EQ(masked->finished(choice).reason, FinishReason::kLength);
  }
  EXPECT_EQ(unmasked->tokens(0), StubOutput(Validate(free_spec, clock_.Now()), 0, 25));
}

TEST_F(MaskedStepsTest, WithAndWithoutSpeculationTheTokensAreTheSame) {
  std::vector<std::vector<int32_t>> outputs;
  for (const int64_t drafts : {0, 4}) {
    EngineOptions options = SmallEngineOptions();
    options.scheduler.num_speculative_tokens = drafts;
    Start(options);
    const auto sink = Submit(MakeRequestSpec("r", 12, 40));
    SubmitFree(MakeRequestSpec("beside", 5, 40));
    Run();
    outputs.push_back(sink->tokens(0));
  }
  EXPECT_EQ(outputs[0], outputs[1]);
  ExpectPairs(outputs[0], 40);
}

TEST_F(MaskedStepsTest, ASequenceThatEndsWhileItsMaskIsAwaitedLeavesNobodyWaiting) {
  Start(SmallEngineOptions());
  const auto cancelled = Submit(MakeRequestSpec("cancelled", 5, 100));
  const auto other = Submit(MakeRequestSpec("other", 6, 50));
  Run(9);  // two steps are in flight
  ASSERT_FALSE(cancelled->ended());
  core_->Cancel("cancelled");
  Run();
  EXPECT_TRUE(absl::IsCancelled(cancelled->status()));
  ExpectPairs(other->tokens(0), 50);
  EXPECT_TRUE(provider_->failed().empty());
  EXPECT_EQ(core_->snapshot().stats.blocks_used, 0);
}

TEST_F(MaskedStepsTest, AStopStringEndsAMaskedChoiceWithoutFailingTheGroup) {
  Start(SmallEngineOptions());
  RequestSpec spec = MakeRequestSpec("r", 5, 100);
  spec.stop_token_ids = {12, 13};  // one of them is the seventh token
  const auto sink = Submit(spec);
  Run();
  EXPECT_EQ(sink->tokens(0).size(), 7u);
  EXPECT_EQ(sink->finished(0).reason, FinishReason::kStop);
  EXPECT_TRUE(provider_->failed().empty());
}

TEST_F(MaskedStepsTest, AGrammarThatAllowsNothingEndsItsRequestAlone) {
  Start(SmallEngineOptions());
  const auto dead = Submit(MakeRequestSpec("dead", 5, 100), /*dead_after=*/6);
  const auto other = Submit(MakeRequestSpec("other", 6, 50));
  Run();
  EXPECT_TRUE(absl::IsInternal(dead->status())) << dead->status();
  EXPECT_EQ(dead->tokens(0).size(), 6u) << "no token came without a mask";
  ExpectPairs(other->tokens(0), 50);
  EXPECT_TRUE(provider_->failed().empty());
}

TEST_F(MaskedStepsTest, PreemptionKeepsTheMatchersPlace) {
  EngineOptions options = SmallEngineOptions();
  options.scheduler.num_blocks = 17;  // one sequence of the greatest length, and no more
  Start(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 4; ++i) {
    sinks.push_back(Submit(MakeRequestSpec(fmt::format("r{}", i), 10, 60)));
  }
  Run(20000);
  EXPECT_GT(core_->snapshot().stats.preemptions, 0u);
  for (const auto& sink : sinks) {
    EXPECT_THAT(sink->status(), IsOk());
    ExpectPairs(sink->tokens(0), 60);
  }
}

}  // namespace
}  // namespace tessera::coordinator
