#include "worker/runner/step_inputs.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

absl::Status CheckRatios(const StepInputs::Options& options) {
  int64_t before = 0;
  for (const int64_t ratio : options.ratios) {
    if (ratio <= before) {
      return InvalidArgumentF("ratio {} after {}, expected rising ones above 0", ratio,
                              before);
    }
    if (options.block_size % ratio != 0) {
      return InvalidArgumentF("blocks of {} tokens, expected a multiple of ratio {}",
                              options.block_size, ratio);
    }
    before = ratio;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StepInputs> StepInputs::Create(const Options& options,
                                              kernels::KernelBackend* backend) {
  TESSERA_RETURN_IF_ERROR(CheckRatios(options));
  StepInputs inputs;
  inputs.options_ = options;
  const auto tokens = static_cast<size_t>(options.max_tokens);
  inputs.arrays_.resize(inputs.has_tail() ? kEntries + 2 * options.ratios.size()
                                          : static_cast<size_t>(kTailSlots));
  for (std::vector<int32_t>& array : inputs.arrays_) {
    array.reserve(tokens);
  }
  const auto table_ints = static_cast<size_t>(options.max_sequences * options.max_blocks);
  inputs.block_tables_.resize(table_ints);
  inputs.tail_tables_.resize(inputs.has_tail() ? table_ints : 0);
  inputs.entries_.resize(inputs.has_tail() ? options.ratios.size() : 0);
  TESSERA_ASSIGN_OR_RETURN(
      inputs.device_arrays_,
      backend->Allocate(inputs.arrays_.size() * tokens * sizeof(int32_t)));
  TESSERA_ASSIGN_OR_RETURN(
      inputs.device_tables_,
      backend->Allocate((inputs.block_tables_.size() + inputs.tail_tables_.size()) *
                        sizeof(int32_t)));
  return inputs;
}

void StepInputs::Begin() {
  for (std::vector<int32_t>& array : arrays_) {
    array.clear();
  }
  num_sequences_ = 0;
  most_visible_ = 0;
  num_table_rows_ = 0;
  num_padding_tokens_ = 0;
  num_padding_head_rows_ = 0;
}

void StepInputs::AddRun(std::span<const int32_t> tokens, int64_t begin,
                        const Tables& tables) {
  const int64_t end = begin + static_cast<int64_t>(tokens.size());
  TESSERA_CHECK(fits(end - begin));
  most_visible_ = std::max(most_visible_, end);
  NameBlocks(tables.blocks);
  for (int64_t position = begin; position < end; ++position) {
    const auto block = static_cast<int64_t>(
        tables.blocks[static_cast<size_t>(position / options_.block_size)]);
    Push(kTokenIds, tokens[static_cast<size_t>(position - begin)]);
    Push(kPositions, position);
    Push(kSequenceOfRow, num_sequences_);
    Push(kCacheSlots, block * options_.block_size + position % options_.block_size);
    AddEntries(position, block);
  }
  if (has_tail()) {
    AddTail(begin, end, tables.tail);
  }
  num_table_rows_ = ++num_sequences_;
}

void StepInputs::AddBlock(std::span<const int32_t> tokens, int64_t begin,
                          int64_t num_held, const Tables& tables) {
  TESSERA_CHECK(has_tail() && fits(std::ssize(tokens)));
  TESSERA_CHECK(0 < num_held && num_held <= std::ssize(tokens));
  most_visible_ = std::max(most_visible_, begin + std::ssize(tokens));
  NameBlocks(tables.blocks);
  const int64_t block_size = options_.block_size;
  const int32_t* const table = NameTail(begin, begin + num_held, tables.tail);
  for (int64_t i = 0; i < std::ssize(tokens); ++i) {
    const int64_t position = begin + i;
    Push(kTokenIds, tokens[static_cast<size_t>(i)]);
    Push(kPositions, position);
    Push(kSequenceOfRow, num_sequences_);
    Push(kCacheSlots, -1);
    Push(kTailSlots,
         i < num_held ? table[position / block_size] * block_size + position % block_size
                      : -1);
    Push(kWindowBegin, std::max<int64_t>(0, begin - options_.window));
    Push(kWindowEnd, begin + num_held);
    for (size_t ratio = 0; ratio < entries_.size(); ++ratio) {
      Push(kEntries + 2 * ratio, -1);
      Push(kEntries + 2 * ratio + 1, 0);
    }
  }
  num_table_rows_ = ++num_sequences_;
}

void StepInputs::Pad(int64_t num_rows) {
  num_padding_tokens_ = num_rows - num_tokens();
  num_padding_head_rows_ = num_rows - std::ssize(arrays_[kHeadRows]);
  TESSERA_CHECK(num_padding_tokens_ >= 0 && num_padding_head_rows_ >= 0);
  TESSERA_CHECK(fits(num_padding_tokens_));
  TESSERA_CHECK(num_sequences_ <= num_rows && num_rows <= options_.max_sequences);
  num_table_rows_ = num_rows;
  const auto pad = [&](size_t array, int32_t value) {
    arrays_[array].resize(static_cast<size_t>(num_rows), value);
  };
  pad(kTokenIds, 0);
  pad(kCacheSlots, -1);
  pad(kPositions, -1);
  pad(kSequenceOfRow, 0);
  pad(kHeadRows, 0);
  if (!has_tail()) {
    return;
  }
  pad(kTailSlots, -1);
  pad(kWindowBegin, 0);
  pad(kWindowEnd, 0);
  for (size_t i = 0; i < entries_.size(); ++i) {
    pad(kEntries + 2 * i, -1);
    pad(kEntries + 2 * i + 1, 0);
  }
  DescribeEntries();
}

void StepInputs::NameBlocks(std::span<const uint32_t> blocks) {
  TESSERA_CHECK_LT(num_sequences_, options_.max_sequences);
  TESSERA_CHECK_LE(std::ssize(blocks), options_.max_blocks);
  int32_t* table = block_tables_.data() + num_sequences_ * options_.max_blocks;
  for (const uint32_t block : blocks) {
    *table++ = static_cast<int32_t>(block);
  }
}

void StepInputs::AddEntries(int64_t position, int64_t block) {
  for (size_t i = 0; i < entries_.size(); ++i) {
    const int64_t ratio = options_.ratios[i];
    const bool completes = (position + 1) % ratio == 0;
    const int64_t slot =
        block * (options_.block_size / ratio) + position % options_.block_size / ratio;
    Push(kEntries + 2 * i, completes ? slot : -1);
    Push(kEntries + 2 * i + 1, completes ? position + 1 - ratio : 0);
  }
}

const int32_t* StepInputs::NameTail(int64_t begin, int64_t end,
                                    std::span<const int32_t> tail) {
  const int64_t block_size = options_.block_size;
  // Blocks that the window has left may belong to another sequence by now: they are not
  // named, so that a read beyond the window cannot go unseen.
  const int64_t first = std::max<int64_t>(0, begin - options_.tail_tokens) / block_size;
  const int64_t last = end > begin ? (end - 1) / block_size : first - 1;
  int32_t* const table = tail_tables_.data() + num_sequences_ * options_.max_blocks;
  std::fill_n(table, options_.max_blocks, -1);
  for (int64_t i = first; i <= last; ++i) {
    table[i] = tail[static_cast<size_t>(i)];
    TESSERA_CHECK_LE(0, table[i]);
  }
  return table;
}

void StepInputs::AddTail(int64_t begin, int64_t end, std::span<const int32_t> tail) {
  const int64_t block_size = options_.block_size;
  const int32_t* const table = NameTail(begin, end, tail);
  for (int64_t position = begin; position < end; ++position) {
    Push(kTailSlots, table[position / block_size] * block_size + position % block_size);
    Push(kWindowBegin, std::max<int64_t>(0, position - options_.window + 1));
    Push(kWindowEnd, position + 1);
  }
}

TensorView StepInputs::Device(size_t array) const {
  auto* const base = static_cast<int32_t*>(device_arrays_.data());
  return {base + array * static_cast<size_t>(options_.max_tokens),
          DType::kI32,
          {static_cast<int64_t>(arrays_[array].size())}};
}

void StepInputs::Upload(kernels::Stream& stream, kernels::KernelBackend* backend) {
  for (size_t array = 0; array < arrays_.size(); ++array) {
    backend->Upload(stream, arrays_[array].data(), Device(array));
  }
  backend->Upload(stream, block_tables_.data(), TableRows(0, num_sequences_));
  if (!has_tail()) {
    return;
  }
  backend->Upload(stream, tail_tables_.data(),
                  TableRows(options_.max_sequences, num_sequences_));
  DescribeEntries();
}

void StepInputs::DescribeEntries() {
  for (size_t i = 0; i < entries_.size(); ++i) {
    const int64_t ratio = options_.ratios[i];
    entries_[i] = {.ratio = ratio,
                   .slots = Device(kEntries + 2 * i),
                   .positions = Device(kEntries + 2 * i + 1),
                   .index = Paged(0, options_.block_size / ratio)};
  }
}

void StepInputs::Describe(StepContext* context) const {
  context->num_tokens = num_tokens();
  context->token_ids = token_ids();
  context->cache_slots = Device(kCacheSlots);
  context->paged = Paged(0, options_.block_size);
  context->most_visible = most_visible_;
  if (!has_tail()) {
    return;
  }
  context->tail_slots = Device(kTailSlots);
  context->tail = Paged(options_.max_sequences, options_.block_size);
  context->window_begin = Device(kWindowBegin);
  context->window_end = Device(kWindowEnd);
  context->entries = entries_;
}

TensorView StepInputs::TableRows(int64_t first_row, int64_t count) const {
  auto* const base = static_cast<int32_t*>(device_tables_.data());
  return {
      base + first_row * options_.max_blocks, DType::kI32, {count, options_.max_blocks}};
}

kernels::PagedIndex StepInputs::Paged(int64_t first_row, int64_t block_size) const {
  return {.block_tables = TableRows(first_row, num_table_rows_),
          .sequence_of_row = Device(kSequenceOfRow),
          .positions = Device(kPositions),
          .block_size = block_size};
}

}  // namespace tessera::worker
