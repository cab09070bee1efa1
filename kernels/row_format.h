// RowFormat: how a row of a paged cache lies in memory, and the codec of packed rows. The
// one description that caches, sizes and kernels share; which model keeps which rows is
// worker/layers/cache_layout.h.
//
// A packed row holds `coded` values as e4m3 or e2m1 codes with one scale per group, and
// the others as BF16. In bytes:
//   scales kF32:  codes | scales | BF16            656 = 512 | 4 x 4 | 64 x 2  (MLA)
//                                                  132 = 128 | 4       (index key of MLA)
//   scales kE8M0: codes | BF16 | scales            584 = 448 | 64 x 2 | 7 + 1 of padding
//   scales kE4M3: the same                         288 = 256 | 32      (V4.1's entries)
// e2m1 codes lie two in a byte, the low nibble first: 68 = 64 | 4 E8M0. Scales E8M0 of
// e4m3 codes are padded with zeros to a multiple of 8, so that rows of whole groups stay
// aligned to 8 bytes (model.md 6.6).
//
// Values are rounded as FakeQuantizeE4M3 and FakeQuantizeFp4 round them, and to BF16; a
// group with a NaN or an infinity becomes NaN. What already is a result of that rounding
// is kept exactly.
#ifndef TESSERA_KERNELS_ROW_FORMAT_H_
#define TESSERA_KERNELS_ROW_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace tessera::kernels {

// Values of a packed row of a cache at most: backends size their scratch by it.
inline constexpr int64_t kMaxPackedWidth = 1024;

enum class RowCode { kPlain, kE4M3, kFp4 };
enum class RowScale { kF32, kE8M0, kE4M3 };

struct RowFormat {
  RowCode code = RowCode::kPlain;  // kPlain: all values are activations
  RowScale scale = RowScale::kE8M0;
  int64_t width = 0;  // values of a row
  int64_t coded = 0;  // the first ones, which have codes; even with kFp4
  int64_t group = 0;  // coded values with one scale, the last group may be shorter

  static RowFormat Plain(int64_t width) { return {.width = width}; }

  bool is_packed() const { return code != RowCode::kPlain; }
  int64_t num_groups() const { return is_packed() ? (coded + group - 1) / group : 0; }
  int64_t code_bytes() const { return code == RowCode::kFp4 ? coded / 2 : coded; }
  int64_t scale_bytes() const;  // of all groups, with padding
  int64_t rest_bytes() const { return 2 * (width - coded); }
  // Where the scales and the BF16 values begin in a row.
  int64_t scales_begin() const {
    return code_bytes() + (scale == RowScale::kF32 ? 0 : rest_bytes());
  }
  int64_t rest_begin() const {
    return code_bytes() + (scale == RowScale::kF32 ? scale_bytes() : 0);
  }
  // Of a packed row; plain rows have the size of their activations.
  int64_t packed_bytes() const { return code_bytes() + scale_bytes() + rest_bytes(); }
};

// values [width] to row [packed_bytes]; writes every byte. kE4M3 scales of fp4 groups
// that the usual scale does not hold exactly, but another does, are that other one. Pure;
// thread-safe; allocates nothing.
void PackRow(const RowFormat& format, const float* values, std::byte* row);
// The other way, exactly: the product of code and scale in float32. The definition of
// what kernels read.
void UnpackRow(const RowFormat& format, const std::byte* row, float* values);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_ROW_FORMAT_H_
