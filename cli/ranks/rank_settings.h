// RankSettings: what the processes of one group have to be started alike with, beside the
// build, the model digest and the arithmetic: whatever changes bits, or where things lie
// in memory. A worker registers with its own, the coordinator expects its own.
#ifndef TESSERA_CLI_RANKS_RANK_SETTINGS_H_
#define TESSERA_CLI_RANKS_RANK_SETTINGS_H_

#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "proto/cluster_member.h"

namespace tessera::cli {

// Named as the flags that set them. Of the files that the model digest does not read:
// Engram's token map whole, and of the weights a sample of a few tens of KB, which other
// weights of the same shapes do not have. Left out is what may differ between machines:
// threads, instruction sets, timeouts, addresses.
std::vector<proto::MemberSetting> RankSettingsOf(const LoadedModel& model,
                                                 const RankOptions& options,
                                                 const GroupShape& shape);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_RANKS_RANK_SETTINGS_H_
