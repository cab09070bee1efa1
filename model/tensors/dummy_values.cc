#include "model/tensors/dummy_values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "common/check.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/formats/number_formats.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::model {
namespace {

// Standard deviations of codes before their scale: far enough below the largest code
// (448, 6) that few values are clipped.
constexpr double kFp8Spread = 112;
constexpr double kFp4Spread = 2;
constexpr int64_t kFp4Group = 32;

// A number of a counter (Steele, Lea, Flood: SplitMix64): any position of any tensor can
// be made by itself.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

uint64_t SeedOf(std::string_view name, uint64_t seed) {
  uint64_t state = Mix(seed);
  for (const char c : name) {
    state = Mix(state ^ static_cast<unsigned char>(c));
  }
  return state;
}

// Nearly normal: the sum of twelve uniform numbers. No library function, so that every
// machine has the same bits.
double Normal(uint64_t seed, uint64_t index) {
  double sum = -6;
  for (uint64_t i = 0; i < 6; ++i) {
    const uint64_t bits = Mix(seed + 6 * index + i);
    sum += static_cast<double>(bits >> 32) * 0x1p-32 +
           static_cast<double>(bits & 0xFFFFFFFF) * 0x1p-32;
  }
  return sum;
}

// Eight bytes of encoded values each. Tensors are drawn from such words, which is many
// times faster than one value at a time.
using WordTable = std::array<uint64_t, 4096>;

WordTable MakeWords(DType dtype, double mean, double spread, uint64_t seed) {
  WordTable table;
  const size_t bits = DTypeBits(dtype);
  const size_t count = 64 / bits;
  for (size_t word = 0; word < table.size(); ++word) {
    uint64_t packed = 0;
    for (size_t i = 0; i < count; ++i) {
      const auto value =
          static_cast<float>(mean + spread * Normal(seed, word * count + i));
      uint32_t code = 0;
      if (dtype == DType::kFp4) {
        code = FloatToFp4(std::clamp(value, -6.0F, 6.0F));
      } else if (dtype == DType::kF8E4M3) {
        code = FloatToE4M3(std::clamp(value, -448.0F, 448.0F));
      } else if (dtype == DType::kBF16) {
        code = FloatToBf16(value);
      } else {
        TESSERA_CHECK(dtype == DType::kF32);
        std::memcpy(&code, &value, sizeof(code));
      }
      packed |= uint64_t{code} << (bits * i);
    }
    table[word] = packed;
  }
  return table;
}

void FillWords(const WordTable& table, uint64_t seed, std::span<std::byte> bytes) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t word = table[Mix(seed + at) >> 52];
    std::memcpy(bytes.data() + at, &word, std::min(sizeof(word), bytes.size() - at));
  }
}

// k distinct experts per row, in an order of their own.
void FillExpertTable(const ExpectedTensor& tensor, int64_t num_experts, uint64_t seed,
                     std::span<std::byte> bytes) {
  const int64_t width = tensor.shape[1];
  std::vector<int64_t> row;
  for (int64_t token = 0; token < tensor.shape[0]; ++token) {
    row.clear();
    for (uint64_t draw = Mix(seed + static_cast<uint64_t>(token));
         static_cast<int64_t>(row.size()) < width; draw = Mix(draw)) {
      auto expert = static_cast<int64_t>(draw % static_cast<uint64_t>(num_experts));
      // The next that is free: a bounded search, unlike drawing again.
      while (std::find(row.begin(), row.end(), expert) != row.end()) {
        expert = (expert + 1) % num_experts;
      }
      row.push_back(expert);
    }
    std::memcpy(bytes.data() + token * width * static_cast<int64_t>(sizeof(int64_t)),
                row.data(), row.size() * sizeof(int64_t));
  }
}

void FillTokenMap(const EngramConfig& engram, std::span<std::byte> bytes) {
  for (size_t id = 0; id < bytes.size() / sizeof(int32_t); ++id) {
    const auto compressed =
        static_cast<int32_t>(static_cast<int64_t>(id) % engram.compressed_vocab_size);
    std::memcpy(bytes.data() + id * sizeof(int32_t), &compressed, sizeof(compressed));
  }
}

