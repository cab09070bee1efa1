#include "coordinator/service/live_requests.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "common/status.h"

namespace tessera::coordinator {

LiveRequests::LiveRequests(const model::Tokenizer* tokenizer, Scheduler* scheduler,
                           EngineObserver* observer)
    : tokenizer_(tokenizer), scheduler_(scheduler), observer_(observer) {}

std::shared_ptr<const OutputRules> LiveRequests::MakeRules(
    const ValidatedRequest& request) const {
  auto rules = std::make_shared<OutputRules>();
  rules->stop_strings = request.stop_strings();
  rules->stop_token_ids = request.stop_token_ids();
  std::sort(rules->stop_token_ids.begin(), rules->stop_token_ids.end());
  rules->include_stop_text = request.include_stop_text();
  rules->skip_special_tokens = request.skip_special_tokens();
  rules->min_tokens = request.sampling(0).min_tokens;
  return rules;
}

SequenceSpec LiveRequests::MakeSpec(const ValidatedRequest& request, int32_t choice,
                                    SequenceId id) const {
  SequenceSpec spec;
  spec.id = id;
  spec.tenant = request.tenant();
  spec.cache_salt = request.cache_salt();
  spec.prompt = request.prompt_ids();
  spec.max_tokens = request.max_tokens();
  spec.sampling = request.sampling(choice);
  spec.masked = request.grammar() != nullptr;
  spec.priority = request.priority();
  spec.arrival = request.arrival();
  spec.deadline = request.deadline();
  return spec;
}

void LiveRequests::Add(ValidatedRequest request, std::shared_ptr<RequestSink> sink,
                       absl::Time now) {
  const std::string id = request.request_id();
  auto live = std::make_unique<Live>(std::move(request));
  live->sink = std::move(sink);
  if (requests_.contains(id)) {
    live->sink->OnError(InvalidArgumentF("request id {} is in use", id));
    return;
  }
  const std::shared_ptr<const OutputRules> rules = MakeRules(live->request);
  live->usage.prompt_tokens = std::ssize(live->request.prompt_ids());
  absl::Status status;
  for (int32_t choice = 0; choice < live->request.num_choices() && status.ok();
       ++choice) {
    const SequenceId sequence = next_sequence_++;
    status = scheduler_->Enqueue(MakeSpec(live->request, choice, sequence));
    Choice& made = live->choices.emplace_back(sequence, rules, tokenizer_);
    if (const auto& grammar = live->request.grammar(); grammar != nullptr) {
      made.matcher = grammar->NewMatcher(live->request.grammar_spec()->begins_after);
    }
    sequences_[sequence] = {.request = live.get(), .choice = choice};
  }
  live->num_open = live->choices.size();
  requests_.emplace(id, std::move(live));
  if (!status.ok()) {
    End(id, status, now);
    return;
  }
  not_started_.push_back(id);
}

std::vector<RequestReport> LiveRequests::Report() const {
  std::vector<const Live*> all;
  all.reserve(requests_.size());
  for (const auto& [id, live] : requests_) {
    all.push_back(live.get());
  }
  // Sequences are numbered as their requests come.
  const size_t count = std::min(all.size(), kMaxReportedRequests);
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(count), all.end(),
                    [](const Live* a, const Live* b) {
                      return a->choices.front().sequence < b->choices.front().sequence;
                    });
  std::vector<RequestReport> reports;
  for (size_t i = 0; i < count; ++i) {
    const Live& live = *all[i];
    const SequenceId first = live.choices.front().sequence;
    const SequenceProgress progress = scheduler_->progress(first);
    RequestReport& report = reports.emplace_back();
    report.id = live.request.request_id();
    report.tenant = live.request.tenant();
    report.priority = live.request.priority();
    report.num_choices = live.request.num_choices();
    report.arrival = live.request.arrival();
    report.deadline = live.request.deadline();
    report.started = live.start.has_value();
    report.prompt_tokens = live.usage.prompt_tokens;
    report.cached_tokens = scheduler_->cached_tokens(first);
    report.completion_tokens = live.usage.completion_tokens;
    report.max_tokens = live.request.max_tokens();
    if (progress.dp_rank >= 0) {
      report.dp_rank = progress.dp_rank;
    }
    report.computed_tokens = progress.computed_tokens;
  }
  return reports;
}

