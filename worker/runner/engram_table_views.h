// The tables of engram_store as kernels/ knows them: where their rows lie in this
// process's memory and how an id leads to one.
#ifndef TESSERA_WORKER_RUNNER_ENGRAM_TABLE_VIEWS_H_
#define TESSERA_WORKER_RUNNER_ENGRAM_TABLE_VIEWS_H_

#include <memory>
#include <optional>
#include <span>

#include "engram_store/table/engram_table.h"
#include "kernels/engram_table_view.h"

namespace tessera::worker {

// Of EngramSource::local_shards; nothing of no shards. The view's memory is the shards'.
std::optional<kernels::EngramTableView> ViewOf(
    std::span<const std::shared_ptr<const engram_store::EngramTable>> shards);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_ENGRAM_TABLE_VIEWS_H_
