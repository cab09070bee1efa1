// Bucket primes: how many rows each column of the Engram tables has. They decide the
// shapes of a checkpoint, which is why they live here; how tokens become row ids is
// engram_store/hashing.
#ifndef TESSERA_MODEL_CONFIG_BUCKET_PRIMES_H_
#define TESSERA_MODEL_CONFIG_BUCKET_PRIMES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

#include "model/config/model_config.h"

namespace tessera::model {

// Exact for every 32-bit number, by trial division: a config needs a few hundred answers.
bool IsPrimeNumber(uint32_t number);

// One list per layer, columns in order (order-major, then head). Columns of one order
// take the consecutive primes from the order's base on; no prime is handed out twice in a
// model, so a later layer with the same base goes on where the earlier one stopped.
// kInvalidArgument: a prime beyond 32 bits, or a layer whose rows (the sum of its primes)
// do not fit 32 bits.
absl::StatusOr<std::vector<std::vector<uint32_t>>> EngramBucketPrimes(
    const EngramConfig& config);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CONFIG_BUCKET_PRIMES_H_
