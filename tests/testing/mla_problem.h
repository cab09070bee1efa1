// MlaProblem: a batch for MLA decode on the host, what float64 makes of it, and its run
// on a device, simulated or not. Batches, page sizes and slices of heads that share
// tokens share their values (mla_rows.h). For tests alone; used by one thread.
#ifndef TESSERA_TESTS_TESTING_MLA_PROBLEM_H_
#define TESSERA_TESTS_TESTING_MLA_PROBLEM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "kernels/cuda/mla/mla_decode.h"
#include "tests/testing/mla_expected.h"
#include "tests/testing/mla_rows.h"

namespace tessera::kernels::cuda {

struct MlaToken {
  uint32_t name = 0;  // its query follows from it
  int32_t sequence = 0;
  int32_t position = 0;                // -1: padding
  std::vector<int32_t> selected = {};  // where the batch selects
};

struct MlaOptions {
  int64_t heads = 16;
  int64_t first_head = 0;  // of the heads that a query has
  int64_t block_size = 64;
  uint64_t page_seed = 1;    // of the order of pages
  int64_t rows_for_all = 0;  // rows_max, where it is not what the tokens have
  bool packed = false;
  bool selects = false;
};

class MlaProblem {
 public:
  static constexpr double kScale = 0.0721687836487;  // V3's: (128 + 64)^-1/2

  MlaProblem(const MlaOptions& options, std::vector<MlaToken> tokens)
      : options_(options),
        tokens_(std::move(tokens)),
        rows_(options.block_size, options.page_seed, options.packed, Lengths(tokens_)) {
    for (const MlaToken& token : tokens_) {
      for (int64_t head = 0; head < options_.heads; ++head) {
        for (int64_t i = 0; i < kMlaWidth; ++i) {
          q_.push_back(MlaRows::ValueOf(1'000'000 + token.name,
                                        static_cast<uint64_t>(head + options_.first_head),
                                        i));
        }
      }
    }
  }

  const std::vector<MlaToken>& tokens() const { return tokens_; }
  int64_t heads() const { return options_.heads; }
  const std::vector<uint16_t>& q() const { return q_; }
  MlaRows& rows() { return rows_; }
  const MlaRows& rows() const { return rows_; }

  MlaExpected Expect(size_t token, int64_t head, double loss) const {
    MlaExpected out;
    const int64_t rows = Count(token);
    out.tiles = std::ceil(static_cast<double>(rows) / kMlaTileRows);
    out.splits = std::ceil(static_cast<double>(rows) / kMlaSplitRows);
    std::vector<double> scores;
    for (int64_t row = 0; row < rows; ++row) {
      scores.push_back(Score(token, head, row, out));
    }
    FindValues(token, scores, out);
    FindRounded(token, scores, out.WeightError(loss), out);
    return out;
  }

  // f32 [tokens, heads, 512].
  absl::StatusOr<std::vector<float>> Run(GpuMachine& machine, GpuStream& stream) const {
    Memory memory = {machine, stream, {}};
    MlaDecodeArgs args;
    TESSERA_RETURN_IF_ERROR(PutRows(memory, args));
    TESSERA_RETURN_IF_ERROR(PutIndex(memory, args));
    const auto count = std::ssize(tokens_);
    std::vector<float> result(static_cast<size_t>(count * heads() * kMlaLatent), -7.0F);
    TESSERA_ASSIGN_OR_RETURN(void* const out, memory.Put(result));
    args.out = TensorView(out, DType::kF32, {count, heads(), kMlaLatent});
    args.rows_max = options_.rows_for_all > 0 ? options_.rows_for_all : Most();
    args.scale = kScale;
    const int64_t workspace = ChooseMlaDecode(ShapeOf(args)).workspace_bytes;
    if (workspace > 0) {
      TESSERA_ASSIGN_OR_RETURN(args.workspace,
                               machine.Malloc(0, static_cast<size_t>(workspace)));
      args.workspace_bytes = workspace;
      memory.all.push_back(args.workspace);
    }
    TESSERA_RETURN_IF_ERROR(MlaDecode(stream, args));
    TESSERA_RETURN_IF_ERROR(
        stream.MemcpyAsync(result.data(), out, result.size() * sizeof(float)));
    TESSERA_RETURN_IF_ERROR(stream.Synchronize());
    for (void* const to : memory.all) {
      TESSERA_RETURN_IF_ERROR(machine.Free(to));
    }
    return result;
  }

