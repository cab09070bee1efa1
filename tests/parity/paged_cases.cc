#include "tests/parity/paged_cases.h"

#include <algorithm>
#include <vector>

namespace tessera::parity {

Paged MakePaged(OpRun& run, const QueryRows& rows, int64_t block_size) {
  const int64_t longest = rows.first + rows.step * std::max<int64_t>(rows.count, 1);
  const int64_t blocks = longest / block_size + 1;
  std::vector<int32_t> table(static_cast<size_t>(2 * blocks));
  for (size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<int32_t>(table.size() - 1 - i);
  }
  std::vector<int32_t> sequence;
  std::vector<int32_t> position;
  for (int64_t t = 0; t < rows.count; ++t) {
    sequence.push_back(static_cast<int32_t>(t < rows.num_real() ? t % 2 : 0));
    position.push_back(static_cast<int32_t>(rows.Position(t)));
  }
  Paged paged;
  paged.num_blocks = 2 * blocks;
  paged.index.block_tables = run.Ints({2, blocks}, table);
  paged.index.sequence_of_row = run.Ints({rows.count}, sequence);
  paged.index.positions = run.Ints({rows.count}, position);
  paged.index.block_size = block_size;
  return paged;
}

kernels::PagedIndex RowsOf(kernels::PagedIndex index, int64_t begin, int64_t count) {
  index.sequence_of_row = index.sequence_of_row.Rows(begin, count);
  index.positions = index.positions.Rows(begin, count);
  return index;
}

}  // namespace tessera::parity
