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

absl::Status RankView::CheckNewBlocks(std::span<const uint32_t> blocks) const {
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
  }
  return absl::OkStatus();
}

absl::Status RankView::CheckNewTails(std::span<const uint32_t> blocks) const {
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
  slot.num_hits = admission.history.size() / static_cast<size_t>(options_->block_size);
  const std::span<const uint32_t> blocks(admission.blocks);
  TESSERA_RETURN_IF_ERROR(CheckNewBlocks(blocks.subspan(slot.num_hits)));
  const std::span<const uint32_t> tails(admission.tail_blocks);
  slot.num_tail_hits = tails.empty() ? 0 : slot.num_hits - admission.tail_begin;
  TESSERA_RETURN_IF_ERROR(CheckNewTails(tails.subspan(slot.num_tail_hits)));
  slot.blocks = admission.blocks;
  slot.tail_begin = admission.tail_begin;
  slot.tail_blocks = admission.tail_blocks;
  slot.length = admission.history.size();
  tail_hits_ += slot.tail_begin > 0 ? 1 : 0;
  slots_[admission.slot] = std::move(slot);
  return absl::OkStatus();
}

absl::Status RankView::CheckHits(const SlotView& slot) {
  for (size_t i = 0; i < slot.num_hits; ++i) {
    if (tenant_of_block_[slot.blocks[i]] != slot.tenant) {
      return InternalF("tenant {} shares block {} of tenant {}", slot.tenant,
                       slot.blocks[i], tenant_of_block_[slot.blocks[i]]);
    }
  }
  for (size_t i = 0; i < slot.num_tail_hits; ++i) {
    if (tenant_of_tail_[slot.tail_blocks[i]] != slot.tenant) {
      return InternalF("tenant {} shares tail block {} of tenant {}", slot.tenant,
                       slot.tail_blocks[i], tenant_of_tail_[slot.tail_blocks[i]]);
    }
  }
  return absl::OkStatus();
}

absl::Status RankView::CheckRestored(const proto::BlockCopy& copy) const {
  for (const auto& in_flight : slots_of_plans_in_flight_) {
    for (const auto& [slot_idx, slot] : in_flight) {
      const auto blocks = copy.tail ? VisibleTail(slot, slot.length)
                                    : std::span<const uint32_t>(slot.blocks);
      if (std::find(blocks.begin(), blocks.end(), copy.device) != blocks.end()) {
        return InternalF("block {} restored while a plan in flight works on it",
                         copy.device);
      }
    }
  }
  for (const auto& [slot_idx, slot] : slots_) {
    const auto blocks = copy.tail ? VisibleTail(slot, slot.length)
                                  : std::span<const uint32_t>(slot.blocks);
    if (slot.worked &&
        std::find(blocks.begin(), blocks.end(), copy.device) != blocks.end()) {
      return InternalF("block {} restored while slot {} works on it", copy.device,
                       slot_idx);
    }
  }
  return absl::OkStatus();
}

absl::Status RankView::TakeSends(const proto::StepPlan& plan, int64_t dp_rank,
                                 Transfers* transfers) const {
  const int64_t num_prefill_ranks = options_->num_prefill_ranks;
  if (std::ssize(plan.sends) > options_->max_transfers ||
      std::ssize(plan.receives) > options_->max_transfers) {
    return InternalF("{} sends and {} receives, expected at most {}", plan.sends.size(),
                     plan.receives.size(), options_->max_transfers);
  }
  if ((!plan.sends.empty() && dp_rank >= num_prefill_ranks) ||
      (!plan.receives.empty() && dp_rank < num_prefill_ranks)) {
    return InternalF("dp rank {} of {} prefill ranks sends {} and receives {} blocks",
                     dp_rank, num_prefill_ranks, plan.sends.size(), plan.receives.size());
  }
  for (const proto::BlockTransfer& send : plan.sends) {
    const auto& device = send.tail ? tenant_of_tail_ : tenant_of_block_;
    const auto found = device.find(send.block);
    if (found == device.end() || send.peer < num_prefill_ranks) {
      return InternalF("block {}, never written, is sent to dp rank {}", send.block,
                       send.peer);
    }
    (*transfers)[send.id] = found->second;
  }
  return absl::OkStatus();
}

absl::Status RankView::TakeDiskCopies(const proto::StepPlan& plan) {
  const auto check = [&](bool tail, uint32_t host) {
    return fetching_.contains({tail, host})
               ? InternalF("host block {} is used while it is read from the disk", host)
               : absl::OkStatus();
  };
  for (const auto* copies : {&plan.offloads, &plan.restores}) {
    for (const proto::BlockCopy& copy : *copies) {
      TESSERA_RETURN_IF_ERROR(check(copy.tail, copy.host));
    }
  }
  for (const proto::DiskCopy& copy : plan.disk_copies) {
    TESSERA_RETURN_IF_ERROR(check(copy.tail, copy.host));
    auto& host = copy.tail ? tenant_of_host_tail_ : tenant_of_host_block_;
    auto& slots = copy.tail ? tenant_of_tail_slot_ : tenant_of_slot_;
    if (!copy.fetch) {
      slots[copy.slot] = host.at(copy.host);
    }
    disk_copies_.emplace_back(copy, slots.at(copy.slot));
    untold_.push_back(copy);
  }
  for (const proto::DiskCopy& copy : plan.disk_copies) {
    if (copy.fetch) {
      fetching_.insert({copy.tail, copy.host});
    }
  }
  if (std::ssize(untold_) > options_->max_disk_copies) {
    return InternalF("{} disk copies under way, expected at most {}", untold_.size(),
                     options_->max_disk_copies);
  }
  return absl::OkStatus();
}

