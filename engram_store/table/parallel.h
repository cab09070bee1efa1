// ParallelFor: a bounded fork-join for work at load time (packing, checksums). Nothing on
// a request's way uses it.
#ifndef TESSERA_ENGRAM_STORE_TABLE_PARALLEL_H_
#define TESSERA_ENGRAM_STORE_TABLE_PARALLEL_H_

#include <cstddef>
#include <functional>

#include "absl/status/status.h"

namespace tessera::engram_store {

// Calls `work(i)` for i in [0, count) on up to `num_threads` threads, the caller's
// included, and returns once all calls did. The result is the failed status of the
// smallest i, so that it does not depend on timing; every i is called. `work` must be
// thread-safe.
absl::Status ParallelFor(size_t count, int num_threads,
                         const std::function<absl::Status(size_t)>& work);

// Threads worth using for load-time work: the CPUs of this machine, at most 16.
int DefaultLoadThreads();

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_PARALLEL_H_
