// Rounding of groups to fp8 and fp4, in place or into packed rows of a paged cache. A
// warp makes a group: its maximum by shuffles, then each thread its values. Bound by
// memory: 4 bytes a value and what is written, and a division. Exact.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/group_scale.cuh"
#include "kernels/row_format.h"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kGroupsPerBlock = kBlock / kWarpSize;

struct FakeQuantizeKernel {
  static constexpr const char* kName = "FakeQuantizeKernel";
  DeviceRows<float> x;
  GroupCode code;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kGroupsPerBlock;
    for (int64_t row = GlobalIndex(thread) / kWarpSize; row < x.rows; row += stride) {
      const int64_t begin = x.Begin(row);
      const float largest = LargestMagnitude(thread, x.span, begin, x.cols);
      const bool damaged = IsNan(largest);
      const float scale = damaged ? largest : GroupScale(code, largest);
      // A thread writes what it alone has read.
      for (int64_t i = begin + thread.lane(); i < begin + x.cols; i += kWarpSize) {
        thread.Store(
            x.span, i,
            damaged ? largest : RoundInGroup(code, thread.Load(x.span, i), scale));
      }
    }
  }
};

// A row of activations as it is: a thread to a value.
struct StorePlainKernel {
  static constexpr const char* kName = "StorePlainKernel";
  DeviceRows<const float> x;
  DeviceRows<const int32_t> slots;
  DeviceRows<float> cache;  // [block, slot of it]

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < x.rows * x.cols; i += stride) {
      const int64_t row = i / x.cols;
      const int64_t slot = thread.Load(slots.span, slots.Begin(row));
      if (slot >= 0) {
        thread.Store(cache.span, cache.Begin(slot) + i % x.cols,
                     thread.Load(x.span, x.Begin(row) + i % x.cols));
      }
    }
  }
};

// PackRow of row_format.h. A warp makes a group of a row, one more the values that have
// no codes and the padding after the scales.
struct StorePackedKernel {
  static constexpr const char* kName = "StorePackedKernel";
  DeviceRows<const float> x;
  DeviceRows<const int32_t> slots;
  DeviceRows<uint8_t> cache;  // [block, slot of it]
  RowScale scale_kind;
  GroupCode code;
  int64_t num_groups;
  int64_t group;
  int64_t coded;
  int64_t scales_begin;
  int64_t scales_end;
  int64_t rest_begin;

  // Whether each of these values is a code times the scale; by a whole warp.
  TESSERA_DEVICE bool HoldsExactly(Thread& thread, float scale, int64_t from,
                                   int64_t count) const {
    bool differs = false;
    for (int64_t i = thread.lane(); i < count; i += kWarpSize) {
      const float value = thread.Load(x.span, from + i);
      differs = differs || RoundInGroup(code, value, scale) != value;
    }
    return thread.Ballot(differs) == 0;
  }

  // Scales e4m3 are not powers of two: a group that was rounded once keeps its values
  // only under the scale of then, which its largest value over one of the codes gives
  // back.
  TESSERA_DEVICE float ScaleOf(Thread& thread, float largest, int64_t from,
                               int64_t count) const {
    const float usual = GroupScale(code, largest);
    if (code != GroupCode::kFp4E4M3 || HoldsExactly(thread, usual, from, count)) {
      return usual;
    }
    for (uint32_t e2m1 = 6; e2m1 >= 1; --e2m1) {  // 4, 3, 2, 1.5, 1, 0.5
      const float value = DecodeE2M1(e2m1);
      const float scale = DecodeE4M3(EncodeE4M3(largest / value));
      if (scale * value == largest && HoldsExactly(thread, scale, from, count)) {
        return scale;
      }
    }
    return usual;
  }

  TESSERA_DEVICE void StoreScale(Thread& thread, int64_t to, int64_t group_idx,
                                 float scale) const {
    const uint32_t bits = BitsOfFloat(scale);
    if (scale_kind == RowScale::kF32) {
      for (int64_t byte = 0; byte < 4; ++byte) {  // rows may begin anywhere
        thread.Store(cache.span, to + scales_begin + 4 * group_idx + byte,
                     static_cast<uint8_t>(bits >> (8 * byte)));
      }
      return;
    }
    const uint32_t stored = scale_kind == RowScale::kE4M3 ? EncodeE4M3(scale)
                            : IsNan(scale)                ? 255U
                                                          : bits >> 23;
    thread.Store(cache.span, to + scales_begin + group_idx, static_cast<uint8_t>(stored));
  }

  TESSERA_DEVICE void StoreGroup(Thread& thread, int64_t row_begin, int64_t to,
                                 int64_t group_idx) const {
    const int64_t begin = group_idx * group;
    const int64_t count = coded - begin < group ? coded - begin : group;
    const int64_t from = row_begin + begin;
    const float largest = LargestMagnitude(thread, x.span, from, count);
    const bool damaged = IsNan(largest);
    const float scale = damaged ? largest : ScaleOf(thread, largest, from, count);
    if (thread.lane() == 0) {
      StoreScale(thread, to, group_idx, scale);
    }
    if (code == GroupCode::kE4M3) {
      for (int64_t i = thread.lane(); i < count; i += kWarpSize) {
        thread.Store(
            cache.span, to + begin + i,
            static_cast<uint8_t>(EncodeE4M3(thread.Load(x.span, from + i) / scale)));
      }
      return;
    }
    // A damaged group is told by its scale: fp4 has no NaN.
    for (int64_t i = 2 * int64_t{thread.lane()}; i < count; i += 2 * kWarpSize) {
      const uint32_t low =
          damaged ? 0U : EncodeE2M1(thread.Load(x.span, from + i) / scale);
      const uint32_t high =
          damaged ? 0U : EncodeE2M1(thread.Load(x.span, from + i + 1) / scale);
      thread.Store(cache.span, to + (begin + i) / 2,
                   static_cast<uint8_t>(low | high << 4));
    }
  }

