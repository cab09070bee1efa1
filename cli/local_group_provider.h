// LocalGroupProvider: groups whose ranks are threads of this process. Forming one again
// after a fault builds new communicators, caches and runners over the same mapped weights
// and tables.
#ifndef TESSERA_CLI_LOCAL_GROUP_PROVIDER_H_
#define TESSERA_CLI_LOCAL_GROUP_PROVIDER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "common/clock.h"
#include "coordinator/service/rank_group.h"

namespace tessera::cli {

// As GroupProvider says.
class LocalGroupProvider final : public coordinator::GroupProvider {
 public:
  // `model` and `clock` must outlive it and the groups that it formed.
  LocalGroupProvider(const LoadedModel& model, const GroupShape& shape,
                     const RankOptions& options, EngramSourceFactory engram,
                     Clock* clock);

  absl::StatusOr<coordinator::RankExecutors> Form(uint64_t epoch) override;
  void OnGroupFailed(uint64_t epoch, const absl::Status& reason) override;

 private:
  const LoadedModel& model_;
  const GroupShape shape_;
  const RankOptions options_;
  const EngramSourceFactory engram_;
  Clock* const clock_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_LOCAL_GROUP_PROVIDER_H_
