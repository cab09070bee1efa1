// AdminState: what /admin/v1/state and its events say, as JSON: health, group, ranks,
// members, KV, queue, Engram, activity, errors and configuration. No text and no token of
// a request, no key.
#ifndef TESSERA_COORDINATOR_API_ADMIN_ADMIN_STATE_H_
#define TESSERA_COORDINATOR_API_ADMIN_ADMIN_STATE_H_

#include <cstdint>
#include <string>

#include "common/clock.h"
#include "coordinator/console/activity_recorder.h"
#include "coordinator/requests/engine.h"
#include "coordinator/requests/engine_operations.h"

namespace tessera::coordinator {

// What stays as it is while a server runs.
struct ServerFacts {
  std::string model = {};
  std::string version = {};
  std::string fingerprint = {};
  int64_t tp = 1;
  int64_t dp = 1;
  int64_t block_size = 0;
  int64_t max_model_len = 0;
  int64_t max_num_seqs = 0;  // per DP rank
  int64_t num_speculative_tokens = 0;
  bool has_engram = false;
  std::string kv_cache_dtype = {};
  std::string backend = {};
  std::string config = {};  // YAML as --print-config gives it, secrets masked
};

// Thread-safe. What it borrows must outlive it.
class AdminState {
 public:
  AdminState(ServerFacts facts, Engine* engine, EngineOperations* operations,
             ActivityRecorder* activity, Clock* clock);

  // Everything. An object in one line.
  std::string Whole();

  // What changes from second to second: without the histories and the configuration.
  std::string Update();

 private:
  std::string Write(bool whole);

  const ServerFacts facts_;
  Engine* const engine_;
  EngineOperations* const operations_;
  ActivityRecorder* const activity_;
  Clock* const clock_;
  const absl::Time start_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ADMIN_ADMIN_STATE_H_
