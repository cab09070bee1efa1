#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/reference/paged_rows.h"
#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"

namespace tessera::kernels::reference {
namespace {

template <typename T>
T IndexerScore(const IndexerSelectArgs& args, int64_t t, int64_t position,
               std::vector<T>& dots) {
  const int64_t heads = args.q.dim(1);
  const int64_t dim = args.q.dim(2);
  RowReader<T> reader;
  const T* key = reader.Read(args.keys, args.index, t, position);
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

// Sorts the `count` best of `ids` by their scores to the front, these in rising order.
template <typename T>
void TakeBest(const std::vector<T>& scores, int64_t count, std::vector<int32_t>& ids) {
  std::sort(ids.begin(), ids.end(),
            [&](int32_t a, int32_t b) { return Before(scores, a, b); });
  ids.resize(std::min(ids.size(), static_cast<size_t>(count)));
  std::sort(ids.begin(), ids.end());
}

void StoreRow(const std::vector<int32_t>& ids, TensorView out, int64_t t) {
  TESSERA_CHECK_LE(static_cast<int64_t>(ids.size()), out.dim(1));
  std::fill_n(out.row<int32_t>(t), out.dim(1), -1);
  std::copy(ids.begin(), ids.end(), out.row<int32_t>(t));
}

// Entries that compete for the selection of query t, rising.
std::vector<int32_t> CompetingEntries(const IndexerSelectArgs& args, int64_t t,
                                      int64_t visible) {
  std::vector<int32_t> entries;
  if (args.candidates.rank == 0) {
    entries.resize(static_cast<size_t>(visible));
    std::iota(entries.begin(), entries.end(), 0);
    return entries;
  }
  for (int64_t i = 0; i < args.candidates.dim(1); ++i) {
    const int64_t block = args.candidates.row<int32_t>(t)[i];
    if (block < 0) {
      break;
    }
    const int64_t end = std::min(visible, (block + 1) * args.candidate_block);
    for (int64_t s = block * args.candidate_block; s < end; ++s) {
      entries.push_back(static_cast<int32_t>(s));
    }
  }
  return entries;
}

// The blocks with the best entries, and always that of the newest entry.
template <typename T>
std::vector<int32_t> PickBlocks(const IndexerSelectArgs& args,
                                const std::vector<T>& scores) {
  std::vector<T> best;
  for (size_t s = 0; s < scores.size(); ++s) {
    if (s % static_cast<size_t>(args.candidate_block) == 0) {
      best.push_back(scores[s]);
    } else if (!(best.back() >= scores[s]) && !std::isnan(best.back())) {
      best.back() = scores[s];  // larger, or NaN
    }
  }
  if (best.empty()) {
    return {};
  }
  const auto newest = static_cast<int32_t>(best.size()) - 1;
  std::vector<int32_t> blocks(best.size() - 1);
  std::iota(blocks.begin(), blocks.end(), 0);
  TakeBest(best, args.candidates_out.dim(1) - 1, blocks);
  blocks.push_back(newest);
  return blocks;
}

}  // namespace

template <typename T>
void IndexerSelect(const IndexerSelectArgs& args) {
  TESSERA_CHECK_EQ(args.selected.dim(1), args.topk);
  TESSERA_CHECK(args.candidates.rank == 0 || args.candidates_out.rank == 0);
  const bool scores_entries = args.q.rank > 0;
  TESSERA_CHECK(scores_entries || args.candidates_out.rank == 0);
  std::vector<T> dots(static_cast<size_t>(scores_entries ? args.q.dim(1) : 0));
  for (int64_t t = 0; t < args.selected.dim(0); ++t) {
    const int64_t visible =
        VisibleEntries(*args.index.positions.row<int32_t>(t), args.ratio);
    std::vector<int32_t> entries = CompetingEntries(args, t, visible);
    std::vector<T> scores(static_cast<size_t>(visible));
    TESSERA_CHECK(scores_entries || std::ssize(entries) <= args.topk);
    for (size_t i = 0; scores_entries && i < entries.size(); ++i) {
      scores[static_cast<size_t>(entries[i])] = IndexerScore(args, t, entries[i], dots);
    }
    if (args.candidates_out.rank > 0) {
      StoreRow(PickBlocks(args, scores), args.candidates_out, t);
    }
    TakeBest(scores, args.topk, entries);
    StoreRow(entries, args.selected, t);
    *args.num_selected.row<int32_t>(t) = static_cast<int32_t>(entries.size());
  }
}

template void IndexerSelect<float>(const IndexerSelectArgs&);
template void IndexerSelect<double>(const IndexerSelectArgs&);

}  // namespace tessera::kernels::reference
