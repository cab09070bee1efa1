#include "model/tensors/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

#include "common/status.h"
#include "model/tensors/safetensors_header.h"

namespace tessera::model {
namespace {

absl::Status WriteError(const std::string& path, int error) {
  return UnavailableF("cannot write {}: {}", path,
                      std::generic_category().message(error));
}

}  // namespace

absl::Status SafetensorsWriter::Add(const std::string& name, DType dtype,
                                    std::vector<int64_t> shape,
                                    std::span<const std::byte> bytes) {
  if (name.empty() || name.size() > kMaxTensorNameBytes || name == "__metadata__") {
    return InvalidArgumentF("\"{}\" cannot name a tensor", name);
  }
  if (!DTypeFromName(DTypeName(dtype)).has_value()) {
    return InvalidArgumentF("tensor {}: {} is not a dtype of the format", name,
                            DTypeName(dtype));
  }
  if (shape.size() > kMaxTensorRank) {
    return InvalidArgumentF("tensor {}: {} dimensions, expected at most {}", name,
                            shape.size(), kMaxTensorRank);
  }
  int64_t expected = static_cast<int64_t>(DTypeBits(dtype) / 8);
  for (const int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(expected, dimension, &expected)) {
      return InvalidArgumentF("tensor {}: bad shape {}", name, FormatShape(shape));
    }
  }
  if (bytes.size() != static_cast<uint64_t>(expected)) {
    return InvalidArgumentF("tensor {}: {} bytes, expected {} for {} {}", name,
                            bytes.size(), expected, DTypeName(dtype), FormatShape(shape));
  }
  Tensor tensor{dtype, std::move(shape), {bytes.begin(), bytes.end()}};
  if (!tensors_.try_emplace(name, std::move(tensor)).second) {
    return InvalidArgumentF("tensor {} was added before", name);
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::AddValues(const std::string& name,
                                          std::vector<int64_t> shape,
                                          std::span<const float> values) {
  return Add(name, DType::kF32, std::move(shape), std::as_bytes(values));
}

absl::Status SafetensorsWriter::AddValues(const std::string& name,
                                          std::vector<int64_t> shape,
                                          std::span<const double> values) {
  return Add(name, DType::kF64, std::move(shape), std::as_bytes(values));
}

absl::Status SafetensorsWriter::AddValues(const std::string& name,
                                          std::vector<int64_t> shape,
                                          std::span<const int32_t> values) {
  return Add(name, DType::kI32, std::move(shape), std::as_bytes(values));
}

absl::Status SafetensorsWriter::AddValues(const std::string& name,
                                          std::vector<int64_t> shape,
                                          std::span<const int64_t> values) {
  return Add(name, DType::kI64, std::move(shape), std::as_bytes(values));
}

void SafetensorsWriter::SetMetadata(const std::string& key, const std::string& value) {
  metadata_[key] = value;
}

std::vector<const SafetensorsWriter::TensorMap::value_type*>
SafetensorsWriter::InFileOrder() const {
  std::vector<const TensorMap::value_type*> order;
  order.reserve(tensors_.size());
  for (const TensorMap::value_type& tensor : tensors_) {
    order.push_back(&tensor);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return DTypeBits(a->second.dtype) > DTypeBits(b->second.dtype);
  });
  return order;
}

std::string SafetensorsWriter::Serialize() const {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata_.empty()) {
    header["__metadata__"] = metadata_;
  }
  const auto order = InFileOrder();
  uint64_t position = 0;
  for (const auto* tensor : order) {
    const uint64_t end = position + tensor->second.bytes.size();
    header[tensor->first] = {{"dtype", std::string(DTypeName(tensor->second.dtype))},
                             {"shape", tensor->second.shape},
                             {"data_offsets", {position, end}}};
    position = end;
  }
  // Bytes that are not UTF-8 become U+FFFD rather than an exception.
  std::string text =
      header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t header_bytes = text.size();
  std::string file(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
  file.reserve(file.size() + text.size() + position);
  file += text;
  for (const auto* tensor : order) {
    const std::vector<std::byte>& bytes = tensor->second.bytes;
    file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return file;
}

absl::Status SafetensorsWriter::Write(const std::string& path) const {
  const std::string partial = path + ".partial";
  errno = 0;
  std::ofstream out(partial, std::ios::binary | std::ios::trunc);
  const std::string file = Serialize();
  out.write(file.data(), static_cast<std::streamsize>(file.size()));
  out.close();
  if (!out) {
    const absl::Status status = WriteError(partial, errno);
    std::remove(partial.c_str());
    return status;
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    const absl::Status status = WriteError(path, errno);
    std::remove(partial.c_str());
    return status;
  }
  return absl::OkStatus();
}

}  // namespace tessera::model