void LiveRequests::NoteStarts(absl::Time now) {
  std::erase_if(not_started_, [&](const std::string& id) {
    const auto found = requests_.find(id);
    if (found == requests_.end()) {
      return true;
    }
    Live& live = *found->second;
    const bool started = std::any_of(
        live.choices.begin(), live.choices.end(),
        [&](const Choice& choice) { return scheduler_->started(choice.sequence); });
    if (started) {
      live.start = now;
    }
    return started;
  });
}

void LiveRequests::TakeTokens(std::span<const AcceptedToken> tokens, absl::Time now) {
  for (const AcceptedToken& token : tokens) {
    TakeToken(token, now);
  }
}

void LiveRequests::TakeToken(const AcceptedToken& token, absl::Time now) {
  const auto found = sequences_.find(token.sequence);
  if (found == sequences_.end()) {
    return;  // Its request ended earlier in the same step.
  }
  const ChoiceRef ref = found->second;
  Live& live = *ref.request;
  Choice& choice = live.choices[static_cast<size_t>(ref.choice)];
  if (!live.first_token.has_value()) {
    live.first_token = now;
    live.usage.cached_prompt_tokens = scheduler_->cached_tokens(token.sequence);
    live.usage.host_cached_prompt_tokens = scheduler_->host_cached_tokens(token.sequence);
    live.usage.disk_cached_prompt_tokens = scheduler_->disk_cached_tokens(token.sequence);
  }
  if (choice.matcher != nullptr) {
    const absl::Status status = choice.matcher->Accept(token.sampled.token);
    if (!status.ok()) {
      EndSequence(token.sequence, status, now);
      return;
    }
  }
  // Accepted drafts come with the token before them: a gap of zero would say that the
  // model answers at once.
  const bool has_gap = choice.last_token.has_value() && *choice.last_token != now;
  observer_->OnToken(has_gap ? std::optional(now - *choice.last_token) : std::nullopt);
  choice.last_token = live.last_token = now;
  ++live.usage.completion_tokens;

  const bool scored = token.index == 0 && ref.choice == 0 && live.request.scores_prompt();
  if (scored && std::ssize(token.prompt) + 1 != live.usage.prompt_tokens) {
    End(live.request.request_id(),
        InternalF("{} of {} prompt tokens were scored", token.prompt.size(),
                  live.usage.prompt_tokens - 1),
        now);
    return;
  }
  OutputPiece piece = choice.output.Push(token.sampled.token, token.length_reached);
  live.sink->OnToken({.choice = ref.choice,
                      .index = token.index,
                      .token = token.sampled.token,
                      .logprob = token.sampled.logprob,
                      .top = token.sampled.top,
                      .prompt = token.prompt,
                      .text = std::move(piece.text)});
  if (!piece.finished) {
    return;
  }
  FinishChoice(ref, std::move(piece));
  if (live.num_open == 0) {
    const std::unique_ptr<Live> done = Remove(live.request.request_id());
    Report(*done, absl::OkStatus(), now);
    done->sink->OnDone(done->usage);
  }
}

std::vector<uint32_t> LiveRequests::NextMask(SequenceId sequence, absl::Time now) {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) {
    return {};  // It ended while the step was in flight; its token will be dropped.
  }
  const Live& live = *found->second.request;
  const Choice& choice = live.choices[static_cast<size_t>(found->second.choice)];
  TESSERA_CHECK(choice.matcher != nullptr);
  std::vector<uint32_t> words(live.request.grammar()->num_words());
  const absl::Status status = choice.matcher->FillMask(words);
  if (!status.ok()) {
    EndSequence(sequence, status, now);
    return {};
  }
  return words;
}

