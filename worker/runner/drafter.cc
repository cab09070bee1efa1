#include "worker/runner/drafter.h"

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "common/status.h"
#include "model/config/model_config.h"
#include "proto/step_plan.h"
#include "worker/runner/dspark_drafter.h"
#include "worker/runner/mtp_drafter.h"

namespace tessera::worker {

absl::StatusOr<std::unique_ptr<Drafter>> CreateDrafter(const model::ModelConfig& config,
                                                       const DrafterOptions& options,
                                                       const DrafterParts& parts) {
  if (options.num_drafts < 1 ||
      options.num_drafts > static_cast<int64_t>(proto::kMaxDrafts)) {
    return InvalidArgumentF("{} drafts a step, expected 1 to {}", options.num_drafts,
                            proto::kMaxDrafts);
  }
  switch (config.draft) {
    case model::DraftKind::kNone:
      return InvalidArgumentF("the model has no draft layer");
    case model::DraftKind::kMtpStreams:
    case model::DraftKind::kMtpNormed:
    case model::DraftKind::kMtpStreamsSplit:
      return MtpDrafter::Create(config, options, parts);
    case model::DraftKind::kDspark:
      return DsparkDrafter::Create(config, options, parts);
  }
  return absl::UnimplementedError("no drafter for this draft kind");
}

}  // namespace tessera::worker
