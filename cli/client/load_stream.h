// LoadStream: the body of one request of a load run, and what the chunks of its answer
// say about tokens.
//
// It stands under LoadGenerator and knows the two dialects; it sends and times nothing.
#ifndef TESSERA_CLI_CLIENT_LOAD_STREAM_H_
#define TESSERA_CLI_CLIENT_LOAD_STREAM_H_

#include <cstdint>
#include <optional>
#include <string>

#include "cli/client/load_generator.h"
#include "cli/client/workload.h"
#include "nlohmann/json_fwd.hpp"

namespace tessera::cli {

// Without "stream", which OpenAiClient adds. `extra` wins over the fields of the plan.
nlohmann::json LoadRequestBody(const LoadRunOptions& options, const nlohmann::json& extra,
                               const PlannedRequest& request);

// What a chunk says of the answer's first choice.
struct ChunkContent {
  // Text, reasoning or a tool call; or an empty piece of an unfinished choice, which a
  // server sends when its token is half a character. A chunk with the role alone brings
  // none.
  bool brings_tokens = false;
  bool finishes = false;
  int32_t num_tokens = 0;  // 0: the chunk does not say.
  std::string text;
};

ChunkContent ReadChunk(const nlohmann::json& chunk);

// A count of the chunk's usage, such as completion_tokens.
std::optional<int64_t> UsageCount(const nlohmann::json& chunk, const char* key);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_LOAD_STREAM_H_
