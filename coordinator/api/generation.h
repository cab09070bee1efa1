// Generation: the life of one API request inside the engine. It submits its
// ValidatedRequests (one per prompt), carries the engine's events to the connection's
// executor, cancels when the client leaves, and ends in exactly one of Done and Fail.
// What the events look like on the wire is the GenerationResponder's business, one per
// dialect.
#ifndef TESSERA_COORDINATOR_API_GENERATION_H_
#define TESSERA_COORDINATOR_API_GENERATION_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "coordinator/api/api_context.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"
#include "coordinator/requests/engine.h"

namespace tessera::coordinator {

// Turns events into an answer. All calls come one at a time on the writer's executor:
// Begin, then Token and ChoiceDone, then Done or Fail; or Fail alone. Nothing after the
// end.
class GenerationResponder {
 public:
  virtual ~GenerationResponder() = default;

  // Every prompt is in the engine's queue.
  virtual void Begin() = 0;
  virtual void Token(size_t prompt, const TokenEvent& event) = 0;
  virtual void ChoiceDone(size_t prompt, const ChoiceFinished& event) = 0;
  // `usage` sums all prompts.
  virtual void Done(const RequestUsage& usage) = 0;
  // `begun`: Begin was called, so a stream may be open.
  virtual void Fail(const ApiError& error, bool begun) = 0;
};

// Submits `requests` and returns; everything else happens on the writer's executor.
// `context` must outlive the engine's last event. A prompt that the engine refuses fails
// the whole request and cancels the prompts before it.
void StartGeneration(const ApiContext* context, std::shared_ptr<ResponseWriter> writer,
                     std::vector<ValidatedRequest> requests,
                     std::unique_ptr<GenerationResponder> responder);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_GENERATION_H_
