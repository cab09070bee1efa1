// Checkpoint: the tensors of a folder of safetensors files, memory-mapped and read in
// place. One file (model.safetensors) or several with model.safetensors.index.json. Every
// header fact is checked before it is used: sizes, offsets, overlaps, gaps, names,
// dtypes, shapes against byte counts. It knows no model; what must be there is
// tensor_inventory.h; the container format is safetensors_header.h.
#ifndef TESSERA_MODEL_TENSORS_CHECKPOINT_H_
#define TESSERA_MODEL_TENSORS_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/formats/dtype.h"

namespace tessera::model {

// A tensor of an open checkpoint; `data` points into the mapping and lives as long as the
// Checkpoint.
struct TensorRef {
  std::string_view name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;

  int64_t num_elements() const;
};

// Owns the mappings. Immutable after Open; thread-safe. The files must not change while
// it lives.
class Checkpoint {
 public:
  // kNotFound: no safetensors files. kDataLoss: a header or index that lies, with file
  // and tensor. kInvalidArgument: files that cannot be read, or both a single file and an
  // index. `overrides` say what of config.json the model takes otherwise
  // (config_overrides.h): they are part of the digest.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(
      const std::string& directory, std::span<const std::string> overrides = {});

  // One safetensors file by its path, without index or config: goldens and traces. Errors
  // as above.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFile(const std::string& path);

  virtual ~Checkpoint() = default;
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  // kNotFound with the name.
  virtual absl::StatusOr<TensorRef> Find(std::string_view name) const = 0;

  // kNotFound, or kDataLoss where dtype or shape differ: found and expected are in the
  // message.
  absl::StatusOr<TensorRef> Require(std::string_view name, DType dtype,
                                    std::span<const int64_t> shape) const;

  // All names, sorted.
  virtual const std::vector<std::string>& names() const = 0;

  // File names of the shards, sorted; empty where the tensors come from no files.
  virtual std::vector<std::string> files() const { return {}; }

  // Sum of the tensors' bytes.
  virtual uint64_t total_bytes() const = 0;

  // Hex SHA-256 over all headers (names, dtypes, shapes, offsets), the config and what it
  // is overridden by: the model digest of cache keys and of system_fingerprint. It does
  // not read the weights.
  virtual const std::string& digest() const = 0;

 protected:
  Checkpoint() = default;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_CHECKPOINT_H_
