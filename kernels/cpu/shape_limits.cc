#include <algorithm>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// `needed` of something that the ops have `available` of.
absl::Status CheckFits(std::string_view what, int64_t needed, int64_t available) {
  if (needed <= available) {
    return absl::OkStatus();
  }
  return InvalidArgumentF("cpu backend: the model needs {} {}, expected at most {}",
                          needed, what, available);
}

absl::Status CheckLatentAttention(const ModelShapes& shapes) {
  TESSERA_RETURN_IF_ERROR(
      CheckFits("rows selected by index_topk", shapes.mla_selected, kMaxTopk));
  TESSERA_RETURN_IF_ERROR(CheckFits("scratch floats for the rows of a head",
                                    16 * shapes.head_rows, kScratchFloats));
  const int64_t width = shapes.latent_dim + shapes.rope_dim;
  return CheckFits("scratch floats for the latents and scores of a tile of heads",
                   std::max(kAttentionHeads * (width + kAttentionRows),
                            kAttentionHeads * (width + 32) + kRoundedAttentionScratch),
                   kScratchFloats);
}

absl::Status CheckIndexer(const ModelShapes& shapes) {
  TESSERA_RETURN_IF_ERROR(
      CheckFits("entries selected by index_topk", shapes.index_topk, kMaxTopk));
  TESSERA_RETURN_IF_ERROR(
      CheckFits("candidate blocks", shapes.candidate_blocks, kMaxTopk));
  TESSERA_RETURN_IF_ERROR(CheckFits("entries in a candidate block",
                                    shapes.candidate_block_size, kKeysPerChunk));
  TESSERA_RETURN_IF_ERROR(CheckFits("floats for a chunk of index keys",
                                    kKeysPerChunk * shapes.index_dim, kUnpackedFloats));
  return CheckFits(
      "scratch floats for index heads",
      shapes.index_heads * (shapes.index_dim + 16) + 4 * (shapes.index_heads + 4),
      kScratchFloats);
}

}  // namespace

absl::Status CheckShapes(const ModelShapes& shapes) {
  // A cut contraction pads each of its leaves to the lanes, 8 bits to whole blocks.
  TESSERA_RETURN_IF_ERROR(CheckFits("values in the longest row",
                                    shapes.row + kInt8BlockValues, kScratchFloats));
  if (shapes.latent_dim > 0) {
    TESSERA_RETURN_IF_ERROR(CheckLatentAttention(shapes));
  }
  if (shapes.shared_kv_dim > 0) {
    TESSERA_RETURN_IF_ERROR(CheckFits(
        "scratch floats for a tile of heads over shared rows",
        kSharedKvHeads * (shapes.shared_kv_dim + kSharedKvRowsPerPass + kRowPadding),
        kScratchFloats));
  }
  TESSERA_RETURN_IF_ERROR(CheckIndexer(shapes));
  TESSERA_RETURN_IF_ERROR(
      CheckFits("tokens in a compressed entry", shapes.entry_ratio, kMaxTopk));
  TESSERA_RETURN_IF_ERROR(CheckFits("experts", shapes.num_experts, kScratchFloats));
  return CheckFits("expert groups", shapes.num_expert_groups, kMaxGroups);
}

}  // namespace tessera::kernels::cpu
