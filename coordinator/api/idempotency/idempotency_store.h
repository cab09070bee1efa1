// IdempotencyStore: which Idempotency-Keys are in use or were answered lately, and what
// the answers were. Bounded in keys, bytes and time; what does not fit is forgotten, the
// oldest answers first of the tenant that has most of what is short, keys or bytes, so
// that nobody's keys push out another tenant's. Nothing can be forgotten of a request
// that runs: what a tenant's running requests hold is never more than what the running
// ones of all tenants leave free. It knows neither routes nor JSON: RecordingWriter fills
// it, ApiService asks it.
#ifndef TESSERA_COORDINATOR_API_IDEMPOTENCY_IDEMPOTENCY_STORE_H_
#define TESSERA_COORDINATOR_API_IDEMPOTENCY_IDEMPOTENCY_STORE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

struct IdempotencyOptions {
  size_t max_keys = 1024;  // in use or answered, of all tenants; 0: none are taken
  // Of the answers that are kept and of the streams that are being recorded; an answer
  // that is larger than a sixteenth of it is not kept.
  size_t max_bytes = size_t{64} << 20;
  absl::Duration keep = absl::Minutes(10);  // after the answer
  size_t max_waiting = 8;                   // requests that wait for one answer
};

// A key as its tenant chose it.
struct IdempotencyKey {
  std::string tenant;
  std::string text;

  bool operator==(const IdempotencyKey&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const IdempotencyKey& key) {
    return H::combine(std::move(h), key.tenant, key.text);
  }
};

// SHA-256 of what has to be the same under one key.
using RequestDigest = std::array<uint8_t, 32>;
RequestDigest DigestOf(std::string_view path, std::string_view body);

// Never changed once it is kept.
using KeptAnswer = std::shared_ptr<const HttpResponse>;

// Thread-safe. Calls no writer.
class IdempotencyStore {
 public:
  explicit IdempotencyStore(const IdempotencyOptions& options) : options_(options) {}
  IdempotencyStore(const IdempotencyStore&) = delete;
  IdempotencyStore& operator=(const IdempotencyStore&) = delete;

  enum class Verdict {
    kFirst,         // run it, and call End with `serial`
    kAnswered,      // `answer` is the answer
    kWaits,         // the writer gets the answer from whoever calls End, unless it leaves
    kOtherRequest,  // the key belongs to a request that differs
    kBusy,          // as many wait for it as may
    kFull,          // the tenant has as many keys in use as it may have
  };
  struct Admission {
    Verdict verdict = Verdict::kFirst;
    uint64_t serial = 0;  // with kFirst and kWaits
    KeptAnswer answer;
  };
  // `writer` is kept with kWaits alone.
  Admission Admit(const IdempotencyKey& key, const RequestDigest& digest,
                  const std::shared_ptr<ResponseWriter>& writer, absl::Time now);

  // The client of a request that waits left: its place is free. Ignores a `serial` that
  // waits no more.
  void Leave(const IdempotencyKey& key, uint64_t serial);

  // The first request's recording holds `bytes` in all from now on. False: there is no
  // room for them, or the serial is no longer known, and it must hold nothing.
  bool HoldRecording(const IdempotencyKey& key, uint64_t serial, size_t bytes);

  // The request that was admitted first is over. A null `answer`: nothing to keep, the
  // key is free again. Returns who waits for it. Ignores a serial that is no longer
  // known.
  std::vector<std::shared_ptr<ResponseWriter>> End(const IdempotencyKey& key,
                                                   uint64_t serial, KeptAnswer answer,
                                                   absl::Time now);

  // Forgets everything, those who wait as well: they are answered no more.
  void Clear();

  // The largest body that End can keep.
  size_t max_answer_bytes() const { return options_.max_bytes / 16; }
  const IdempotencyOptions& options() const { return options_; }

 private:
  struct Waiting {
    uint64_t serial = 0;
    std::shared_ptr<ResponseWriter> writer;
  };
  struct Entry {
    uint64_t serial = 0;
    RequestDigest digest{};
    std::vector<Waiting> waiting;
    KeptAnswer answer;  // null while the request runs
    absl::Time expiry;
    size_t bytes = 0;  // of the answer, or of its recording
  };
  // What requests hold, of one tenant or of all.
  struct Holding {
    size_t running = 0;    // keys in use
    size_t recording = 0;  // bytes of these
    size_t answered = 0;   // keys
    size_t kept = 0;       // bytes of these

    size_t keys() const { return running + answered; }
    size_t bytes() const { return recording + kept; }
  };
  struct Tenant {
    Holding holding;
    std::list<IdempotencyKey> answered;  // oldest first
  };
  using Tenants = absl::flat_hash_map<std::string, Tenant>;
  using Amount = size_t (Holding::*)() const;

  // Takes the entry, which has no answer yet, out of what its tenant's requests hold.
  void StopRunning(const IdempotencyKey& key, Entry* entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetExpired(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of those with an answer the tenant that holds most; end() if nobody has one.
  Tenants::iterator WithMost(Amount amount) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Forgets the oldest answer of `tenant`, which has one.
  void ForgetOldest(Tenant* tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropIfEmpty(Tenants::iterator tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const IdempotencyOptions options_;
  Mutex mutex_;
  uint64_t next_serial_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::flat_hash_map<IdempotencyKey, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  Holding total_ ABSL_GUARDED_BY(mutex_);
  Tenants tenants_ ABSL_GUARDED_BY(mutex_);  // without those that have no key
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_IDEMPOTENCY_IDEMPOTENCY_STORE_H_
