// MlaRows: latent rows of sequences in pages, as BF16 or packed with FP8 codes. A value
// depends on its sequence, position and column alone, so page sizes and batches share
// their values. Rows of pages that no sequence has are NaNs. For tests alone.
#ifndef TESSERA_TESTS_TESTING_MLA_ROWS_H_
#define TESSERA_TESTS_TESTING_MLA_ROWS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/mla/mla_decode_config.h"
#include "kernels/row_format.h"

namespace tessera::kernels::cuda {

class MlaRows {
 public:
  // `lengths`: of each sequence.
  MlaRows(int64_t block_size, uint64_t page_seed, bool packed,
          const std::vector<int64_t>& lengths)
      : block_size_(block_size), packed_(packed) {
    for (const int64_t length : lengths) {
      const int64_t blocks = (length + block_size - 1) / block_size;
      num_blocks_ += blocks;
      max_blocks_ = std::max(max_blocks_, blocks);
    }
    std::vector<int32_t> order(static_cast<size_t>(num_blocks_));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(page_seed));
    values_.assign(static_cast<size_t>(num_blocks_ * block_size * kMlaWidth), kNan);
    tables_.assign(lengths.size() * static_cast<size_t>(max_blocks_), -1);
    if (packed) {
      bytes_.assign(static_cast<size_t>(num_blocks_ * block_size) * kRowBytes,
                    std::byte{0xff});
    }
    size_t next = 0;
    for (size_t sequence = 0; sequence < lengths.size(); ++sequence) {
      for (int64_t row = 0; row < lengths[sequence]; ++row) {
        if (row % block_size == 0) {
          tables_[sequence * static_cast<size_t>(max_blocks_) +
                  static_cast<size_t>(row / block_size)] = order[next++];
        }
        Write(static_cast<int32_t>(sequence), row);
      }
    }
  }

  const std::vector<uint16_t>& values() const { return values_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  const std::vector<int32_t>& tables() const { return tables_; }
  int64_t num_blocks() const { return num_blocks_; }
  int64_t max_blocks() const { return max_blocks_; }

  // As the kernel multiplies it.
  double At(int32_t sequence, int64_t row, size_t column) const {
    return Decode(values_[Index(sequence, row) * kMlaWidth + column]);
  }
  // A NaN there. Of packed rows, one code.
  void Damage(int32_t sequence, int64_t row, size_t column) {
    values_[Index(sequence, row) * kMlaWidth + column] = kNan;
    if (packed_) {
      bytes_[Index(sequence, row) * kRowBytes + column] = std::byte{0x7f};
    }
  }

  static double Decode(uint16_t half) {
    const uint32_t bits = uint32_t{half} << 16;
    float value = 0;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
  // Between -1.75 and 1.75, by splitmix64.
  static uint16_t ValueOf(uint64_t a, uint64_t b, int64_t column) {
    uint64_t x = (a << 40) + (b << 12) + static_cast<uint64_t>(column);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U + 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    x ^= x >> 31;
    return Nearest(static_cast<float>(x % 4096) * (3.5F / 4095) - 1.75F);
  }

 private:
  static constexpr uint16_t kNan = 0x7fc0;
  static constexpr size_t kRowBytes = 656;

  static uint16_t Nearest(float value) {
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    return static_cast<uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
  }
  size_t Index(int32_t sequence, int64_t row) const {
    const int64_t page =
        tables_[static_cast<size_t>(sequence * max_blocks_ + row / block_size_)];
    return static_cast<size_t>(page * block_size_ + row % block_size_);
  }

  void Write(int32_t sequence, int64_t row) {
    const size_t at = Index(sequence, row);
    std::vector<float> values;
    for (int64_t i = 0; i < kMlaWidth; ++i) {
      const uint16_t half =
          ValueOf(static_cast<uint64_t>(sequence), static_cast<uint64_t>(row), i);
      values.push_back(static_cast<float>(Decode(half)));
    }
    if (packed_) {
      std::byte* const to = bytes_.data() + at * kRowBytes;
      PackRow(kMlaPackedRows, values.data(), to);
      // No power of two: code times scale is rounded to BF16.
      for (int group = 0; group < 4; ++group) {
        std::byte* const scale = to + kMlaPackedRows.scales_begin() + 4 * group;
        float factor = 0;
        std::memcpy(&factor, scale, sizeof(factor));
        factor *= 1.0F + 0.2F * static_cast<float>(group);
        std::memcpy(scale, &factor, sizeof(factor));
      }
      UnpackRow(kMlaPackedRows, to, values.data());
    }
    for (size_t i = 0; i < kMlaWidth; ++i) {
      values_[at * kMlaWidth + i] = Nearest(values[i]);
    }
  }

  int64_t block_size_;
  bool packed_;
  int64_t num_blocks_ = 1;  // one that nobody has
  int64_t max_blocks_ = 1;
  std::vector<uint16_t> values_;
  std::vector<std::byte> bytes_;
  std::vector<int32_t> tables_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_TESTS_TESTING_MLA_ROWS_H_
