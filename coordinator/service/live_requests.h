// LiveRequests: the requests that the engine has accepted and not yet answered in full:
// from accepted tokens to events of their sinks. It ends each request exactly once and
// measures it for the observer.
#ifndef TESSERA_COORDINATOR_SERVICE_LIVE_REQUESTS_H_
#define TESSERA_COORDINATOR_SERVICE_LIVE_REQUESTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "coordinator/requests/engine.h"
#include "coordinator/requests/engine_observer.h"
#include "coordinator/requests/engine_operations.h"
#include "coordinator/requests/validated_request.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/service/output_processor.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::coordinator {

// External synchronisation: the engine's thread. What it borrows must outlive it.
class LiveRequests {
 public:
  LiveRequests(const model::Tokenizer* tokenizer, Scheduler* scheduler,
               EngineObserver* observer);

  // Queues one sequence per choice. If the scheduler refuses, the sink gets OnError at
  // once.
  void Add(ValidatedRequest request, std::shared_ptr<RequestSink> sink, absl::Time now);

  // Hands accepted tokens on as text; finishes choices and requests that ended with them.
  void TakeTokens(std::span<const AcceptedToken> tokens, absl::Time now);

  // The mask of the next token of `sequence`. Empty, which is every token, where nobody
  // waits for it any more, or where its grammar has none: that request ends with
  // kInternal.
  std::vector<uint32_t> NextMask(SequenceId sequence, absl::Time now);

  // Ends one request with an error; unknown ids are ignored.
  void End(const std::string& request_id, const absl::Status& reason, absl::Time now);

  // Ends the request that `sequence` belongs to.
  void EndSequence(SequenceId sequence, const absl::Status& reason, absl::Time now);

  // Ends all, or those of which a plan has named a sequence.
  void EndAll(const absl::Status& reason, absl::Time now);
  void EndStarted(const absl::Status& reason, absl::Time now);

  // Marks sequences that were planned for the first time, for their queue time. Cheap
  // when none is new.
  void NoteStarts(absl::Time now);

  // What is live, oldest first, kMaxReportedRequests at most.
  std::vector<RequestReport> Report() const;

  int64_t size() const { return static_cast<int64_t>(requests_.size()); }

  // Ids of requests that ended since the last call.
  std::vector<std::string> TakeEnded();

 private:
  struct Choice {
    Choice(SequenceId sequence_in, std::shared_ptr<const OutputRules> rules,
           const model::Tokenizer* tokenizer)
        : sequence(sequence_in), output(std::move(rules), tokenizer) {}

    SequenceId sequence;
    OutputProcessor output;
    std::unique_ptr<GrammarMatcher> matcher;  // null: anything may be generated
    bool finished = false;
    std::optional<absl::Time> last_token;
  };

  struct Live {
    explicit Live(ValidatedRequest request_in) : request(std::move(request_in)) {}

    ValidatedRequest request;
    std::shared_ptr<RequestSink> sink;
    std::vector<Choice> choices;
    size_t num_open = 0;  // choices not finished
    RequestUsage usage;
    std::optional<absl::Time> start;
    std::optional<absl::Time> first_token;
    absl::Time last_token;
    RequestOutcome outcome = RequestOutcome::kStop;
  };

  struct ChoiceRef {
    Live* request = nullptr;
    int32_t choice = 0;
  };

  std::shared_ptr<const OutputRules> MakeRules(const ValidatedRequest& request) const;
  SequenceSpec MakeSpec(const ValidatedRequest& request, int32_t choice,
                        SequenceId id) const;
  void TakeToken(const AcceptedToken& token, absl::Time now);
  void FinishChoice(ChoiceRef ref, OutputPiece piece);
  // Drops the request from all tables and reports it. The sink's last call follows.
  std::unique_ptr<Live> Remove(const std::string& request_id);
  void Report(const Live& live, const absl::Status& status, absl::Time now);
  template <typename Predicate>
  void EndIf(Predicate predicate, const absl::Status& reason, absl::Time now);

  const model::Tokenizer* const tokenizer_;
  Scheduler* const scheduler_;
  EngineObserver* const observer_;
  absl::flat_hash_map<std::string, std::unique_ptr<Live>> requests_;
  absl::flat_hash_map<SequenceId, ChoiceRef> sequences_;
  std::vector<std::string> not_started_;
  std::vector<std::string> ended_;
  SequenceId next_sequence_ = 1;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_LIVE_REQUESTS_H_
