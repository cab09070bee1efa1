#include "engram_store/table/token_map.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/hashing/token_compression.h"
#include "model/formats/dtype.h"
#include "model/tensors/checkpoint.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::engram_store {
namespace {

constexpr const char* kTensor = "engram.compressed_ids";
constexpr const char* kFile = "compressed_ids.safetensors";

absl::StatusOr<std::vector<int32_t>> Ids(const model::TensorRef& map,
                                         int64_t vocab_size) {
  if (map.dtype != model::DType::kI32 || map.shape.size() != 1 ||
      map.shape.front() > vocab_size) {
    return DataLossF("{}: found {} of {} elements, expected I32 [{}] or fewer", kTensor,
                     model::DTypeName(map.dtype), map.num_elements(), vocab_size);
  }
  // Tensors of a file need not be aligned.
  std::vector<int32_t> ids(map.data.size() / sizeof(int32_t));
  if (!ids.empty()) {
    std::memcpy(ids.data(), map.data.data(), ids.size() * sizeof(int32_t));
  }
  return ids;
}

absl::StatusOr<std::vector<int32_t>> ReadMapFile(const std::string& path,
                                                 int64_t vocab_size) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<model::Checkpoint> file,
                           model::Checkpoint::OpenFile(path));
  if (file->names().size() != 1) {
    return DataLossF("{}: holds {} tensors, expected {} alone", path,
                     file->names().size(), kTensor);
  }
  TESSERA_ASSIGN_OR_RETURN(const model::TensorRef map, file->Find(kTensor));
  return Ids(map, vocab_size);
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> LoadTokenMap(const model::ModelConfig& config,
                                                  const model::Checkpoint& checkpoint,
                                                  const std::string& directory) {
  const absl::StatusOr<model::TensorRef> tensor = checkpoint.Find(kTensor);
  if (tensor.ok()) {
    return Ids(*tensor, config.vocab_size);
  }
  if (config.names == model::TensorNames::kHuggingFace) {
    return tensor.status();
  }
  const std::string path = fmt::format("{}/{}", directory, kFile);
  std::error_code ignored;  // A file that cannot be asked about counts as absent.
  if (std::filesystem::exists(path, ignored)) {
    absl::StatusOr<std::vector<int32_t>> map = ReadMapFile(path, config.vocab_size);
    return map.ok() ? std::move(map) : WithContext(map.status(), path);
  }
  const absl::StatusOr<std::unique_ptr<model::Tokenizer>> tokenizer =
      model::Tokenizer::Load(directory);
  if (absl::IsNotFound(tokenizer.status())) {
    return StatusF(absl::StatusCode::kNotFound,
                   "{} has neither {} nor a tokenizer to make Engram's token map from",
                   directory, kFile);
  }
  TESSERA_RETURN_IF_ERROR(tokenizer.status());
  return CompressTokenIds(**tokenizer);
}

}  // namespace tessera::engram_store