// Powers of two around what gives a matrix of so many inputs its spread.
void FillScales(const ModelConfig& config, const ExpectedTensor& tensor, uint64_t seed,
                std::span<std::byte> bytes) {
  const int64_t group =
      tensor.format == StorageFormat::kFp8Blocks ? config.weight_block : kFp4Group;
  const double spread = tensor.format == StorageFormat::kMxfp4 ? kFp4Spread : kFp8Spread;
  const bool is_rows = tensor.format == StorageFormat::kFp8Rows;
  const double wanted =
      is_rows ? 1 : 1 / std::sqrt(static_cast<double>(tensor.shape.back() * group));
  const int exponent = static_cast<int>(std::lround(std::log2(wanted / spread)));
  const size_t size = DTypeBits(tensor.dtype) / 8;
  for (size_t at = 0; at < bytes.size(); at += size) {
    // Neighbours differ, so that a scale in the wrong place is seen.
    const int own = exponent - static_cast<int>(Mix(seed + at) & 1);
    if (tensor.dtype == DType::kF8E8M0) {
      bytes[at] = static_cast<std::byte>(127 + own);
    } else {
      const auto value = std::ldexp(1.0F, own);
      std::memcpy(bytes.data() + at, &value, sizeof(value));
    }
  }
}

struct Distribution {
  double mean = 0;
  double spread = 0;
};

// Of the tensors without scales.
Distribution DistributionOf(const ExpectedTensor& tensor) {
  constexpr Distribution kNormWeight = {1, 0.15};
  const std::string_view name = tensor.name;
  if (tensor.kind == TensorKind::kEmbedding || tensor.kind == TensorKind::kEngramTable ||
      name.ends_with("q_weight") || name.ends_with("k_weight")) {
    return {0, 1};
  }
  if (tensor.kind == TensorKind::kHyperConnection && name.ends_with("scale")) {
    return {1, 0.2};
  }
  if (name.ends_with("norm.weight") && tensor.shape.size() <= 2) {
    return kNormWeight;
  }
  if (tensor.shape.size() == 1) {
    // Norms; biases, sinks and bases.
    return name.ends_with("weight") ? kNormWeight : Distribution{0, 0.4};
  }
  const double spread = 1 / std::sqrt(static_cast<double>(tensor.shape.back()));
  return {0, tensor.kind == TensorKind::kHead ? 4 * spread : spread};
}

bool IsScale(const ExpectedTensor& tensor) {
  return tensor.num_parameters == 0 && (tensor.format == StorageFormat::kFp8Blocks ||
                                        tensor.format == StorageFormat::kMxfp4 ||
                                        tensor.format == StorageFormat::kFp8Rows);
}

}  // namespace

void FillDummyTensor(const ModelConfig& config, const ExpectedTensor& tensor,
                     uint64_t seed, std::span<std::byte> bytes) {
  TESSERA_CHECK_EQ(bytes.size(), static_cast<size_t>(tensor.num_bytes()));
  const uint64_t own = SeedOf(tensor.name, seed);
  if (IsScale(tensor)) {
    FillScales(config, tensor, own, bytes);
    return;
  }
  switch (tensor.format) {
    case StorageFormat::kI64:
      FillExpertTable(tensor, config.moe_of(tensor.layer).num_experts, own, bytes);
      return;
    case StorageFormat::kI32:
      FillTokenMap(*config.engram, bytes);
      return;
    case StorageFormat::kMxfp4: {
      static const WordTable kWords = MakeWords(DType::kFp4, 0, kFp4Spread, 4);
      FillWords(kWords, own, bytes);
      return;
    }
    case StorageFormat::kFp8Blocks:
    case StorageFormat::kFp8Rows: {
      static const WordTable kWords = MakeWords(DType::kF8E4M3, 0, kFp8Spread, 8);
      FillWords(kWords, own, bytes);
      return;
    }
    case StorageFormat::kF32:
    case StorageFormat::kBf16: {
      const Distribution values = DistributionOf(tensor);
      FillWords(MakeWords(tensor.dtype, values.mean, values.spread, 16), own, bytes);
      return;
    }
  }
}

}  // namespace tessera::model
