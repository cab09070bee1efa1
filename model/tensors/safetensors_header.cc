#include "model/tensors/safetensors_header.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::model {
namespace {

// Accepts exactly the structure of a safetensors header, event by event. Nothing but the
// entries is kept, so a hostile header costs no more memory than its own size.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  absl::Status status() const { return status_; }
  std::vector<SafetensorsEntry> TakeEntries() { return std::move(entries_); }

  bool start_object(std::size_t /*elements*/) override;
  bool end_object() override;
  bool key(string_t& key) override;
  bool start_array(std::size_t /*elements*/) override;
  bool end_array() override;
  bool string(string_t& text) override;
  bool number_unsigned(number_unsigned_t number) override;

  bool null() override { return Unexpected("null"); }
  bool boolean(bool /*value*/) override { return Unexpected("a boolean"); }
  bool number_integer(number_integer_t number) override {
    return Fail(fmt::format("{} is negative", number));
  }
  bool number_float(number_float_t /*number*/, const string_t& text) override {
    return Fail(fmt::format("{} is not a 64-bit integer", text.substr(0, 40)));
  }
  bool binary(binary_t& /*bytes*/) override { return Unexpected("binary"); }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    // The library's text may quote the input: only the place is passed on.
    return Fail(fmt::format("the header is not valid json at byte {}", position));
  }

 private:
  enum class Where {
    kOutside,     // before the root object, and after it
    kRoot,        // between tensors
    kTensorName,  // after a tensor's name
    kTensor,      // between the fields of a tensor
    kDType,       // each of the next five: after that key
    kShapeKey,
    kOffsetsKey,
    kShape,  // inside the array
    kOffsets,
    kMetadataKey,  // after "__metadata__"
    kMetadata,     // inside it
    kMetadataText,
  };

  bool Fail(const std::string& what) {
    const bool in_tensor = where_ >= Where::kTensorName && where_ <= Where::kOffsets;
    status_ = in_tensor ? DataLossF("tensor {}: {}", entries_.back().name, what)
                        : DataLossF("{}", what);
    return false;
  }
  bool Unexpected(std::string_view what) {
    return Fail(fmt::format("{} in a place where the format has none", what));
  }
  bool StartEntry(string_t& name);
  bool FieldKey(const string_t& key);

  absl::Status status_;
  Where where_ = Where::kOutside;
  std::vector<SafetensorsEntry> entries_;
  absl::flat_hash_set<std::string> names_;
  bool has_metadata_ = false;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  std::vector<uint64_t> offsets_;
};

bool HeaderReader::start_object(std::size_t /*elements*/) {
  switch (where_) {
    case Where::kOutside:
      where_ = Where::kRoot;
      return true;
    case Where::kTensorName:
      where_ = Where::kTensor;
      return true;
    case Where::kMetadataKey:
      where_ = Where::kMetadata;
      return true;
    default:
      return Unexpected("an object");
  }
}

bool HeaderReader::end_object() {
  if (where_ == Where::kTensor) {
    if (!has_dtype_ || !has_shape_ || offsets_.size() != 2) {
      return Fail("dtype, shape and data_offsets are not all there");
    }
    entries_.back().begin = offsets_[0];
    entries_.back().end = offsets_[1];
  }
  where_ = where_ == Where::kRoot ? Where::kOutside : Where::kRoot;
  return true;
}

bool HeaderReader::key(string_t& key) {
  if (where_ == Where::kRoot) {
    if (key == "__metadata__") {
      where_ = Where::kMetadataKey;
      return !std::exchange(has_metadata_, true) || Fail("__metadata__ occurs twice");
    }
    return StartEntry(key);
  }
  if (where_ == Where::kMetadata) {
    where_ = Where::kMetadataText;
    return true;
  }
  return FieldKey(key);
}

bool HeaderReader::StartEntry(string_t& name) {
  if (name.empty() || name.size() > kMaxTensorNameBytes) {
    return Fail(fmt::format("a tensor name has {} bytes, expected 1 to {}", name.size(),
                            kMaxTensorNameBytes));
  }
  if (!names_.insert(name).second) {
    return Fail(fmt::format("tensor {} occurs twice", name));
  }
  entries_.emplace_back().name = std::move(name);
  has_dtype_ = false;
  has_shape_ = false;
  offsets_.clear();
  where_ = Where::kTensorName;
  return true;
}

bool HeaderReader::FieldKey(const string_t& key) {
  if (key == "dtype") {
    where_ = Where::kDType;
    return !std::exchange(has_dtype_, true) || Fail("dtype occurs twice");
  }
  if (key == "shape") {
    where_ = Where::kShapeKey;
    return !std::exchange(has_shape_, true) || Fail("shape occurs twice");
  }
  if (key == "data_offsets") {
    where_ = Where::kOffsetsKey;
    return offsets_.empty() || Fail("data_offsets occurs twice");
  }
  return Fail("a field other than dtype, shape and data_offsets");
}

