// Brings mapped weights into memory before the first request, and shows how far it is: a
// bar on a terminal, a line every other second elsewhere.
#ifndef TESSERA_CLI_LOAD_PROGRESS_H_
#define TESSERA_CLI_LOAD_PROGRESS_H_

#include "common/clock.h"
#include "model/tensors/checkpoint.h"

namespace tessera::cli {

// Touches every page of the checkpoint's tensors once. Engram tables are left out: they
// are packed, not read in place. Blocks for as long as the disk takes.
void ReadWeights(const model::Checkpoint& checkpoint, Clock* clock);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_LOAD_PROGRESS_H_
