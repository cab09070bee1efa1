// EngramSources: the tables of one model behind every EngramSource of this machine, and
// one source that a runner keeps while it is changed under it; it counts the time that
// the runner spends in it.
//
// It stands under `tessera bench sources`. Shards serve on loopback inside this process.
#ifndef TESSERA_CLI_BENCH_ENGRAM_SOURCES_H_
#define TESSERA_CLI_BENCH_ENGRAM_SOURCES_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/engram/engram_tables.h"
#include "cli/loaded_model.h"

#include "common/clock.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/service/engram_server.h"

namespace tessera::cli {

// External synchronisation: it is changed between steps.
class SwitchedSource final : public engram_store::EngramSource {
 public:
  // `clock` and the sources must outlive it.
  SwitchedSource(engram_store::EngramSource* source, Clock* clock)
      : source_(source), clock_(clock) {}

  void SwitchTo(engram_store::EngramSource* source) { source_ = source; }
  // Spent in Issue and Wait since the last call: what a step stood still for rows.
  absl::Duration TakeStalledTime();

  std::string_view name() const override { return source_->name(); }
  std::span<const engram_store::TableInfo> tables() const override {
    return source_->tables();
  }
  engram_store::PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                                  std::span<std::byte> destination) override;
  absl::Status Wait(engram_store::PendingRows pending, absl::Time deadline) override;
  engram_store::EngramSourceStats stats() const override { return source_->stats(); }

 private:
  engram_store::EngramSource* source_;
  Clock* const clock_;
  absl::Duration stalled_;
};

struct EngramSourcesOptions {
  std::vector<std::string> names = {"resident", "shm", "remote"};  // and "disk"
  uint32_t num_shards = 2;
  TableOptions tables;  // of "disk"
};

// Owns tables, servers and sources.
class EngramSources {
 public:
  // kInvalidArgument: an unknown name, a model without Engram, disk without a folder;
  // kResourceExhausted: no memory; errors of servers, handshakes and files.
  static absl::StatusOr<std::unique_ptr<EngramSources>> Create(
      const LoadedModel& model, const EngramSourcesOptions& options, Clock* clock);

  // In the order of the names.
  std::span<const std::unique_ptr<engram_store::EngramSource>> sources() const {
    return sources_;
  }

 private:
  EngramSources() = default;

  absl::Status StartShards(const LoadedModel& model, uint32_t num_shards, Clock* clock);

  std::vector<std::unique_ptr<engram_store::EngramServer>> servers_;
  std::vector<std::unique_ptr<engram_store::EngramSource>> sources_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_ENGRAM_SOURCES_H_
