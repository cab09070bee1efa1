#include "coordinator/api/generation.h"

#include <optional>
#include <string>
#include <utility>

#include "coordinator/api/access/limited_engine.h"

namespace tessera::coordinator {
namespace {

// Everything but the constructor runs on the writer's executor, so no member needs a
// lock.
class Generation : public std::enable_shared_from_this<Generation> {
 public:
  Generation(const ApiContext* context, std::shared_ptr<ResponseWriter> writer,
             std::vector<ValidatedRequest> requests,
             std::unique_ptr<GenerationResponder> responder)
      : context_(context),
        writer_(std::move(writer)),
        requests_(std::move(requests)),
        responder_(std::move(responder)) {
    for (const ValidatedRequest& request : requests_) {
      ids_.push_back(request.request_id());
    }
  }

  const std::shared_ptr<ResponseWriter>& writer() const { return writer_; }

  // Submits at once, or when the grammar of the prompts is compiled.
  void Start();
  void Token(size_t prompt, const TokenEvent& event) {
    if (!ended_) {
      responder_->Token(prompt, event);
    }
  }
  void ChoiceDone(size_t prompt, const ChoiceFinished& event) {
    if (!ended_) {
      responder_->ChoiceDone(prompt, event);
    }
  }
  void Done(const RequestUsage& usage);
  void Fail(const absl::Status& status);

 private:
  void Submit();
  void TakeGrammar(const absl::StatusOr<GrammarPtr>& grammar);
  void CancelFrom(size_t count);
  void Abandon();
  ApiError Refusal(const absl::Status& status) const;

  const ApiContext* context_;
  std::shared_ptr<ResponseWriter> writer_;
  std::vector<ValidatedRequest> requests_;  // empty once submitted
  std::unique_ptr<GenerationResponder> responder_;
  std::vector<std::string> ids_;
  RequestUsage usage_;
  size_t num_done_ = 0;
  bool begun_ = false;
  bool ended_ = false;
};

// The engine's end of one prompt: every event hops to the executor, so the engine never
// waits.
class PromptSink final : public RequestSink {
 public:
  PromptSink(std::shared_ptr<Generation> generation, size_t prompt)
      : generation_(std::move(generation)), prompt_(prompt) {}

  void OnToken(const TokenEvent& event) override {
    generation_->writer()->Post([generation = generation_, prompt = prompt_, event] {
      generation->Token(prompt, event);
    });
  }
  void OnChoiceFinished(const ChoiceFinished& event) override {
    generation_->writer()->Post([generation = generation_, prompt = prompt_, event] {
      generation->ChoiceDone(prompt, event);
    });
  }
  void OnDone(const RequestUsage& usage) override {
    generation_->writer()->Post(
        [generation = generation_, usage] { generation->Done(usage); });
  }
  void OnError(const absl::Status& status) override {
    generation_->writer()->Post(
        [generation = generation_, status] { generation->Fail(status); });
  }

