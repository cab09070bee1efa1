// The safetensors container: an 8-byte little-endian header length, a JSON header, then
// the tensors' bytes one after the other.
//
//   [0, 8)          n
//   [8, 8 + n)      {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
//   ...,
//                    "__metadata__": {"key": "text"}}, padded with spaces
//   [8 + n, end)    data; offsets count from here, without gaps or overlaps up to the
//   very end
//
// Everything that a header says is checked here against the size of the file, before
// anything is allocated by it or read through it. It opens no file: checkpoint.h does.
#ifndef TESSERA_MODEL_TENSORS_SAFETENSORS_HEADER_H_
#define TESSERA_MODEL_TENSORS_SAFETENSORS_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/formats/dtype.h"

namespace tessera::model {

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr size_t kMaxTensorRank = 8;
inline constexpr size_t kMaxTensorNameBytes = 1024;

// One tensor. `begin` and `end` count from the start of the data.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// A checked file; `header` and `data` point into the bytes that were parsed.
struct SafetensorsLayout {
  std::vector<SafetensorsEntry> entries;  // in the order of their bytes
  std::string_view header;
  std::span<const std::byte> data;
};

// kDataLoss, naming the tensor: a header that is too long, not JSON, of another
// structure, with duplicate names, unknown dtypes, shapes that do not give the bytes,
// gaps, overlaps, or a data part that is shorter or longer than the tensors.
absl::StatusOr<SafetensorsLayout> ParseSafetensors(std::span<const std::byte> file);

// "[2, 3]", for messages.
std::string FormatShape(std::span<const int64_t> shape);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TENSORS_SAFETENSORS_HEADER_H_
