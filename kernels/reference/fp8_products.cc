// The products of numerics fp8-g128 (kernels/fp8_products.h), with its definition written
// out. Tokens are rounded once; the weight row is the outer loop, as in linear.cc.
#include "kernels/fp8_products.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "kernels/group_scale.h"
#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"
#include "kernels/reference/weight_decode.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels::reference {
namespace {

int64_t GroupsOf(int64_t inputs) { return (inputs + kFp8Group - 1) / kFp8Group; }

// A row of x: what its codes stand for, and the scale of each group.
struct RoundedRow {
  std::vector<float> codes;
  std::vector<float> scales;
};

RoundedRow Rounded(const float* x, int64_t inputs) {
  RoundedRow row;
  row.codes.resize(static_cast<size_t>(inputs));
  for (int64_t begin = 0; begin < inputs; begin += kFp8Group) {
    const int64_t end = std::min(begin + kFp8Group, inputs);
    float largest = 0;
    bool damaged = false;
    for (int64_t i = begin; i < end; ++i) {
      damaged = damaged || !std::isfinite(x[i]);
      largest = std::max(largest, std::abs(x[i]));
    }
    const float scale =
        damaged ? std::numeric_limits<float>::quiet_NaN() : E4M3GroupScale(largest);
    row.scales.push_back(scale);
    for (int64_t i = begin; i < end; ++i) {
      row.codes[static_cast<size_t>(i)] =
          model::E4M3ToFloat(model::FloatToE4M3(x[i] / scale));
    }
  }
  return row;
}

// Of a row that has been rounded.
RoundedRow Unpacked(const uint8_t* packed, int64_t inputs) {
  const RowFormat format = Fp8RowFormat(inputs);
  RoundedRow row;
  for (int64_t i = 0; i < inputs; ++i) {
    row.codes.push_back(model::E4M3ToFloat(packed[i]));
  }
  row.scales.resize(static_cast<size_t>(format.num_groups()));
  std::memcpy(row.scales.data(), packed + format.scales_begin(),
              row.scales.size() * sizeof(float));
  return row;
}

std::vector<RoundedRow> RoundedRows(const TensorView& x, int64_t inputs) {
  const bool is_packed = x.dtype == DType::kU8;
  TESSERA_CHECK_EQ(x.dim(1), is_packed ? Fp8RowFormat(inputs).packed_bytes() : inputs);
  std::vector<RoundedRow> rows;
  for (int64_t t = 0; t < x.dim(0); ++t) {
    rows.push_back(is_packed ? Unpacked(x.row<uint8_t>(t), inputs)
                             : Rounded(x.row<float>(t), inputs));
  }
  return rows;
}

// P of one run on top of `before`. Products of codes and their sums are exact in float64.
float AddRun(float before, const float* x, const float* w, int64_t n) {
  double sum = before;
  for (int64_t i = 0; i < n; ++i) {
    sum += double{x[i]} * double{w[i]};
  }
  return static_cast<float>(sum);
}

// A row of weights: what its codes stand for, and the scale of each of its groups.
struct WeightRow {
  std::vector<float> codes;
  std::vector<float> scales;
};

WeightRow Fp8Row(const WeightView& w, int64_t row) {
  WeightRow result;
  const auto* codes = reinterpret_cast<const uint8_t*>(w.data + row * w.row_bytes);
  for (int64_t i = 0; i < w.cols; ++i) {
    result.codes.push_back(DecodeF8E4M3(codes[i]));
  }
  const int64_t scales = (w.row_offset + row) / kFp8Group * w.scale_stride;
  for (int64_t b = 0; b < GroupsOf(w.cols); ++b) {
    const int64_t at = scales + w.col_offset / kFp8Group + b;
    result.scales.push_back(w.scale_dtype == DType::kF32
                                ? reinterpret_cast<const float*>(w.scales)[at]
                                : DecodeF8E8M0(static_cast<uint8_t>(w.scales[at])));
  }
  return result;
}

WeightRow Fp4Row(const WeightView& w, int64_t row) {
  WeightRow result;
  const auto* pairs = reinterpret_cast<const uint8_t*>(w.data + row * w.row_bytes);
  for (int64_t i = 0; i < w.cols; ++i) {
    const auto code = static_cast<uint8_t>(i % 2 == 0 ? pairs[i / 2] : pairs[i / 2] >> 4);
    result.codes.push_back(DecodeFp4(code) / kFp4CodeUnit);
  }
  const int64_t begin = (w.row_offset + row) * w.scale_stride + w.col_offset / kFp4Group;
  for (int64_t g = 0; g < w.cols / kFp4Group; ++g) {
    result.scales.push_back(DecodeF8E8M0(static_cast<uint8_t>(w.scales[begin + g])));
  }
  return result;
}

// Inputs begin to end - 1 of a row; `begin` is that of a group.
float Fp8Sum(const RoundedRow& x, const WeightRow& w, int64_t begin, int64_t end) {
  float sum = 0;
  for (int64_t b = begin; b < end; b += kFp8Group) {
    float of_group = 0;
    for (int64_t i = b; i < std::min(b + kFp8Group, end); i += kFp8Run) {
      of_group = AddRun(of_group, x.codes.data() + i, w.codes.data() + i,
                        std::min(kFp8Run, end - i));
    }
    const auto group = static_cast<size_t>(b / kFp8Group);
    sum = std::fma(of_group, x.scales[group] * w.scales[group], sum);
  }
  return sum;
}

float Fp4Sum(const RoundedRow& x, const WeightRow& w) {
  const auto inputs = static_cast<int64_t>(x.codes.size());
  float sum = 0;
  for (int64_t b = 0; b < inputs; b += kFp8Group) {
    float of_group = 0;
    for (int64_t i = b; i < std::min(b + kFp8Group, inputs); i += kFp4Group) {
      const float run = AddRun(0, x.codes.data() + i, w.codes.data() + i, kFp4Group);
      of_group = std::fma(run, w.scales[static_cast<size_t>(i / kFp4Group)], of_group);
    }
    sum = std::fma(of_group, x.scales[static_cast<size_t>(b / kFp8Group)], sum);
  }
  return kFp4CodeUnit * sum;
}

float SplitSum(const RoundedRow& x, const WeightRow& w, int64_t inputs,
               const KSplit& split) {
  if (split.num_leaves == 0) {
    return Fp8Sum(x, w, 0, inputs);
  }
  std::array<float, KSplit::kLeaves> sums = {};
  const int64_t leaf_inputs = split.total / KSplit::kLeaves;
  for (int leaf = 0; leaf < split.num_leaves; ++leaf) {
    sums[static_cast<size_t>(leaf)] =
        Fp8Sum(x, w, leaf * leaf_inputs, (leaf + 1) * leaf_inputs);
  }
  const std::span<float> leaves(sums.data(), static_cast<size_t>(split.num_leaves));
  return AddLeaves(leaves);
}

}  // namespace

void Fp8Linear(TensorView x, const WeightView& w, const KSplit& split, TensorView out) {
  TESSERA_CHECK_EQ(SplitInputs(split, w.cols), w.cols);
  TESSERA_CHECK_EQ(out.dim(1), w.rows);
  const std::vector<RoundedRow> rows = RoundedRows(x, w.cols);
  for (int64_t o = 0; o < w.rows; ++o) {
    const bool is_fp4 = w.dtype == DType::kFp4;
    const WeightRow weights = is_fp4 ? Fp4Row(w, o) : Fp8Row(w, o);
    for (size_t t = 0; t < rows.size(); ++t) {
      out.row<float>(static_cast<int64_t>(t))[o] =
          is_fp4 ? Fp4Sum(rows[t], weights) : SplitSum(rows[t], weights, w.cols, split);
    }
  }
}

}  // namespace tessera::kernels::reference
