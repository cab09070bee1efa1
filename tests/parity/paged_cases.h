// Block tables of parity cases whose ops read paged caches.
#ifndef TESSERA_TESTS_PARITY_PAGED_CASES_H_
#define TESSERA_TESTS_PARITY_PAGED_CASES_H_

#include <cstdint>

#include "tests/parity/op_run.h"

namespace tessera::parity {

struct Paged {
  kernels::PagedIndex index;
  int64_t num_blocks = 0;
};

// Query rows 0, 1, … stand at `first` + `step` t; the last `padding` of them are padding
// rows.
struct QueryRows {
  int64_t count = 0;
  int64_t first = 0;
  int64_t step = 3;
  int64_t padding = 0;

  int64_t num_real() const { return count - padding; }
  // Of row t.
  int64_t Position(int64_t t) const { return t < num_real() ? first + step * t : -1; }
};

// Two sequences whose blocks lie in mixed order; row t belongs to sequence t % 2, a
// padding row to the first.
Paged MakePaged(OpRun& run, const QueryRows& rows, int64_t block_size);

// The query rows [begin, begin + count).
kernels::PagedIndex RowsOf(kernels::PagedIndex index, int64_t begin, int64_t count);

}  // namespace tessera::parity

#endif  // TESSERA_TESTS_PARITY_PAGED_CASES_H_
