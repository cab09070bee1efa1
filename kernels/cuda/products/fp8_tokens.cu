// Rounds tokens to e4m3 codes with a scale for each 128 inputs. A warp makes a group of a
// row: its maximum by shuffles, then each lane its codes. Bound: memory, 4 bytes read
// (activations: 8) and 1 written a value. Exact but for exp. Rows that are rounded
// already are copied, a word of four codes a lane: 1 byte read and 1 written a value.
#include <cmath>
#include <cstdint>

#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/group_scale.cuh"
#include "kernels/cuda/primitives/swiglu.cuh"
#include "kernels/cuda/products/fp8_tokens.h"
#include "kernels/fp8_products.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kValuesOfLane = kFp8Group / kWarpSize;
constexpr int64_t kCodesOfWord = sizeof(uint32_t);

// Rows that are tokens: all, or those that are items.
struct TokenRows {
  int64_t rows = 0;
  DeviceRows<const int32_t> offsets;  // without rows: all
  int64_t first = 0;

  TESSERA_DEVICE bool Has(Thread& thread, int64_t row) const {
    if (offsets.rows == 0) {
      return true;
    }
    const int64_t last = offsets.Begin(offsets.rows - 1);
    return first + row < thread.Load(offsets.span, last);
  }
};

// The values of a row of x, or of the one that the item names.
struct PlainRow {
  DeviceRows<const float> x;
  DeviceRows<const int32_t> row_of_item;  // without rows: the row itself
  int64_t first = 0;

  TESSERA_DEVICE int64_t BeginOf(Thread& thread, int64_t row) const {
    return x.Begin(row_of_item.rows == 0
                       ? row
                       : thread.Load(row_of_item.span, row_of_item.Begin(first + row)));
  }
  TESSERA_DEVICE float Value(Thread& thread, int64_t /*row*/, int64_t begin,
                             int64_t i) const {
    return thread.Load(x.span, begin + i);
  }
};

struct ActivatedRow {
  DeviceRows<const float> gate;
  DeviceRows<const float> up;
  DeviceRows<const float> item_weights;  // without rows: ones
  int64_t first = 0;
  float limit = 0;

  TESSERA_DEVICE int64_t BeginOf(Thread& /*thread*/, int64_t row) const {
    return gate.Begin(row);
  }
  TESSERA_DEVICE float Value(Thread& thread, int64_t row, int64_t begin,
                             int64_t i) const {
    const float weight =
        item_weights.rows == 0
            ? 1.0F
            : thread.Load(item_weights.span, item_weights.Begin(first + row));
    return SwiGlu(thread.Load(gate.span, begin + i),
                  thread.Load(up.span, up.Begin(row) + i), limit) *
           weight;
  }
};

template <typename Source>
struct QuantizeTokensKernel {
  static constexpr const char* kName = "QuantizeTokensKernel";
  static constexpr uint32_t kMaxThreads = kBlock;
  Source source;
  TokenRows tokens;
  DeviceRows<uint8_t> codes;
  DeviceRows<float> scales;  // a row for each group of inputs

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * (kMaxThreads / kWarpSize);
    for (int64_t i = GlobalIndex(thread) / kWarpSize; i < tokens.rows * scales.rows;
         i += stride) {
      const int64_t row = i / scales.rows;
      if (tokens.Has(thread, row)) {
        Round(thread, row, i % scales.rows);
      }
    }
  }

  TESSERA_DEVICE void Round(Thread& thread, int64_t row, int64_t group) const {
    const int64_t first = group * kFp8Group;
    const int64_t begin = source.BeginOf(thread, row);
    float values[kValuesOfLane];
    float largest = 0;
    bool damaged = false;
    TESSERA_UNROLL
    for (int64_t j = 0; j < kValuesOfLane; ++j) {
      const int64_t at = first + j * kWarpSize + thread.lane();
      values[j] = at < codes.cols ? source.Value(thread, row, begin, at) : 0.0F;
      const uint32_t magnitude = BitsOfFloat(values[j]) & 0x7fffffffU;
      damaged = damaged || magnitude >= 0x7f800000U;
      largest = fmaxf(largest, FloatOfBits(magnitude));
    }
    largest = LargestOfWarp(thread, largest, damaged);
    const float scale = IsNan(largest) ? largest : GroupScale(GroupCode::kE4M3, largest);
    TESSERA_UNROLL
    for (int64_t j = 0; j < kValuesOfLane; ++j) {
      const int64_t at = first + j * kWarpSize + thread.lane();
      if (at < codes.cols) {
        thread.Store(codes.span, codes.Begin(row) + at,
                     static_cast<uint8_t>(EncodeE4M3(values[j] / scale)));
      }
    }
    if (thread.lane() == 0) {
      thread.Store(scales.span, scales.Begin(group) + row, scale);
    }
  }
};

