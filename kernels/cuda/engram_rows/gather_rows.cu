// out[i] = table[ids[i]], rows of R bytes from host memory over the bus.
//
// A warp has a row: all lanes find its place (an id, a column, two numbers of its shard,
// each one broadcast), then each lane asks for up to four units of the row before it
// stores the first, 8 bytes a unit where rows allow it. V4.1: R = 264, 33 units, two a
// lane. Registers alone, no shared memory.
// Bound: R bytes a row through PCIe in requests of up to 128, three or four of them a row
// at a random multiple of 8; 24 rows are one trip to host memory for the id, where it
// lies there, and one for the row (1 to 2 us each), 1,536 rows are 0.4 MB: 7 us at the
// 55 GB/s of PCIe 5, more where requests bound it. Exact: bytes.
#include <type_traits>

#include "common/check.h"
#include "kernels/cuda/engram_rows/gather_rows.h"

namespace tessera::kernels::cuda {
namespace {

// Four rows: a token's 24 are spread over six SMs, and 16 blocks fill one.
constexpr uint32_t kBlock = 128;
constexpr int64_t kMaxRows = int64_t{1} << 31;

template <int kUnitBytes>
struct GatherEngramRowsKernel {
  static constexpr const char* kName = "GatherEngramRowsKernel";
  using Unit = std::conditional_t<kUnitBytes == 8, uint64_t,
                                  std::conditional_t<kUnitBytes == 4, uint32_t, uint8_t>>;
  static constexpr int kAtOnce = 4;  // loads of a lane that are under way together
  DeviceEngramTable table;
  GlobalSpan<const uint32_t> ids;
  GlobalSpan<Unit> out;
  GlobalSpan<BadRowWord> bad;

  // Empty if the id is not one of the column's.
  TESSERA_DEVICE GlobalSpan<const Unit> Find(Thread& thread, uint32_t place,
                                             int64_t units) const {
    const uint32_t id = thread.Load(ids, place);
    const auto column = place % static_cast<uint32_t>(table.columns.size);
    const DeviceEngramColumn of = thread.Load(table.columns, column);
    const uint32_t local = id - of.first_row;  // of an id below it: beyond all rows
    if (local >= of.num_rows) {
      return {};
    }
    const uint32_t shard = local / of.shard_rows;
    const int64_t row =
        int64_t{thread.Load(table.first_local, column * table.shards.size + shard)} +
        (local - shard * of.shard_rows);
    const GlobalSpan<const uint8_t> rows = thread.Load(table.shards, shard);
    return {reinterpret_cast<const Unit*>(rows.data + row * table.row_bytes), units};
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t units = table.row_bytes / kUnitBytes;
    const int64_t stride = int64_t{thread.grid_dim().x} * (kBlock / kWarpSize);
    for (int64_t i = GlobalIndex(thread) / kWarpSize; i < ids.size; i += stride) {
      const auto place = static_cast<uint32_t>(i);
      const GlobalSpan<const Unit> row = Find(thread, place, units);
      if (row.data == nullptr && thread.lane() == 0) {
        thread.AtomicMax(bad, 0, ~place);
      }
      for (int64_t begin = thread.lane(); begin < units; begin += kAtOnce * kWarpSize) {
        Unit values[kAtOnce];
        TESSERA_UNROLL
        for (int k = 0; k < kAtOnce; ++k) {
          const int64_t at = begin + k * int64_t{kWarpSize};
          values[k] = static_cast<Unit>(~Unit{0});
          if (row.data != nullptr && at < units) {
            values[k] = thread.Load(row, at);
          }
        }
        TESSERA_UNROLL
        for (int k = 0; k < kAtOnce; ++k) {
          const int64_t at = begin + k * int64_t{kWarpSize};
          if (at < units) {
            thread.Store(out, i * units + at, values[k]);
          }
        }
      }
    }
  }
};

template <int kUnitBytes>
void Gather(GpuStream& stream, const DeviceEngramTable& table,
            const GlobalSpan<const uint32_t>& ids, const GlobalSpan<uint8_t>& out,
            const GlobalSpan<BadRowWord>& bad) {
  using Kernel = GatherEngramRowsKernel<kUnitBytes>;
  static_assert(sizeof(typename Kernel::Unit) == kUnitBytes);
  auto* const units = reinterpret_cast<typename Kernel::Unit*>(out.data);
  Launch(stream, EachValueConfig(ids.size * kWarpSize, kBlock),
         Kernel{table, ids, {units, out.size / kUnitBytes}, bad});
}

}  // namespace

void GatherEngramRows(GpuStream& stream, const DeviceEngramTable& table,
                      GlobalSpan<const uint32_t> ids, GlobalSpan<uint8_t> out,
                      GlobalSpan<BadRowWord> bad) {
  TESSERA_CHECK(ids.size <= kMaxRows && ids.size % table.columns.size == 0);
  TESSERA_CHECK_EQ(out.size, ids.size * table.row_bytes);
  if (ids.size == 0) {
    return;
  }
  const auto aligned = [&](int64_t bytes) {
    return table.alignment % bytes == 0 &&
           reinterpret_cast<uintptr_t>(out.data) % static_cast<uintptr_t>(bytes) == 0;
  };
  if (aligned(8)) {
    Gather<8>(stream, table, ids, out, bad);
  } else if (aligned(4)) {
    Gather<4>(stream, table, ids, out, bad);
  } else {
    Gather<1>(stream, table, ids, out, bad);
  }
}

}  // namespace tessera::kernels::cuda
