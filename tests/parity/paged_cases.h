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

// Two sequences whose blocks lie in mixed order; query row t belongs to sequence t % 2
// and stands at `first` + `step` t.
Paged MakePaged(OpRun& run, int64_t rows, int64_t first, int64_t block_size,
                int64_t step = 3);

// The query rows [begin, begin + count).
kernels::PagedIndex RowsOf(kernels::PagedIndex index, int64_t begin, int64_t count);

}  // namespace tessera::parity

#endif  // TESSERA_TESTS_PARITY_PAGED_CASES_H_
