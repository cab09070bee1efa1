#include "tests/testing/stub_worker.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "proto/decode_rows.h"

namespace tessera::testing {
namespace {

template <typename... Args>
absl::Status BadPlan(fmt::format_string<Args...> format, Args&&... args) {
  return StatusF(absl::StatusCode::kFailedPrecondition, format,
                 std::forward<Args>(args)...);
}

// The finalizer of SplitMix64.
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

int32_t TokenOf(uint64_t hash, uint64_t position, uint32_t prompt_length,
                const proto::SamplingParams& sampling, int32_t vocab_size) {
  const uint64_t draw = Mix(hash ^ Mix(sampling.seed ^ Mix(sampling.choice_index + 1)) ^
                            Mix(position ^ (uint64_t{prompt_length} << 32)));
  return static_cast<int32_t>(draw % static_cast<uint64_t>(vocab_size));
}

}  // namespace

uint64_t StubHistoryHash(uint64_t hash, int32_t token) {
  return Mix(hash + 0x9e3779b97f4a7c15ULL + static_cast<uint32_t>(token));
}

int32_t StubToken(std::span<const int32_t> history, uint32_t prompt_length,
                  const proto::SamplingParams& sampling, int32_t vocab_size) {
  uint64_t hash = 0;
  for (const int32_t token : history) {
    hash = StubHistoryHash(hash, token);
  }
  return TokenOf(hash, history.size(), prompt_length, sampling, vocab_size);
}

StubWorker::Memory::Memory(int64_t num_blocks, int64_t num_host_blocks,
                           int64_t block_size)
    : width(static_cast<size_t>(block_size)),
      device(static_cast<size_t>(num_blocks) * width, 0),
      host(static_cast<size_t>(num_host_blocks) * width, 0),
      written(static_cast<size_t>(num_host_blocks), false) {}

void StubWorker::Memory::Clear() {
  device.assign(device.size(), 0);
  host.assign(host.size(), 0);
  written.assign(written.size(), false);
}

absl::Status StubWorker::Memory::Copy(const proto::BlockCopy& copy, bool restore) {
  if ((copy.device + size_t{1}) * width > device.size() || copy.host >= written.size() ||
      (restore && !written[copy.host])) {
    return BadPlan("copy between block {} of {} and host block {} of {}, restore: {}",
                   copy.device, device.size() / width, copy.host, written.size(),
                   restore);
  }
  written[copy.host] = true;
  const auto at_device =
      device.begin() + static_cast<std::ptrdiff_t>(copy.device * width);
  const auto at_host = host.begin() + static_cast<std::ptrdiff_t>(copy.host * width);
  if (restore) {
    std::copy_n(at_host, width, at_device);
  } else {
    std::copy_n(at_device, width, at_host);
  }
  return absl::OkStatus();
}

StubWorker::StubWorker(const StubWorkerOptions& options)
    : options_(options),
      slots_(static_cast<size_t>(options.max_num_seqs)),
      memory_(options.num_blocks, options.num_host_blocks, options.block_size),
      tail_memory_(options.num_tail_blocks, options.num_host_tail_blocks,
                   options.block_size),
      disk_(options.disk) {}

absl::Status StubWorker::Send(const proto::StepPlan& plan,
                              StubTransfers* transfers) const {
  if (!plan.transfers && plan.sends.size() + plan.receives.size() > 0) {
    return BadPlan("{} sends and {} receives without transfers", plan.sends.size(),
                   plan.receives.size());
  }
  for (const proto::BlockTransfer& send : plan.sends) {
    const Memory& memory = send.tail ? tail_memory_ : memory_;
    if ((send.block + size_t{1}) * memory.width > memory.device.size()) {
      return BadPlan("sends block {} of {}", send.block,
                     memory.device.size() / memory.width);
    }
    const auto at =
        memory.device.begin() + static_cast<std::ptrdiff_t>(send.block * memory.width);
    StubTransfer transfer = {.to = send.peer, .tail = send.tail, .rows = {}};
    transfer.rows.assign(at, at + static_cast<std::ptrdiff_t>(memory.width));
    if (!transfers->emplace(send.id, std::move(transfer)).second) {
      return BadPlan("two transfers have id {}", send.id);
    }
  }
  return absl::OkStatus();
}

absl::Status StubWorker::Receive(const proto::BlockTransfer& receive,
                                 StubTransfers* transfers, uint32_t dp_rank) {
  Memory& memory = receive.tail ? tail_memory_ : memory_;
  const auto found =
      transfers == nullptr ? StubTransfers::iterator() : transfers->find(receive.id);
  if (transfers == nullptr || found == transfers->end() || found->second.to != dp_rank ||
      found->second.tail != receive.tail || receive.block >= memory.written.size()) {
    return BadPlan("host block {} of {} is to receive block {}, which nobody sends",
                   receive.block, memory.written.size(), receive.id);
  }
  std::copy(
      found->second.rows.begin(), found->second.rows.end(),
      memory.host.begin() + static_cast<std::ptrdiff_t>(receive.block * memory.width));
  memory.written[receive.block] = true;
  transfers->erase(found);
  return absl::OkStatus();
}

absl::Status StubWorker::CopyBlocks(const proto::StepPlan& plan, StubTransfers* transfers,
                                    uint32_t dp_rank) {
  for (const proto::BlockCopy& copy : plan.offloads) {
    TESSERA_RETURN_IF_ERROR((copy.tail ? tail_memory_ : memory_).Copy(copy, false));
  }
  for (const proto::BlockTransfer& receive : plan.receives) {
    TESSERA_RETURN_IF_ERROR(Receive(receive, transfers, dp_rank));
  }
  for (const proto::BlockCopy& copy : plan.restores) {
    TESSERA_RETURN_IF_ERROR((copy.tail ? tail_memory_ : memory_).Copy(copy, true));
  }
  return absl::OkStatus();
}

absl::Status StubWorker::CopyDisk(const proto::StepPlan& plan,
                                  proto::StepResult* result) {
  const auto rows = [](Memory& memory, uint32_t block) {
    return std::span(memory.host).subspan(block * memory.width, memory.width);
  };
  const auto host = [&](bool tail, uint32_t block) {
    Memory& memory = tail ? tail_memory_ : memory_;
    std::optional<std::vector<uint64_t>> content;
    if (block < memory.written.size() && memory.written[block]) {
      const auto from = rows(memory, block);
      content.emplace(from.begin(), from.end());
    }
    return content;
  };
  const auto fill = [&](bool tail, uint32_t block, const std::vector<uint64_t>& content) {
    Memory& memory = tail ? tail_memory_ : memory_;
    std::copy(content.begin(), content.end(), rows(memory, block).begin());
    memory.written[block] = true;
  };
  TESSERA_RETURN_IF_ERROR(disk_.Execute(plan, host, fill, result));
  for (const proto::DiskCopy& copy : plan.disk_copies) {
    if (copy.fetch) {
      (copy.tail ? tail_memory_ : memory_).written.at(copy.host) = false;
    }
  }
  return absl::OkStatus();
}

int64_t StubWorker::num_live_slots() const {
  int64_t count = 0;
  for (const Slot& slot : slots_) {
    count += slot.live ? 1 : 0;
  }
  return count;
}

absl::Status StubWorker::TakeMasks(const proto::StepPlan& plan,
                                   const proto::LateInput* late) {
  for (Slot& slot : slots_) {
    slot.mask.clear();
  }
  const auto num_masked =
      std::count_if(plan.work.begin(), plan.work.end(),
                    [](const proto::SlotWork& work) { return work.masked; });
  if (num_masked == 0 && late == nullptr) {
    return absl::OkStatus();
  }
  if (late == nullptr || late->epoch != plan.epoch || late->step != plan.step ||
      std::ssize(late->masks) != num_masked) {
    return BadPlan("no late input with {} masks", num_masked);
  }
  for (const proto::SlotWork& work : plan.work) {
    const auto mask = std::find_if(
        late->masks.begin(), late->masks.end(),
        [&](const proto::TokenMask& entry) { return entry.slot == work.slot; });
    if (work.masked != (mask != late->masks.end()) ||
        (work.masked && (!work.sample || work.num_drafts > 0))) {
      return BadPlan("slot {} and its mask do not fit", work.slot);
    }
    if (work.masked) {
      slots_[work.slot].mask = mask->words;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<proto::StepResult> StubWorker::Execute(const proto::StepPlan& plan,
                                                      const proto::LateInput* late,
                                                      StubTransfers* transfers,
                                                      uint32_t dp_rank) {
  TESSERA_RETURN_IF_ERROR(Begin(plan));
  TESSERA_RETURN_IF_ERROR(proto::CheckDecodeRows(plan, options_.max_num_seqs));
  proto::StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  TESSERA_RETURN_IF_ERROR(CopyDisk(plan, &result));
  TESSERA_RETURN_IF_ERROR(CopyBlocks(plan, transfers, dp_rank));
  for (const uint32_t slot : plan.releases) {
    if (!IsLive(slot)) {
      return BadPlan("release of slot {}, which is free", slot);
    }
    slots_[slot] = Slot();
  }
  for (const proto::SlotAdmission& admission : plan.admissions) {
    TESSERA_RETURN_IF_ERROR(Admit(admission));
  }
  for (const proto::BlockAppend& append : plan.appends) {
    TESSERA_RETURN_IF_ERROR(Append(append));
  }
  TESSERA_RETURN_IF_ERROR(TakeMasks(plan, late));
  std::set<uint32_t> seen;
  for (const proto::SlotWork& work : plan.work) {
    if (!seen.insert(work.slot).second) {
      return BadPlan("two works for slot {}", work.slot);
    }
    TESSERA_RETURN_IF_ERROR(Work(work, plan.step, &result));
  }
  // After all writes: one sequence's write into another's block must not go unseen.
  for (const proto::SlotWork& work : plan.work) {
    TESSERA_RETURN_IF_ERROR(CheckMemory(work.slot));
    TESSERA_RETURN_IF_ERROR(CheckTail(work.slot, slots_[work.slot].last_count));
  }
  if (result.counters.num_tokens > options_.max_num_batched_tokens) {
    return BadPlan("{} tokens in a step, expected at most {}", result.counters.num_tokens,
                   options_.max_num_batched_tokens);
  }
  counted_tokens_ += plan.leaves_expert_counts ? 0 : result.counters.num_tokens;
  if (plan.reports_expert_counts) {
    result.expert_counts.resize(static_cast<size_t>(options_.num_expert_counts));
    result.expert_counts[0] = std::exchange(counted_tokens_, 0);
  }
  return result;
}

absl::Status StubWorker::Begin(const proto::StepPlan& plan) {
  if (plan.epoch < epoch_) {
    return BadPlan("plan of epoch {} after epoch {}", plan.epoch, epoch_);
  }
  if (plan.epoch > epoch_) {
    slots_.assign(slots_.size(), Slot());
    memory_.Clear();
    tail_memory_.Clear();
    disk_.Clear();
    epoch_ = plan.epoch;
    step_ = 0;
  }
  if (plan.step != step_ + 1) {
    return BadPlan("step {} after step {}", plan.step, step_);
  }
  step_ = plan.step;
  return absl::OkStatus();
}

absl::Status StubWorker::Admit(const proto::SlotAdmission& admission) {
  if (admission.slot >= slots_.size() || slots_[admission.slot].live) {
    return BadPlan("admission to slot {}, expected a free one", admission.slot);
  }
  TESSERA_RETURN_IF_ERROR(CheckBlocks(admission.blocks, options_.num_blocks));
  TESSERA_RETURN_IF_ERROR(CheckBlocks(admission.tail_blocks, options_.num_tail_blocks));
  Slot& slot = slots_[admission.slot];
  slot.live = true;
  slot.blocks = admission.blocks;
  slot.tail_begin = admission.tail_begin;
  slot.tail_blocks = admission.tail_blocks;
  slot.prompt_length = admission.prompt_length;
  slot.sampling = admission.sampling;
  if (std::ssize(admission.history) > std::ssize(slot.blocks) * options_.block_size) {
    return BadPlan("history of {} tokens in {} blocks", admission.history.size(),
                   slot.blocks.size());
  }
  for (const int32_t token : admission.history) {
    PushToken(&slot, token);
  }
  return absl::OkStatus();
}

absl::Status StubWorker::CheckBlocks(std::span<const uint32_t> blocks,
                                     int64_t num_blocks) const {
  for (const uint32_t block : blocks) {
    if (block >= num_blocks) {
      return BadPlan("block {}, expected less than {}", block, num_blocks);
    }
  }
  return absl::OkStatus();
}

void StubWorker::PushToken(Slot* slot, int32_t token) {
  const uint64_t before = slot->hashes.empty() ? 0 : slot->hashes.back();
  slot->tokens.push_back(token);
  slot->hashes.push_back(StubHistoryHash(before, token));
}

absl::Status StubWorker::Append(const proto::BlockAppend& append) {
  if (!IsLive(append.slot)) {
    return BadPlan("blocks for slot {}, which is free", append.slot);
  }
  TESSERA_RETURN_IF_ERROR(CheckBlocks(append.blocks, options_.num_blocks));
  TESSERA_RETURN_IF_ERROR(CheckBlocks(append.tail_blocks, options_.num_tail_blocks));
  Slot& slot = slots_[append.slot];
  slot.blocks.insert(slot.blocks.end(), append.blocks.begin(), append.blocks.end());
  slot.tail_blocks.insert(slot.tail_blocks.end(), append.tail_blocks.begin(),
                          append.tail_blocks.end());
  return absl::OkStatus();
}

absl::Status StubWorker::Work(const proto::SlotWork& work, uint64_t step,
                              proto::StepResult* result) {
  if (!IsLive(work.slot)) {
    return BadPlan("work for slot {}, which is free", work.slot);
  }
  Slot& slot = slots_[work.slot];
  std::vector<int32_t> tokens = work.tokens;
  if (work.from_sample) {
    if (!tokens.empty() || slot.sample_step == 0 || slot.sample_step + 1 != step) {
      return BadPlan("slot {} goes on from the sample of step {} in step {}", work.slot,
                     slot.sample_step, step);
    }
    tokens = {slot.sample};
  }
  if (tokens.empty()) {
    return BadPlan("work without tokens for slot {}", work.slot);
  }
  if (work.num_drafts > options_.num_speculative_tokens ||
      (work.num_drafts > 0 && (!work.sample || tokens.size() != 1 ||
                               slot.sample_step == 0 || tokens[0] != slot.sample))) {
    return BadPlan("{} drafts after {} tokens of slot {}, of which {} was sampled",
                   work.num_drafts, tokens.size(), work.slot, slot.sample);
  }
  const auto width = static_cast<size_t>(options_.block_size);
  const size_t end = slot.tokens.size() + tokens.size() + work.num_drafts;
  if (end > slot.blocks.size() * width ||
      end > static_cast<size_t>(options_.max_model_len)) {
    return BadPlan("slot {} plans {} tokens and {} drafts after {}: {} blocks, {} tokens",
                   work.slot, tokens.size(), work.num_drafts, slot.tokens.size(),
                   slot.blocks.size(), options_.max_model_len);
  }
  const std::vector<int32_t> drafts = Drafts(slot, tokens.front(), work.num_drafts);
  slot.last_count = tokens.size();
  tokens.insert(tokens.end(), drafts.begin(), drafts.end());
  for (const int32_t token : tokens) {
    TESSERA_RETURN_IF_ERROR(Compute(work.slot, token));
  }
  result->counters.num_tokens += static_cast<uint32_t>(tokens.size());
  if (work.sample) {
    Verify(work, drafts.size(), result);
    slot.sample_step = step;
  }
  return absl::OkStatus();
}

std::vector<int32_t> StubWorker::Drafts(const Slot& slot, int32_t sampled,
                                        uint32_t num_drafts) const {
  std::vector<int32_t> drafts;
  uint64_t hash = StubHistoryHash(slot.hashes.empty() ? 0 : slot.hashes.back(), sampled);
  const uint64_t chance = Mix(hash ^ step_);
  const uint64_t count = num_drafts == 0 ? 0 : chance % (num_drafts + 1);
  for (uint64_t i = 0; i < count; ++i) {
    int32_t draft = TokenOf(hash, slot.tokens.size() + 1 + i, slot.prompt_length,
                            slot.sampling, options_.vocab_size);
    if (Mix(chance + i) % 100 >= options_.right_drafts_percent) {
      draft = (draft + 1) % options_.vocab_size;
    }
    drafts.push_back(draft);
    hash = StubHistoryHash(hash, draft);
  }
  return drafts;
}

void StubWorker::Verify(const proto::SlotWork& work, size_t num_drafts,
                        proto::StepResult* result) {
  Slot& slot = slots_[work.slot];
  size_t num_accepted = 0;
  for (size_t length = slot.tokens.size() - num_drafts;; ++length) {
    slot.sample = TokenOf(slot.hashes[length - 1], length, slot.prompt_length,
                          slot.sampling, options_.vocab_size);
    // The next one that the mask allows.
    for (int32_t tries = 0; !slot.mask.empty() && tries < options_.vocab_size; ++tries) {
      const auto id = static_cast<uint32_t>(slot.sample);
      if ((slot.mask[id / 32] >> (id % 32) & 1) != 0) {
        break;
      }
      slot.sample = (slot.sample + 1) % options_.vocab_size;
    }
    result->sampled.push_back({.slot = work.slot,
                               .token = slot.sample,
                               .position = static_cast<uint32_t>(length),
                               .logprob = -1.0f,
                               .top = {}});
    if (length == slot.tokens.size() || slot.tokens[length] != slot.sample) {
      slot.tokens.resize(length);
      slot.hashes.resize(length);
      break;
    }
    ++slot.last_count;
    ++num_accepted;
  }
  result->counters.num_drafts += num_drafts > 0 ? 1 : 0;
  result->counters.num_draft_tokens += static_cast<uint32_t>(num_drafts);
  for (size_t i = 0; i < num_accepted; ++i) {
    ++result->counters.accepted_drafts[i];
  }
}

absl::Status StubWorker::Compute(uint32_t slot_idx, int32_t token) {
  Slot& slot = slots_[slot_idx];
  if (token < 0 || token >= options_.vocab_size) {
    return BadPlan("token {} for slot {}", token, slot_idx);
  }
  const size_t position = slot.tokens.size();
  const auto width = static_cast<size_t>(options_.block_size);
  if (position / width >= slot.blocks.size()) {
    return BadPlan("slot {} computes position {} with {} blocks", slot_idx, position,
                   slot.blocks.size());
  }
  PushToken(&slot, token);
  memory_.device[slot.blocks[position / width] * width + position % width] =
      slot.hashes.back();
  if (options_.num_tail_blocks == 0) {
    return absl::OkStatus();
  }
  const std::optional<size_t> row = TailRow(slot, position);
  if (!row.has_value()) {
    return BadPlan("slot {} computes position {} with tail blocks {} to {}", slot_idx,
                   position, slot.tail_begin, slot.tail_begin + slot.tail_blocks.size());
  }
  tail_memory_.device[*row] = slot.hashes.back();
  return absl::OkStatus();
}

std::optional<size_t> StubWorker::TailRow(const Slot& slot, size_t position) const {
  const auto width = static_cast<size_t>(options_.block_size);
  const size_t idx = position / width;
  if (idx < slot.tail_begin || idx - slot.tail_begin >= slot.tail_blocks.size()) {
    return std::nullopt;
  }
  return slot.tail_blocks[idx - slot.tail_begin] * width + position % width;
}

absl::Status StubWorker::CheckTail(uint32_t slot_idx, size_t count) const {
  if (options_.num_tail_blocks == 0) {
    return absl::OkStatus();
  }
  const Slot& slot = slots_[slot_idx];
  const auto reach = static_cast<size_t>(options_.tail_tokens) + count;
  const size_t length = slot.hashes.size();
  for (size_t position = length - std::min(length, reach); position < length;
       ++position) {
    const std::optional<size_t> row = TailRow(slot, position);
    if (!row.has_value() || tail_memory_.device[*row] != slot.hashes[position]) {
      return DataLossF("slot {} sees position {} of {}: its tail row {}", slot_idx,
                       position, length,
                       row.has_value() ? "holds other content" : "is in no block");
    }
  }
  return absl::OkStatus();
}

absl::Status StubWorker::CheckMemory(uint32_t slot_idx) const {
  const Slot& slot = slots_[slot_idx];
  const auto width = static_cast<size_t>(options_.block_size);
  for (size_t position = 0; position < slot.hashes.size(); ++position) {
    const uint32_t block = slot.blocks[position / width];
    if (memory_.device[block * width + position % width] != slot.hashes[position]) {
      return DataLossF("slot {} position {}: block {} holds other content", slot_idx,
                       position, block);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::testing
