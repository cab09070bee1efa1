// One run of a parity case: makes inputs from a seed in the backend's memory, each in an
// allocation of its own, hands out views of a backend's activation type, and keeps what
// the case marks as output. Two runs of a case with one
// seed see the same inputs, whatever the backend, so their outputs can be compared.
#ifndef TESSERA_TESTS_PARITY_OP_RUN_H_
#define TESSERA_TESTS_PARITY_OP_RUN_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernel_backend.h"

namespace tessera::parity {

using kernels::DType;
using kernels::KernelBackend;
using kernels::TensorView;
using kernels::WeightView;

// FP8 has scales of 24 x 48 values, which no vector length divides, or those of the
// published checkpoints. Slices begin at column 6 of the scale grid; those of the
// published blocks and of kFp4Aligned at a multiple of 16.
enum class WeightKind {
  kF32,
  kBf16,
  kF8F32,
  kF8E8M0,
  kFp4,
  kF8Block32,
  kF8Block128,
  kFp4Aligned
};
std::string WeightKindName(WeightKind kind);
inline constexpr WeightKind kAllWeightKinds[] = {WeightKind::kF32, WeightKind::kBf16,
                                                 WeightKind::kF8F32, WeightKind::kF8E8M0,
                                                 WeightKind::kFp4};
inline constexpr WeightKind kPublishedBlocks[] = {
    WeightKind::kF8Block32, WeightKind::kF8Block128, WeightKind::kFp4Aligned};

// How a case with several rows calls its op.
enum class RowMode {
  kTogether,  // one call for all rows
  kOneByOne,  // a call per row
};

// Values of one output, in row-major order. Activations and integers both fit a double
// exactly.
struct OutputValues {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<double> values;
};

// Views stay valid as long as the run. Not thread-safe.
class OpRun {
 public:
  OpRun(KernelBackend& backend, uint64_t seed, RowMode mode);

  KernelBackend& backend() { return backend_; }
  kernels::Stream& stream() { return *stream_; }

  // Uniform in [-1, 1). Rows of the last dimension lie further apart than their length.
  TensorView Random(std::vector<int64_t> shape);
  // Multiplies by a power of two, exactly.
  void ScaleBy(TensorView view, double factor);
  // As Random, without gaps between the last two dimensions.
  TensorView RandomDense(std::vector<int64_t> shape);
  // Rows of the last dimension of `values` [num_blocks, block_size, width], packed.
  kernels::CacheView Packed(const TensorView& values, const kernels::RowFormat& format);
  TensorView Ints(std::vector<int64_t> shape, const std::vector<int32_t>& values);
  TensorView Bytes(std::vector<int64_t> shape, const std::vector<uint8_t>& values);
  // Filled with a value that no op may leave; compared after the run.
  TensorView Output(std::string name, std::vector<int64_t> shape);
  TensorView OutputDense(std::string name, std::vector<int64_t> shape);
  TensorView IntOutput(std::string name, std::vector<int64_t> shape);
  // Marks an input that an op changes in place as an output.
  void AlsoOutput(std::string name, TensorView view);

  // A slice of a larger matrix that starts off its scale grid.
  WeightView Weight(WeightKind kind, int64_t rows, int64_t cols);
  const float* Floats(int64_t count, float low, float high);
  int64_t Integer(int64_t below);
  const int64_t* Integers(int64_t count, int64_t below);

  // Calls op(begin, count) for [0, rows): once, or row by row.
  void ForRows(int64_t rows, const std::function<void(int64_t, int64_t)>& op);

  std::vector<OutputValues> Outputs();
  // Of all tensors: how large the case is.
  size_t memory_bytes() const;

 private:
  TensorView Allocate(const std::vector<int64_t>& shape, DType dtype, int64_t gap);
  void Fill(TensorView view, const std::function<double()>& next);
  std::vector<double> Read(TensorView view);
  std::byte* Memory(size_t bytes);
  std::byte* MemoryWith(const std::vector<std::byte>& host);

  KernelBackend& backend_;
  const RowMode mode_;
  std::unique_ptr<kernels::Stream> stream_;
  std::mt19937_64 random_;
  std::vector<kernels::DeviceBuffer> memory_;
  std::vector<std::pair<std::string, TensorView>> outputs_;
};

// Empty if `seen` equals `expected` to within `tolerance` of its largest value; 0 asks
// for the same bits. Otherwise the first bad coordinate.
std::string FirstDifference(const std::vector<OutputValues>& seen,
                            const std::vector<OutputValues>& expected, double tolerance);

// A row of the parity table.
struct ParityCase {
  std::string name;
  std::function<void(OpRun&)> run;
};

// The table, by family.
std::vector<ParityCase> LinearCases();
std::vector<ParityCase> RowCases();
std::vector<ParityCase> AttentionCases();
std::vector<ParityCase> CompressedCases();
std::vector<ParityCase> HyperCases();
std::vector<ParityCase> MoeCases();
std::vector<ParityCase> ExpertListCases();
std::vector<ParityCase> EngramCases();
std::vector<ParityCase> AllCases();

}  // namespace tessera::parity

#endif  // TESSERA_TESTS_PARITY_OP_RUN_H_
