#include "tests/simulation/rank_view.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::testing {

std::span<const uint32_t> RankView::VisibleTail(const SlotView& slot,
                                                size_t position) const {
  const auto reach = static_cast<size_t>(options_->tail_tokens);
  const size_t first =
      (position - std::min(position, reach)) / static_cast<size_t>(options_->block_size);
  const size_t skipped = first - std::min(first, slot.tail_begin);
  return std::span(slot.tail_blocks).subspan(std::min(skipped, slot.tail_blocks.size()));
}

absl::Status RankView::CheckNewBlocks(std::span<const uint32_t> blocks,
                                      const std::string& tenant) {
  for (const uint32_t block : blocks) {
    for (const std::set<uint32_t>& in_flight : blocks_of_plans_in_flight_) {
      if (in_flight.contains(block)) {
        return InternalF("block {} given out while a plan in flight names it", block);
      }
    }
    for (const auto& [slot_idx, slot] : slots_) {
      if (std::find(slot.blocks.begin(), slot.blocks.end(), block) != slot.blocks.end()) {
        return InternalF("block {} given out while slot {} holds it", block, slot_idx);
      }
    }
    tenant_of_block_[block] = tenant;
  }
  return absl::OkStatus();
}

absl::Status RankView::CheckNewTails(std::span<const uint32_t> blocks,
                                     const std::string& tenant) {
  for (const uint32_t block : blocks) {
    for (const std::map<uint32_t, SlotView>& in_flight : slots_of_plans_in_flight_) {
      for (const auto& [slot_idx, slot] : in_flight) {
        const std::span<const uint32_t> visible = VisibleTail(slot, slot.length);
        if (std::find(visible.begin(), visible.end(), block) != visible.end()) {
          return InternalF("tail block {} given out while a plan in flight reads it",
                           block);
        }
      }
    }
    for (const auto& [slot_idx, slot] : slots_) {
      const std::span<const uint32_t> visible = VisibleTail(slot, slot.length);
      if (std::find(visible.begin(), visible.end(), block) != visible.end()) {
        return InternalF("tail block {} given out while slot {} will read it", block,
                         slot_idx);
      }
    }
    tenant_of_tail_[block] = tenant;
  }
  return absl::OkStatus();
}

absl::Status RankView::TakeAdmission(const proto::SlotAdmission& admission,
                                     TenantOf tenant_of) {
  SlotView slot;
  slot.sequence = admission.sampling.seed;
  const std::string* tenant = tenant_of(slot.sequence);
  if (tenant == nullptr) {
    return InternalF("admission of sequence {}, which is not live", slot.sequence);
  }
  slot.tenant = *tenant;
  const size_t num_hits =
      admission.history.size() / static_cast<size_t>(options_->block_size);
  for (size_t i = 0; i < num_hits; ++i) {
    const uint32_t block = admission.blocks[i];
    if (tenant_of_block_[block] != slot.tenant) {
      return InternalF("tenant {} shares block {} of tenant {}", slot.tenant, block,
                       tenant_of_block_[block]);
    }
  }
  const std::span<const uint32_t> blocks(admission.blocks);
  TESSERA_RETURN_IF_ERROR(CheckNewBlocks(blocks.subspan(num_hits), slot.tenant));
  const std::span<const uint32_t> tails(admission.tail_blocks);
  const size_t num_tail_hits = tails.empty() ? 0 : num_hits - admission.tail_begin;
  for (const uint32_t block : tails.first(num_tail_hits)) {
    if (tenant_of_tail_[block] != slot.tenant) {
      return InternalF("tenant {} shares tail block {} of tenant {}", slot.tenant, block,
                       tenant_of_tail_[block]);
    }
  }
  TESSERA_RETURN_IF_ERROR(CheckNewTails(tails.subspan(num_tail_hits), slot.tenant));
  slot.blocks = admission.blocks;
  slot.tail_begin = admission.tail_begin;
  slot.tail_blocks = admission.tail_blocks;
  slot.length = admission.history.size();
  tail_hits_ += slot.tail_begin > 0 ? 1 : 0;
  slots_[admission.slot] = std::move(slot);
  return absl::OkStatus();
}

