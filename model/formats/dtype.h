// DType: the storage types of checkpoints and activations, and their sizes. Names are
// those of the safetensors header where it has one. How values are encoded:
// number_formats.h.
#ifndef TESSERA_MODEL_FORMATS_DTYPE_H_
#define TESSERA_MODEL_FORMATS_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace tessera::model {

enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,  // e4m3fn: bias 7, largest 448, no infinity
  kF8E8M0,  // a power of two: 2^(byte - 127); 255 is NaN
  kFp4,  // two e2m1 codes in a byte, low nibble = even index; safetensors stores it as I8
  kI8,
  kU8,
  kI32,
  kI64,
  kBool,
};

// Bits of one element: 4 for kFp4.
size_t DTypeBits(DType dtype);

// Bytes of `count` consecutive elements; kFp4 needs an even count.
size_t DTypeBytes(DType dtype, size_t count);

// "F32", "BF16", "F8_E4M3"…; "FP4" for kFp4.
std::string_view DTypeName(DType dtype);

// The inverse for names that occur in safetensors headers; nullopt for any other.
std::optional<DType> DTypeFromName(std::string_view name);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_FORMATS_DTYPE_H_
