#include "coordinator/api/idempotency/idempotency_store.h"

#include <memory>
#include <string>

#include "fmt/format.h"
#include "gtest/gtest.h"

#include "tests/testing/memory_writer.h"

namespace tessera::coordinator {
namespace {

using Verdict = IdempotencyStore::Verdict;

const absl::Time kStart = absl::FromUnixSeconds(1000);

KeptAnswer Answer(size_t size) {
  HttpResponse response;
  response.body = std::string(size, 'x');
  return std::make_shared<const HttpResponse>(response);
}

class Store {
 public:
  explicit Store(const IdempotencyOptions& options) : store(options) {}

  IdempotencyStore::Admission Ask(const std::string& tenant, const std::string& key,
                                  const std::string& body = "body",
                                  absl::Time now = kStart) {
    return store.Admit({tenant, key}, DigestOf("/path", body),
                       std::make_shared<tests::MemoryWriter>(), now);
  }

  // Runs a request under `key` to its end.
  void Fill(const std::string& tenant, const std::string& key, size_t size,
            absl::Time now = kStart) {
    const auto admission = Ask(tenant, key, "body", now);
    ASSERT_EQ(admission.verdict, Verdict::kFirst) << tenant << " " << key;
    EXPECT_TRUE(store.End({tenant, key}, admission.serial, Answer(size), now).empty());
  }

