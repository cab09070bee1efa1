#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"

namespace tessera::kernels::reference {
namespace {

// Row of a paged cache that holds `position` of the sequence of query row t.
template <typename T>
const T* CachedRow(const TensorView& cache, const PagedIndex& index, int64_t t,
                   int64_t position) {
  const int64_t sequence = *index.sequence_of_row.row<int32_t>(t);
  const int64_t block =
      index.block_tables.row<int32_t>(sequence)[position / index.block_size];
  return cache.row<T>(block, position % index.block_size);
}

template <typename T>
T IndexerScore(const IndexerSelectArgs& args, int64_t t, int64_t position,
               std::vector<T>& dots) {
  const int64_t heads = args.q.dim(1);
  const int64_t dim = args.q.dim(2);
  const T* key = CachedRow<T>(args.keys, args.index, t, position);
  for (int64_t h = 0; h < heads; ++h) {
    const T dot = Dot(args.q.row<T>(t, h), key, dim);
    dots[static_cast<size_t>(h)] = dot < 0 ? T{0} : dot;
  }
  return Dot(dots.data(), args.weights.row<T>(t), heads);
}

// Higher scores first, equal scores (+0 equals -0) by lower position. NaN sorts first, so
// that damage is selected and seen.
template <typename T>
bool Before(const std::vector<T>& scores, int32_t a, int32_t b) {
  const T x = scores[static_cast<size_t>(a)];
  const T y = scores[static_cast<size_t>(b)];
  if (std::isnan(x) || std::isnan(y)) {
    return std::isnan(x) && (!std::isnan(y) || a < b);
  }
  return x > y || (x == y && a < b);
}

// The positions that query row t attends to.
void AttendedPositions(const MlaAttentionArgs& args, int64_t t,
                       std::vector<int32_t>& positions) {
  if (args.selected.rank == 0) {
    positions.resize(static_cast<size_t>(*args.index.positions.row<int32_t>(t) + 1));
    std::iota(positions.begin(), positions.end(), 0);
    return;
  }
  const int64_t count = *args.num_selected.row<int32_t>(t);
  TESSERA_CHECK(count >= 0 && count <= args.selected.dim(1));
  const int32_t* selected = args.selected.row<int32_t>(t);
  positions.assign(selected, selected + count);
}

}  // namespace

template <typename T>
void IndexerSelect(const IndexerSelectArgs& args) {
  TESSERA_CHECK_EQ(args.selected.dim(1), args.topk);
  std::vector<T> dots(static_cast<size_t>(args.q.dim(1)));
  for (int64_t t = 0; t < args.q.dim(0); ++t) {
    const int64_t visible = *args.index.positions.row<int32_t>(t) + 1;
    std::vector<T> scores(static_cast<size_t>(visible));
    for (int64_t s = 0; s < visible; ++s) {
      scores[static_cast<size_t>(s)] = IndexerScore(args, t, s, dots);
    }
    std::vector<int32_t> order(static_cast<size_t>(visible));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return Before(scores, a, b); });
    const int64_t count = std::min(visible, args.topk);
    std::sort(order.begin(), order.begin() + count);
    int32_t* selected = args.selected.row<int32_t>(t);
    std::fill_n(selected, args.topk, -1);
    std::copy_n(order.begin(), count, selected);
    *args.num_selected.row<int32_t>(t) = static_cast<int32_t>(count);
  }
}

template <typename T>
void MlaAttention(const MlaAttentionArgs& args) {
  const int64_t latent_dim = args.q_latent.dim(2);
  const int64_t rope_dim = args.q_rope.dim(2);
  std::vector<T> scores;
  std::vector<int32_t> selected;
  for (int64_t t = 0; t < args.q_latent.dim(0); ++t) {
    AttendedPositions(args, t, selected);
    const auto count = static_cast<int64_t>(selected.size());
    scores.resize(selected.size());
    for (int64_t h = 0; h < args.q_latent.dim(1); ++h) {
      T* out = args.out.row<T>(t, h);
      std::fill_n(out, latent_dim, T{0});
      if (count == 0) {
        continue;
      }
      for (int64_t i = 0; i < count; ++i) {
        const T* latent =
            CachedRow<T>(args.latent, args.index, t, selected[static_cast<size_t>(i)]);
        const T* k_rope =
            CachedRow<T>(args.k_rope, args.index, t, selected[static_cast<size_t>(i)]);
        scores[static_cast<size_t>(i)] =
            (Dot(args.q_latent.row<T>(t, h), latent, latent_dim) +
             Dot(args.q_rope.row<T>(t, h), k_rope, rope_dim)) *
            static_cast<T>(args.scale);
      }
      const T maximum = *std::max_element(scores.begin(), scores.begin() + count);
      for (int64_t i = 0; i < count; ++i) {
        T& score = scores[static_cast<size_t>(i)];
        score = std::exp(score - maximum);
        const T* latent =
            CachedRow<T>(args.latent, args.index, t, selected[static_cast<size_t>(i)]);
        for (int64_t c = 0; c < latent_dim; ++c) {
          out[c] = MulAdd(score, latent[c], out[c]);
        }
      }
      const T total = Sum(scores.data(), count);
      for (int64_t c = 0; c < latent_dim; ++c) {
        out[c] /= total;
      }
    }
  }
}

#define TESSERA_INSTANTIATE(T)                              \
  template void IndexerSelect<T>(const IndexerSelectArgs&); \
  template void MlaAttention<T>(const MlaAttentionArgs&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
