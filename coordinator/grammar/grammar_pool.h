// GrammarPool: compiles grammars on threads of its own, so that a cold compile delays no
// other stream, and keeps the last ones. Bounded in everything: threads, waiting jobs,
// time of a job, bytes kept.
#ifndef TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_POOL_H_
#define TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_POOL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/grammar/grammar.h"
#include "coordinator/grammar/grammar_compiler.h"

namespace tessera::coordinator {

struct GrammarPoolOptions {
  int num_threads = 2;      // one dear grammar leaves the other
  size_t max_waiting = 64;  // jobs that no thread has begun
  absl::Duration compile_timeout = absl::Seconds(20);  // from the call to the answer
  size_t max_kept_bytes = size_t{256} << 20;           // of compiled grammars
};

using GrammarPtr = std::shared_ptr<const Grammar>;

// Thread-safe. Destroying it answers what waits with kUnavailable and waits for the
// compilations that run.
class GrammarPool {
 public:
  using Callback = std::function<void(absl::StatusOr<GrammarPtr>)>;

  // `compiler` and `clock`, which runs in real time, must outlive it.
  GrammarPool(const GrammarPoolOptions& options, const GrammarCompiler* compiler,
              Clock* clock);
  ~GrammarPool();

  // Calls `done` once: on this thread if the grammar is kept or cannot be begun, else on
  // one of the pool's; it must not block. Errors are those of GrammarCompiler::Compile;
  // kResourceExhausted: too many jobs wait, or the job was not begun within
  // compile_timeout; kInvalidArgument as well where it was begun and not done by then.
  // Such a job is not interrupted: its thread is free again when it is through, and its
  // result is kept.
  void Compile(const GrammarSpec& spec, Callback done);

 private:
  struct Job {
    GrammarSpec spec;
    absl::Time deadline;
    bool running = false;
    std::vector<Callback> callbacks;
  };
  using Answers = std::vector<std::pair<Callback, absl::StatusOr<GrammarPtr>>>;

  void RunJobs();
  void WatchDeadlines();
  Job* NextJob() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  GrammarPtr FindKept(const GrammarSpec& spec) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Keep(const GrammarSpec& spec, GrammarPtr grammar)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const GrammarPoolOptions options_;
  const GrammarCompiler* const compiler_;
  Clock* const clock_;
  Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::list<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  // Last used first.
  std::list<std::pair<GrammarSpec, GrammarPtr>> kept_ ABSL_GUARDED_BY(mutex_);
  size_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::thread> threads_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_GRAMMAR_GRAMMAR_POOL_H_