absl::Status RankView::TakeCopies(const proto::StepPlan& plan) {
  for (const proto::BlockCopy& copy : plan.offloads) {
    auto& device = copy.tail ? tenant_of_tail_ : tenant_of_block_;
    auto& host = copy.tail ? tenant_of_host_tail_ : tenant_of_host_block_;
    host[copy.host] = device[copy.device];
  }
  for (const proto::BlockCopy& copy : plan.restores) {
    const std::span<const uint32_t> block(&copy.device, 1);
    TESSERA_RETURN_IF_ERROR(
        copy.tail ? CheckNewTails(block, tenant_of_host_tail_[copy.host])
                  : CheckNewBlocks(block, tenant_of_host_block_[copy.host]));
  }
  return absl::OkStatus();
}

absl::Status RankView::TakePlan(const proto::StepPlan& plan, TenantOf tenant_of) {
  for (const uint32_t slot : plan.releases) {
    slots_.erase(slot);
  }
  TESSERA_RETURN_IF_ERROR(TakeCopies(plan));
  for (const proto::SlotAdmission& admission : plan.admissions) {
    TESSERA_RETURN_IF_ERROR(TakeAdmission(admission, tenant_of));
  }
  for (const proto::BlockAppend& append : plan.appends) {
    SlotView& slot = slots_[append.slot];
    TESSERA_RETURN_IF_ERROR(CheckNewBlocks(append.blocks, slot.tenant));
    TESSERA_RETURN_IF_ERROR(CheckNewTails(append.tail_blocks, slot.tenant));
    slot.blocks.insert(slot.blocks.end(), append.blocks.begin(), append.blocks.end());
    slot.tail_blocks.insert(slot.tail_blocks.end(), append.tail_blocks.begin(),
                            append.tail_blocks.end());
  }
  std::set<uint32_t> blocks;
  std::map<uint32_t, SlotView> slots;
  int64_t num_tokens = 0;
  for (const proto::SlotWork& work : plan.work) {
    SlotView& slot = slots_[work.slot];
    blocks.insert(slot.blocks.begin(), slot.blocks.end());
    slots[work.slot] = slot;
    tail_chunks_ +=
        options_->num_tail_blocks > 0 && slot.length > 0 && work.tokens.size() > 1 ? 1
                                                                                   : 0;
    const size_t count = work.from_sample ? 1 : work.tokens.size();
    slot.length += count;
    num_tokens += static_cast<int64_t>(count) + work.num_drafts;
  }
  if (num_tokens > options_->max_num_batched_tokens) {
    return InternalF("{} tokens in a plan, expected at most {}", num_tokens,
                     options_->max_num_batched_tokens);
  }
  blocks_of_plans_in_flight_.push_back(std::move(blocks));
  slots_of_plans_in_flight_.push_back(std::move(slots));
  return absl::OkStatus();
}

void RankView::TakeResult(const proto::StepResult& result) {
  const std::map<uint32_t, SlotView> planned =
      std::move(slots_of_plans_in_flight_.front());
  slots_of_plans_in_flight_.pop_front();
  blocks_of_plans_in_flight_.pop_front();
  const auto extend = [&](std::map<uint32_t, SlotView>& later, uint32_t slot,
                          size_t count) {
    const auto found = later.find(slot);
    if (found != later.end() && found->second.sequence == planned.at(slot).sequence) {
      found->second.length += count;
    }
  };
  std::map<uint32_t, size_t> num_sampled;
  for (const proto::SampledToken& sampled : result.sampled) {
    ++num_sampled[sampled.slot];
  }
  for (const auto& [slot, count] : num_sampled) {
    accepted_drafts_ += static_cast<int64_t>(count) - 1;
    extend(slots_, slot, count - 1);
    for (std::map<uint32_t, SlotView>& later : slots_of_plans_in_flight_) {
      extend(later, slot, count - 1);
    }
  }
}

}  // namespace tessera::testing