void LiveRequests::FinishChoice(ChoiceRef ref, OutputPiece piece) {
  Live& live = *ref.request;
  Choice& choice = live.choices[static_cast<size_t>(ref.choice)];
  choice.finished = true;
  --live.num_open;
  scheduler_->Finish(choice.sequence);
  sequences_.erase(choice.sequence);
  live.outcome = piece.reason == FinishReason::kLength ? RequestOutcome::kLength
                                                       : RequestOutcome::kStop;
  live.sink->OnChoiceFinished({.choice = ref.choice,
                               .reason = piece.reason,
                               .text = std::move(piece.rest),
                               .stop_string = std::move(piece.stop_string),
                               .stop_token = piece.stop_token});
}

std::unique_ptr<LiveRequests::Live> LiveRequests::Remove(const std::string& request_id) {
  const auto found = requests_.find(request_id);
  TESSERA_CHECK(found != requests_.end());
  std::unique_ptr<Live> live = std::move(found->second);
  requests_.erase(found);
  for (const Choice& choice : live->choices) {
    scheduler_->Finish(choice.sequence);
    sequences_.erase(choice.sequence);
  }
  ended_.push_back(live->request.request_id());
  return live;
}

void LiveRequests::Report(const Live& live, const absl::Status& status, absl::Time now) {
  RequestObservation seen;
  const ValidatedRequest& request = live.request;
  seen.request_id = request.request_id();
  seen.outcome = live.outcome;
  if (!status.ok()) {
    seen.outcome =
        absl::IsCancelled(status) ? RequestOutcome::kAbort : RequestOutcome::kError;
  }
  seen.code = status.code();
  seen.prompt_tokens = live.usage.prompt_tokens;
  seen.cached_prompt_tokens = live.usage.cached_prompt_tokens;
  seen.completion_tokens = live.usage.completion_tokens;
  seen.max_tokens = request.max_tokens();
  seen.num_choices = request.num_choices();
  seen.total_time = now - request.arrival();
  if (live.start.has_value()) {
    seen.queue_time = *live.start - request.arrival();
  }
  if (live.first_token.has_value()) {
    seen.first_token_time = *live.first_token - request.arrival();
    seen.decode_time = live.last_token - *live.first_token;
  }
  const absl::Duration first = seen.first_token_time.value_or(absl::ZeroDuration());
  log::Info("engine", "request finished",
            {{"request_id", seen.request_id},
             {"status", absl::StatusCodeToString(status.code())},
             {"prompt_tokens", seen.prompt_tokens},
             {"cached_tokens", seen.cached_prompt_tokens},
             {"completion_tokens", seen.completion_tokens},
             {"first_token_seconds", absl::ToDoubleSeconds(first)},
             {"seconds", absl::ToDoubleSeconds(seen.total_time)}});
  observer_->OnRequestFinished(seen);
}

void LiveRequests::End(const std::string& request_id, const absl::Status& reason,
                       absl::Time now) {
  if (!requests_.contains(request_id)) {
    return;
  }
  const std::unique_ptr<Live> live = Remove(request_id);
  Report(*live, reason, now);
  live->sink->OnError(reason);
}

void LiveRequests::EndSequence(SequenceId sequence, const absl::Status& reason,
                               absl::Time now) {
  const auto found = sequences_.find(sequence);
  if (found != sequences_.end()) {
    // A copy: the request that owns the string is about to go.
    const std::string id = found->second.request->request.request_id();
    End(id, reason, now);
  }
}

template <typename Predicate>
void LiveRequests::EndIf(Predicate predicate, const absl::Status& reason,
                         absl::Time now) {
  std::vector<std::string> ids;
  for (const auto& [id, live] : requests_) {
    if (predicate(*live)) {
      ids.push_back(id);
    }
  }
  for (const std::string& id : ids) {
    End(id, reason, now);
  }
}

void LiveRequests::EndAll(const absl::Status& reason, absl::Time now) {
  EndIf([](const Live&) { return true; }, reason, now);
}

void LiveRequests::EndStarted(const absl::Status& reason, absl::Time now) {
  NoteStarts(now);
  EndIf([](const Live& live) { return live.start.has_value(); }, reason, now);
}

std::vector<std::string> LiveRequests::TakeEnded() { return std::exchange(ended_, {}); }

}  // namespace tessera::coordinator
