#include "kernels/cpu/isa/simd_tables.h"

#include "kernels/cpu/simd/tiles/tile_ops.h"

namespace tessera::kernels::cpu {
namespace {

void AmxInt8Linear(const Int8Task& task) {
  const int64_t done = amx::kTileOps.int8_linear(task);
  if (done == task.count) {
    return;
  }
  Int8Task rest = task;
  rest.x.codes += done * task.x.blocks * kInt8BlockValues;
  rest.x.scales += done * task.x.blocks * 16;
  rest.x.offsets += done * task.x.blocks * 16;
  rest.count -= done;
  rest.out += done * task.out_stride;
  avx512vnni::kOps.int8_linear(rest);
}

}  // namespace

SimdOps TableOf(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return scalar::kOps;
    case CpuIsa::kAvx2:
      return avx2::kOps;
    case CpuIsa::kAvx512:
      return avx512::kOps;
    case CpuIsa::kAvx512Vnni:
      return avx512vnni::kOps;
    case CpuIsa::kAmx: {
      SimdOps ops = avx512vnni::kOps;
      ops.rounded_linear = amx::kTileOps.rounded_linear;
      ops.int8_linear = AmxInt8Linear;
      return ops;
    }
  }
  return scalar::kOps;
}

}  // namespace tessera::kernels::cpu
