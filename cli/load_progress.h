// Brings mapped weights into memory before the first request, and shows how far it is: a
// bar on a terminal, a line every other second elsewhere.
#ifndef TESSERA_CLI_LOAD_PROGRESS_H_
#define TESSERA_CLI_LOAD_PROGRESS_H_

#include <optional>

#include "absl/status/status.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "common/clock.h"

namespace tessera::cli {

// Touches every page of what is held once, with several threads, and logs bytes and rate:
// of one rank of a group, or of all (nullopt), whose ranks share a page that each of them
// holds. Engram tables are left out: they are packed, not read in place; so are dummy
// weights, which are made in memory. Blocks for as long as the disk takes. Errors of
// LoadWeights. `quiet`: without a bar.
absl::Status ReadWeights(const LoadedModel& model, const GroupShape& shape,
                         std::optional<int> rank, bool quiet, Clock* clock);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_LOAD_PROGRESS_H_
