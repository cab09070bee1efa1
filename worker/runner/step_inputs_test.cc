#include "worker/runner/step_inputs.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {
namespace {

using kernels::TensorView;
using Ints = std::vector<int32_t>;

// Inputs on the reference backend, whose device memory is the host's.
class StepInputsTest : public ::testing::Test {
 protected:
  void Create(StepInputs::Options options) {
    options.max_tokens = 16;
    options.max_sequences = max_sequences_;
    options.max_blocks = 4;
    options.block_size = 8;
    absl::StatusOr<StepInputs> inputs = StepInputs::Create(options, backend_.get());
    ASSERT_TRUE(inputs.ok()) << inputs.status();
    inputs_ = std::make_unique<StepInputs>(*std::move(inputs));
    inputs_->Begin();
  }

  void CreateWithTail() { Create({.window = 4, .tail_tokens = 7, .ratios = {4, 8}}); }

  StepContext Upload() {
    inputs_->Upload(*stream_, backend_.get());
    EXPECT_TRUE(stream_->Synchronize().ok());
    StepContext context;
    inputs_->Describe(&context);
    return context;
  }

  static Ints Read(const TensorView& view) {
    const auto* values = static_cast<const int32_t*>(view.data);
    return {values, values + view.num_elements()};
  }

  int64_t max_sequences_ = 2;
  std::unique_ptr<kernels::KernelBackend> backend_ =
      *kernels::CreateBackend({.name = "reference"});
  std::unique_ptr<kernels::Stream> stream_ = *backend_->CreateStream();
  std::unique_ptr<StepInputs> inputs_;
};

TEST_F(StepInputsTest, EveryTokenHasItsPositionSequenceAndSlot) {
  Create({});
  const std::vector<uint32_t> blocks = {5, 2};
  inputs_->AddRun(Ints{10, 11}, 7, {.blocks = blocks});
  inputs_->AddRun(Ints{20}, 0, {.blocks = std::span(blocks).subspan(1)});
  inputs_->MarkForHead(1);
  const StepContext context = Upload();
  EXPECT_EQ(context.num_tokens, 3);
  EXPECT_EQ(context.most_visible, 9);
  EXPECT_EQ(Read(context.token_ids), (Ints{10, 11, 20}));
  EXPECT_EQ(Read(context.cache_slots), (Ints{5 * 8 + 7, 2 * 8, 2 * 8}));
  EXPECT_EQ(Read(context.paged.positions), (Ints{7, 8, 0}));
  EXPECT_EQ(Read(context.paged.sequence_of_row), (Ints{0, 0, 1}));
  EXPECT_EQ(Read(inputs_->head_rows()), Ints{2});
  EXPECT_EQ(Read(context.paged.block_tables)[4], 2);
}

TEST_F(StepInputsTest, AModelWithoutTailBlocksHasNoTailViews) {
  Create({});
  inputs_->AddRun(Ints{1}, 0, {.blocks = std::vector<uint32_t>{0}});
  const StepContext context = Upload();
  EXPECT_EQ(context.tail_slots.data, nullptr);
  EXPECT_EQ(context.tail.block_tables.data, nullptr);
  EXPECT_EQ(context.window_begin.data, nullptr);
  EXPECT_TRUE(context.entries.empty());
}

TEST_F(StepInputsTest, WindowsEndAtTheTokenAndBeginNoEarlierThanTheSequence) {
  CreateWithTail();
  const std::vector<uint32_t> blocks = {0, 1};
  const Ints tail = {3, 6};
  inputs_->AddRun(Ints{1, 2}, 1, {.blocks = blocks, .tail = tail});
  inputs_->AddRun(Ints{3}, 9, {.blocks = blocks, .tail = tail});
  const StepContext context = Upload();
  EXPECT_EQ(Read(context.window_begin), (Ints{0, 0, 6}));
  EXPECT_EQ(Read(context.window_end), (Ints{2, 3, 10}));
  EXPECT_EQ(Read(context.tail_slots), (Ints{3 * 8 + 1, 3 * 8 + 2, 6 * 8 + 1}));
}

TEST_F(StepInputsTest, TheTailTableNamesOnlyWhatATokenOfTheStepSees) {
  CreateWithTail();
  const std::vector<uint32_t> blocks = {0, 1, 2, 3};
  const Ints tail = {7, 6, 5, 4};
  // Positions 15 and 16 see 8 to 16; position 14 sees 7.
  inputs_->AddRun(Ints{1, 2}, 15, {.blocks = blocks, .tail = tail});
  inputs_->AddRun(Ints{1}, 14, {.blocks = blocks, .tail = tail});
  const StepContext context = Upload();
  EXPECT_EQ(Read(context.tail.block_tables), (Ints{-1, 6, 5, -1, 7, 6, -1, -1}));
  EXPECT_EQ(context.tail.block_size, 8);
}

TEST_F(StepInputsTest, TheLastTokenOfAGroupStoresItsEntry) {
  CreateWithTail();
  const std::vector<uint32_t> blocks = {3, 1};
  inputs_->AddRun(Ints(10), 2, {.blocks = blocks, .tail = Ints{0, 1}});
  const StepContext context = Upload();
  ASSERT_EQ(context.entries.size(), 2u);
  // Positions 2 to 11: those that complete four tokens are 3, 7 and 11.
  const StepContext::Entries& four = context.entries[0];
  EXPECT_EQ(four.ratio, 4);
  EXPECT_EQ(Read(four.slots), (Ints{-1, 6, -1, -1, -1, 7, -1, -1, -1, 2}));
  EXPECT_EQ(Read(four.positions), (Ints{0, 0, 0, 0, 0, 4, 0, 0, 0, 8}));
  EXPECT_EQ(four.index.block_size, 2);
  EXPECT_EQ(Read(four.index.block_tables), Read(context.paged.block_tables));
  const StepContext::Entries& eight = context.entries[1];
  EXPECT_EQ(Read(eight.slots), (Ints{-1, -1, -1, -1, -1, 3, -1, -1, -1, -1}));
  EXPECT_EQ(eight.index.block_size, 1);
}

TEST_F(StepInputsTest, DraftsOfABlockSeeTheWindowBeforeItAndEachOther) {
  CreateWithTail();
  const std::vector<uint32_t> blocks = {0, 1};
  const Ints tail = {3, 6};
  inputs_->AddBlock(Ints{9, 8, 8}, 7, 3, {.blocks = blocks, .tail = tail});
  inputs_->AddBlock(Ints{9, 8, 8}, 2, 3, {.blocks = blocks, .tail = tail});
  const StepContext context = Upload();
  EXPECT_EQ(context.most_visible, 10);
  EXPECT_EQ(Read(context.token_ids), (Ints{9, 8, 8, 9, 8, 8}));
  EXPECT_EQ(Read(context.paged.positions), (Ints{7, 8, 9, 2, 3, 4}));
  EXPECT_EQ(Read(context.tail_slots),
            (Ints{3 * 8 + 7, 6 * 8, 6 * 8 + 1, 3 * 8 + 2, 3 * 8 + 3, 3 * 8 + 4}));
  EXPECT_EQ(Read(context.window_begin), (Ints{3, 3, 3, 0, 0, 0}));
  EXPECT_EQ(Read(context.window_end), (Ints{10, 10, 10, 5, 5, 5}));
}

TEST_F(StepInputsTest, DraftsOfABlockWithoutAPageAreNeitherStoredNorSeen) {
  CreateWithTail();
  inputs_->AddBlock(Ints{9, 8, 8}, 7, 1,
                    {.blocks = std::vector<uint32_t>{0}, .tail = Ints{3}});
  const StepContext context = Upload();
  EXPECT_EQ(Read(context.tail_slots), (Ints{3 * 8 + 7, -1, -1}));
  EXPECT_EQ(Read(context.window_end), (Ints{8, 8, 8}));
  EXPECT_EQ(Read(context.cache_slots), (Ints{-1, -1, -1}));
  // The block would complete an entry of eight at its first position.
  EXPECT_EQ(Read(context.entries[1].slots), (Ints{-1, -1, -1}));
}

TEST_F(StepInputsTest, PaddingRowsAreNobodysAndStoreNothing) {
  max_sequences_ = 8;
  CreateWithTail();
  inputs_->AddRun(Ints{9}, 7, {.blocks = std::vector<uint32_t>{2}, .tail = Ints{3}});
  inputs_->MarkForHead(1);
  inputs_->AddRun(Ints{8}, 3, {.blocks = std::vector<uint32_t>{1}, .tail = Ints{0}});
  inputs_->MarkForHead(1);
  inputs_->Pad(4);
  EXPECT_EQ(inputs_->num_tokens(), 4);
  EXPECT_EQ(inputs_->num_real_tokens(), 2);
  EXPECT_EQ(inputs_->num_real_head_rows(), 2);
  const StepContext context = Upload();
  EXPECT_EQ(context.num_tokens, 4);
  EXPECT_EQ(Read(context.token_ids), (Ints{9, 8, 0, 0}));
  EXPECT_EQ(Read(context.paged.positions), (Ints{7, 3, -1, -1}));
  EXPECT_EQ(Read(context.paged.sequence_of_row), (Ints{0, 1, 0, 0}));
  EXPECT_EQ(Read(context.cache_slots), (Ints{23, 11, -1, -1}));
  EXPECT_EQ(Read(context.tail_slots), (Ints{31, 3, -1, -1}));
  EXPECT_EQ(Read(context.window_begin), (Ints{4, 0, 0, 0}));
  EXPECT_EQ(Read(context.window_end), (Ints{8, 4, 0, 0}));
  EXPECT_EQ(Read(context.entries[0].slots), (Ints{5, 2, -1, -1}));
  EXPECT_EQ(Read(context.entries[0].positions), (Ints{4, 0, 0, 0}));
  EXPECT_EQ(Read(context.entries[1].slots), (Ints{2, -1, -1, -1}));
  EXPECT_EQ(Read(inputs_->head_rows()), (Ints{0, 1, 0, 0}));
}

// What a captured step was given: the same for each number of sequences.
TEST_F(StepInputsTest, PaddedViewsHaveThePlacesAndShapesOfTheirRowsAlone) {
  max_sequences_ = 4;
  CreateWithTail();
  inputs_->Pad(4);
  const StepContext captured = Upload();
  const std::vector<StepContext::Entries> entries(captured.entries.begin(),
                                                  captured.entries.end());
  EXPECT_EQ(inputs_->num_real_tokens(), 0);
  const auto expect_same = [](const TensorView& a, const TensorView& b) {
    EXPECT_EQ(a.data, b.data);
    EXPECT_EQ(a.shape, b.shape);
    EXPECT_EQ(a.strides, b.strides);
  };
  for (int count = 1; count <= 4; ++count) {
    inputs_->Begin();
    for (int i = 0; i < count; ++i) {
      inputs_->AddRun(Ints{9}, 7, {.blocks = std::vector<uint32_t>{2}, .tail = Ints{3}});
    }
    inputs_->Pad(4);
    const StepContext replayed = Upload();
    EXPECT_EQ(inputs_->num_real_tokens(), count);
    expect_same(captured.token_ids, replayed.token_ids);
    expect_same(captured.cache_slots, replayed.cache_slots);
    expect_same(captured.paged.block_tables, replayed.paged.block_tables);
    expect_same(captured.paged.sequence_of_row, replayed.paged.sequence_of_row);
    expect_same(captured.paged.positions, replayed.paged.positions);
    expect_same(captured.tail_slots, replayed.tail_slots);
    expect_same(captured.tail.block_tables, replayed.tail.block_tables);
    expect_same(captured.window_begin, replayed.window_begin);
    expect_same(captured.window_end, replayed.window_end);
    for (size_t i = 0; i < entries.size(); ++i) {
      expect_same(entries[i].slots, replayed.entries[i].slots);
      expect_same(entries[i].positions, replayed.entries[i].positions);
      expect_same(entries[i].index.block_tables, replayed.entries[i].index.block_tables);
    }
  }
}

TEST_F(StepInputsTest, AStepAfterAPaddedOneHasNoPadding) {
  Create({});
  inputs_->Pad(2);
  inputs_->Begin();
  inputs_->AddRun(Ints{1}, 0, {.blocks = std::vector<uint32_t>{0}});
  const StepContext context = Upload();
  EXPECT_EQ(context.num_tokens, 1);
  EXPECT_EQ(inputs_->num_real_tokens(), 1);
  EXPECT_EQ(inputs_->num_real_head_rows(), 0);
  EXPECT_EQ(context.paged.block_tables.dim(0), 1);
}

TEST_F(StepInputsTest, RefusesRatiosThatDoNotFitTheBlocks) {
  StepInputs::Options options{.max_tokens = 1,
                              .max_sequences = 1,
                              .max_blocks = 1,
                              .block_size = 8,
                              .window = 4,
                              .tail_tokens = 3};
  for (const std::vector<int64_t>& ratios :
       std::vector<std::vector<int64_t>>{{3}, {4, 4}, {8, 4}, {0}, {16}}) {
    options.ratios = ratios;
    EXPECT_EQ(StepInputs::Create(options, backend_.get()).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tessera::worker
