#include "coordinator/grammar/grammar_pool.h"

#include <algorithm>

#include "common/status.h"

namespace tessera::coordinator {
namespace {

// How often jobs that take too long are looked for.
constexpr absl::Duration kDeadlineCheck = absl::Milliseconds(50);

// What is compiled: the same text serves with and without a reasoning before it.
bool SameGrammar(const GrammarSpec& a, const GrammarSpec& b) {
  return a.kind == b.kind && a.text == b.text;
}

}  // namespace

GrammarPool::GrammarPool(const GrammarPoolOptions& options,
                         const GrammarCompiler* compiler, Clock* clock)
    : options_(options), compiler_(compiler), clock_(clock) {
  for (int i = 0; i < options.num_threads; ++i) {
    threads_.emplace_back([this] { RunJobs(); });
  }
  threads_.emplace_back([this] { WatchDeadlines(); });
}

GrammarPool::~GrammarPool() {
  Answers answers;
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    for (Job& job : jobs_) {
      for (Callback& callback : std::exchange(job.callbacks, {})) {
        answers.emplace_back(std::move(callback),
                             absl::UnavailableError("the server is shutting down"));
      }
    }
  }
  for (auto& [callback, answer] : answers) {
    callback(std::move(answer));
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void GrammarPool::Compile(const GrammarSpec& spec, Callback done) {
  absl::StatusOr<GrammarPtr> answer;
  {
    MutexLock lock(&mutex_);
    if (GrammarPtr kept = FindKept(spec); kept != nullptr) {
      answer = std::move(kept);
    } else if (stopped_) {
      answer = absl::UnavailableError("the server is shutting down");
    } else {
      const auto same = std::find_if(jobs_.begin(), jobs_.end(), [&](const Job& job) {
        return SameGrammar(job.spec, spec);
      });
      const auto waiting = static_cast<size_t>(std::count_if(
          jobs_.begin(), jobs_.end(), [](const Job& job) { return !job.running; }));
      if (same != jobs_.end()) {
        if (same->callbacks.empty()) {  // It runs on, beyond the time of its callers.
          same->deadline = clock_->Now() + options_.compile_timeout;
        }
        same->callbacks.push_back(std::move(done));
        return;
      }
      if (waiting < options_.max_waiting) {
        Job& job = jobs_.emplace_back();
        job.spec = spec;
        job.deadline = clock_->Now() + options_.compile_timeout;
        job.callbacks.push_back(std::move(done));
        return;
      }
      answer = StatusF(absl::StatusCode::kResourceExhausted,
                       "{} grammars wait to be compiled", waiting);
    }
  }
  done(std::move(answer));
}

GrammarPtr GrammarPool::FindKept(const GrammarSpec& spec) {
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& entry) {
    return SameGrammar(entry.first, spec);
  });
  if (found == kept_.end()) {
    return nullptr;
  }
  kept_.splice(kept_.begin(), kept_, found);
  return kept_.front().second;
}

void GrammarPool::Keep(const GrammarSpec& spec, GrammarPtr grammar) {
  if (FindKept(spec) != nullptr) {
    return;
  }
  kept_bytes_ += grammar->size_bytes() + spec.text.size();
  kept_.emplace_front(spec, std::move(grammar));
  while (kept_bytes_ > options_.max_kept_bytes && kept_.size() > 1) {
    kept_bytes_ -= kept_.back().second->size_bytes() + kept_.back().first.text.size();
    kept_.pop_back();
  }
}

GrammarPool::Job* GrammarPool::NextJob() {
  const auto found = std::find_if(jobs_.begin(), jobs_.end(),
                                  [](const Job& job) { return !job.running; });
  return found == jobs_.end() ? nullptr : &*found;
}

void GrammarPool::RunJobs() {
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopped_ || NextJob() != nullptr;
  };
  while (true) {
    Job* job = nullptr;
    GrammarSpec spec;
    {
      MutexLock lock(&mutex_);
      mutex_.Await(Condition(&ready));
      if (stopped_) {
        return;
      }
      job = NextJob();
      job->running = true;
      spec = job->spec;
    }
    const absl::StatusOr<GrammarPtr> answer = compiler_->Compile(spec);
    std::vector<Callback> callbacks;
    {
      MutexLock lock(&mutex_);
      if (answer.ok()) {
        Keep(spec, *answer);
      }
      callbacks = std::move(job->callbacks);
      jobs_.remove_if([job](const Job& entry) { return &entry == job; });
    }
    for (const Callback& callback : callbacks) {
      callback(answer);
    }
  }
}

void GrammarPool::WatchDeadlines() {
  const auto stopped = [this]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopped_; };
  while (true) {
    std::vector<Callback> late;
    std::vector<Callback> never_begun;
    {
      MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(Condition(&stopped), kDeadlineCheck)) {
        return;
      }
      const absl::Time now = clock_->Now();
      for (Job& job : jobs_) {
        if (now >= job.deadline) {
          std::move(job.callbacks.begin(), job.callbacks.end(),
                    std::back_inserter(job.running ? late : never_begun));
          job.callbacks.clear();
        }
      }
      jobs_.remove_if(
          [](const Job& job) { return !job.running && job.callbacks.empty(); });
    }
    for (const Callback& callback : late) {
      callback(InvalidArgumentF("the grammar was not compiled within {}",
                                absl::FormatDuration(options_.compile_timeout)));
    }
    for (const Callback& callback : never_begun) {
      callback(absl::ResourceExhaustedError(
          "other grammars were compiled all the time that this one waited"));
    }
  }
}

}  // namespace tessera::coordinator
