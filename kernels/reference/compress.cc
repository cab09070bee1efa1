#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/reference/paged_rows.h"
#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"

namespace tessera::kernels::reference {
namespace {

// One slot of a pooled entry: a token's row from the channels on that count.
template <typename T>
struct PoolSlot {
  const T* values;
  const T* gates;
};

template <typename T>
std::vector<PoolSlot<T>> SlotsOfEntry(const CompressArgs& args, int64_t t) {
  const int64_t position = *args.index.positions.row<int32_t>(t);
  const int64_t own = position + 1 - args.ratio;
  const int64_t dim = args.out.dim(1);
  std::vector<PoolSlot<T>> slots;
  for (int64_t p = args.overlap ? own - args.ratio : own; p <= position; ++p) {
    if (p < 0) {
      continue;  // the first entry has none before it
    }
    const int64_t channel = args.overlap && p >= own ? dim : 0;
    slots.push_back({CachedRow<T>(args.values, args.index, t, p) + channel,
                     CachedRow<T>(args.gates, args.index, t, p) + channel});
  }
  return slots;
}

}  // namespace

template <typename T>
void Compress(const CompressArgs& args) {
  const int64_t dim = args.out.dim(1);
  TESSERA_CHECK_EQ(args.values.dim(2), args.overlap ? 2 * dim : dim);
  TESSERA_CHECK_EQ(args.gates.dim(2), args.values.dim(2));
  for (int64_t t = 0; t < args.out.dim(0); ++t) {
    T* out = args.out.row<T>(t);
    std::fill_n(out, dim, T{0});
    const int64_t position = *args.index.positions.row<int32_t>(t);
    if (position < 0 || (position + 1) % args.ratio != 0) {
      continue;
    }
    const std::vector<PoolSlot<T>> slots = SlotsOfEntry<T>(args, t);
    for (int64_t c = 0; c < dim; ++c) {
      T largest = slots[0].gates[c];
      for (const PoolSlot<T>& slot : slots) {
        largest = std::max(largest, slot.gates[c]);
      }
      T total = 0;
      for (const PoolSlot<T>& slot : slots) {
        const T weight = std::exp(slot.gates[c] - largest);
        out[c] = MulAdd(weight, slot.values[c], out[c]);
        total += weight;
      }
      out[c] /= total;
    }
  }
}

template void Compress<float>(const CompressArgs&);
template void Compress<double>(const CompressArgs&);

}  // namespace tessera::kernels::reference