  IdempotencyStore store;
};

TEST(IdempotencyStore, TheSecondRequestWaitsAndTheThirdGetsTheKeptAnswer) {
  Store s({});
  const auto first = s.Ask("t", "k");
  ASSERT_EQ(first.verdict, Verdict::kFirst);
  EXPECT_EQ(s.Ask("t", "k").verdict, Verdict::kWaits);
  const KeptAnswer answer = Answer(3);
  EXPECT_EQ(s.store.End({"t", "k"}, first.serial, answer, kStart).size(), 1);
  const auto third = s.Ask("t", "k");
  EXPECT_EQ(third.verdict, Verdict::kAnswered);
  EXPECT_EQ(third.answer, answer);
}

TEST(IdempotencyStore, AKeyOfAnotherTenantIsAnotherKey) {
  Store s({});
  s.Fill("a", "k", 1);
  EXPECT_EQ(s.Ask("b", "k").verdict, Verdict::kFirst);
}

TEST(IdempotencyStore, AnotherBodyOrPathIsRefusedWhileTheKeyIsKnown) {
  Store s({});
  const auto first = s.Ask("t", "k");
  EXPECT_EQ(s.Ask("t", "k", "other").verdict, Verdict::kOtherRequest);
  s.store.End({"t", "k"}, first.serial, Answer(1), kStart);
  EXPECT_EQ(s.Ask("t", "k", "other").verdict, Verdict::kOtherRequest);
  EXPECT_NE(DigestOf("/a", "b"), DigestOf("/ab", ""));
  EXPECT_NE(DigestOf("/a", "b"), DigestOf("/b", "b"));
}

TEST(IdempotencyStore, AKeyWithoutAnAnswerIsFreeAgain) {
  Store s({});
  const auto first = s.Ask("t", "k");
  EXPECT_EQ(s.Ask("t", "k").verdict, Verdict::kWaits);
  EXPECT_EQ(s.store.End({"t", "k"}, first.serial, nullptr, kStart).size(), 1);
  EXPECT_EQ(s.Ask("t", "k", "other").verdict, Verdict::kFirst);
}

TEST(IdempotencyStore, AnEndOfAnEarlierUseChangesNothing) {
  Store s({});
  const auto first = s.Ask("t", "k");
  s.store.End({"t", "k"}, first.serial, nullptr, kStart);
  EXPECT_EQ(s.Ask("t", "k").verdict, Verdict::kFirst);
  s.store.End({"t", "k"}, first.serial, Answer(1), kStart);
  EXPECT_EQ(s.Ask("t", "k").verdict, Verdict::kWaits);
}

TEST(IdempotencyStore, AnAnswerIsKeptForItsTimeAndNotLonger) {
  Store s({.keep = absl::Seconds(10)});
  s.Fill("t", "k", 1);
  EXPECT_EQ(s.Ask("t", "k", "body", kStart + absl::Seconds(9)).verdict,
            Verdict::kAnswered);
  EXPECT_EQ(s.Ask("t", "k", "body", kStart + absl::Seconds(10)).verdict, Verdict::kFirst);
}

TEST(IdempotencyStore, TooManyKeysPushOutTheOldestOfTheTenantThatKeepsMost) {
  Store s({.max_keys = 4});
  s.Fill("small", "1", 10);
  s.Fill("large", "1", 10);
  s.Fill("large", "2", 10);
  s.Fill("large", "3", 10);
  s.Fill("large", "4", 10);
  EXPECT_EQ(s.Ask("small", "1").verdict, Verdict::kAnswered);
  EXPECT_EQ(s.Ask("large", "2").verdict, Verdict::kAnswered);
  EXPECT_EQ(s.Ask("large", "1").verdict, Verdict::kFirst);
}

TEST(IdempotencyStore, TooManyBytesPushOutTheOldest) {
  Store s({.max_bytes = 16 << 10});
  for (int i = 0; i < 20; ++i) {
    s.Fill("t", std::to_string(i), 1000);
  }
  EXPECT_EQ(s.Ask("t", "19").verdict, Verdict::kAnswered);
  EXPECT_EQ(s.Ask("t", "10").verdict, Verdict::kAnswered);
  EXPECT_EQ(s.Ask("t", "1").verdict, Verdict::kFirst);
}

TEST(IdempotencyStore, AnAnswerThatIsTooLargeIsNotKept) {
  Store s({.max_bytes = 16 << 10});
  s.Fill("t", "fits", 1024);
  s.Fill("t", "large", 1025);
  EXPECT_EQ(s.Ask("t", "fits").verdict, Verdict::kAnswered);
  EXPECT_EQ(s.Ask("t", "large").verdict, Verdict::kFirst);
}

TEST(IdempotencyStore, KeysInUseAreNeverForgotten) {
  Store s({.max_keys = 4});
  EXPECT_EQ(s.Ask("t", "1").verdict, Verdict::kFirst);
  EXPECT_EQ(s.Ask("t", "2").verdict, Verdict::kFirst);
  EXPECT_EQ(s.Ask("t", "3").verdict, Verdict::kFull);
  EXPECT_EQ(s.Ask("t", "1", "body", kStart + absl::Hours(1)).verdict, Verdict::kWaits);
}

TEST(IdempotencyStore, ManySmallAnswersOfOneTenantPushOutNoLargeOneOfAnother) {
  Store s({.max_keys = 8});
  s.Fill("few", "1", 100'000);
  for (int i = 0; i < 20; ++i) {
    s.Fill("many", std::to_string(i), 1);
  }
  EXPECT_EQ(s.Ask("few", "1").verdict, Verdict::kAnswered);
}

TEST(IdempotencyStore, KeysInUseCountForTheirTenantWhenKeysAreShort) {
  Store s({.max_keys = 8});
  s.Fill("few", "1", 1);
  s.Fill("few", "2", 1);
  s.Fill("few", "3", 1);
  s.Fill("many", "1", 1);
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(s.Ask("many", fmt::format("running {}", i)).verdict, Verdict::kFirst);
  }
  s.Fill("third", "1", 1);
  EXPECT_EQ(s.Ask("few", "1").verdict, Verdict::kAnswered);
  EXPECT_EQ(s.Ask("many", "1", "other").verdict, Verdict::kFull) << "it was forgotten";
}

TEST(IdempotencyStore, KeysInUseOfOneTenantLeaveRoomForOthers) {
  Store s({.max_keys = 8});
  const auto fill = [&](const std::string& tenant) {
    int running = 0;
    while (s.Ask(tenant, std::to_string(running)).verdict == Verdict::kFirst) {
      ++running;
    }
    return running;
  };
  EXPECT_EQ(fill("a"), 4);
  EXPECT_EQ(fill("b"), 2);
  EXPECT_EQ(fill("c"), 1);
  EXPECT_EQ(fill("d"), 1);
}

TEST(IdempotencyStore, AKeyThatEndsMakesRoomForTheNextOfItsTenant) {
  Store s({.max_keys = 2});
  for (const KeptAnswer& answer : {Answer(1), KeptAnswer(), Answer(1)}) {
    const auto first = s.Ask("t", "k", "body", kStart);
    ASSERT_EQ(first.verdict, Verdict::kFirst);
    EXPECT_EQ(s.Ask("t", "other").verdict, Verdict::kFull);
    s.store.End({"t", "k"}, first.serial, answer, kStart - absl::Hours(1));
  }
}

TEST(IdempotencyStore, OnlySoManyWait) {
  Store s({.max_waiting = 2});
  s.Ask("t", "k");
  EXPECT_EQ(s.Ask("t", "k").verdict, Verdict::kWaits);
  EXPECT_EQ(s.Ask("t", "k").verdict, Verdict::kWaits);
  EXPECT_EQ(s.Ask("t", "k").verdict, Verdict::kBusy);
}

TEST(IdempotencyStore, WhoeverLeavesWaitsNoMore) {
  Store s({.max_waiting = 2});
  const auto first = s.Ask("t", "k");
  const auto left = s.Ask("t", "k");
  const auto stays = std::make_shared<tests::MemoryWriter>();
  s.store.Admit({"t", "k"}, DigestOf("/path", "body"), stays, kStart);
  ASSERT_EQ(s.Ask("t", "k").verdict, Verdict::kBusy);
  s.store.Leave({"t", "k"}, left.serial);
  s.store.Leave({"t", "k"}, left.serial);
  EXPECT_EQ(s.Ask("t", "k").verdict, Verdict::kWaits);
  const auto waiting = s.store.End({"t", "k"}, first.serial, Answer(1), kStart);
  ASSERT_EQ(waiting.size(), 2);
  EXPECT_EQ(waiting[0], stays);
}

TEST(IdempotencyStore, RecordingsOfOneTenantLeaveRoomForThoseOfOthers) {
  Store s({.max_bytes = 1600});
  const auto hold = [&](const std::string& tenant, int count) {
    int held = 0;
    for (int i = 0; i < count; ++i) {
      const auto key = std::to_string(i);
      const auto first = s.Ask(tenant, key);
      held += s.store.HoldRecording({tenant, key}, first.serial, 100) ? 1 : 0;
    }
    return held;
  };
  EXPECT_EQ(hold("a", 20), 8);
  EXPECT_EQ(hold("b", 20), 4);
}

TEST(IdempotencyStore, ARecordingThatEndsOrHoldsNothingMoreMakesRoom) {
  Store s({.max_bytes = 1600});
  const auto first = s.Ask("t", "1");
  const auto second = s.Ask("t", "2");
  EXPECT_TRUE(s.store.HoldRecording({"t", "1"}, first.serial, 800));
  EXPECT_FALSE(s.store.HoldRecording({"t", "2"}, second.serial, 800));
  EXPECT_TRUE(s.store.HoldRecording({"t", "1"}, first.serial, 0));
  EXPECT_TRUE(s.store.HoldRecording({"t", "2"}, second.serial, 800));
  s.store.End({"t", "2"}, second.serial, nullptr, kStart);
  EXPECT_TRUE(s.store.HoldRecording({"t", "1"}, first.serial, 800));
  EXPECT_FALSE(s.store.HoldRecording({"t", "2"}, second.serial, 1)) << "it is over";
}

TEST(IdempotencyStore, ARecordingPushesOutAnswersOfItsOwnTenantAndOfLargerOnes) {
  Store s({.max_bytes = 16 << 10});
  for (int i = 0; i < 5; ++i) {
    s.Fill("large", std::to_string(i), 1000);
  }
  s.Fill("small", "1", 1000);
  const auto own = s.Ask("own", "1");
  EXPECT_TRUE(s.store.HoldRecording({"own", "1"}, own.serial, 6000));
  const auto large = s.Ask("large", "running");
  EXPECT_TRUE(s.store.HoldRecording({"large", "running"}, large.serial, 5000));
  EXPECT_EQ(s.Ask("small", "1").verdict, Verdict::kAnswered);
  EXPECT_EQ(s.Ask("large", "0", "other").verdict, Verdict::kFirst) << "it was forgotten";
}

TEST(IdempotencyStore, ARecordingPushesOutNoAnswerOfThoseWhoHoldLess) {
  Store s({.max_bytes = 16 << 10});
  for (int i = 0; i < 8; ++i) {
    s.Fill(std::to_string(i), "k", 1000);
  }
  const auto running = s.Ask("t", "k");
  EXPECT_FALSE(s.store.HoldRecording({"t", "k"}, running.serial, 8000));
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(s.Ask(std::to_string(i), "k").verdict, Verdict::kAnswered) << i;
  }
}

TEST(IdempotencyStore, AStoreThatWasClearedKnowsNobodyWhoWaits) {
  Store s({});
  const auto first = s.Ask("t", "k");
  s.Ask("t", "k");
  s.store.Clear();
  EXPECT_TRUE(s.store.End({"t", "k"}, first.serial, Answer(1), kStart).empty());
}

}  // namespace
}  // namespace tessera::coordinator
