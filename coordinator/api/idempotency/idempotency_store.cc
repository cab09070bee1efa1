#include "coordinator/api/idempotency/idempotency_store.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "openssl/evp.h"

namespace tessera::coordinator {
namespace {

// What an entry costs beside its text: the entry itself, twice its key, lists and nodes.
constexpr size_t kEntryBytes = 512;

size_t BytesOf(const IdempotencyKey& key, const HttpResponse& answer) {
  size_t bytes = kEntryBytes + 2 * (key.tenant.size() + key.text.size()) +
                 answer.content_type.size() + answer.body.size();
  for (const auto& [name, value] : answer.headers) {
    bytes += name.size() + value.size();
  }
  return bytes;
}

}  // namespace

RequestDigest DigestOf(std::string_view path, std::string_view body) {
  RequestDigest digest{};
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        &EVP_MD_CTX_free);
  const bool done =
      context != nullptr &&
      EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1 &&
      EVP_DigestUpdate(context.get(), path.data(), path.size()) == 1 &&
      EVP_DigestUpdate(context.get(), "", 1) == 1 &&  // no path holds a zero
      EVP_DigestUpdate(context.get(), body.data(), body.size()) == 1 &&
      EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1;
  TESSERA_CHECK(done);
  return digest;
}

IdempotencyStore::Admission IdempotencyStore::Admit(
    const IdempotencyKey& key, const RequestDigest& digest,
    const std::shared_ptr<ResponseWriter>& writer, absl::Time now) {
  MutexLock lock(&mutex_);
  ForgetExpired(now);
  if (const auto found = entries_.find(key); found != entries_.end()) {
    Entry& entry = found->second;
    if (entry.digest != digest) {
      return {Verdict::kOtherRequest, 0, nullptr};
    }
    if (entry.answer != nullptr) {
      return {Verdict::kAnswered, 0, entry.answer};
    }
    if (entry.waiting.size() >= options_.max_waiting) {
      return {Verdict::kBusy, 0, nullptr};
    }
    const uint64_t serial = next_serial_++;
    entry.waiting.push_back({serial, writer});
    return {Verdict::kWaits, serial, nullptr};
  }
  while (entries_.size() >= options_.max_keys) {
    if (!ForgetOne()) {
      return {Verdict::kFull, 0, nullptr};
    }
  }
  Entry& entry = entries_[key];
  entry.serial = next_serial_++;
  entry.digest = digest;
  return {Verdict::kFirst, entry.serial, nullptr};
}

void IdempotencyStore::Leave(const IdempotencyKey& key, uint64_t serial) {
  std::shared_ptr<ResponseWriter> writer;  // ends without the lock
  MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) {
    return;
  }
  std::vector<Waiting>& waiting = found->second.waiting;
  const auto left = std::find_if(waiting.begin(), waiting.end(), [&](const Waiting& one) {
    return one.serial == serial;
  });
  if (left != waiting.end()) {
    writer = std::move(left->writer);
    waiting.erase(left);
  }
}

std::vector<std::shared_ptr<ResponseWriter>> IdempotencyStore::End(
    const IdempotencyKey& key, uint64_t serial, KeptAnswer answer, absl::Time now) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end() || found->second.serial != serial ||
      found->second.answer != nullptr) {
    return {};
  }
  Entry& entry = found->second;
  std::vector<std::shared_ptr<ResponseWriter>> waiting;
  for (Waiting& one : std::exchange(entry.waiting, {})) {
    waiting.push_back(std::move(one.writer));
  }
  if (answer == nullptr || answer->body.size() > max_answer_bytes()) {
    entries_.erase(found);
    return waiting;
  }
  entry.bytes = BytesOf(key, *answer);
  entry.answer = std::move(answer);
  entry.expiry = now + options_.keep;
  bytes_ += entry.bytes;
  Answered& answered = answered_[key.tenant];
  answered.keys.push_back(key);
  answered.bytes += entry.bytes;
  while (bytes_ > options_.max_bytes && ForgetOne()) {
  }
  return waiting;
}

void IdempotencyStore::Clear() {
  absl::flat_hash_map<IdempotencyKey, Entry> dropped;  // its writers end without the lock
  MutexLock lock(&mutex_);
  dropped.swap(entries_);
  answered_.clear();
  bytes_ = 0;
}

void IdempotencyStore::ForgetExpired(absl::Time now) {
  for (auto tenant = answered_.begin(); tenant != answered_.end();) {
    Answered& answered = tenant->second;
    while (!answered.keys.empty() && entries_.at(answered.keys.front()).expiry <= now) {
      ForgetOldest(&answered);
    }
    const auto here = tenant++;
    if (here->second.keys.empty()) {
      answered_.erase(here);
    }
  }
}

bool IdempotencyStore::ForgetOne() {
  const auto most = std::max_element(
      answered_.begin(), answered_.end(),
      [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
  if (most == answered_.end()) {
    return false;
  }
  ForgetOldest(&most->second);
  if (most->second.keys.empty()) {
    answered_.erase(most);
  }
  return true;
}

void IdempotencyStore::ForgetOldest(Answered* answered) {
  const auto entry = entries_.find(answered->keys.front());
  bytes_ -= entry->second.bytes;
  answered->bytes -= entry->second.bytes;
  entries_.erase(entry);
  answered->keys.pop_front();
}

}  // namespace tessera::coordinator
