#include "coordinator/api/api_context.h"

#include <algorithm>

#include "fmt/format.h"

#include "common/counter_rng.h"

namespace tessera::coordinator {
namespace {

// Streams of the generator: ids and seeds never share a draw.
constexpr uint64_t kIdStream = 1;
constexpr uint64_t kSeedStream = 2;

}  // namespace

std::string RequestIds::NextId(std::string_view prefix) {
  const auto words = CounterRng(seed_, kIdStream).Words(next_id_.fetch_add(1));
  return fmt::format("{}{:08x}{:08x}{:08x}{:08x}", prefix, words[0], words[1], words[2],
                     words[3]);
}

uint64_t RequestIds::NextSeed() {
  const auto words = CounterRng(seed_, kSeedStream).Words(next_seed_.fetch_add(1));
  return (uint64_t{words[0]} << 32) | words[1];
}

bool ApiContext::ServesModel(std::string_view name) const {
  return std::find(options.model_names.begin(), options.model_names.end(), name) !=
         options.model_names.end();
}

}  // namespace tessera::coordinator
