#include "coordinator/api/idempotency/idempotency_door.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "fmt/format.h"

#include "coordinator/api/idempotency/recording_writer.h"

namespace tessera::coordinator {
namespace {

constexpr char kHeader[] = "Idempotency-Key";
constexpr size_t kMaxKeyBytes = 255;

IdempotencyOutcome OutcomeOf(IdempotencyStore::Verdict verdict) {
  switch (verdict) {
    case IdempotencyStore::Verdict::kFirst:
      return IdempotencyOutcome::kFirst;
    case IdempotencyStore::Verdict::kAnswered:
      return IdempotencyOutcome::kReplayed;
    case IdempotencyStore::Verdict::kWaits:
      return IdempotencyOutcome::kWaits;
    case IdempotencyStore::Verdict::kOtherRequest:
    case IdempotencyStore::Verdict::kBusy:
    case IdempotencyStore::Verdict::kFull:
      break;
  }
  return IdempotencyOutcome::kRefused;
}

// The key, nothing without the header, or what is wrong with it.
std::optional<ApiError> ReadKey(const HttpHeaders& headers,
                                std::optional<std::string>* key) {
  for (const auto& [name, value] : headers) {
    if (!absl::EqualsIgnoreCase(name, kHeader)) {
      continue;
    }
    const bool sane = !key->has_value() && !value.empty() &&
                      value.size() <= kMaxKeyBytes &&
                      std::all_of(value.begin(), value.end(),
                                  [](char c) { return c >= ' ' && c <= '~'; });
    if (!sane) {
      return BadRequestError(
          kHeader, fmt::format("an idempotency key is 1 to {} printable ASCII characters",
                               kMaxKeyBytes));
    }
    *key = value;
  }
  return std::nullopt;
}

}  // namespace

std::shared_ptr<ResponseWriter> AdmitOnce(const std::shared_ptr<IdempotencyStore>& store,
                                          Clock* clock, ApiObserver* observer,
                                          std::string_view path,
                                          const HttpRequest& request,
                                          const RefusalText& refusal,
                                          std::shared_ptr<ResponseWriter> writer) {
  using Verdict = IdempotencyStore::Verdict;
  std::optional<std::string> text;
  if (const auto error = ReadKey(request.headers, &text)) {
    observer->OnIdempotencyKey(IdempotencyOutcome::kRefused);
    writer->Respond(refusal(*error));
    return nullptr;
  }
  if (!text.has_value()) {
    return writer;
  }
  if (store->options().max_keys == 0) {
    observer->OnIdempotencyKey(IdempotencyOutcome::kRefused);
    writer->Respond(
        refusal(UnsupportedError(kHeader, "this server takes no idempotency keys")));
    return nullptr;
  }
  IdempotencyKey key{request.key.tenant, *std::move(text)};
  const auto admission =
      store->Admit(key, DigestOf(path, request.body), writer, clock->Now());
  observer->OnIdempotencyKey(OutcomeOf(admission.verdict));
  switch (admission.verdict) {
    case Verdict::kFirst:
      return std::make_shared<RecordingWriter>(
          store, clock, std::move(key), admission.serial,
          refusal(IdempotencyKeyInUseError()), std::move(writer));
    case Verdict::kAnswered:
      Replay(*admission.answer, writer.get());
      return nullptr;
    case Verdict::kWaits:
      // The store keeps the writer: what hangs on the connection must not keep the store.
      writer->OnDisconnect([weak = std::weak_ptr<IdempotencyStore>(store),
                            key = std::move(key), serial = admission.serial] {
        if (const auto kept = weak.lock()) {
          kept->Leave(key, serial);
        }
      });
      return nullptr;
    case Verdict::kOtherRequest:
      writer->Respond(refusal(IdempotencyKeyReusedError()));
      return nullptr;
    case Verdict::kBusy:
      writer->Respond(refusal(IdempotencyKeyInUseError()));
      return nullptr;
    case Verdict::kFull:
      writer->Respond(refusal(OverloadedError(absl::Seconds(1))));
      return nullptr;
  }
  return nullptr;
}

}  // namespace tessera::coordinator
