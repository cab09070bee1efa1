// The tensor inventory of a model: every tensor that its checkpoint must hold, with name,
// shape and dtype, derived from the config alone; and the check that a checkpoint holds
// exactly these. Loaders take names and shapes from the config in the same way, so after
// the check they cannot miss one.
#ifndef TESSERA_MODEL_TENSORS_TENSOR_INVENTORY_H_
#define TESSERA_MODEL_TENSORS_TENSOR_INVENTORY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/tensors/checkpoint.h"

namespace tessera::model {

// What a tensor is for.
enum class TensorKind {
  kEmbedding,
  kHead,
  kNorm,             // RMS norms outside attention
  kAttention,        // projections of attention and their norms
  kCompressor,       // what makes an entry of several tokens
  kIndexer,          // the indexer, its compressor too
  kHyperConnection,  // mHC mixes
  kDenseMlp,
  kRouter,
  kSharedExpert,
  kRoutedExpert,
  kEngramTable,   // hashed rows
  kEngramFusion,  // what turns rows into a change of the streams
  kEngramMap,     // token id -> compressed id
  kDraft,         // what only a draft layer has
  kVision,        // the vision tower, which is not run
};
inline constexpr int kNumTensorKinds = 16;

// How the values of a tensor are stored; scales have the format of what they scale.
enum class StorageFormat {
  kF32,
  kBf16,
  kFp8Blocks,  // F8_E4M3 with F32 or E8M0 scales per 128 x 128 or 32 x 32
  kMxfp4,      // two e2m1 codes in an I8, E8M0 scales per row and 32 columns
  kFp8Rows,    // F8_E4M3 with E8M0 scales per row and 32 columns
  kI32,
  kI64,
};
inline constexpr int kNumStorageFormats = 7;

// "routed expert", "mxfp4"…
std::string_view TensorKindName(TensorKind kind);
std::string_view StorageFormatName(StorageFormat format);

struct ExpectedTensor {
  std::string name;
  TensorKind kind = TensorKind::kNorm;
  StorageFormat format = StorageFormat::kBf16;
  int64_t layer = -1;  // -1 for tensors outside layers; num_layers.. for draft layers
  DType dtype = DType::kBF16;
  std::vector<int64_t> shape;
  // Values of the model that it holds: 0 for scales, the Engram map and tables of
  // experts, twice the elements where two codes share a byte.
  int64_t num_parameters = 0;
  // The first dimension is a limit rather than a size.
  bool rows_are_limit = false;
  // The checkpoint may have it as BF16 instead.
  bool allows_bf16 = false;
  // False: nobody reads it, and its type and shape may be others.
  bool is_loaded = true;

  // As in the shape; a limit counts in full.
  int64_t num_bytes() const;
};

// The hashed rows of an Engram layer.
std::string EngramTableName(const ModelConfig& config, int64_t layer);
// The E8M0 scales of "….weight": "….scale".
std::string ScaleName(std::string_view weight_name);

// Engram rows are stored as BF16 or as FP8; config.json does not say which, the
// checkpoint does.
enum class EngramRowFormat { kBf16, kFp8 };

// What a checkpoint of this config most likely has: FP8 rows where other weights are FP8.
EngramRowFormat DefaultEngramRowFormat(const ModelConfig& config);
// What this checkpoint has, from its first table. BF16 where there is none.
EngramRowFormat FindEngramRowFormat(const ModelConfig& config,
                                    const Checkpoint& checkpoint);

// All tensors, layer by layer. `config` must come from ParseModelConfig.
std::vector<ExpectedTensor> TensorInventory(const ModelConfig& config,
                                            EngramRowFormat engram_rows);

// True for tensors that a checkpoint may hold without need and nobody reads: a draft
// layer's own copies of embedding and head, where the family does not demand them.
bool IsSkippedTensor(const ModelConfig& config, std::string_view name);

// kInvalidArgument with the tensor, what was found and what was expected: a tensor that
// is missing, has another shape or dtype, or is not of this model. Linear in the number
// of tensors; reads no weights.
absl::Status ValidateCheckpoint(const ModelConfig& config, const Checkpoint& checkpoint);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_TENSOR_INVENTORY_H_
