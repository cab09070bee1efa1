#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/reference/paged_rows.h"
#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"

namespace tessera::kernels::reference {
namespace {

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

// The rows that query row t attends to, in order: its window, then its entries.
template <typename T>
std::vector<const T*> AttendedRows(const SharedKvAttentionArgs& args, int64_t t,
                                   RowReader<T>& reader) {
  std::vector<const T*> rows;
  const int64_t end = *args.window_end.row<int32_t>(t);
  for (int64_t p = *args.window_begin.row<int32_t>(t); p < end; ++p) {
    rows.push_back(reader.Read(args.window_rows, args.window, t, p));
  }
  if (!args.entries.is_present()) {
    return rows;
  }
  const bool all = args.selected.rank == 0;
  const int64_t count =
      all ? VisibleEntries(*args.entry_index.positions.row<int32_t>(t), args.ratio)
          : *args.num_selected.row<int32_t>(t);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t entry = all ? i : args.selected.row<int32_t>(t)[i];
    rows.push_back(reader.Read(args.entries, args.entry_index, t, entry));
  }
  return rows;
}

}  // namespace

template <typename T>
void SharedKvAttention(const SharedKvAttentionArgs& args) {
  const int64_t dim = args.q.dim(2);
  std::vector<T> scores;
  for (int64_t t = 0; t < args.q.dim(0); ++t) {
    RowReader<T> reader;
    const std::vector<const T*> rows = AttendedRows<T>(args, t, reader);
    scores.resize(rows.size());
    for (int64_t h = 0; h < args.q.dim(1); ++h) {
      T* out = args.out.row<T>(t, h);
      std::fill_n(out, dim, T{0});
      if (rows.empty()) {
        continue;
      }
      for (size_t i = 0; i < rows.size(); ++i) {
        scores[i] = Dot(args.q.row<T>(t, h), rows[i], dim) * static_cast<T>(args.scale);
      }
      const T maximum = *std::max_element(scores.begin(), scores.end());
      for (size_t i = 0; i < rows.size(); ++i) {
        scores[i] = std::exp(scores[i] - maximum);
        for (int64_t c = 0; c < dim; ++c) {
          out[c] = MulAdd(scores[i], rows[i][c], out[c]);
        }
      }
      const T total = Sum(scores.data(), static_cast<int64_t>(scores.size())) +
                      std::exp(static_cast<T>(args.sinks[h]) - maximum);
      for (int64_t c = 0; c < dim; ++c) {
        out[c] /= total;
      }
    }
  }
}

template <typename T>
void MlaAttention(const MlaAttentionArgs& args) {
  const int64_t latent_dim = args.q_latent.dim(2);
  const int64_t rope_dim = args.q_rope.dim(2);
  TESSERA_CHECK_EQ(args.rows.width(), latent_dim + rope_dim);
  std::vector<T> scores;
  std::vector<int32_t> selected;
  for (int64_t t = 0; t < args.q_latent.dim(0); ++t) {
    AttendedPositions(args, t, selected);
    const auto count = static_cast<int64_t>(selected.size());
    scores.resize(selected.size());
    RowReader<T> reader;
    std::vector<const T*> rows;
    for (const int32_t position : selected) {
      rows.push_back(reader.Read(args.rows, args.index, t, position));
    }
    for (int64_t h = 0; h < args.q_latent.dim(1); ++h) {
      T* out = args.out.row<T>(t, h);
      std::fill_n(out, latent_dim, T{0});
      if (count == 0) {
        continue;
      }
      for (int64_t i = 0; i < count; ++i) {
        const T* latent = rows[static_cast<size_t>(i)];
        scores[static_cast<size_t>(i)] =
            (Dot(args.q_latent.row<T>(t, h), latent, latent_dim) +
             Dot(args.q_rope.row<T>(t, h), latent + latent_dim, rope_dim)) *
            static_cast<T>(args.scale);
      }
      const T maximum = *std::max_element(scores.begin(), scores.begin() + count);
      for (int64_t i = 0; i < count; ++i) {
        T& score = scores[static_cast<size_t>(i)];
        score = std::exp(score - maximum);
        const T* latent = rows[static_cast<size_t>(i)];
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

#define TESSERA_INSTANTIATE(T)                            \
  template void MlaAttention<T>(const MlaAttentionArgs&); \
  template void SharedKvAttention<T>(const SharedKvAttentionArgs&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
