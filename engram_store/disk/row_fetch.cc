#include "engram_store/disk/row_fetch.h"

#include <algorithm>

namespace tessera::engram_store {

void PlanExtents(const DiskTable& table, std::span<const MissingRow> missing,
                 std::vector<FetchExtent>* extents) {
  extents->clear();
  for (size_t i = 0; i < missing.size(); ++i) {
    const PageRun pages = table.PagesOf(missing[i].row);
    if (!extents->empty()) {
      FetchExtent& last = extents->back();
      if (pages.first <= last.pages.end() &&
          pages.end() - last.pages.first <= kMaxExtentPages) {
        last.pages.count = std::max(last.pages.end(), pages.end()) - last.pages.first;
        ++last.count;
        continue;
      }
    }
    extents->push_back({.pages = pages, .first = i, .count = 1});
  }
}

}  // namespace tessera::engram_store