 private:
  // Of the device, with what was put there.
  struct Memory {
    GpuMachine& machine;
    GpuStream& stream;
    std::vector<void*> all;

    template <typename T>
    absl::StatusOr<void*> Put(const std::vector<T>& values) {
      const size_t bytes = values.size() * sizeof(T);
      TESSERA_ASSIGN_OR_RETURN(void* const to, machine.Malloc(0, bytes));
      all.push_back(to);
      TESSERA_RETURN_IF_ERROR(stream.MemcpyAsync(to, values.data(), bytes));
      return to;
    }
    // i32 [n], or rows of `cols`.
    absl::StatusOr<TensorView> PutInts(const std::vector<int32_t>& values, int64_t cols) {
      TESSERA_ASSIGN_OR_RETURN(void* const to, Put(values));
      const int64_t count = std::ssize(values);
      return cols > 0 ? TensorView(to, DType::kI32, {count / cols, cols})
                      : TensorView(to, DType::kI32, {count});
    }
  };

  absl::Status PutRows(Memory& memory, MlaDecodeArgs& args) const {
    TESSERA_ASSIGN_OR_RETURN(void* const q, memory.Put(q_));
    args.q = TensorView(q, DType::kBF16, {std::ssize(tokens_), heads(), kMlaWidth});
    const int64_t blocks = rows_.num_blocks();
    const int64_t size = options_.block_size;
    if (options_.packed) {
      TESSERA_ASSIGN_OR_RETURN(void* const rows, memory.Put(rows_.bytes()));
      args.cache = {
          TensorView(rows, DType::kU8, {blocks, size, kMlaPackedRows.packed_bytes()}),
          kMlaPackedRows};
      return absl::OkStatus();
    }
    TESSERA_ASSIGN_OR_RETURN(void* const rows, memory.Put(rows_.values()));
    args.cache = TensorView(rows, DType::kBF16, {blocks, size, kMlaWidth});
    return absl::OkStatus();
  }

  absl::Status PutIndex(Memory& memory, MlaDecodeArgs& args) const {
    std::vector<int32_t> sequences;
    std::vector<int32_t> positions;
    std::vector<int32_t> selected;
    std::vector<int32_t> counts;
    const int64_t width = std::max<int64_t>(1, Most());
    for (const MlaToken& token : tokens_) {
      sequences.push_back(token.sequence);
      positions.push_back(token.position);
      counts.push_back(static_cast<int32_t>(token.selected.size()));
      std::vector<int32_t> entries = token.selected;
      entries.resize(static_cast<size_t>(width), -1);
      selected.insert(selected.end(), entries.begin(), entries.end());
    }
    TESSERA_ASSIGN_OR_RETURN(args.index.block_tables,
                             memory.PutInts(rows_.tables(), rows_.max_blocks()));
    TESSERA_ASSIGN_OR_RETURN(args.index.sequence_of_row, memory.PutInts(sequences, 0));
    TESSERA_ASSIGN_OR_RETURN(args.index.positions, memory.PutInts(positions, 0));
    args.index.block_size = options_.block_size;
    if (options_.selects) {
      TESSERA_ASSIGN_OR_RETURN(args.selected, memory.PutInts(selected, width));
      TESSERA_ASSIGN_OR_RETURN(args.num_selected, memory.PutInts(counts, 0));
    }
    return absl::OkStatus();
  }

  static std::vector<int64_t> Lengths(const std::vector<MlaToken>& tokens) {
    std::vector<int64_t> lengths;
    for (const MlaToken& token : tokens) {
      lengths.resize(std::max(lengths.size(), static_cast<size_t>(token.sequence) + 1));
      int64_t& most = lengths[static_cast<size_t>(token.sequence)];
      most = std::max(most, int64_t{token.position} + 1);
    }
    return lengths;
  }
  // Rows that a token attends to.
  int64_t Count(size_t token) const {
    return options_.selects ? std::ssize(tokens_[token].selected)
                            : int64_t{tokens_[token].position} + 1;
  }
  int64_t Most() const {
    int64_t most = 0;
    for (size_t token = 0; token < tokens_.size(); ++token) {
      most = std::max(most, Count(token));
    }
    return most;
  }
  // Of the `row`-th of them.
  double Value(size_t token, size_t row, size_t column) const {
    const MlaToken& of = tokens_[token];
    return rows_.At(of.sequence,
                    options_.selects ? of.selected[row] : static_cast<int64_t>(row),
                    column);
  }

