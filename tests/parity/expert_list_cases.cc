// Parity rows of the lists of experts' items. Everything that they make is whole numbers
// or copies, so that backends agree bit by bit.
#include <cstdint>
#include <limits>
#include <vector>

#include "fmt/format.h"

#include "tests/parity/op_run.h"

namespace tessera::parity {
namespace {

using kernels::ExpertItemsArgs;
using kernels::LocateReturnsArgs;

struct ListShape {
  int64_t tokens;
  int64_t k;
  int64_t experts;
  bool weights = false;
  bool faults = false;
};

// Ids of `shape`, a third of the rows padding; rows lie further apart than they are long.
TensorView MakeIds(OpRun& run, const ListShape& shape) {
  constexpr int64_t kGap = 2;
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < shape.tokens; ++t) {
    for (int64_t j = 0; j < shape.k + kGap; ++j) {
      auto id = static_cast<int32_t>(run.Integer(shape.experts));
      if (t % 3 == 1 || run.Integer(9) == 0) {
        id = -1;
      } else if (shape.faults && run.Integer(5) == 0) {
        const int32_t bad[] = {-2, static_cast<int32_t>(shape.experts),
                               std::numeric_limits<int32_t>::min(),
                               std::numeric_limits<int32_t>::max()};
        id = bad[run.Integer(4)];
      }
      ids.push_back(id);
    }
  }
  return run.Ints({shape.tokens, shape.k + kGap}, ids).Slice(1, 1, shape.k);
}

std::string Describe(const ListShape& shape) {
  return fmt::format("{}x{}_of{}{}{}", shape.tokens, shape.k, shape.experts,
                     shape.weights ? "_weights" : "", shape.faults ? "_faults" : "");
}

// Every expert is here, or two of three; their local indices rise.
ParityCase ListCase(ListShape shape, bool all) {
  return {fmt::format("ListExpertItems_{}{}", Describe(shape), all ? "_all" : ""),
          [=](OpRun& run) {
            std::vector<int32_t> local;
            int32_t count = 0;
            for (int64_t e = 0; e < shape.experts; ++e) {
              local.push_back(all || e % 3 != 1 ? count++ : -1);
            }
            ExpertItemsArgs args;
            args.expert_ids = MakeIds(run, shape);
            args.local_of_expert = run.Ints({shape.experts}, local);
            args.item_offsets = run.IntOutput("item_offsets", {count + 1});
            args.row_of_item = run.IntOutput("row_of_item", {shape.tokens * shape.k});
            args.row_of_slot = run.IntOutput("row_of_slot", {shape.tokens, shape.k});
            args.fault = run.IntOutput("fault", {1});
            if (shape.weights) {
              args.weights = run.Random({shape.tokens, shape.k});
              args.item_weights = run.Output("item_weights", {shape.tokens * shape.k});
            }
            run.backend().ListExpertItems(run.stream(), args);
          }};
}

ParityCase CountCase(ListShape shape) {
  return {fmt::format("CountExperts_{}", Describe(shape)), [=](OpRun& run) {
            const TensorView ids = MakeIds(run, shape);
            run.backend().CountExperts(run.stream(), ids,
                                       run.IntOutput("counts", {shape.experts}));
          }};
}

ParityCase CopyCase(int64_t rows, int64_t k) {
  return {fmt::format("Copy_{}x{}_ints", rows, k), [=](OpRun& run) {
            const TensorView ids = MakeIds(run, {rows, k, 100});
            const TensorView out = run.IntOutput("out", {rows, k});
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().Copy(run.stream(), ids.Rows(begin, count),
                                 out.Rows(begin, count));
            });
          }};
}

ParityCase PackCase(int64_t tokens, int64_t k, int64_t places) {
  return {fmt::format("PackSlots_{}x{}_to{}", tokens, k, places), [=](OpRun& run) {
            std::vector<int32_t> rows;
            for (int64_t i = 0; i < tokens * k; ++i) {
              rows.push_back(static_cast<int32_t>(run.Integer(20) - 10));
            }
            const TensorView row_of_slot = run.Ints({tokens, k}, rows);
            const TensorView packed = run.IntOutput("packed", {tokens, places});
            run.ForRows(tokens, [&](int64_t begin, int64_t count) {
              run.backend().PackSlots(run.stream(), row_of_slot.Rows(begin, count),
                                      packed.Rows(begin, count));
            });
          }};
}

ParityCase LocateCase(ListShape shape, int64_t ranks, int64_t places) {
  return {
      fmt::format("LocateReturns_{}_{}ranks_{}places", Describe(shape), ranks, places),
      [=](OpRun& run) {
        std::vector<int32_t> owners;
        for (int64_t e = 0; e < shape.experts; ++e) {
          owners.push_back(static_cast<int32_t>(run.Integer(ranks)));
        }
        LocateReturnsArgs args;
        args.expert_ids = MakeIds(run, shape);
        args.owner_of_expert = run.Ints({shape.experts}, owners);
        args.places = places;
        args.row_of_slot = run.IntOutput("row_of_slot", {shape.tokens, shape.k});
        args.fault = run.IntOutput("fault", {1});
        run.backend().LocateReturns(run.stream(), args);
      }};
}

}  // namespace

std::vector<ParityCase> ExpertListCases() {
  std::vector<ParityCase> cases;
  for (const ListShape& shape :
       {ListShape{0, 4, 8}, ListShape{0, 4, 8, true}, ListShape{1, 1, 1, true},
        ListShape{1, 16, 256, true}, ListShape{5, 3, 7, true, true},
        ListShape{64, 6, 67, true}, ListShape{37, 8, 300}, ListShape{3, 50, 2, true},
        ListShape{501, 9, 31, false, true}}) {  // more slots than lie in shared memory
    cases.push_back(ListCase(shape, false));
    cases.push_back(ListCase(shape, true));
    cases.push_back(CountCase(shape));
  }
  cases.push_back(ListCase({700, 6, 4096}, false));
  cases.push_back(CountCase({700, 6, 4096}));
  cases.push_back(CopyCase(0, 3));
  cases.push_back(CopyCase(5, 7));
  for (const int64_t places : {1, 3, 8}) {
    cases.push_back(PackCase(0, 4, places));
    cases.push_back(PackCase(1, 1, places));
    cases.push_back(PackCase(300, 5, places));
    cases.push_back(LocateCase({0, 4, 8}, 2, places));
    cases.push_back(LocateCase({1, 8, 256}, 8, places));
    cases.push_back(LocateCase({70, 5, 31, false, true}, 3, places));
  }
  return cases;
}

}  // namespace tessera::parity
