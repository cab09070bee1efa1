// FakeEngine: an Engine that does what a test tells it. It keeps what was submitted and
// lets the test play the events. It schedules nothing and computes nothing.
#ifndef TESSERA_TESTS_TESTING_FAKE_ENGINE_H_
#define TESSERA_TESTS_TESTING_FAKE_ENGINE_H_

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "coordinator/requests/engine.h"

namespace tessera::tests {

// Thread-safe. Sinks are called on the thread of the test.
class FakeEngine final : public coordinator::Engine {
 public:
  struct Submitted {
    coordinator::ValidatedRequest request;
    std::shared_ptr<coordinator::RequestSink> sink;
  };

  FakeEngine() {
    status_.ready = true;
    status_.phase = "ready";
  }

  absl::Status Submit(coordinator::ValidatedRequest request,
                      std::shared_ptr<coordinator::RequestSink> sink) override {
    MutexLock lock(&mutex_);
    if (!accept_.ok() && submitted_.size() >= refuse_after_) {
      return accept_;
    }
    submitted_.push_back({std::move(request), std::move(sink)});
    return absl::OkStatus();
  }

  void Cancel(const std::string& request_id) override {
    MutexLock lock(&mutex_);
    cancelled_.push_back(request_id);
  }

  coordinator::EngineStatus status() const override {
    MutexLock lock(&mutex_);
    return status_;
  }

  absl::Duration retry_after() const override { return absl::Milliseconds(2500); }

  // Refuses with `status` from the `after`-th submission on.
  void Refuse(absl::Status status, size_t after = 0) {
    MutexLock lock(&mutex_);
    accept_ = std::move(status);
    refuse_after_ = after;
  }

  void set_status(coordinator::EngineStatus status) {
    MutexLock lock(&mutex_);
    status_ = std::move(status);
  }

  size_t num_submitted() const {
    MutexLock lock(&mutex_);
    return submitted_.size();
  }

  // What was submitted `index`-th; the sink stays with the engine.
  Submitted submitted(size_t index) const {
    MutexLock lock(&mutex_);
    return submitted_.at(index);
  }

  std::vector<std::string> cancelled() const {
    MutexLock lock(&mutex_);
    return cancelled_;
  }

  // Waits up to ten seconds for `count` submissions; false if they did not come.
  bool AwaitSubmitted(size_t count) const {
    return Await(&FakeEngine::submitted_, count);
  }
  bool AwaitCancelled(size_t count) const {
    return Await(&FakeEngine::cancelled_, count);
  }

  // Plays one token of choice 0 of submission `index`.
  void Token(size_t index, int32_t position, const std::string& text) {
    coordinator::TokenEvent event;
    event.index = position;
    event.token = text.empty() ? 0 : static_cast<unsigned char>(text[0]);
    event.logprob = -0.5f;
    event.text = text;
    submitted(index).sink->OnToken(event);
  }

  // Ends choice 0 and the request.
  void Finish(size_t index, int64_t completion_tokens,
              coordinator::FinishReason reason = coordinator::FinishReason::kStop) {
    const Submitted submission = submitted(index);
    coordinator::ChoiceFinished finished;
    finished.reason = reason;
    submission.sink->OnChoiceFinished(finished);
    coordinator::RequestUsage usage;
    usage.prompt_tokens = static_cast<int64_t>(submission.request.prompt_ids().size());
    usage.cached_prompt_tokens = std::min<int64_t>(2, usage.prompt_tokens);
    usage.host_cached_prompt_tokens = 1;
    usage.disk_cached_prompt_tokens = 1;
    usage.completion_tokens = completion_tokens;
    submission.sink->OnDone(usage);
  }

 private:
  template <typename Member>
  bool Await(Member member, size_t count) const {
    MutexLock lock(&mutex_);
    const auto enough = [this, member, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return (this->*member).size() >= count;
    };
    return mutex_.AwaitWithTimeout(Condition(&enough), absl::Seconds(10));
  }

  mutable Mutex mutex_;
  std::vector<Submitted> submitted_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> cancelled_ ABSL_GUARDED_BY(mutex_);
  coordinator::EngineStatus status_ ABSL_GUARDED_BY(mutex_);
  absl::Status accept_ ABSL_GUARDED_BY(mutex_);
  size_t refuse_after_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tessera::tests

#endif  // TESSERA_TESTS_TESTING_FAKE_ENGINE_H_