  double Score(size_t token, int64_t head, int64_t row, MlaExpected& out) const {
    const auto query =
        static_cast<size_t>((static_cast<int64_t>(token) * heads() + head) * kMlaWidth);
    double sum = 0;
    for (size_t i = 0; i < kMlaWidth; ++i) {
      const double term = MlaRows::Decode(q_[query + i]) *
                          Value(token, static_cast<size_t>(row), i) * kScale;
      sum += term;
      out.partial_max = std::max({out.partial_max, std::abs(term), std::abs(sum)});
    }
    out.score_max = std::max(out.score_max, std::abs(sum));
    return sum;
  }

  void FindValues(size_t token, const std::vector<double>& scores,
                  MlaExpected& out) const {
    const double largest = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    out.values.assign(kMlaLatent, 0);
    out.deviation.assign(kMlaLatent, 0);
    out.magnitude.assign(kMlaLatent, 0);
    for (int pass = 0; pass < 2; ++pass) {
      for (size_t row = 0; row < scores.size(); ++row) {
        const double weight = std::exp(scores[row] - largest);
        total += pass == 0 ? weight : 0;
        for (size_t i = 0; i < kMlaLatent; ++i) {
          const double value = Value(token, row, i);
          if (pass == 0) {
            out.values[i] += weight * value;
          } else {
            out.deviation[i] += weight * std::abs(value - out.values[i]) / total;
            out.magnitude[i] += weight * std::abs(value) / total;
          }
        }
      }
      for (double& value : out.values) {
        value /= pass == 0 ? total : 1;
      }
    }
  }

  // Weights are rounded relative to the largest score up to the end of their tile, from
  // the beginning of their split.
  void FindRounded(size_t token, const std::vector<double>& scores, double error,
                   MlaExpected& out) const {
    const double largest = *std::max_element(scores.begin(), scores.end());
    std::vector<double> weights;
    std::vector<double> steps;  // of those that may be rounded either way
    double so_far = 0;
    double total = 0;
    for (size_t row = 0; row < scores.size(); ++row) {
      if (row % kMlaTileRows == 0) {
        const auto begin = scores.begin() + static_cast<std::ptrdiff_t>(row);
        const auto end =
            begin + std::min<std::ptrdiff_t>(kMlaTileRows, scores.end() - begin);
        const double of_tile = *std::max_element(begin, end);
        so_far = row % kMlaSplitRows == 0 ? of_tile : std::max(so_far, of_tile);
      }
      const double exact = std::exp(scores[row] - so_far);
      int exponent = 0;
      const double mantissa = std::frexp(exact, &exponent) * 256;
      const double factor = std::ldexp(std::exp(so_far - largest), exponent - 8);
      const bool near = std::abs(mantissa - std::floor(mantissa) - 0.5) <= 256 * error;
      weights.push_back(std::nearbyint(mantissa) * factor);
      steps.push_back(near ? factor : 0);
      total += weights.back();
    }
    out.rounded.assign(kMlaLatent, 0);
    out.undecided.assign(kMlaLatent, 0);
    for (size_t i = 0; i < kMlaLatent; ++i) {
      for (size_t row = 0; row < scores.size(); ++row) {
        out.rounded[i] += weights[row] * Value(token, row, i) / total;
      }
      for (size_t row = 0; row < scores.size(); ++row) {
        out.undecided[i] +=
            steps[row] * std::abs(Value(token, row, i) - out.rounded[i]) / total;
      }
      out.undecided[i] *= 1 + 0x1p-7;  // the total changes too
    }
  }

  MlaOptions options_;
  std::vector<MlaToken> tokens_;
  MlaRows rows_;
  std::vector<uint16_t> q_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_TESTS_TESTING_MLA_PROBLEM_H_