bool HeaderReader::start_array(std::size_t /*elements*/) {
  if (where_ == Where::kShapeKey) {
    where_ = Where::kShape;
    return true;
  }
  if (where_ == Where::kOffsetsKey) {
    where_ = Where::kOffsets;
    return true;
  }
  return Unexpected("an array");
}

bool HeaderReader::end_array() {
  if (where_ == Where::kOffsets && offsets_.size() != 2) {
    return Fail(fmt::format("{} data offsets, expected 2", offsets_.size()));
  }
  where_ = Where::kTensor;
  return true;
}

bool HeaderReader::string(string_t& text) {
  if (where_ == Where::kMetadataText) {
    where_ = Where::kMetadata;
    return true;
  }
  if (where_ != Where::kDType) {
    return Unexpected("a string");
  }
  const std::optional<DType> dtype = DTypeFromName(text);
  if (!dtype.has_value()) {
    return Fail(fmt::format("unknown dtype \"{}\"", text.substr(0, 40)));
  }
  entries_.back().dtype = *dtype;
  where_ = Where::kTensor;
  return true;
}

bool HeaderReader::number_unsigned(number_unsigned_t number) {
  if (where_ == Where::kShape) {
    std::vector<int64_t>& shape = entries_.back().shape;
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Fail(fmt::format("dimension {} is over 2^63", number));
    }
    if (shape.size() == kMaxTensorRank) {
      return Fail(fmt::format("more than {} dimensions", kMaxTensorRank));
    }
    shape.push_back(static_cast<int64_t>(number));
    return true;
  }
  if (where_ == Where::kOffsets && offsets_.size() < 2) {
    offsets_.push_back(number);
    return true;
  }
  return where_ == Where::kOffsets ? Fail("more than 2 data offsets")
                                   : Unexpected("a number");
}

// Bytes of shape x dtype; nullopt where a product leaves 63 bits.
std::optional<uint64_t> ByteCount(const SafetensorsEntry& entry) {
  int64_t bytes = static_cast<int64_t>(DTypeBits(entry.dtype) / 8);
  for (const int64_t dimension : entry.shape) {
    if (__builtin_mul_overflow(bytes, dimension, &bytes)) {
      return std::nullopt;
    }
  }
  return static_cast<uint64_t>(bytes);
}

// Sorts the entries by place and checks that they tile [0, data_bytes).
absl::Status CheckPlaces(std::vector<SafetensorsEntry>& entries, uint64_t data_bytes) {
  std::sort(entries.begin(), entries.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  uint64_t position = 0;
  for (const SafetensorsEntry& entry : entries) {
    const std::optional<uint64_t> bytes = ByteCount(entry);
    if (!bytes.has_value()) {
      return DataLossF("tensor {}: shape {} has more bytes than 2^63", entry.name,
                       FormatShape(entry.shape));
    }
    if (entry.begin > entry.end || entry.end - entry.begin != *bytes) {
      return DataLossF("tensor {}: data_offsets [{}, {}], expected {} bytes for {} {}",
                       entry.name, entry.begin, entry.end, *bytes, DTypeName(entry.dtype),
                       FormatShape(entry.shape));
    }
    if (entry.begin != position) {
      return DataLossF("tensor {}: starts at byte {} of the data, expected {} ({})",
                       entry.name, entry.begin, position,
                       entry.begin < position ? "overlap" : "gap");
    }
    if (entry.end > data_bytes) {
      return DataLossF("tensor {}: ends at byte {} of the data, which has {} bytes",
                       entry.name, entry.end, data_bytes);
    }
    position = entry.end;
  }
  if (position != data_bytes) {
    return DataLossF("the data has {} bytes, expected {} after the header", data_bytes,
                     position);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsLayout> ParseSafetensors(std::span<const std::byte> file) {
  constexpr size_t kPrefixBytes = 8;
  if (file.size() < kPrefixBytes) {
    return DataLossF("{} bytes, expected at least the 8 of a header length", file.size());
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), kPrefixBytes);
  const uint64_t limit = std::min<uint64_t>(kMaxSafetensorsHeaderBytes, file.size() - 8);
  if (header_bytes > limit) {
    return DataLossF("a header of {} bytes, expected at most {} (file {}, limit {})",
                     header_bytes, limit, file.size(), kMaxSafetensorsHeaderBytes);
  }
  SafetensorsLayout layout;
  layout.header = {reinterpret_cast<const char*>(file.data()) + kPrefixBytes,
                   header_bytes};
  layout.data = file.subspan(kPrefixBytes + header_bytes);
  if (!layout.header.starts_with('{')) {
    return DataLossF("the header does not start with an object");
  }
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(layout.header.begin(), layout.header.end(), &reader)) {
    return reader.status();
  }
  layout.entries = reader.TakeEntries();
  TESSERA_RETURN_IF_ERROR(CheckPlaces(layout.entries, layout.data.size()));
  return layout;
}

std::string FormatShape(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

}  // namespace tessera::model
