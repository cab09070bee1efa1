#include "kernels/cuda_sim/warpgroup_product.h"

#include <array>
#include <cmath>
#include <limits>

#include "fmt/format.h"

#include "kernels/cuda_sim/tile_map.h"

namespace tessera::kernels::cuda_sim {
namespace {

constexpr uint32_t kPieceBytes = 16;
constexpr uint32_t kRowBytes = 128;       // of a swizzled tile
constexpr uint32_t kSwizzleGroup = 1024;  // eight such rows: where the pattern repeats
constexpr uint32_t kAddressMask = 0x3fff;

// By the format's definition, not by the arithmetic of the kernels' own decoder.
std::array<double, 256> MakeCodes() {
  std::array<double, 256> values = {};
  for (uint32_t code = 0; code < values.size(); ++code) {
    const uint32_t exponent = code >> 3 & 15U;
    const uint32_t mantissa = code & 7U;
    double value = exponent == 0
                       ? std::ldexp(mantissa, -9)
                       : std::ldexp(8 + mantissa, static_cast<int>(exponent) - 10);
    if ((code & 0x7fU) == 0x7fU) {
      value = std::numeric_limits<double>::quiet_NaN();
    }
    values[code] = (code & 0x80U) != 0 ? -value : value;
  }
  return values;
}

std::vector<double> ReadMatrix(std::span<const std::byte> shared,
                               const MatrixDescriptor& matrix, uint32_t rows) {
  static const std::array<double, 256> kCodes = MakeCodes();
  std::vector<double> values;
  values.reserve(size_t{rows} * kProductInputs);
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t k = 0; k < kProductInputs; ++k) {
      const uint32_t at = matrix.PieceAddress(row, k / kPieceBytes) + k % kPieceBytes;
      values.push_back(kCodes[static_cast<uint8_t>(shared[at])]);
    }
  }
  return values;
}

}  // namespace

MatrixDescriptor MatrixDescriptor::Decode(uint64_t bits) {
  const auto field = [bits](int begin) {
    return static_cast<uint32_t>(bits >> begin & kAddressMask) * kPieceBytes;
  };
  return {.address = field(0),
          .stride_bytes = field(32),
          .swizzle = static_cast<uint32_t>(bits >> 62),
          .base_offset = static_cast<uint32_t>(bits >> 49 & 7U)};
}

std::string MatrixDescriptor::Problem(uint32_t rows, uint32_t shared_bytes) const {
  if (swizzle != 1 || base_offset != 0) {
    return fmt::format("swizzle {} with base offset {}, expected 1 (128 bytes) and 0",
                       swizzle, base_offset);
  }
  if (address % kSwizzleGroup > kRowBytes - kProductInputs ||
      address % kProductInputs != 0 || stride_bytes % kSwizzleGroup != 0) {
    return fmt::format(
        "address {} and stride {}: tiles begin at multiples of {}, columns {} bytes on",
        address, stride_bytes, kSwizzleGroup, kProductInputs);
  }
  const uint64_t end = address / kSwizzleGroup * kSwizzleGroup +
                       uint64_t{rows / 8 - 1} * stride_bytes + kSwizzleGroup;
  return end <= shared_bytes ? ""
                             : fmt::format("its end at {} of {} bytes of shared memory",
                                           end, shared_bytes);
}

uint32_t MatrixDescriptor::PieceAddress(uint32_t row, uint32_t piece) const {
  return Swizzled(address + row / 8 * stride_bytes + row % 8 * kRowBytes +
                  piece * kPieceBytes);
}

std::vector<float> MultiplyE4M3(std::span<const std::byte> shared,
                                const MatrixDescriptor& a, const MatrixDescriptor& b,
                                uint32_t columns, std::span<const float> before) {
  const std::vector<double> rows = ReadMatrix(shared, a, kProductRows);
  const std::vector<double> cols = ReadMatrix(shared, b, columns);
  std::vector<float> result(size_t{kProductRows} * columns);
  for (uint32_t row = 0; row < kProductRows; ++row) {
    for (uint32_t col = 0; col < columns; ++col) {
      const double* const x = rows.data() + size_t{row} * kProductInputs;
      const double* const y = cols.data() + size_t{col} * kProductInputs;
      double sum = 0;
      for (uint32_t k = 0; k < kProductInputs; ++k) {
        sum += x[k] * y[k];
      }
      const size_t at = size_t{row} * columns + col;
      result[at] = static_cast<float>((before.empty() ? 0.0 : double{before[at]}) + sum);
    }
  }
  return result;
}

}  // namespace tessera::kernels::cuda_sim
