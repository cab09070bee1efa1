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

// Whether `more` may go to who holds `held`, where `total` of `limit` is held by all:
// nobody gets more than what is then left, so something is left for who comes next.
bool IsFair(size_t held, size_t more, size_t total, size_t limit) {
  return held + more <= limit - total;
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
  const auto tenant = tenants_.find(key.tenant);
  const size_t running = tenant == tenants_.end() ? 0 : tenant->second.holding.running;
  if (!IsFair(running, 1, total_.running, options_.max_keys)) {
    return {Verdict::kFull, 0, nullptr};
  }
  // Counted before anybody is looked for who has too many.
  ++tenants_[key.tenant].holding.running;
  ++total_.running;
  while (total_.keys() > options_.max_keys) {
    const auto most = WithMost(&Holding::keys);
    TESSERA_CHECK(most != tenants_.end());  // fewer than max_keys run
    ForgetOldest(&most->second);
    DropIfEmpty(most);
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

bool IdempotencyStore::HoldRecording(const IdempotencyKey& key, uint64_t serial,
                                     size_t bytes) {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end() || found->second.serial != serial ||
      found->second.answer != nullptr) {
    return false;
  }
  Entry& entry = found->second;
  Holding& own = tenants_.at(key.tenant).holding;
  own.recording -= entry.bytes;
  total_.recording -= entry.bytes;
  entry.bytes = 0;
  if (!IsFair(own.recording, bytes, total_.recording, options_.max_bytes)) {
    return false;
  }
  while (total_.bytes() + bytes > options_.max_bytes) {
    const auto most = WithMost(&Holding::bytes);
    // A recording is not worth the answers of those who hold less.
    if (most == tenants_.end() || (most->first != key.tenant &&
                                   most->second.holding.bytes() < own.bytes() + bytes)) {
      return false;
    }
    ForgetOldest(&most->second);
    DropIfEmpty(most);  // not the own tenant: it has a key in use
  }
  entry.bytes = bytes;
  own.recording += bytes;
  total_.recording += bytes;
  return true;
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
  StopRunning(key, &entry);
  const auto tenant = tenants_.find(key.tenant);
  if (answer == nullptr || answer->body.size() > max_answer_bytes()) {
    entries_.erase(found);
    DropIfEmpty(tenant);
    return waiting;
  }
  entry.bytes = BytesOf(key, *answer);
  entry.answer = std::move(answer);
  entry.expiry = now + options_.keep;
  tenant->second.answered.push_back(key);
  for (Holding* holding : {&tenant->second.holding, &total_}) {
    ++holding->answered;
    holding->kept += entry.bytes;
  }
  while (total_.bytes() > options_.max_bytes) {
    const auto most = WithMost(&Holding::bytes);
    TESSERA_CHECK(most != tenants_.end());  // recordings alone are fewer
    ForgetOldest(&most->second);
    DropIfEmpty(most);
  }
  return waiting;
}

void IdempotencyStore::Clear() {
  absl::flat_hash_map<IdempotencyKey, Entry> dropped;  // its writers end without the lock
  MutexLock lock(&mutex_);
  dropped.swap(entries_);
  tenants_.clear();
  total_ = {};
}

void IdempotencyStore::StopRunning(const IdempotencyKey& key, Entry* entry) {
  for (Holding* holding : {&tenants_.at(key.tenant).holding, &total_}) {
    --holding->running;
    holding->recording -= entry->bytes;
  }
  entry->bytes = 0;
}

void IdempotencyStore::ForgetExpired(absl::Time now) {
  for (auto next = tenants_.begin(); next != tenants_.end();) {
    const auto tenant = next++;
    std::list<IdempotencyKey>& answered = tenant->second.answered;
    while (!answered.empty() && entries_.at(answered.front()).expiry <= now) {
      ForgetOldest(&tenant->second);
    }
    DropIfEmpty(tenant);
  }
}

IdempotencyStore::Tenants::iterator IdempotencyStore::WithMost(Amount amount) {
  auto most = tenants_.end();
  for (auto tenant = tenants_.begin(); tenant != tenants_.end(); ++tenant) {
    if (!tenant->second.answered.empty() &&
        (most == tenants_.end() ||
         (tenant->second.holding.*amount)() > (most->second.holding.*amount)())) {
      most = tenant;
    }
  }
  return most;
}

void IdempotencyStore::ForgetOldest(Tenant* tenant) {
  const auto entry = entries_.find(tenant->answered.front());
  for (Holding* holding : {&tenant->holding, &total_}) {
    --holding->answered;
    holding->kept -= entry->second.bytes;
  }
  entries_.erase(entry);
  tenant->answered.pop_front();
}

void IdempotencyStore::DropIfEmpty(Tenants::iterator tenant) {
  if (tenant->second.holding.keys() == 0) {
    tenants_.erase(tenant);
  }
}

}  // namespace tessera::coordinator
