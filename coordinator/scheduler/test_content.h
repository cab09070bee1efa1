// Content: tokens with the keys under which a block manager finds them, for the tests of
// this folder. Nothing that ships includes this.
#ifndef TESSERA_COORDINATOR_SCHEDULER_TEST_CONTENT_H_
#define TESSERA_COORDINATOR_SCHEDULER_TEST_CONTENT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/scheduler/block_manager.h"
#include "coordinator/scheduler/prefix_hash.h"

namespace tessera::testing {

inline constexpr int64_t kBlockSize = 4;

// Keys of few `key_bits` collide. A query views the content, which must outlive it.
struct Content {
  Content(std::string tenant_in, std::vector<int32_t> tokens_in, int key_bits = 128)
      : tenant(std::move(tenant_in)), tokens(std::move(tokens_in)) {
    const coordinator::PrefixHash hash({7, 9}, key_bits);
    hash.ExtendAll(hash.Root("model", tenant), tokens, kBlockSize, &keys);
  }

  coordinator::PrefixQuery query() const {
    return {.tenant = tenant,
            .tokens = tokens,
            .keys = keys,
            .max_blocks = static_cast<int64_t>(keys.size())};
  }

  std::string tenant;
  std::vector<int32_t> tokens;
  std::vector<coordinator::PrefixKey> keys;
};

// `count` blocks of tokens that begin with `first`.
inline Content Blocks(std::string tenant, int32_t first, int64_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count * kBlockSize));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = first + static_cast<int32_t>(i);
  }
  return {std::move(tenant), std::move(tokens)};
}

}  // namespace tessera::testing

#endif  // TESSERA_COORDINATOR_SCHEDULER_TEST_CONTENT_H_