  TESSERA_DEVICE void StoreRest(Thread& thread, int64_t row_begin, int64_t to) const {
    for (int64_t i = coded + thread.lane(); i < x.cols; i += kWarpSize) {
      const uint32_t bits = EncodeBf16(thread.Load(x.span, row_begin + i));
      const int64_t at = to + rest_begin + 2 * (i - coded);
      thread.Store(cache.span, at, static_cast<uint8_t>(bits));
      thread.Store(cache.span, at + 1, static_cast<uint8_t>(bits >> 8));
    }
    const int64_t scale_bytes = num_groups * (scale_kind == RowScale::kF32 ? 4 : 1);
    for (int64_t at = scales_begin + scale_bytes + thread.lane(); at < scales_end;
         at += kWarpSize) {
      thread.Store(cache.span, to + at, 0);
    }
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t parts = num_groups + 1;
    const int64_t stride = int64_t{thread.grid_dim().x} * kGroupsPerBlock;
    for (int64_t i = GlobalIndex(thread) / kWarpSize; i < x.rows * parts; i += stride) {
      const int64_t row = i / parts;
      const int64_t slot = thread.Load(slots.span, slots.Begin(row));
      if (slot < 0) {
        continue;
      }
      if (i % parts < num_groups) {
        StoreGroup(thread, x.Begin(row), cache.Begin(slot), i % parts);
      } else {
        StoreRest(thread, x.Begin(row), cache.Begin(slot));
      }
    }
  }
};

GroupCode CodeOf(const RowFormat& format) {
  if (format.code == RowCode::kE4M3) {
    return GroupCode::kE4M3;
  }
  return format.scale == RowScale::kE4M3 ? GroupCode::kFp4E4M3 : GroupCode::kFp4E8M0;
}

// x[…, i, …] along `axis`, without that dimension.
TensorView At(const TensorView& x, int axis, int64_t i) {
  TensorView out = x.Slice(axis, i, 1);
  --out.rank;
  for (int next = axis; next < out.rank; ++next) {
    const auto at = static_cast<size_t>(next);
    out.shape[at] = out.shape[at + 1];
    out.strides[at] = out.strides[at + 1];
  }
  return out;
}

// Views of rank 4, groups of heads, take a launch a row or a head, whichever are fewer.
void FakeQuantize(GpuStream& stream, const TensorView& x, GroupCode code) {
  if (x.rank == TensorView::kMaxRank) {
    const int axis = x.dim(0) < x.dim(1) ? 0 : 1;
    for (int64_t i = 0; i < x.dim(axis); ++i) {
      FakeQuantize(stream, At(x, axis, i), code);
    }
    return;
  }
  const FakeQuantizeKernel kernel = {RowsOf<float>(x), code};
  if (!x.empty()) {
    Launch(stream, EachValueConfig(kernel.x.rows * kWarpSize, kBlock), kernel);
  }
}

}  // namespace

void FakeQuantizeE4M3(GpuStream& stream, TensorView x) {
  FakeQuantize(stream, x, GroupCode::kE4M3);
}

void FakeQuantizeFp4(GpuStream& stream, TensorView x, Fp4Scale scale) {
  FakeQuantize(stream, x,
               scale == Fp4Scale::kE8M0 ? GroupCode::kFp4E8M0 : GroupCode::kFp4E4M3);
}

void StorePaged(GpuStream& stream, TensorView x, TensorView slots,
                const CacheView& cache) {
  TESSERA_CHECK_EQ(x.dim(1), cache.width());
  const auto rows = RowsOf<const float>(x);
  const auto slot_of_row = ColumnOf<const int32_t>(slots);
  if (x.empty()) {
    return;
  }
  const RowFormat& format = cache.format;
  if (!format.is_packed()) {
    Launch(stream, EachValueConfig(x.num_elements(), kBlock),
           StorePlainKernel{rows, slot_of_row, RowsOf<float>(cache.rows)});
    return;
  }
  TESSERA_CHECK(format.code != RowCode::kFp4 ||
                (format.group % 2 == 0 && format.coded % 2 == 0));
  const StorePackedKernel kernel = {
      .x = rows,
      .slots = slot_of_row,
      .cache = RowsOf<uint8_t>(cache.rows),
      .scale_kind = format.scale,
      .code = CodeOf(format),
      .num_groups = format.num_groups(),
      .group = format.group,
      .coded = format.coded,
      .scales_begin = format.scales_begin(),
      .scales_end = format.scales_begin() + format.scale_bytes(),
      .rest_begin = format.rest_begin()};
  Launch(stream, EachValueConfig(rows.rows * (kernel.num_groups + 1) * kWarpSize, kBlock),
         kernel);
}

}  // namespace tessera::kernels::cuda
