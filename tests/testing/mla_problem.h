// MlaProblem: a batch for MLA decode on the host, what float64 makes of it, and its run
// on a device, simulated or not. A value depends on its sequence, position and column
// alone, so batches, page sizes and slices of heads that share tokens share their values.
// Rows of pages that no token sees are NaNs. For tests alone; used by one thread.
#ifndef TESSERA_TESTS_TESTING_MLA_PROBLEM_H_
#define TESSERA_TESTS_TESTING_MLA_PROBLEM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "kernels/cuda/mla/mla_decode.h"
#include "tests/testing/mla_expected.h"

namespace tessera::kernels::cuda {

struct MlaToken {
  uint32_t name = 0;  // its query follows from it
  int32_t sequence = 0;
  int32_t position = 0;  // -1: padding
};

struct MlaOptions {
  int64_t heads = 16;
  int64_t first_head = 0;  // of the heads that a query has
  int64_t block_size = 64;
  uint64_t page_seed = 1;    // of the order of pages
  int64_t rows_for_all = 0;  // rows_max, where it is not what the tokens see
};

class MlaProblem {
 public:
  static constexpr double kScale = 0.0721687836487;  // V3's: (128 + 64)^-1/2

  MlaProblem(const MlaOptions& options, std::vector<MlaToken> tokens)
      : options_(options), tokens_(std::move(tokens)) {
    MakePages();
    for (const MlaToken& token : tokens_) {
      for (int64_t head = 0; head < options_.heads; ++head) {
        for (int64_t i = 0; i < kMlaWidth; ++i) {
          q_.push_back(ValueOf(1'000'000 + token.name,
                               static_cast<uint64_t>(head + options_.first_head), i));
        }
      }
    }
  }

  const std::vector<MlaToken>& tokens() const { return tokens_; }
  int64_t heads() const { return options_.heads; }
  int64_t rows_max() const {
    int64_t rows = 0;
    for (const MlaToken& token : tokens_) {
      rows = std::max(rows, int64_t{token.position} + 1);
    }
    return options_.rows_for_all > 0 ? options_.rows_for_all : rows;
  }
  // The value of a row becomes a NaN.
  void Damage(int32_t sequence, int32_t position, int64_t column) {
    cache_[RowBegin(sequence, position) + static_cast<size_t>(column)] = kNan;
  }

  MlaExpected Expect(size_t token, int64_t head, double loss) const {
    MlaExpected out;
    const int64_t rows = tokens_[token].position + 1;
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
    std::vector<void*> memory;
    const auto on_device = [&](const auto& values) -> absl::StatusOr<void*> {
      const size_t bytes = values.size() * sizeof(values[0]);
      TESSERA_ASSIGN_OR_RETURN(void* const to, machine.Malloc(0, bytes));
      memory.push_back(to);
      TESSERA_RETURN_IF_ERROR(stream.MemcpyAsync(to, values.data(), bytes));
      return to;
    };
    std::vector<int32_t> sequences;
    std::vector<int32_t> positions;
    for (const MlaToken& token : tokens_) {
      sequences.push_back(token.sequence);
      positions.push_back(token.position);
    }
    const auto count = std::ssize(tokens_);
    std::vector<float> result(static_cast<size_t>(count * heads() * kMlaLatent), -7.0F);
    MlaDecodeArgs args;
    TESSERA_ASSIGN_OR_RETURN(void* const q, on_device(q_));
    args.q = TensorView(q, DType::kBF16, {count, heads(), kMlaWidth});
    TESSERA_ASSIGN_OR_RETURN(void* const cache, on_device(cache_));
    args.cache =
        TensorView(cache, DType::kBF16, {num_blocks_, options_.block_size, kMlaWidth});
    TESSERA_ASSIGN_OR_RETURN(void* const tables, on_device(tables_));
    args.index.block_tables =
        TensorView(tables, DType::kI32, {std::ssize(tables_) / max_blocks_, max_blocks_});
    TESSERA_ASSIGN_OR_RETURN(void* const sequence, on_device(sequences));
    args.index.sequence_of_row = TensorView(sequence, DType::kI32, {count});
    TESSERA_ASSIGN_OR_RETURN(void* const position, on_device(positions));
    args.index.positions = TensorView(position, DType::kI32, {count});
    args.index.block_size = options_.block_size;
    TESSERA_ASSIGN_OR_RETURN(void* const out, on_device(result));
    args.out = TensorView(out, DType::kF32, {count, heads(), kMlaLatent});
    args.rows_max = rows_max();
    args.scale = kScale;
    const int64_t workspace = ChooseMlaDecode(ShapeOf(args)).workspace_bytes;
    if (workspace > 0) {
      TESSERA_ASSIGN_OR_RETURN(args.workspace,
                               machine.Malloc(0, static_cast<size_t>(workspace)));
      memory.push_back(args.workspace);
    }
    TESSERA_RETURN_IF_ERROR(MlaDecode(stream, args));
    TESSERA_RETURN_IF_ERROR(
        stream.MemcpyAsync(result.data(), out, result.size() * sizeof(float)));
    TESSERA_RETURN_IF_ERROR(stream.Synchronize());
    for (void* const to : memory) {
      TESSERA_RETURN_IF_ERROR(machine.Free(to));
    }
    return result;
  }

