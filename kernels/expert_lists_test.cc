// Lists of experts' items, value by value. That the backends agree: tests/parity.
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "tests/testing/each_backend.h"

namespace tessera::kernels {
namespace {

using Words = std::vector<int32_t>;

constexpr int32_t kKept = 77;  // what an op is to leave

class ExpertLists : public EachBackend {
 protected:
  // Lists the items of three tokens of three slots; experts 1, 3 and 4 of 5 are local.
  void List(Words ids) {
    Words local = {-1, 0, -1, 1, 2};
    std::vector<float> weights = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    offsets_.assign(4, kKept);
    row_of_item_.assign(9, kKept);
    row_of_slot_.assign(9, kKept);
    item_weights_.assign(9, kKept);
    backend_->ListExpertItems(*stream_, {.expert_ids = Ints(ids, {3, 3}),
                                         .local_of_expert = Ints(local, {5}),
                                         .weights = Floats(weights, {3, 3}),
                                         .item_offsets = Ints(offsets_, {4}),
                                         .row_of_item = Ints(row_of_item_, {9}),
                                         .row_of_slot = Ints(row_of_slot_, {3, 3}),
                                         .item_weights = Floats(item_weights_, {9}),
                                         .fault = Ints(fault_, {1})});
  }

  Words offsets_;
  Words row_of_item_;
  Words row_of_slot_;
  std::vector<float> item_weights_;
  Words fault_ = {0};
};

TEST_P(ExpertLists, ItemsLieByExpertAndKeepTheOrderOfTheirSlots) {
  List({4, 1, 0, 2, 4, 1, 3, 1, 4});
  EXPECT_EQ(offsets_, (Words{0, 3, 4, 7}));
  EXPECT_EQ(row_of_item_, (Words{0, 1, 2, 2, 0, 1, 2, kKept, kKept}));
  EXPECT_EQ(row_of_slot_, (Words{4, 0, -1, -1, 5, 1, 3, 2, 6}));
  EXPECT_EQ(item_weights_, (std::vector<float>{2, 6, 8, 7, 1, 5, 9, kKept, kKept}));
  EXPECT_EQ(fault_, Words{0});
}

TEST_P(ExpertLists, NoExpertHasNoItemAndIsNoFault) {
  List({-1, -1, -1, 1, -1, 3, -1, -1, -1});
  EXPECT_EQ(offsets_, (Words{0, 1, 2, 2}));
  EXPECT_EQ(row_of_slot_, (Words{-1, -1, -1, 0, -1, 1, -1, -1, -1}));
  EXPECT_EQ(fault_, Words{0});
}

TEST_P(ExpertLists, AnIdThatIsNoExpertsIsNotedAndStaysNoted) {
  List({1, 5, 3, 1, -2, 3, 1, 0, 3});
  EXPECT_EQ(offsets_, (Words{0, 3, 6, 6}));
  EXPECT_EQ(row_of_slot_, (Words{0, -1, 3, 1, -1, 4, 2, -1, 5}));
  EXPECT_EQ(fault_, Words{5});  // slot 1 of token 1
  List({1, 5, 3, 1, 0, 3, 1, 0, 3});
  EXPECT_EQ(fault_, Words{5});
  List({1, 0, 3, 1, 0, 3, 1, 0, 3});
  EXPECT_EQ(fault_, Words{5});
}

TEST_P(ExpertLists, CountsAreOfRealExpertsAlone) {
  Words ids = {2, 0, -1, 2, 3, 4, -7, 2};
  Words counts(4, kKept);
  backend_->CountExperts(*stream_, Ints(ids, {2, 4}), Ints(counts, {4}));
  EXPECT_EQ(counts, (Words{1, 0, 3, 1}));
  backend_->CountExperts(*stream_, Ints(ids, {2, 4}).Rows(0, 0), Ints(counts, {4}));
  EXPECT_EQ(counts, (Words{0, 0, 0, 0}));
}

TEST_P(ExpertLists, PackedSlotsAreThoseWithARow) {
  Words rows = {-1, 8, -1, 3, -1, -1, -1, -1, 5, 6, 7, 8};
  Words packed(6, kKept);
  backend_->PackSlots(*stream_, Ints(rows, {3, 4}), Ints(packed, {3, 2}));
  EXPECT_EQ(packed, (Words{8, 3, -1, -1, 5, 6}));
  packed.assign(15, kKept);
  backend_->PackSlots(*stream_, Ints(rows, {3, 4}), Ints(packed, {3, 5}));
  EXPECT_EQ(packed, (Words{8, 3, -1, -1, -1, -1, -1, -1, -1, -1, 5, 6, 7, 8, -1}));
}

TEST_P(ExpertLists, RowsComeBackInTheOrderOfTheirOwnersSlots) {
  Words ids = {0, 3, 1, 2, -1, 2, 0, 3};
  Words owners = {1, 0, 1, 1};
  Words rows(8, kKept);
  Words fault = {0};
  backend_->LocateReturns(*stream_, {.expert_ids = Ints(ids, {2, 4}),
                                     .owner_of_expert = Ints(owners, {4}),
                                     .places = 3,
                                     .row_of_slot = Ints(rows, {2, 4}),
                                     .fault = Ints(fault, {1})});
  // Rank 1 returns rows 6 to 8 for token 0, and 9 to 11 for token 1.
  EXPECT_EQ(rows, (Words{6, 7, 0, 8, -1, 9, 10, 11}));
  EXPECT_EQ(fault, Words{0});
}

TEST_P(ExpertLists, ASlotWithoutAPlaceIsNoted) {
  Words ids = {0, 3, 1, 2, 9, 2, 1, -1};
  Words owners = {1, 0, 1, 1};
  Words rows(8, kKept);
  Words fault = {0};
  const LocateReturnsArgs args = {.expert_ids = Ints(ids, {2, 4}),
                                  .owner_of_expert = Ints(owners, {4}),
                                  .places = 2,
                                  .row_of_slot = Ints(rows, {2, 4}),
                                  .fault = Ints(fault, {1})};
  LocateReturnsArgs first = args;
  first.expert_ids = args.expert_ids.Rows(0, 1);
  first.row_of_slot = args.row_of_slot.Rows(0, 1);
  backend_->LocateReturns(*stream_, first);
  EXPECT_EQ(fault, Words{4});
  backend_->LocateReturns(*stream_, args);
  EXPECT_EQ(rows, (Words{4, 5, 0, -1, -1, 6, 2, -1}));
  EXPECT_EQ(fault, Words{5});  // the id
}

TEST_P(ExpertLists, ANegativeRowIsNoneOfASumAndAZeroOfAGather) {
  std::vector<float> y = {1, 2, 3, 4};
  Words rows = {1, -1, 0, -1, -1, -1};
  std::vector<float> weights = {10, 100, 1000, 5, 5, 5};
  std::vector<float> out(4, kKept);
  backend_->CombineExperts(*stream_, Floats(y, {2, 2}), Ints(rows, {2, 3}),
                           Floats(weights, {2, 3}), Floats(out, {2, 2}));
  EXPECT_EQ(out, (std::vector<float>{1030, 2040, 0, 0}));
  std::vector<float> gathered(12, kKept);
  backend_->GatherRows(*stream_, Floats(y, {2, 2}), Ints(rows, {6}),
                       Floats(gathered, {6, 2}));
  EXPECT_EQ(gathered, (std::vector<float>{3, 4, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0}));
}

// Ids move like rows of activations, those too that would be a NaN.
TEST_P(ExpertLists, ACopyOfIdsHasTheirBits) {
  Words ids = {-1, 7, 0x7fa00001, 0x00000001, -5, 9};
  Words to(8, kKept);
  TensorView out = Ints(to, {2, 4}).Slice(1, 0, 3);
  backend_->Copy(*stream_, Ints(ids, {2, 3}), out);
  EXPECT_EQ(to, (Words{-1, 7, 0x7fa00001, kKept, 1, -5, 9, kKept}));
}

INSTANTIATE_TEST_SUITE_P(Levels, ExpertLists, EveryLevel(), LevelName);

}  // namespace
}  // namespace tessera::kernels
