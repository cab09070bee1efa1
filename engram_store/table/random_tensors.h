// RandomTensors: made-up table contents for tests and benchmarks, with valid scales. Not
// used by the product.
#ifndef TESSERA_ENGRAM_STORE_TABLE_RANDOM_TENSORS_H_
#define TESSERA_ENGRAM_STORE_TABLE_RANDOM_TENSORS_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "engram_store/table/engram_table.h"

namespace tessera::engram_store {

// The same bytes for the same layout and seed.
class RandomTensors {
 public:
  RandomTensors(const TableLayout& layout, uint32_t seed) : layout_(layout) {
    std::mt19937 random(seed);
    const size_t width = static_cast<size_t>(layout.width);
    const bool scaled = layout.format == model::DType::kF8E4M3;
    weights_.resize(layout.num_rows() * width * (scaled ? 1 : 2));
    scales_.resize(scaled ? layout.num_rows() * (width / kScaleBlock) : 0);
    for (std::byte& byte : weights_) {
      byte = static_cast<std::byte>(random());
    }
    for (std::byte& byte : scales_) {
      byte = static_cast<std::byte>(1 + random() % 254);
    }
  }

  TableTensors view() const { return {.weights = weights_, .scales = scales_}; }
  std::vector<std::byte>& weights() { return weights_; }
  std::vector<std::byte>& scales() { return scales_; }

  // What a lookup of global row `row` must give.
  std::vector<std::byte> PackedRow(uint64_t row) const {
    const auto slice = [row, this](const std::vector<std::byte>& from) {
      const ptrdiff_t size = static_cast<ptrdiff_t>(from.size() / layout_.num_rows());
      const auto begin = from.begin() + static_cast<ptrdiff_t>(row) * size;
      return std::vector<std::byte>(begin, begin + size);
    };
    std::vector<std::byte> packed = slice(weights_);
    const std::vector<std::byte> scales = slice(scales_);
    packed.insert(packed.end(), scales.begin(), scales.end());
    return packed;
  }

 private:
  TableLayout layout_;
  std::vector<std::byte> weights_;
  std::vector<std::byte> scales_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_RANDOM_TENSORS_H_
