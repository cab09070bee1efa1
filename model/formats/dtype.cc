#include "model/formats/dtype.h"

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

#include "common/check.h"

namespace tessera::model {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  size_t bits;
};

constexpr std::array<Entry, 12> kEntries = {{
    {DType::kF64, "F64", 64},
    {DType::kF32, "F32", 32},
    {DType::kF16, "F16", 16},
    {DType::kBF16, "BF16", 16},
    {DType::kF8E4M3, "F8_E4M3", 8},
    {DType::kF8E8M0, "F8_E8M0", 8},
    {DType::kFp4, "FP4", 4},
    {DType::kI8, "I8", 8},
    {DType::kU8, "U8", 8},
    {DType::kI32, "I32", 32},
    {DType::kI64, "I64", 64},
    {DType::kBool, "BOOL", 8},
}};

}  // namespace

size_t DTypeBits(DType dtype) { return kEntries[static_cast<size_t>(dtype)].bits; }

size_t DTypeBytes(DType dtype, size_t count) {
  TESSERA_CHECK(dtype != DType::kFp4 || count % 2 == 0);
  return count * DTypeBits(dtype) / 8;
}

std::string_view DTypeName(DType dtype) {
  return kEntries[static_cast<size_t>(dtype)].name;
}

std::optional<DType> DTypeFromName(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name == name && entry.dtype != DType::kFp4) {
      return entry.dtype;
    }
  }
  return std::nullopt;
}

}  // namespace tessera::model