// The codes and scales that rows have, by the items that name them.
struct GatherTokensKernel {
  static constexpr const char* kName = "GatherTokensKernel";
  DeviceRows<const uint32_t> from_codes;  // four of them each
  DeviceRows<const float> from_scales;
  DeviceRows<const int32_t> row_of_item;
  TokenRows tokens;
  DeviceRows<uint32_t> codes;
  DeviceRows<float> scales;  // a row for each group of inputs

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * (kBlock / kWarpSize);
    for (int64_t i = GlobalIndex(thread) / kWarpSize; i < tokens.rows * scales.rows;
         i += stride) {
      const int64_t row = i / scales.rows;
      if (tokens.Has(thread, row)) {
        const int64_t at = row_of_item.Begin(tokens.first + row);
        CopyGroup(thread, thread.Load(row_of_item.span, at), row, i % scales.rows);
      }
    }
  }

  TESSERA_DEVICE void CopyGroup(Thread& thread, int64_t from, int64_t row,
                                int64_t group) const {
    const int64_t word = group * (kFp8Group / kCodesOfWord) + thread.lane();
    if (word < codes.cols) {
      thread.Store(codes.span, codes.Begin(row) + word,
                   thread.Load(from_codes.span, from_codes.Begin(from) + word));
    }
    if (thread.lane() == 0) {
      thread.Store(scales.span, scales.Begin(group) + row,
                   thread.Load(from_scales.span, from_scales.Begin(from) + group));
    }
  }
};

// Bytes [begin, begin + 4 count) of each row, as values of four bytes.
template <typename T>
DeviceRows<T> WordsOf(const TensorView& bytes, int64_t begin, int64_t count) {
  constexpr int64_t kBytes = sizeof(T);
  auto* const first = bytes.as<uint8_t>() + begin;
  TESSERA_CHECK_EQ(bytes.stride(0) % kBytes, 0);
  TESSERA_CHECK_EQ(reinterpret_cast<uintptr_t>(first) % sizeof(T), 0U);
  DeviceRows<T> rows;
  rows.rows = bytes.dim(0);
  rows.cols = count;
  rows.outer_stride = bytes.stride(0) / kBytes;
  rows.span = {reinterpret_cast<T*>(first),
               rows.rows == 0 ? 0 : (rows.rows - 1) * rows.outer_stride + count};
  return rows;
}

TokenRows RowsOfItems(const ListedItems& items, int64_t rows) {
  return {rows, ColumnOf<const int32_t>(items.item_offsets), items.first};
}

template <typename Source>
void Quantize(GpuStream& stream, const Source& source, const TokenRows& tokens,
              const Fp8Tokens& out) {
  const QuantizeTokensKernel<Source> kernel = {source, tokens, RowsOf<uint8_t>(out.codes),
                                               RowsOf<float>(out.scales)};
  const int64_t count = tokens.rows * kernel.scales.rows * kWarpSize;
  if (count > 0) {
    Launch(stream, EachValueConfig(count, kBlock), kernel);
  }
}

}  // namespace

void QuantizeTokens(GpuStream& stream, TensorView x, const Fp8Tokens& out) {
  Quantize(stream, PlainRow{RowsOf<const float>(x), {}, 0}, {out.codes.dim(0), {}, 0},
           out);
}

void QuantizeItems(GpuStream& stream, TensorView x, TensorView row_of_item,
                   const ListedItems& items, const Fp8Tokens& out) {
  Quantize(
      stream,
      PlainRow{RowsOf<const float>(x), ColumnOf<const int32_t>(row_of_item), items.first},
      RowsOfItems(items, out.codes.dim(0)), out);
}

void GatherItems(GpuStream& stream, TensorView x, TensorView row_of_item,
                 const ListedItems& items, const Fp8Tokens& out) {
  const int64_t inputs = out.codes.dim(1);
  const RowFormat format = Fp8RowFormat(inputs);
  TESSERA_CHECK_EQ(x.dim(1), format.packed_bytes());
  TESSERA_CHECK_EQ(inputs % kCodesOfWord, 0);
  const int64_t words = inputs / kCodesOfWord;
  const GatherTokensKernel kernel = {
      .from_codes = WordsOf<const uint32_t>(x, 0, words),
      .from_scales = WordsOf<const float>(x, format.scales_begin(), format.num_groups()),
      .row_of_item = ColumnOf<const int32_t>(row_of_item),
      .tokens = RowsOfItems(items, out.codes.dim(0)),
      .codes = WordsOf<uint32_t>(out.codes, 0, words),
      .scales = RowsOf<float>(out.scales)};
  const int64_t count = kernel.tokens.rows * kernel.scales.rows * kWarpSize;
  if (count > 0) {
    Launch(stream, EachValueConfig(count, kBlock), kernel);
  }
}

void QuantizeActivations(GpuStream& stream, TensorView gate, TensorView up,
                         double swiglu_limit, TensorView item_weights,
                         const ListedItems& items, const Fp8Tokens& out) {
  ActivatedRow source;
  source.gate = RowsOf<const float>(gate);
  source.up = RowsOf<const float>(up);
  if (item_weights.rank > 0) {
    source.item_weights = ColumnOf<const float>(item_weights);
  }
  source.first = items.first;
  source.limit = swiglu_limit > 0 ? static_cast<float>(swiglu_limit) : INFINITY;
  Quantize(stream, source, RowsOfItems(items, out.codes.dim(0)), out);
}

}  // namespace tessera::kernels::cuda
