#include "coordinator/api/access/limited_engine.h"

#include <charconv>
#include <string_view>
#include <utility>

#include "absl/strings/cord.h"
#include "fmt/format.h"

namespace tessera::coordinator {
namespace {

constexpr char kPayload[] = "tessera/rate-refusal";
constexpr int64_t kNever = -1;

std::string_view Name(RateLimit limit) {
  switch (limit) {
    case RateLimit::kRequests:
      return "requests per minute";
    case RateLimit::kTokens:
      return "tokens per minute";
    case RateLimit::kConcurrency:
      return "requests at once";
  }
  return "";
}

// Passes events on and settles the account at the end.
class ChargedSink final : public RequestSink {
 public:
  ChargedSink(RateLimiter* rates, std::string tenant, std::shared_ptr<RequestSink> next)
      : rates_(rates), tenant_(std::move(tenant)), next_(std::move(next)) {}

  void OnToken(const TokenEvent& event) override {
    ++num_tokens_;
    next_->OnToken(event);
  }
  void OnChoiceFinished(const ChoiceFinished& event) override {
    next_->OnChoiceFinished(event);
  }
  // Settled first: who sees the end may send the next request at once.
  void OnDone(const RequestUsage& usage) override {
    Settle();
    next_->OnDone(usage);
  }
  void OnError(const absl::Status& status) override {
    Settle();
    next_->OnError(status);
  }

 private:
  void Settle() {
    rates_->ChargeCompletion(tenant_, num_tokens_);
    rates_->EndRequest(tenant_);
  }

  RateLimiter* const rates_;
  const std::string tenant_;
  const std::shared_ptr<RequestSink> next_;
  int64_t num_tokens_ = 0;
};

}  // namespace

absl::Status ToStatus(const RateRefusal& refusal) {
  const bool never = refusal.retry_after == absl::InfiniteDuration();
  absl::Status status = absl::ResourceExhaustedError(
      never ? fmt::format("the request is larger than this key's {} {}", refusal.granted,
                          Name(refusal.limit))
            : fmt::format("this key's {} {} are used up", refusal.granted,
                          Name(refusal.limit)));
  const int64_t wait = never ? kNever : absl::ToInt64Milliseconds(refusal.retry_after);
  status.SetPayload(kPayload,
                    absl::Cord(fmt::format("{} {} {}", static_cast<int>(refusal.limit),
                                           refusal.granted, wait)));
  return status;
}

std::optional<RateRefusal> RateRefusalOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  if (!payload.has_value()) {
    return std::nullopt;
  }
  const std::string text(*payload);
  int64_t numbers[3] = {};
  const char* at = text.data();
  for (int64_t& number : numbers) {
    at = std::from_chars(at, text.data() + text.size(), number).ptr + 1;
  }
  return RateRefusal{
      static_cast<RateLimit>(numbers[0]), numbers[1],
      numbers[2] == kNever ? absl::InfiniteDuration() : absl::Milliseconds(numbers[2])};
}

absl::Status LimitedEngine::Submit(ValidatedRequest request,
                                   std::shared_ptr<RequestSink> sink) {
  const std::string tenant = request.tenant();
  const auto prompt_tokens = static_cast<int64_t>(request.prompt_ids().size());
  if (const auto refusal = rates_->BeginRequest(tenant)) {
    return ToStatus(*refusal);
  }
  if (const auto refusal = rates_->ChargePrompt(tenant, prompt_tokens)) {
    rates_->EndRequest(tenant);
    return ToStatus(*refusal);
  }
  const absl::Status status = engine_->Submit(
      std::move(request), std::make_shared<ChargedSink>(rates_, tenant, std::move(sink)));
  if (!status.ok()) {
    rates_->ChargeCompletion(tenant, -prompt_tokens);  // nothing was computed
    rates_->EndRequest(tenant);
  }
  return status;
}

}  // namespace tessera::coordinator