void RankView::TakeDiskReport(const proto::StepResult& result) {
  for (; num_disk_done_ < result.disk_done; ++num_disk_done_) {
    const auto [copy, tenant] = disk_copies_.front();
    disk_copies_.pop_front();
    if (copy.fetch) {
      (copy.tail ? tenant_of_host_tail_ : tenant_of_host_block_)[copy.host] = tenant;
    }
  }
}

absl::Status RankView::TakeCopies(const proto::StepPlan& plan,
                                  const Transfers& transfers) {
  for (const proto::BlockCopy& copy : plan.offloads) {
    auto& device = copy.tail ? tenant_of_tail_ : tenant_of_block_;
    auto& host = copy.tail ? tenant_of_host_tail_ : tenant_of_host_block_;
    host[copy.host] = device[copy.device];
  }
  for (const proto::BlockTransfer& receive : plan.receives) {
    auto& host = receive.tail ? tenant_of_host_tail_ : tenant_of_host_block_;
    host[receive.block] = transfers.at(receive.id);
  }
  for (const proto::BlockCopy& copy : plan.restores) {
    TESSERA_RETURN_IF_ERROR(CheckRestored(copy));
    auto& device = copy.tail ? tenant_of_tail_ : tenant_of_block_;
    auto& host = copy.tail ? tenant_of_host_tail_ : tenant_of_host_block_;
    device[copy.device] = host[copy.host];
  }
  return absl::OkStatus();
}

void RankView::Write(const SlotView& slot, size_t begin, size_t end) {
  const auto width = static_cast<size_t>(options_->block_size);
  for (size_t idx = begin / width; idx * width < end; ++idx) {
    if (idx < slot.blocks.size()) {
      tenant_of_block_[slot.blocks[idx]] = slot.tenant;
    }
    if (idx >= slot.tail_begin && idx - slot.tail_begin < slot.tail_blocks.size()) {
      tenant_of_tail_[slot.tail_blocks[idx - slot.tail_begin]] = slot.tenant;
    }
  }
}

absl::Status RankView::TakePlan(const proto::StepPlan& plan, TenantOf tenant_of,
                                const Transfers& transfers) {
  for (const uint32_t slot : plan.releases) {
    slots_.erase(slot);
  }
  TESSERA_RETURN_IF_ERROR(TakeDiskCopies(plan));
  TESSERA_RETURN_IF_ERROR(TakeCopies(plan, transfers));
  for (const proto::SlotAdmission& admission : plan.admissions) {
    TESSERA_RETURN_IF_ERROR(TakeAdmission(admission, tenant_of));
  }
  for (const proto::BlockAppend& append : plan.appends) {
    SlotView& slot = slots_[append.slot];
    TESSERA_RETURN_IF_ERROR(CheckNewBlocks(append.blocks));
    TESSERA_RETURN_IF_ERROR(CheckNewTails(append.tail_blocks));
    slot.blocks.insert(slot.blocks.end(), append.blocks.begin(), append.blocks.end());
    slot.tail_blocks.insert(slot.tail_blocks.end(), append.tail_blocks.begin(),
                            append.tail_blocks.end());
  }
  std::set<uint32_t> blocks;
  std::map<uint32_t, SlotView> slots;
  int64_t num_tokens = 0;
  for (const proto::SlotWork& work : plan.work) {
    SlotView& slot = slots_[work.slot];
    if (!slot.worked) {
      TESSERA_RETURN_IF_ERROR(CheckHits(slot));
      slot.worked = true;
    }
    blocks.insert(slot.blocks.begin(), slot.blocks.end());
    slots[work.slot] = slot;
    tail_chunks_ +=
        options_->num_tail_blocks > 0 && slot.length > 0 && work.tokens.size() > 1 ? 1
                                                                                   : 0;
    const size_t count = work.from_sample ? 1 : work.tokens.size();
    Write(slot, slot.length, slot.length + count);
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
  // The scheduler knows now.
  for (; num_disk_told_ < result.disk_done; ++num_disk_told_) {
    const proto::DiskCopy copy = untold_.front();
    untold_.pop_front();
    if (copy.fetch) {
      fetching_.erase({copy.tail, copy.host});
    }
  }
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
    const auto found = slots_.find(slot);
    if (found != slots_.end() && found->second.sequence == planned.at(slot).sequence) {
      Write(found->second, found->second.length - std::min(found->second.length, count),
            found->second.length);
    }
    for (std::map<uint32_t, SlotView>& later : slots_of_plans_in_flight_) {
      extend(later, slot, count - 1);
    }
  }
}

}  // namespace tessera::testing
