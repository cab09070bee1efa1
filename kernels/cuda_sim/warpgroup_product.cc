#include "kernels/cuda_sim/warpgroup_product.h"

#include <array>
#include <cstring>

#include "fmt/format.h"

#include "kernels/cuda_sim/number_bits.h"
#include "kernels/cuda_sim/tile_map.h"

namespace tessera::kernels::cuda_sim {
namespace {

using cuda::Major;

constexpr uint32_t kPieceBytes = 16;
constexpr uint32_t kLineBytes = 128;      // of a swizzled tile
constexpr uint32_t kSwizzleGroup = 1024;  // eight such lines: where the pattern repeats
constexpr uint32_t kAddressMask = 0x3fff;
constexpr uint32_t kBF16Inputs = kProductBytes / 2;
constexpr uint32_t kLineRows = kLineBytes / 2;  // of a line of BF16, kMN
constexpr uint32_t kPieceRows = kPieceBytes / 2;

std::array<double, 256> MakeCodes() {
  std::array<double, 256> values = {};
  for (uint32_t code = 0; code < values.size(); ++code) {
    values[code] = E4M3Value(code);
  }
  return values;
}

double DecodeBF16(const std::byte* at) {
  uint16_t half = 0;
  std::memcpy(&half, at, sizeof(half));
  const uint32_t bits = uint32_t{half} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// values[input * rows + row].
std::vector<double> ReadMatrix(ProductType type, std::span<const std::byte> shared,
                               const ProductMatrix& matrix) {
  static const std::array<double, 256> kCodes = MakeCodes();
  const uint32_t value_bytes = type == ProductType::kE4M3 ? 1 : 2;
  const uint32_t of_piece = kPieceBytes / value_bytes;
  std::vector<double> values(size_t{matrix.rows} * kProductBytes / value_bytes);
  for (uint32_t piece = 0; piece < matrix.num_pieces(); ++piece) {
    const std::byte* const from = shared.data() + matrix.PieceAddress(piece);
    const uint32_t row = matrix.FirstRowOf(piece);
    for (uint32_t i = 0; i < of_piece; ++i) {
      const double value = type == ProductType::kE4M3
                               ? kCodes[static_cast<uint8_t>(from[i])]
                               : DecodeBF16(from + 2 * i);
      const uint32_t at = matrix.major == Major::kK
                              ? (piece % 2 * of_piece + i) * matrix.rows + row
                              : piece % kBF16Inputs * matrix.rows + row + i;
      values[at] = value;
    }
  }
  return values;
}

}  // namespace

ProductMatrix ProductMatrix::Decode(uint64_t descriptor, Major major, uint32_t rows) {
  const auto field = [descriptor](int begin) {
    return static_cast<uint32_t>(descriptor >> begin & kAddressMask) * kPieceBytes;
  };
  return {.address = field(0),
          .leading_bytes = field(16),
          .stride_bytes = field(32),
          .swizzle = static_cast<uint32_t>(descriptor >> 62),
          .base_offset = static_cast<uint32_t>(descriptor >> 49 & 7U),
          .major = major,
          .rows = rows};
}

std::string ProductMatrix::Problem(uint32_t shared_bytes) const {
  if (swizzle != 1 || base_offset != 0) {
    return fmt::format("swizzle {} with base offset {}, expected 1 (128 bytes) and 0",
                       swizzle, base_offset);
  }
  const bool by_inputs = major == Major::kK;
  if (stride_bytes % kSwizzleGroup != 0 ||
      (by_inputs ? address % kSwizzleGroup > kLineBytes - kProductBytes ||
                       address % kProductBytes != 0
                 : address % kSwizzleGroup != 0)) {
    return fmt::format(
        "address {} and stride {}: tiles begin at multiples of {}, inputs {} bytes on",
        address, stride_bytes, kSwizzleGroup, kProductBytes);
  }
  uint64_t last = 0;  // where the last group of eight lines begins
  if (by_inputs) {
    last = uint64_t{rows / 8 - 1} * stride_bytes;
  } else {
    const uint32_t repeats = (rows - 1) / kLineRows;
    if (repeats > 0 && (leading_bytes == 0 || leading_bytes % kSwizzleGroup != 0)) {
      return fmt::format(
          "{} rows with {} bytes from 64 to the next, expected a multiple "
          "of {}",
          rows, leading_bytes, kSwizzleGroup);
    }
    last = uint64_t{repeats} * leading_bytes + stride_bytes;
  }
  const uint64_t end = address / kSwizzleGroup * kSwizzleGroup + last + kSwizzleGroup;
  return end <= shared_bytes ? ""
                             : fmt::format("its end at {} of {} bytes of shared memory",
                                           end, shared_bytes);
}

uint32_t ProductMatrix::FirstRowOf(uint32_t piece) const {
  return major == Major::kK ? piece / 2 : piece / kBF16Inputs * kPieceRows;
}

uint32_t ProductMatrix::PieceAddress(uint32_t piece) const {
  if (major == Major::kK) {
    const uint32_t row = piece / 2;
    return Swizzled(address + row / 8 * stride_bytes + row % 8 * kLineBytes +
                    piece % 2 * kPieceBytes);
  }
  const uint32_t input = piece % kBF16Inputs;
  const uint32_t row = FirstRowOf(piece);
  return Swizzled(address + row / kLineRows * leading_bytes + input / 8 * stride_bytes +
                  input % 8 * kLineBytes + row % kLineRows / kPieceRows * kPieceBytes);
}

std::vector<float> Multiply(ProductType type, std::span<const std::byte> shared,
                            const ProductMatrix& a, const ProductMatrix& b,
                            std::span<const float> before) {
  constexpr uint32_t kTogether = 8;  // columns: enough to keep the processor busy
  const std::vector<double> first = ReadMatrix(type, shared, a);
  const std::vector<double> second = ReadMatrix(type, shared, b);
  const auto inputs = static_cast<uint32_t>(first.size() / a.rows);
  std::vector<float> result(size_t{a.rows} * b.rows);
  for (uint32_t row = 0; row < a.rows; ++row) {
    for (uint32_t begin = 0; begin < b.rows; begin += kTogether) {
      std::array<double, kTogether> sums = {};
      for (uint32_t k = 0; k < inputs; ++k) {
        const double x = first[size_t{k} * a.rows + row];
        const double* const y = second.data() + size_t{k} * b.rows + begin;
        for (uint32_t i = 0; i < kTogether; ++i) {
          sums[i] += x * y[i];
        }
      }
      const size_t at = size_t{row} * b.rows + begin;
      for (uint32_t i = 0; i < kTogether; ++i) {
        result[at + i] =
            static_cast<float>((before.empty() ? 0.0 : double{before[at + i]}) + sums[i]);
      }
    }
  }
  return result;
}

}  // namespace tessera::kernels::cuda_sim
