// MlaExpected: a result of MLA decode in float64, and how far from it a kernel may be.
// For tests alone.
#ifndef TESSERA_TESTS_TESTING_MLA_EXPECTED_H_
#define TESSERA_TESTS_TESTING_MLA_EXPECTED_H_

#include <cstddef>
#include <vector>

namespace tessera::kernels::cuda {

// A head of a token in float64. `loss` below: what an instruction of the tensor cores may
// lose, in units of 2^-24 of the largest value that it adds.
struct MlaExpected {
  static constexpr double kUnit = 0x1p-24;

  std::vector<double> values;     // 512, of the definition
  std::vector<double> rounded;    // with weights in BF16, as the kernel rounds them
  std::vector<double> deviation;  // weighted mean of |value - result|
  std::vector<double> magnitude;  // weighted mean of |value|
  // What `rounded` changes by where weights that the kernel may see on the other side of
  // a boundary of BF16 are there.
  std::vector<double> undecided;
  double score_max = 0;  // magnitudes of scores, and of what their sums come by
  double partial_max = 0;
  double tiles = 0;
  double splits = 0;

  // Relative, of a weight before it is rounded: 36 instructions for the score and as many
  // for the largest one; the scale, the largest score times it, their multiply-add; exp2.
  double WeightError(double loss) const {
    return kUnit * (2 * 36 * loss * partial_max + 5 * score_max + 4);
  }
  // Of the weights after: factors between tiles and splits, each an exp2. Of the sums: 4
  // instructions and a factor a tile, 2 roundings a split in either sum, the division.
  double OtherErrors(size_t column, double loss) const {
    const double factors = (tiles + splits) * (4 + 6 * score_max);
    const double sums = (4 * loss + 1) * tiles + 4 * splits + 8;
    return magnitude[column] * (2 * WeightError(loss) + kUnit * (2 * factors + sums));
  }
  // BF16 has 8 bits: a weight is off by 2^-8 of itself.
  double BoundOfValues(size_t column, double loss) const {
    return (0x1p-8 + 0x1p-15) * deviation[column] + OtherErrors(column, loss);
  }
  double BoundOfRounded(size_t column, double loss) const {
    return undecided[column] + OtherErrors(column, loss);
  }
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_TESTS_TESTING_MLA_EXPECTED_H_