 private:
  std::shared_ptr<Generation> generation_;
  size_t prompt_;
};

void Generation::Start() {
  std::weak_ptr<Generation> weak = weak_from_this();
  writer_->OnDisconnect([weak] {
    if (const auto self = weak.lock()) {
      self->Abandon();
    }
  });
  const std::optional<GrammarSpec>& spec = requests_.front().grammar_spec();
  if (!spec.has_value()) {
    Submit();
  } else if (context_->grammars == nullptr) {
    TakeGrammar(absl::UnimplementedError("this server compiles no grammars"));
  } else {
    context_->grammars->Compile(
        *spec, [self = shared_from_this()](absl::StatusOr<GrammarPtr> grammar) {
          self->writer_->Post(
              [self, grammar = std::move(grammar)] { self->TakeGrammar(grammar); });
        });
  }
}

void Generation::TakeGrammar(const absl::StatusOr<GrammarPtr>& grammar) {
  if (ended_) {
    return;  // The client left while it was compiled.
  }
  const GrammarSpec& spec = *requests_.front().grammar_spec();
  if (grammar.ok()) {
    for (ValidatedRequest& request : requests_) {
      request.SetGrammar(*grammar);
    }
  } else if (!spec.advisory) {
    ended_ = true;
    const absl::Status& status = grammar.status();
    const std::string reason(status.message());
    const ApiError error = absl::IsUnimplemented(status)
                               ? UnsupportedError(spec.field, reason)
                           : absl::IsInvalidArgument(status)
                               ? BadRequestError(spec.field, reason, "invalid_grammar")
                               : Refusal(status);
    responder_->Fail(error, /*begun=*/false);
    return;
  }
  Submit();
}

void Generation::Submit() {
  std::vector<ValidatedRequest> requests = std::move(requests_);
  for (size_t prompt = 0; prompt < requests.size(); ++prompt) {
    if (ended_) {  // the client left before anything was submitted
      return;
    }
    const absl::Status status = context_->engine->Submit(
        std::move(requests[prompt]),
        std::make_shared<PromptSink>(shared_from_this(), prompt));
    if (!status.ok()) {
      ended_ = true;
      CancelFrom(prompt);
      responder_->Fail(Refusal(status), /*begun=*/false);
      return;
    }
  }
  begun_ = true;
  responder_->Begin();
}

void Generation::Done(const RequestUsage& usage) {
  if (ended_) {
    return;
  }
  usage_.prompt_tokens += usage.prompt_tokens;
  usage_.cached_prompt_tokens += usage.cached_prompt_tokens;
  usage_.host_cached_prompt_tokens += usage.host_cached_prompt_tokens;
  usage_.disk_cached_prompt_tokens += usage.disk_cached_prompt_tokens;
  usage_.completion_tokens += usage.completion_tokens;
  if (++num_done_ == ids_.size()) {
    ended_ = true;
    responder_->Done(usage_);
  }
}

void Generation::Fail(const absl::Status& status) {
  if (ended_) {
    return;
  }
  ended_ = true;
  // One prompt's error is the whole answer's; the engine ignores ids that already ended.
  CancelFrom(ids_.size());
  responder_->Fail(FromEngineStatus(status), begun_);
}

void Generation::Abandon() {
  if (ended_) {
    return;
  }
  ended_ = true;
  context_->observer->OnClientDisconnect();
  CancelFrom(ids_.size());
}

void Generation::CancelFrom(size_t count) {
  for (size_t i = 0; i < count; ++i) {
    context_->engine->Cancel(ids_[i]);
  }
}

ApiError Generation::Refusal(const absl::Status& status) const {
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      if (const auto limited = RateRefusalOf(status)) {
        context_->observer->OnRejected(RejectReason::kRateLimit);
        const bool never = limited->retry_after == absl::InfiniteDuration();
        return RateLimitError(std::string(status.message()),
                              never ? std::nullopt : std::optional(limited->retry_after));
      }
      context_->observer->OnRejected(RejectReason::kQueueFull);
      return OverloadedError(context_->engine->retry_after());
    case absl::StatusCode::kUnavailable: {
      context_->observer->OnRejected(RejectReason::kDraining);
      const bool draining = context_->engine->status().draining;
      return NotReadyError(draining, context_->engine->retry_after());
    }
    case absl::StatusCode::kInvalidArgument:
      return BadRequestError("", "the request does not fit this server's limits");
    default:
      return FromEngineStatus(status);
  }
}

}  // namespace

void StartGeneration(const ApiContext* context, std::shared_ptr<ResponseWriter> writer,
                     std::vector<ValidatedRequest> requests,
                     std::unique_ptr<GenerationResponder> responder) {
  auto generation = std::make_shared<Generation>(
      context, std::move(writer), std::move(requests), std::move(responder));
  // Submitting on the executor puts Begin before every event, whatever the engine does
  // meanwhile.
  generation->writer()->Post([generation] { generation->Start(); });
}

}  // namespace tessera::coordinator
