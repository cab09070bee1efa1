#include "coordinator/grammar/grammar_pool.h"

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"

#include "common/mutex.h"
#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using testing::IsOk;
using testing::StatusIs;

class FixedGrammar final : public Grammar {
 public:
  std::unique_ptr<GrammarMatcher> NewMatcher(std::optional<int32_t>) const override {
    return nullptr;
  }
  size_t num_words() const override { return 1; }
  size_t size_bytes() const override { return 100; }
};

// Compiles "bad" to an error, "slow" when it is let go, and everything else at once.
class FakeCompiler final : public GrammarCompiler {
 public:
  absl::StatusOr<std::shared_ptr<const Grammar>> Compile(
      const GrammarSpec& spec) const override {
    ++num_compiled;
    if (spec.text == "slow") {
      go.WaitForNotification();
    }
    if (spec.text == "bad") {
      return absl::InvalidArgumentError("bad");
    }
    return std::make_shared<FixedGrammar>();
  }
  mutable std::atomic<int> num_compiled = 0;
  mutable Notification go;
};

GrammarSpec Spec(std::string text) {
  return {.kind = GrammarKind::kRegex, .text = std::move(text)};
}

// Waits for the answer.
absl::StatusOr<GrammarPtr> Compile(GrammarPool& pool, const std::string& text) {
  absl::StatusOr<GrammarPtr> result;
  Notification done;
  pool.Compile(Spec(text), [&](absl::StatusOr<GrammarPtr> answer) {
    result = std::move(answer);
    done.Notify();
  });
  done.WaitForNotification();
  return result;
}

TEST(GrammarPool, KeepsTheLastGrammarsWithinItsBytes) {
  FakeCompiler compiler;
  GrammarPool pool({.max_kept_bytes = 250}, &compiler, Clock::Real());
  ASSERT_THAT(Compile(pool, "a"), IsOk());
  ASSERT_THAT(Compile(pool, "b"), IsOk());
  ASSERT_THAT(Compile(pool, "a"), IsOk());
  EXPECT_EQ(compiler.num_compiled, 2);
  ASSERT_THAT(Compile(pool, "c"), IsOk());  // b goes
  ASSERT_THAT(Compile(pool, "a"), IsOk());
  EXPECT_EQ(compiler.num_compiled, 3);
  ASSERT_THAT(Compile(pool, "b"), IsOk());
  EXPECT_EQ(compiler.num_compiled, 4);
}

TEST(GrammarPool, AnErrorIsAnsweredAndNotKept) {
  FakeCompiler compiler;
  GrammarPool pool({}, &compiler, Clock::Real());
  EXPECT_THAT(Compile(pool, "bad"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Compile(pool, "bad"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(compiler.num_compiled, 2);
}

TEST(GrammarPool, ACompilationOverItsTimeIsAnsweredAndItsThreadServesTheNext) {
  FakeCompiler compiler;
  GrammarPool pool({.num_threads = 1, .compile_timeout = absl::Milliseconds(20)},
                   &compiler, Clock::Real());
  EXPECT_THAT(Compile(pool, "slow"), StatusIs(absl::StatusCode::kInvalidArgument));
  // The fault of others is none of the caller's, who may come again.
  EXPECT_THAT(Compile(pool, "a"), StatusIs(absl::StatusCode::kResourceExhausted));
  compiler.go.Notify();
  // Until the thread is through, which may take its time, others are over theirs as well.
  while (!Compile(pool, "slow").ok()) {
  }
  EXPECT_EQ(compiler.num_compiled, 1) << "its result was kept";
}

TEST(GrammarPool, EqualJobsAreCompiledOnceAndTooManyAreRefused) {
  FakeCompiler compiler;
  std::atomic<int> answered = 0;
  std::atomic<int> refused = 0;
  {
    GrammarPool pool({.num_threads = 1, .max_waiting = 2}, &compiler, Clock::Real());
    const auto count = [&](absl::StatusOr<GrammarPtr> answer) {
      ++answered;
      refused += absl::IsResourceExhausted(answer.status()) ? 1 : 0;
    };
    pool.Compile(Spec("slow"), count);
    pool.Compile(Spec("slow"), count);
    for (const char* text : {"1", "2", "3", "4"}) {
      pool.Compile(Spec(text), count);
    }
    EXPECT_GE(refused, 2);
    EXPECT_LE(refused, 3) << "where the slow one has not begun, it waits as well";
    compiler.go.Notify();
  }
  EXPECT_EQ(answered, 6) << "everybody is answered, at the latest at the end";
}

}  // namespace
}  // namespace tessera::coordinator
