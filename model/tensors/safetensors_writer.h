// SafetensorsWriter: collects tensors in memory and writes them as one safetensors file.
// For what `tessera trace` dumps and for checkpoints that tests make; it is not meant for
// large models, since it holds every byte until Write.
#ifndef TESSERA_MODEL_TENSORS_SAFETENSORS_WRITER_H_
#define TESSERA_MODEL_TENSORS_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "model/formats/dtype.h"

namespace tessera::model {

// Not thread-safe. The file depends on the tensors alone, not on the order in which they
// were added: wide elements first so that every tensor is aligned, names in order within
// a width.
class SafetensorsWriter {
 public:
  // Copies the bytes. kInvalidArgument: a name that is empty, too long, taken or
  // "__metadata__", a dtype without a name in the format (kFp4 is stored as kI8), more
  // than 8 dimensions, a negative one, or bytes that differ from shape x dtype.
  absl::Status Add(const std::string& name, DType dtype, std::vector<int64_t> shape,
                   std::span<const std::byte> bytes);

  // The same for values in memory.
  absl::Status AddValues(const std::string& name, std::vector<int64_t> shape,
                         std::span<const float> values);
  absl::Status AddValues(const std::string& name, std::vector<int64_t> shape,
                         std::span<const double> values);
  absl::Status AddValues(const std::string& name, std::vector<int64_t> shape,
                         std::span<const int32_t> values);
  absl::Status AddValues(const std::string& name, std::vector<int64_t> shape,
                         std::span<const int64_t> values);

  // Text that readers ignore, under "__metadata__". A key that is there is replaced.
  void SetMetadata(const std::string& key, const std::string& value);

  size_t num_tensors() const { return tensors_.size(); }

  // The whole file as bytes.
  std::string Serialize() const;

  // Writes PATH through PATH.partial and a rename, so that PATH never holds half a file.
  // kUnavailable with the reason of the system if it cannot be written.
  absl::Status Write(const std::string& path) const;

 private:
  struct Tensor {
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    std::vector<std::byte> bytes;
  };
  using TensorMap = std::map<std::string, Tensor>;

  std::vector<const TensorMap::value_type*> InFileOrder() const;

  TensorMap tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_SAFETENSORS_WRITER_H_
