#include "cli/ranks/rank_settings.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

#include "fmt/format.h"

#include "engram_store/table/sha256.h"
#include "worker/layers/cache_layout.h"

namespace tessera::cli {
namespace {

// Three pieces of so many tensors at most: some hundred pages to read, whatever the size
// of the model.
constexpr size_t kSampledTensors = 256;
constexpr size_t kPieceBytes = 64;

std::string TokenMapDigest(const LoadedModel& model) {
  if (!model.hash.has_value()) {
    return "none";
  }
  return engram_store::ToHex(
      engram_store::Sha256::Of(std::as_bytes(model.hash->compressed_ids())));
}

// Begin, middle and end of tensors spread over the checkpoint. Made-up weights come from
// a seed, which the model digest covers.
std::string WeightSample(const model::Checkpoint& checkpoint) {
  if (checkpoint.files().empty()) {
    return "made up";
  }
  engram_store::Sha256 digest;
  const std::vector<std::string>& names = checkpoint.names();
  const size_t stride = (names.size() + kSampledTensors - 1) / kSampledTensors;
  for (size_t i = 0; i < names.size(); i += stride) {
    const auto tensor = checkpoint.Find(names[i]);
    if (!tensor.ok()) {
      continue;  // every name is found
    }
    const size_t size = tensor->data.size();
    const size_t piece = std::min(size, kPieceBytes);
    for (const size_t begin : {size_t{0}, (size - piece) / 2, size - piece}) {
      digest.Update(tensor->data.subspan(begin, piece));
    }
  }
  return engram_store::ToHex(digest.Finish());
}

}  // namespace

std::vector<proto::MemberSetting> RankSettingsOf(const LoadedModel& model,
                                                 const RankOptions& options,
                                                 const GroupShape& shape) {
  const worker::RunnerOptions& runner = options.runner;
  const auto number = [](auto value) { return fmt::format("{}", value); };
  const bool packed = runner.kv_cache_dtype == worker::KvCacheDtype::kFp8;
  return {
      {"tensor-parallel-size", number(shape.tp)},
      {"data-parallel-size", number(shape.dp)},
      {"kv-cache-dtype", packed ? "fp8" : "activations"},
      {"block-size", number(runner.block_size)},
      {"num-kv-blocks", number(runner.num_blocks)},
      {"num-tail-blocks", number(runner.num_tail_blocks)},
      {"num-host-blocks", number(runner.num_host_blocks)},
      {"num-host-tail-blocks", number(runner.num_host_tail_blocks)},
      {"num-disk-blocks", number(runner.num_disk_blocks)},
      {"num-disk-tail-blocks", number(runner.num_disk_tail_blocks)},
      {"max-disk-copies", number(runner.max_disk_copies)},
      {"prefill-ranks", number(options.prefill_ranks)},
      {"kv-transfer-mib", number(runner.max_transfers)},
      {"max-model-len", number(runner.max_model_len)},
      {"max-num-seqs", number(runner.max_slots)},
      {"max-num-batched-tokens", number(runner.max_tokens)},
      {"speculative-tokens", number(runner.num_speculative_tokens)},
      {"min-draft-chance", number(runner.min_draft_chance)},
      {"exchange-overlap", runner.exchange_rounds.has_value() ? "auto" : "off"},
      {"placement-version", number(options.placement_version)},
      {"engram-token-map", TokenMapDigest(model)},
      {"weights", WeightSample(*model.checkpoint)},
  };
}

}  // namespace tessera::cli