 private:
  static constexpr uint16_t kNan = 0x7fc0;

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
    const float value = static_cast<float>(x % 4096) * (3.5F / 4095) - 1.75F;
    uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof(bits));
    return static_cast<uint16_t>(bits >> 16);
  }

  void MakePages() {
    std::vector<int64_t> rows;
    for (const MlaToken& token : tokens_) {
      rows.resize(std::max(rows.size(), static_cast<size_t>(token.sequence) + 1));
      int64_t& most = rows[static_cast<size_t>(token.sequence)];
      most = std::max(most, int64_t{token.position} + 1);
    }
    const int64_t size = options_.block_size;
    num_blocks_ = 1;  // one that nobody has
    max_blocks_ = 1;
    for (const int64_t count : rows) {
      const int64_t blocks = (count + size - 1) / size;
      num_blocks_ += blocks;
      max_blocks_ = std::max(max_blocks_, blocks);
    }
    std::vector<int32_t> order(static_cast<size_t>(num_blocks_));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(options_.page_seed));
    cache_.assign(static_cast<size_t>(num_blocks_ * size * kMlaWidth), kNan);
    tables_.assign(rows.size() * static_cast<size_t>(max_blocks_), -1);
    size_t next = 0;
    for (size_t sequence = 0; sequence < rows.size(); ++sequence) {
      for (int64_t row = 0; row < rows[sequence]; ++row) {
        if (row % size == 0) {
          tables_[sequence * static_cast<size_t>(max_blocks_) +
                  static_cast<size_t>(row / size)] = order[next++];
        }
        const size_t begin =
            RowBegin(static_cast<int32_t>(sequence), static_cast<int32_t>(row));
        for (int64_t i = 0; i < kMlaWidth; ++i) {
          cache_[begin + static_cast<size_t>(i)] =
              ValueOf(sequence, static_cast<uint64_t>(row), i);
        }
      }
    }
  }
  size_t RowBegin(int32_t sequence, int64_t row) const {
    const int64_t page =
        tables_[static_cast<size_t>(sequence * max_blocks_ + row / options_.block_size)];
    return static_cast<size_t>((page * options_.block_size + row % options_.block_size) *
                               kMlaWidth);
  }
  double Latent(size_t token, size_t row, size_t column) const {
    return Decode(
        cache_[RowBegin(tokens_[token].sequence, static_cast<int64_t>(row)) + column]);
  }

  double Score(size_t token, int64_t head, int64_t row, MlaExpected& out) const {
    const auto query =
        static_cast<size_t>((static_cast<int64_t>(token) * heads() + head) * kMlaWidth);
    const size_t begin = RowBegin(tokens_[token].sequence, row);
    double sum = 0;
    for (size_t i = 0; i < kMlaWidth; ++i) {
      const double term = Decode(q_[query + i]) * Decode(cache_[begin + i]) * kScale;
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
          const double value = Latent(token, row, i);
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
        out.rounded[i] += weights[row] * Latent(token, row, i) / total;
      }
      for (size_t row = 0; row < scores.size(); ++row) {
        out.undecided[i] +=
            steps[row] * std::abs(Latent(token, row, i) - out.rounded[i]) / total;
      }
      out.undecided[i] *= 1 + 0x1p-7;  // the total changes too
    }
  }

  MlaOptions options_;
  std::vector<MlaToken> tokens_;
  std::vector<uint16_t> q_;
  std::vector<uint16_t> cache_;
  std::vector<int32_t> tables_;
  int64_t max_blocks_ = 0;
  int64_t num_blocks_ = 0;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_TESTS_TESTING_MLA_PROBLEM_H_
