#include "proto/step_convert.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"
#include "proto/decode_rows.h"

namespace tessera::proto {
namespace {

namespace wire = ::tessera::worker::v1;

absl::Status CheckCount(std::string_view field, int64_t count, int64_t limit) {
  if (count > limit) {
    return InvalidArgumentF("{}: {} entries, expected at most {}", field, count, limit);
  }
  return absl::OkStatus();
}

absl::Status CheckSlot(uint32_t slot, const StepLimits& limits) {
  if (slot >= static_cast<uint64_t>(limits.max_slots)) {
    return InvalidArgumentF("slot {}, expected less than {}", slot, limits.max_slots);
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(std::string_view field, float value) {
  if (!std::isfinite(value)) {
    return InvalidArgumentF("{} is {}, expected a finite number", field, value);
  }
  return absl::OkStatus();
}

template <typename Repeated>
absl::Status CheckTokens(std::string_view field, const Repeated& tokens) {
  for (const int32_t token : tokens) {
    if (token < 0) {
      return InvalidArgumentF("{}: token id {}", field, token);
    }
  }
  return absl::OkStatus();
}

template <typename T, typename Repeated>
std::vector<T> ToVector(const Repeated& values) {
  return std::vector<T>(values.begin(), values.end());
}

void SamplingToWire(const SamplingParams& from, wire::SamplingParams* to) {
  to->set_temperature(from.temperature);
  to->set_top_p(from.top_p);
  to->set_top_k(from.top_k);
  to->set_min_p(from.min_p);
  to->set_repetition_penalty(from.repetition_penalty);
  to->set_presence_penalty(from.presence_penalty);
  to->set_frequency_penalty(from.frequency_penalty);
  to->set_seed(from.seed);
  to->set_choice_index(from.choice_index);
  to->set_num_logprobs(from.num_logprobs);
  to->set_min_tokens(from.min_tokens);
  to->mutable_stop_token_ids()->Add(from.stop_token_ids.begin(),
                                    from.stop_token_ids.end());
  for (const auto& [token, bias] : from.logit_bias) {
    wire::LogitBias* entry = to->add_logit_bias();
    entry->set_token(token);
    entry->set_bias(bias);
  }
  to->set_prompt_logprobs_plus_one(static_cast<uint32_t>(from.num_prompt_logprobs + 1));
  for (const std::vector<int32_t>& word : from.bad_words) {
    to->add_bad_words()->mutable_tokens()->Add(word.begin(), word.end());
  }
  to->mutable_allowed_token_ids()->Add(from.allowed_token_ids.begin(),
                                       from.allowed_token_ids.end());
}

absl::Status CheckVocabularyCuts(const wire::SamplingParams& from,
                                 const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(
      CheckCount("bad_words", from.bad_words_size(), limits.max_bad_words));
  for (const wire::TokenSequence& word : from.bad_words()) {
    TESSERA_RETURN_IF_ERROR(
        CheckCount("bad_words", word.tokens_size(), limits.max_bad_word_tokens));
    TESSERA_RETURN_IF_ERROR(CheckTokens("bad_words", word.tokens()));
    if (word.tokens().empty()) {
      return InvalidArgumentF("bad_words: a word without tokens");
    }
  }
  TESSERA_RETURN_IF_ERROR(CheckCount("allowed_token_ids", from.allowed_token_ids_size(),
                                     limits.max_allowed_tokens));
  TESSERA_RETURN_IF_ERROR(CheckTokens("allowed_token_ids", from.allowed_token_ids()));
  const auto& ids = from.allowed_token_ids();
  if (std::adjacent_find(ids.begin(), ids.end(), std::greater_equal<>()) != ids.end()) {
    return InvalidArgumentF("allowed_token_ids do not rise");
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const wire::SamplingParams& from, const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(CheckFinite("temperature", from.temperature()));
  TESSERA_RETURN_IF_ERROR(CheckFinite("top_p", from.top_p()));
  TESSERA_RETURN_IF_ERROR(CheckFinite("min_p", from.min_p()));
  TESSERA_RETURN_IF_ERROR(CheckFinite("repetition_penalty", from.repetition_penalty()));
  TESSERA_RETURN_IF_ERROR(CheckFinite("presence_penalty", from.presence_penalty()));
  TESSERA_RETURN_IF_ERROR(CheckFinite("frequency_penalty", from.frequency_penalty()));
  if (from.top_k() < 0 || from.min_tokens() < 0) {
    return InvalidArgumentF("top_k {} and min_tokens {}, expected at least 0",
                            from.top_k(), from.min_tokens());
  }
  if (from.num_logprobs() < -1 || from.num_logprobs() > limits.max_top_logprobs) {
    return InvalidArgumentF("num_logprobs {}, expected -1 to {}", from.num_logprobs(),
                            limits.max_top_logprobs);
  }
  TESSERA_RETURN_IF_ERROR(
      CheckCount("stop_token_ids", from.stop_token_ids_size(), limits.max_stop_tokens));
  TESSERA_RETURN_IF_ERROR(CheckTokens("stop_token_ids", from.stop_token_ids()));
  TESSERA_RETURN_IF_ERROR(
      CheckCount("logit_bias", from.logit_bias_size(), limits.max_logit_bias));
  for (const wire::LogitBias& entry : from.logit_bias()) {
    TESSERA_RETURN_IF_ERROR(CheckFinite("logit_bias", entry.bias()));
    if (entry.token() < 0) {
      return InvalidArgumentF("logit_bias: token id {}", entry.token());
    }
  }
  if (from.prompt_logprobs_plus_one() > limits.max_top_logprobs + 1) {
    return InvalidArgumentF("num_prompt_logprobs {}, expected at most {}",
                            int64_t{from.prompt_logprobs_plus_one()} - 1,
                            limits.max_top_logprobs);
  }
  return CheckVocabularyCuts(from, limits);
}

absl::StatusOr<SamplingParams> SamplingFromWire(const wire::SamplingParams& from,
                                                const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(CheckSampling(from, limits));
  SamplingParams to;
  to.temperature = from.temperature();
  to.top_p = from.top_p();
  to.top_k = from.top_k();
  to.min_p = from.min_p();
  to.repetition_penalty = from.repetition_penalty();
  to.presence_penalty = from.presence_penalty();
  to.frequency_penalty = from.frequency_penalty();
  to.seed = from.seed();
  to.choice_index = from.choice_index();
  to.num_logprobs = from.num_logprobs();
  to.min_tokens = from.min_tokens();
  to.stop_token_ids = ToVector<int32_t>(from.stop_token_ids());
  for (const wire::LogitBias& entry : from.logit_bias()) {
    to.logit_bias.emplace_back(entry.token(), entry.bias());
  }
  to.num_prompt_logprobs = static_cast<int32_t>(from.prompt_logprobs_plus_one()) - 1;
  for (const wire::TokenSequence& word : from.bad_words()) {
    to.bad_words.push_back(ToVector<int32_t>(word.tokens()));
  }
  to.allowed_token_ids = ToVector<int32_t>(from.allowed_token_ids());
  return to;
}

absl::StatusOr<SlotAdmission> AdmissionFromWire(const wire::SlotAdmission& from,
                                                const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(CheckSlot(from.slot(), limits));
  TESSERA_RETURN_IF_ERROR(CheckCount("history", from.history_size(), limits.max_history));
  TESSERA_RETURN_IF_ERROR(CheckTokens("history", from.history()));
  TESSERA_RETURN_IF_ERROR(CheckCount("blocks", from.blocks_size(), limits.max_blocks));
  TESSERA_RETURN_IF_ERROR(CheckCount("tail_blocks",
                                     int64_t{from.tail_begin()} + from.tail_blocks_size(),
                                     limits.max_blocks));
  if (from.tail_begin() > 0 && from.tail_blocks_size() == 0) {
    return InvalidArgumentF("slot {}: tail_begin {} and no tail blocks", from.slot(),
                            from.tail_begin());
  }
  SlotAdmission to;
  to.slot = from.slot();
  to.history = ToVector<int32_t>(from.history());
  to.prompt_length = from.prompt_length();
  to.blocks = ToVector<uint32_t>(from.blocks());
  to.tail_begin = from.tail_begin();
  to.tail_blocks = ToVector<uint32_t>(from.tail_blocks());
  TESSERA_ASSIGN_OR_RETURN(to.sampling, SamplingFromWire(from.sampling(), limits));
  return to;
}

absl::StatusOr<BlockAppend> AppendFromWire(const wire::BlockAppend& from,
                                           const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(CheckSlot(from.slot(), limits));
  TESSERA_RETURN_IF_ERROR(CheckCount("blocks", from.blocks_size(), limits.max_blocks));
  TESSERA_RETURN_IF_ERROR(
      CheckCount("tail_blocks", from.tail_blocks_size(), limits.max_blocks));
  return BlockAppend{from.slot(), ToVector<uint32_t>(from.blocks()),
                     ToVector<uint32_t>(from.tail_blocks())};
}

absl::StatusOr<SlotWork> WorkFromWire(const wire::SlotWork& from,
                                      const StepLimits& limits, int64_t* num_tokens) {
  TESSERA_RETURN_IF_ERROR(CheckSlot(from.slot(), limits));
  *num_tokens += from.tokens_size();
  TESSERA_RETURN_IF_ERROR(CheckCount("tokens", *num_tokens, limits.max_tokens));
  TESSERA_RETURN_IF_ERROR(CheckTokens("tokens", from.tokens()));
  if (from.from_sample() == (from.tokens_size() != 0)) {
    return InvalidArgumentF("slot {}: {} tokens, from_sample {}: expected one of both",
                            from.slot(), from.tokens_size(), from.from_sample());
  }
  if (from.num_drafts() > kMaxDrafts || (from.num_drafts() > 0 && !from.sample())) {
    return InvalidArgumentF(
        "slot {}: {} drafts, sample {}: expected at most {} to sample", from.slot(),
        from.num_drafts(), from.sample(), kMaxDrafts);
  }
  if (from.masked() && (!from.sample() || from.num_drafts() > 0)) {
    return InvalidArgumentF("slot {}: masked with {} drafts, sample {}: expected none",
                            from.slot(), from.num_drafts(), from.sample());
  }
  if (from.has_next_token() && from.next_token() < 0) {
    return InvalidArgumentF("slot {}: next token id {}", from.slot(), from.next_token());
  }
  *num_tokens += from.from_sample() ? 1 + from.num_drafts() : from.num_drafts();
  TESSERA_RETURN_IF_ERROR(CheckCount("tokens", *num_tokens, limits.max_tokens));
  return SlotWork{.slot = from.slot(),
                  .from_sample = from.from_sample(),
                  .sample = from.sample(),
                  .tokens = ToVector<int32_t>(from.tokens()),
                  .num_drafts = from.num_drafts(),
                  .next_token = from.has_next_token() ? from.next_token() : -1,
                  .masked = from.masked()};
}

absl::StatusOr<SampledToken> SampledFromWire(const wire::SampledToken& from,
                                             const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(CheckSlot(from.slot(), limits));
  TESSERA_RETURN_IF_ERROR(CheckCount("top", from.top_size(), limits.max_top_logprobs));
  if (from.token() < 0) {
    return InvalidArgumentF("slot {}: sampled token id {}", from.slot(), from.token());
  }
  SampledToken to;
  to.slot = from.slot();
  to.token = from.token();
  to.position = from.position();
  to.logprob = from.logprob();
  for (const wire::TokenLogprob& entry : from.top()) {
    to.top.push_back({entry.token(), entry.logprob()});
  }
  return to;
}

void SampledToWire(const std::vector<SampledToken>& tokens,
                   google::protobuf::RepeatedPtrField<wire::SampledToken>* out) {
  out->Reserve(static_cast<int>(tokens.size()));
  for (const SampledToken& from : tokens) {
    wire::SampledToken* to = out->Add();
    to->set_slot(from.slot);
    to->set_token(from.token);
    to->set_position(from.position);
    to->set_logprob(from.logprob);
    for (const TokenLogprob& entry : from.top) {
      wire::TokenLogprob* top = to->add_top();
      top->set_token(entry.token);
      top->set_logprob(entry.logprob);
    }
  }
}

using WireCopies = google::protobuf::RepeatedPtrField<wire::BlockCopy>;

void CopiesToWire(const std::vector<BlockCopy>& from, WireCopies* to) {
  to->Reserve(static_cast<int>(from.size()));
  for (const BlockCopy& copy : from) {
    wire::BlockCopy* entry = to->Add();
    entry->set_device(copy.device);
    entry->set_host(copy.host);
    entry->set_tail(copy.tail);
  }
}

std::vector<BlockCopy> CopiesFromWire(const WireCopies& from) {
  std::vector<BlockCopy> to;
  to.reserve(static_cast<size_t>(from.size()));
  for (const wire::BlockCopy& copy : from) {
    to.push_back({.device = copy.device(), .host = copy.host(), .tail = copy.tail()});
  }
  return to;
}

using WireDiskCopies = google::protobuf::RepeatedPtrField<wire::DiskCopy>;

void DiskCopiesToWire(const std::vector<DiskCopy>& from, WireDiskCopies* to) {
  to->Reserve(static_cast<int>(from.size()));
  for (const DiskCopy& copy : from) {
    wire::DiskCopy* entry = to->Add();
    entry->set_host(copy.host);
    entry->set_slot(copy.slot);
    entry->set_content(copy.content);
    entry->set_tail(copy.tail);
    entry->set_fetch(copy.fetch);
  }
}

std::vector<DiskCopy> DiskCopiesFromWire(const WireDiskCopies& from) {
  std::vector<DiskCopy> to;
  to.reserve(static_cast<size_t>(from.size()));
  for (const wire::DiskCopy& copy : from) {
    to.push_back({.host = copy.host(),
                  .slot = copy.slot(),
                  .content = copy.content(),
                  .tail = copy.tail(),
                  .fetch = copy.fetch()});
  }
  return to;
}

using WireTransfers = google::protobuf::RepeatedPtrField<wire::BlockTransfer>;

void TransfersToWire(const std::vector<BlockTransfer>& from, WireTransfers* to) {
  to->Reserve(static_cast<int>(from.size()));
  for (const BlockTransfer& transfer : from) {
    wire::BlockTransfer* entry = to->Add();
    entry->set_block(transfer.block);
    entry->set_peer(transfer.peer);
    entry->set_tail(transfer.tail);
    entry->set_id(transfer.id);
  }
}

std::vector<BlockTransfer> TransfersFromWire(const WireTransfers& from) {
  std::vector<BlockTransfer> to;
  to.reserve(static_cast<size_t>(from.size()));
  for (const wire::BlockTransfer& transfer : from) {
    to.push_back({.block = transfer.block(),
                  .peer = transfer.peer(),
                  .tail = transfer.tail(),
                  .id = transfer.id()});
  }
  return to;
}

absl::Status CheckTransfers(const wire::StepPlan& message, const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(CheckCount("sends", message.sends_size(), limits.max_copies));
  TESSERA_RETURN_IF_ERROR(
      CheckCount("receives", message.receives_size(), limits.max_copies));
  if (!message.transfers() && (message.sends_size() > 0 || message.receives_size() > 0)) {
    return InvalidArgumentF("{} sends and {} receives in a step without transfers",
                            message.sends_size(), message.receives_size());
  }
  return absl::OkStatus();
}

void CountersToWire(const StepCounters& from, wire::StepCounters* to) {
  to->set_step_ns(from.step_ns);
  to->set_collective_ns(from.collective_ns);
  to->set_collective_bytes(from.collective_bytes);
  to->set_engram_wait_ns(from.engram_wait_ns);
  to->set_engram_rows(from.engram_rows);
  to->set_engram_late_waits(from.engram_late_waits);
  to->set_engram_cache_hits(from.engram_cache_hits);
  to->set_engram_cache_misses(from.engram_cache_misses);
  to->set_engram_disk_bytes(from.engram_disk_bytes);
  to->set_num_tokens(from.num_tokens);
  to->set_expert_imbalance(from.expert_imbalance);
  to->set_num_drafts(from.num_drafts);
  to->set_num_draft_tokens(from.num_draft_tokens);
  to->mutable_accepted_drafts()->Add(from.accepted_drafts.begin(),
                                     from.accepted_drafts.end());
  to->set_transfer_bytes(from.transfer_bytes);
  to->set_disk_written_bytes(from.disk_written_bytes);
  to->set_disk_read_bytes(from.disk_read_bytes);
  to->set_graph_rows(from.graph_rows);
}

absl::StatusOr<StepCounters> CountersFromWire(const wire::StepCounters& from) {
  TESSERA_RETURN_IF_ERROR(CheckCount("accepted_drafts", from.accepted_drafts_size(),
                                     static_cast<int64_t>(kMaxDrafts)));
  StepCounters to;
  to.step_ns = from.step_ns();
  to.collective_ns = from.collective_ns();
  to.collective_bytes = from.collective_bytes();
  to.engram_wait_ns = from.engram_wait_ns();
  to.engram_rows = from.engram_rows();
  to.engram_late_waits = from.engram_late_waits();
  to.engram_cache_hits = from.engram_cache_hits();
  to.engram_cache_misses = from.engram_cache_misses();
  to.engram_disk_bytes = from.engram_disk_bytes();
  to.num_tokens = from.num_tokens();
  to.expert_imbalance = from.expert_imbalance();
  to.num_drafts = from.num_drafts();
  to.num_draft_tokens = from.num_draft_tokens();
  std::copy(from.accepted_drafts().begin(), from.accepted_drafts().end(),
            to.accepted_drafts.begin());
  to.transfer_bytes = from.transfer_bytes();
  to.disk_written_bytes = from.disk_written_bytes();
  to.disk_read_bytes = from.disk_read_bytes();
  to.graph_rows = from.graph_rows();
  return to;
}

}  // namespace

wire::StepPlan ToWire(const StepPlan& plan) {
  wire::StepPlan message;
  message.set_epoch(plan.epoch);
  message.set_step(plan.step);
  message.set_placement_version(plan.placement_version);
  message.mutable_releases()->Add(plan.releases.begin(), plan.releases.end());
  for (const SlotAdmission& from : plan.admissions) {
    wire::SlotAdmission* to = message.add_admissions();
    to->set_slot(from.slot);
    to->mutable_history()->Add(from.history.begin(), from.history.end());
    to->set_prompt_length(from.prompt_length);
    to->mutable_blocks()->Add(from.blocks.begin(), from.blocks.end());
    to->set_tail_begin(from.tail_begin);
    to->mutable_tail_blocks()->Add(from.tail_blocks.begin(), from.tail_blocks.end());
    SamplingToWire(from.sampling, to->mutable_sampling());
  }
  for (const BlockAppend& from : plan.appends) {
    wire::BlockAppend* to = message.add_appends();
    to->set_slot(from.slot);
    to->mutable_blocks()->Add(from.blocks.begin(), from.blocks.end());
    to->mutable_tail_blocks()->Add(from.tail_blocks.begin(), from.tail_blocks.end());
  }
  DiskCopiesToWire(plan.disk_copies, message.mutable_disk_copies());
  CopiesToWire(plan.offloads, message.mutable_offloads());
  CopiesToWire(plan.restores, message.mutable_restores());
  message.set_transfers(plan.transfers);
  TransfersToWire(plan.sends, message.mutable_sends());
  TransfersToWire(plan.receives, message.mutable_receives());
  for (const SlotWork& from : plan.work) {
    wire::SlotWork* to = message.add_work();
    to->set_slot(from.slot);
    to->set_from_sample(from.from_sample);
    to->set_sample(from.sample);
    to->mutable_tokens()->Add(from.tokens.begin(), from.tokens.end());
    to->set_num_drafts(from.num_drafts);
    if (from.next_token >= 0) {
      to->set_next_token(from.next_token);
    }
    to->set_masked(from.masked);
  }
  message.set_decode_rows(plan.decode_rows);
  message.set_leaves_expert_counts(plan.leaves_expert_counts);
  message.set_reports_expert_counts(plan.reports_expert_counts);
  return message;
}

wire::LateInput ToWire(const LateInput& late) {
  wire::LateInput message;
  message.set_epoch(late.epoch);
  message.set_step(late.step);
  for (const TokenMask& from : late.masks) {
    wire::TokenMask* to = message.add_masks();
    to->set_slot(from.slot);
    to->mutable_words()->Add(from.words.begin(), from.words.end());
  }
  return message;
}

wire::StepResult ToWire(const StepResult& result) {
  wire::StepResult message;
  message.set_epoch(result.epoch);
  message.set_step(result.step);
  SampledToWire(result.sampled, message.mutable_sampled());
  SampledToWire(result.prompt, message.mutable_prompt());
  CountersToWire(result.counters, message.mutable_counters());
  message.mutable_expert_counts()->Add(result.expert_counts.begin(),
                                       result.expert_counts.end());
  message.set_disk_done(result.disk_done);
  message.mutable_disk_failed()->Add(result.disk_failed.begin(),
                                     result.disk_failed.end());
  return message;
}

absl::StatusOr<StepPlan> FromWire(const wire::StepPlan& message,
                                  const StepLimits& limits) {
  const int64_t max_slots = limits.max_slots;
  TESSERA_RETURN_IF_ERROR(CheckCount("releases", message.releases_size(), max_slots));
  TESSERA_RETURN_IF_ERROR(CheckCount("admissions", message.admissions_size(), max_slots));
  TESSERA_RETURN_IF_ERROR(CheckCount("appends", message.appends_size(), max_slots));
  TESSERA_RETURN_IF_ERROR(CheckCount("work", message.work_size(), max_slots));
  TESSERA_RETURN_IF_ERROR(
      CheckCount("offloads", message.offloads_size(), limits.max_copies));
  TESSERA_RETURN_IF_ERROR(
      CheckCount("restores", message.restores_size(), limits.max_copies));
  TESSERA_RETURN_IF_ERROR(
      CheckCount("disk_copies", message.disk_copies_size(), limits.max_disk_copies));
  TESSERA_RETURN_IF_ERROR(CheckTransfers(message, limits));
  StepPlan plan;
  plan.epoch = message.epoch();
  plan.step = message.step();
  plan.placement_version = message.placement_version();
  plan.disk_copies = DiskCopiesFromWire(message.disk_copies());
  plan.offloads = CopiesFromWire(message.offloads());
  plan.restores = CopiesFromWire(message.restores());
  plan.transfers = message.transfers();
  plan.sends = TransfersFromWire(message.sends());
  plan.receives = TransfersFromWire(message.receives());
  for (const uint32_t slot : message.releases()) {
    TESSERA_RETURN_IF_ERROR(CheckSlot(slot, limits));
    plan.releases.push_back(slot);
  }
  for (const wire::SlotAdmission& from : message.admissions()) {
    TESSERA_ASSIGN_OR_RETURN(SlotAdmission admission, AdmissionFromWire(from, limits));
    plan.admissions.push_back(std::move(admission));
  }
  for (const wire::BlockAppend& from : message.appends()) {
    TESSERA_ASSIGN_OR_RETURN(BlockAppend append, AppendFromWire(from, limits));
    plan.appends.push_back(std::move(append));
  }
  int64_t num_tokens = 0;
  for (const wire::SlotWork& from : message.work()) {
    TESSERA_ASSIGN_OR_RETURN(SlotWork work, WorkFromWire(from, limits, &num_tokens));
    plan.work.push_back(std::move(work));
  }
  plan.decode_rows = message.decode_rows();
  TESSERA_RETURN_IF_ERROR(CheckDecodeRows(plan, max_slots));
  plan.leaves_expert_counts = message.leaves_expert_counts();
  plan.reports_expert_counts = message.reports_expert_counts();
  return plan;
}

absl::StatusOr<LateInput> FromWire(const wire::LateInput& message,
                                   const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(CheckCount("masks", message.masks_size(), limits.max_slots));
  LateInput late;
  late.epoch = message.epoch();
  late.step = message.step();
  for (const wire::TokenMask& from : message.masks()) {
    TESSERA_RETURN_IF_ERROR(CheckSlot(from.slot(), limits));
    TESSERA_RETURN_IF_ERROR(
        CheckCount("words", from.words_size(), limits.max_mask_words));
    late.masks.push_back(
        {.slot = from.slot(), .words = ToVector<uint32_t>(from.words())});
  }
  return late;
}

absl::StatusOr<StepResult> FromWire(const wire::StepResult& message,
                                    const StepLimits& limits) {
  TESSERA_RETURN_IF_ERROR(
      CheckCount("sampled", message.sampled_size(),
                 limits.max_slots * static_cast<int64_t>(1 + kMaxDrafts)));
  StepResult result;
  result.epoch = message.epoch();
  result.step = message.step();
  for (const wire::SampledToken& from : message.sampled()) {
    TESSERA_ASSIGN_OR_RETURN(SampledToken sampled, SampledFromWire(from, limits));
    result.sampled.push_back(std::move(sampled));
  }
  TESSERA_RETURN_IF_ERROR(CheckCount("prompt", message.prompt_size(), limits.max_tokens));
  for (const wire::SampledToken& from : message.prompt()) {
    TESSERA_ASSIGN_OR_RETURN(SampledToken scored, SampledFromWire(from, limits));
    result.prompt.push_back(std::move(scored));
  }
  TESSERA_ASSIGN_OR_RETURN(result.counters, CountersFromWire(message.counters()));
  TESSERA_RETURN_IF_ERROR(CheckCount("expert_counts", message.expert_counts_size(),
                                     limits.max_expert_counts));
  result.expert_counts = ToVector<uint32_t>(message.expert_counts());
  TESSERA_RETURN_IF_ERROR(
      CheckCount("disk_failed", message.disk_failed_size(), limits.max_disk_copies));
  result.disk_done = message.disk_done();
  result.disk_failed = ToVector<uint64_t>(message.disk_failed());
  return result;
}

wire::StepReply ReplyToWire(const absl::StatusOr<StepResult>& outcome) {
  wire::StepReply message;
  if (outcome.ok()) {
    *message.mutable_result() = ToWire(*outcome);
    return message;
  }
  const absl::Status& status = outcome.status();
  message.mutable_failure()->set_code(status.raw_code());
  message.mutable_failure()->set_message(
      std::string(status.message().data(), status.message().size()));
  return message;
}

absl::StatusOr<StepResult> ReplyFromWire(const wire::StepReply& message,
                                         const StepLimits& limits) {
  switch (message.outcome_case()) {
    case wire::StepReply::kResult:
      return FromWire(message.result(), limits);
    case wire::StepReply::kFailure:
      break;
    case wire::StepReply::OUTCOME_NOT_SET:
      return InvalidArgumentF("a reply without result or failure");
  }
  const absl::Status status(static_cast<absl::StatusCode>(message.failure().code()),
                            message.failure().message());
  // Codes that absl does not know become kUnknown; OK is no failure.
  if (message.failure().code() == 0) {
    return InvalidArgumentF("a failure with code 0");
  }
  return absl::Status(status.code(), message.failure().message());
}

}  // namespace tessera::proto
