// Lists of an exchange in fixed places. PackSlots gives a thread to a row, LocateReturns
// one to a slot, which looks at the slots before it: k^2 / 2 loads a row, of a line or
// two. Bound: the launch, of a decode step's few hundred slots.
#include <cstdint>

#include "common/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/expert_values.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;

struct PackSlotsKernel {
  static constexpr const char* kName = "PackSlotsKernel";
  DeviceRows<const int32_t> row_of_slot;
  DeviceRows<int32_t> packed;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t row = GlobalIndex(thread); row < packed.rows; row += stride) {
      int64_t held = 0;
      for (int64_t slot = 0; slot < row_of_slot.cols && held < packed.cols; ++slot) {
        const int32_t from = thread.Load(row_of_slot.span, row_of_slot.Begin(row) + slot);
        if (from >= 0) {
          thread.Store(packed.span, packed.Begin(row) + held++, from);
        }
      }
      for (; held < packed.cols; ++held) {
        thread.Store(packed.span, packed.Begin(row) + held, -1);
      }
    }
  }
};

struct LocateReturnsKernel {
  static constexpr const char* kName = "LocateReturnsKernel";
  ExpertValues owners;
  int64_t places;
  DeviceRows<int32_t> row_of_slot;

  TESSERA_DEVICE int32_t RowOf(Thread& thread, int64_t slot) const {
    const int32_t owner = owners.Of(thread, slot);
    if (owner < 0) {
      owners.CheckId(thread, slot);
      return -1;
    }
    const int64_t row = slot / row_of_slot.cols;
    int64_t before = 0;
    for (int64_t other = row * row_of_slot.cols; other < slot; ++other) {
      before += owners.Of(thread, other) == owner ? 1 : 0;
    }
    if (before >= places) {
      owners.Note(thread, slot);
      return -1;
    }
    return static_cast<int32_t>((owner * row_of_slot.rows + row) * places + before);
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t slot = GlobalIndex(thread); slot < owners.num_slots(); slot += stride) {
      const int64_t at =
          row_of_slot.Begin(slot / row_of_slot.cols) + slot % row_of_slot.cols;
      thread.Store(row_of_slot.span, at, RowOf(thread, slot));
    }
  }
};

}  // namespace

void PackSlots(GpuStream& stream, TensorView row_of_slot, TensorView packed) {
  TESSERA_CHECK_EQ(row_of_slot.dim(0), packed.dim(0));
  if (!packed.empty()) {
    Launch(stream, EachValueConfig(packed.dim(0), kBlock),
           PackSlotsKernel{RowsOf<const int32_t>(row_of_slot), RowsOf<int32_t>(packed)});
  }
}

void LocateReturns(GpuStream& stream, const LocateReturnsArgs& args) {
  TESSERA_CHECK_EQ(args.row_of_slot.dim(0), args.expert_ids.dim(0));
  TESSERA_CHECK_EQ(args.row_of_slot.dim(1), args.expert_ids.dim(1));
  if (!args.expert_ids.empty()) {
    Launch(stream, EachValueConfig(args.expert_ids.num_elements(), kBlock),
           LocateReturnsKernel{
               ExpertValuesOf(args.expert_ids, args.owner_of_expert, args.fault),
               args.places, RowsOf<int32_t>(args.row_of_slot)});
  }
}

}  // namespace tessera::kernels::cuda
