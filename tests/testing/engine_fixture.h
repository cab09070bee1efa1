// What the tests of this folder share: a sink that records, a provider of stub groups,
// requests.
#ifndef TESSERA_TESTS_TESTING_ENGINE_FIXTURE_H_
#define TESSERA_TESTS_TESTING_ENGINE_FIXTURE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/requests/engine.h"
#include "coordinator/service/engine_core.h"
#include "tests/testing/stub_executor.h"
#include "tests/testing/stub_worker.h"

namespace tessera::coordinator {

inline constexpr int32_t kTestVocabSize = 26;

inline EngineOptions SmallEngineOptions() {
  EngineOptions options;
  options.scheduler.max_num_seqs = 8;
  options.scheduler.max_num_batched_tokens = 32;
  options.scheduler.max_model_len = 128;
  options.scheduler.block_size = 8;
  options.scheduler.num_blocks = 128;
  options.scheduler.max_waiting = 16;
  options.step_timeout = absl::Seconds(2);
  options.probe_interval = absl::Seconds(5);
  return options;
}

// Records the events of one request; a second last call fails the test. Thread-safe.
class RecordingSink final : public RequestSink {
 public:
  void OnToken(const TokenEvent& event) override {
    MutexLock lock(&mutex_);
    EXPECT_FALSE(ended_.HasBeenNotified());
    EXPECT_EQ(event.index, std::ssize(tokens_[event.choice]));
    tokens_[event.choice].push_back(event.token);
    text_[event.choice] += event.text;
  }
  void OnChoiceFinished(const ChoiceFinished& event) override {
    MutexLock lock(&mutex_);
    EXPECT_FALSE(ended_.HasBeenNotified());
    EXPECT_TRUE(finished_.emplace(event.choice, event).second);
    text_[event.choice] += event.text;
  }
  void OnDone(const RequestUsage& usage) override {
    MutexLock lock(&mutex_);
    usage_ = usage;
    ended_.Notify();
  }
  void OnError(const absl::Status& status) override {
    MutexLock lock(&mutex_);
    status_ = status;
    ended_.Notify();
  }

  bool ended() const { return ended_.HasBeenNotified(); }
  bool WaitEnded() { return ended_.WaitForNotificationWithTimeout(absl::Seconds(20)); }
  absl::Status status() const {
    MutexLock lock(&mutex_);
    return status_;
  }
  RequestUsage usage() const {
    MutexLock lock(&mutex_);
    return usage_;
  }
  std::vector<int32_t> tokens(int32_t choice) {
    MutexLock lock(&mutex_);
    return tokens_[choice];
  }
  std::string text(int32_t choice) {
    MutexLock lock(&mutex_);
    return text_[choice];
  }
  ChoiceFinished finished(int32_t choice) {
    MutexLock lock(&mutex_);
    return finished_[choice];
  }

 private:
  mutable Mutex mutex_;
  std::map<int32_t, std::vector<int32_t>> tokens_ ABSL_GUARDED_BY(mutex_);
  std::map<int32_t, std::string> text_ ABSL_GUARDED_BY(mutex_);
  std::map<int32_t, ChoiceFinished> finished_ ABSL_GUARDED_BY(mutex_);
  RequestUsage usage_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  Notification ended_;
};

// Forms groups of stub executors. Thread-safe.
class StubGroupProvider final : public GroupProvider {
 public:
  StubGroupProvider(const EngineOptions& options, Clock* clock, absl::Duration step_time)
      : options_(options), clock_(clock), step_time_(step_time) {}

  absl::StatusOr<RankExecutors> Form(uint64_t epoch) override {
    MutexLock lock(&mutex_);
    epochs_.push_back(epoch);
    if (num_failures_ > 0) {
      --num_failures_;
      return form_failure_;
    }
    stubs_.clear();
    RankExecutors executors;
    for (int64_t i = 0; i < options_.scheduler.num_dp_ranks * options_.tp; ++i) {
      stubs_.push_back(std::make_shared<testing::StubExecutor>(
          testing::StubWorkerOptions{
              .num_blocks = options_.scheduler.num_blocks,
              .block_size = options_.scheduler.block_size,
              .max_num_seqs = options_.scheduler.max_num_seqs,
              .max_num_batched_tokens = options_.scheduler.max_num_batched_tokens,
              .vocab_size = kTestVocabSize,
              .num_host_blocks = options_.scheduler.num_host_blocks,
              .disk = {.num_slots = {options_.scheduler.num_disk_blocks, 0},
                       .max_copies = options_.scheduler.max_disk_copies},
              .num_speculative_tokens = options_.scheduler.num_speculative_tokens,
              .num_expert_counts = options_.num_expert_counts + wrong_expert_counts_},
          clock_, i == 0 ? step_time_ : absl::ZeroDuration()));
      executors.push_back(stubs_.back());
    }
    return executors;
  }

  void OnGroupFailed(uint64_t epoch, const absl::Status& /*reason*/) override {
    MutexLock lock(&mutex_);
    failed_.push_back(epoch);
  }

  void FailNextForms(int count,
                     absl::Status reason = absl::UnavailableError("no workers")) {
    MutexLock lock(&mutex_);
    num_failures_ = count;
    form_failure_ = std::move(reason);
  }
  // Groups formed from now on report so many expert counts too many.
  void ReportWrongExpertCounts(int64_t too_many) {
    MutexLock lock(&mutex_);
    wrong_expert_counts_ = too_many;
  }
  // Of the group formed last.
  std::shared_ptr<testing::StubExecutor> stub(size_t rank) {
    MutexLock lock(&mutex_);
    return stubs_.at(rank);
  }
  std::vector<uint64_t> failed() {
    MutexLock lock(&mutex_);
    return failed_;
  }
  std::vector<uint64_t> epochs() {
    MutexLock lock(&mutex_);
    return epochs_;
  }

 private:
  const EngineOptions options_;
  Clock* const clock_;
  const absl::Duration step_time_;
  Mutex mutex_;
  int num_failures_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t wrong_expert_counts_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status form_failure_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<testing::StubExecutor>> stubs_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> failed_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> epochs_ ABSL_GUARDED_BY(mutex_);
};

// A spec with a prompt of `prompt_length` tokens.
inline RequestSpec MakeRequestSpec(const std::string& id, size_t prompt_length,
                                   int64_t max_tokens) {
  RequestSpec spec;
  spec.request_id = id;
  spec.tenant = "t";
  for (size_t i = 0; i < prompt_length; ++i) {
    spec.prompt_ids.push_back(static_cast<int32_t>(i % kTestVocabSize));
  }
  spec.max_tokens = max_tokens;
  spec.seed = 5;
  return spec;
}

inline ValidatedRequest Validate(RequestSpec spec, absl::Time now) {
  RequestLimits limits;
  limits.vocab_size = limits.num_token_ids = kTestVocabSize;
  limits.max_model_len = 128;
  FieldError error;
  auto request = ValidatedRequest::Create(std::move(spec), limits, now, 1, &error);
  EXPECT_TRUE(request.ok()) << request.status();
  return *std::move(request);
}

// What the stub model generates for a choice.
inline std::vector<int32_t> StubOutput(const ValidatedRequest& request, int32_t choice,
                                       int64_t count) {
  std::vector<int32_t> history = request.prompt_ids();
  const size_t prompt_length = history.size();
  for (int64_t i = 0; i < count; ++i) {
    history.push_back(testing::StubToken(history, static_cast<uint32_t>(prompt_length),
                                         request.sampling(choice), kTestVocabSize));
  }
  history.erase(history.begin(),
                history.begin() + static_cast<std::ptrdiff_t>(prompt_length));
  return history;
}

}  // namespace tessera::coordinator

#endif  // TESSERA_TESTS_TESTING_ENGINE_FIXTURE_H_
