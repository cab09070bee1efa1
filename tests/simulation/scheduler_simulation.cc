#include "tests/simulation/scheduler_simulation.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::testing {
namespace {

constexpr int32_t kVocabSize = 50;
// Tokens that a client would take as its stop; frequent enough to end many sequences
// early.
constexpr int32_t kStopToken = 7;
// Sampling seeds carry the sequence id into the plans; a probe has none.
constexpr coordinator::SequenceId kProbe = 0;

}  // namespace

SchedulerSimulation::SchedulerSimulation(uint64_t seed) : random_(seed) {
  ChooseOptions();
  for (int i = 0; i < 3; ++i) {
    std::vector<int32_t> prompt(static_cast<size_t>(options_.max_model_len));
    std::generate(prompt.begin(), prompt.end(),
                  [this] { return static_cast<int32_t>(Draw(kVocabSize)); });
    shared_prompts_.push_back(std::move(prompt));
  }
}

void SchedulerSimulation::ChooseOptions() {
  options_.num_dp_ranks = static_cast<int64_t>(1 + Draw(3));
  options_.max_num_seqs = static_cast<int64_t>(1 + Draw(8));
  options_.max_num_batched_tokens =
      static_cast<int64_t>(Chance(20) ? 1 + Draw(3) : 1 + Draw(40));
  options_.max_model_len = static_cast<int64_t>(8 + Draw(60));
  options_.block_size = static_cast<int64_t>(1 + Draw(8));
  const int64_t least = (options_.max_model_len - 1) / options_.block_size + 1;
  options_.num_blocks = least + static_cast<int64_t>(Draw(Chance(50) ? 4 : 60));
  options_.max_waiting = static_cast<int64_t>(1 + Draw(30));
  options_.enable_prefix_caching = Chance(85);
  options_.prefix_hash_key = {random_(), random_()};
  if (Chance(50)) {
    options_.prefill_cost_tokens = static_cast<int64_t>(1 + Draw(40));
  }
  if (Chance(60)) {
    ChooseTail();
  }
  if (Chance(50) && options_.enable_prefix_caching) {
    ChooseHostTier();
    ChooseRoles();
    ChooseDiskTier();
  }
  if (Chance(40)) {
    ChooseTenants();
  }
  if (Chance(50)) {
    options_.num_speculative_tokens = static_cast<int64_t>(1 + Draw(6));
  }
}

void SchedulerSimulation::ChooseHostTier() {
  options_.num_host_blocks = static_cast<int64_t>(1 + Draw(Chance(50) ? 8 : 100));
  if (options_.num_tail_blocks > 0) {
    options_.num_host_tail_blocks = static_cast<int64_t>(Draw(Chance(50) ? 4 : 60));
  }
  options_.max_restores = Chance(60) ? static_cast<int64_t>(1 + Draw(6)) : 0;
  ++coverage_.host_runs;
}

void SchedulerSimulation::ChooseDiskTier() {
  if (options_.num_prefill_ranks > 0) {
    return;
  }
  options_.num_disk_blocks = static_cast<int64_t>(1 + Draw(Chance(50) ? 20 : 200));
  if (options_.num_host_tail_blocks > 0) {
    options_.num_disk_tail_blocks = static_cast<int64_t>(Draw(100));
  }
  options_.max_disk_copies = static_cast<int64_t>(1 + Draw(Chance(50) ? 4 : 40));
  options_.max_disk_wait = absl::Seconds(static_cast<int64_t>(1 + Draw(20)));
  ++coverage_.disk_runs;
}

void SchedulerSimulation::ChooseRoles() {
  if (!Chance(60) ||
      (options_.num_tail_blocks > 0 && options_.num_host_tail_blocks < 1)) {
    return;
  }
  options_.num_dp_ranks = static_cast<int64_t>(2 + Draw(3));
  options_.num_prefill_ranks =
      static_cast<int64_t>(1 + Draw(static_cast<uint64_t>(options_.num_dp_ranks - 1)));
  options_.prefill_min_tokens =
      options_.block_size + 1 + static_cast<int64_t>(Draw(Chance(70) ? 4 : 60));
  options_.max_transfers = static_cast<int64_t>(1 + Draw(Chance(50) ? 3 : 40));
  ++coverage_.role_runs;
}

void SchedulerSimulation::ChooseTenants() {
  for (const char* name : {"a", "b"}) {
    coordinator::TenantPolicy policy;
    policy.name = name;
    policy.weight = 0.5 * static_cast<double>(1 + Draw(8));
    if (Chance(50)) {
      policy.max_running_tokens =
          options_.max_model_len * 3 / 4 +
          static_cast<int64_t>(Draw(static_cast<uint64_t>(2 * options_.max_model_len)));
    }
    const int64_t least = (options_.max_model_len - 1) / options_.block_size + 1;
    policy.min_cached_blocks = static_cast<int64_t>(
        Draw(static_cast<uint64_t>((options_.num_blocks - least) / 2 + 1)));
    options_.tenants.push_back(std::move(policy));
  }
  ++coverage_.tenant_runs;
}

void SchedulerSimulation::ChooseTail() {
  if (Chance(30)) {
    // The sizes of V4: 127 tokens in blocks of 128, or of 16 as tests have them.
    options_.tail_tokens = 127;
    options_.block_size = Chance(50) ? 128 : 16;
    options_.max_model_len = static_cast<int64_t>(200 + Draw(300));
    options_.max_num_batched_tokens = static_cast<int64_t>(8 + Draw(300));
    const int64_t least = (options_.max_model_len - 1) / options_.block_size + 1;
    options_.num_blocks = least * static_cast<int64_t>(1 + Draw(12));
  } else {
    options_.tail_tokens = static_cast<int64_t>(1 + Draw(12));
  }
  const int64_t least =
      (options_.tail_tokens + options_.block_size - 1) / options_.block_size + 1;
  options_.num_tail_blocks = least + static_cast<int64_t>(Draw(Chance(50) ? 4 : 160));
  ++coverage_.tail_runs;
}

absl::Status SchedulerSimulation::Run(int num_ticks) {
  TESSERA_ASSIGN_OR_RETURN(scheduler_, coordinator::Scheduler::Create(options_));
  StartGroup();
  for (int tick = 0; tick < num_ticks; ++tick) {
    TESSERA_RETURN_IF_ERROR(
        WithContext(Tick(/*arrivals=*/true), fmt::format("tick {}", tick)));
  }
  // Every live sequence needs at most its length in steps by itself, and the best one
  // always advances.
  const int64_t limit = 100 + (4 * options_.max_model_len + 40) * std::ssize(live_);
  for (int64_t tick = 0; !live_.empty() || !results_.empty(); ++tick) {
    if (tick > limit) {
      return InternalF("{} sequences still live {} ticks after the last arrival",
                       live_.size(), tick);
    }
    TESSERA_RETURN_IF_ERROR(
        WithContext(Tick(/*arrivals=*/false), fmt::format("drain tick {}", tick)));
  }
  CountViews();
  const coordinator::SchedulerStats stats = scheduler_->stats();
  coverage_.preemptions = stats.preemptions;
  coverage_.prefix_hit_tokens = stats.prefix_hit_tokens;
  coverage_.shortened_tokens = stats.prefix_shortened_tokens;
  coverage_.tiers = stats.tiers;
  coverage_.hand_overs = stats.hand_overs;
  coverage_.tail_preemptions = coverage_.tail_runs > 0 ? stats.preemptions : 0;
  return CheckDrained();
}

absl::Status SchedulerSimulation::CheckDrained() const {
  const coordinator::SchedulerStats stats = scheduler_->stats();
  if (stats.num_waiting != 0 || stats.num_running != 0 || stats.waiting_tokens != 0 ||
      stats.blocks_used != 0 || stats.tail_blocks_used != 0) {
    return InternalF(
        "after the end {} wait, {} run, {} tokens wait, {} blocks and {} tail blocks are "
        "used",
        stats.num_waiting, stats.num_running, stats.waiting_tokens, stats.blocks_used,
        stats.tail_blocks_used);
  }
  if (static_cast<int64_t>(ended_.size()) !=
      coverage_.finished + coverage_.cancelled + coverage_.expired) {
    return InternalF("{} sequences ended, {} ends seen", ended_.size(),
                     coverage_.finished + coverage_.cancelled + coverage_.expired);
  }
  return absl::OkStatus();
}

const std::string* SchedulerSimulation::TenantOf(coordinator::SequenceId id) const {
  if (id == kProbe) {
    return &tenant_of_probes_;
  }
  const auto found = live_.find(id);
  return found == live_.end() ? nullptr : &found->second.spec.tenant;
}

void SchedulerSimulation::CountViews() {
  for (const RankView& view : views_) {
    coverage_.tail_hits += view.tail_hits();
    coverage_.tail_chunks += view.tail_chunks();
    coverage_.accepted_drafts += view.accepted_drafts();
  }
}

void SchedulerSimulation::StartGroup() {
  scheduler_->StartEpoch(epoch_);
  results_.clear();
  workers_.clear();
  for (int64_t i = 0; i < options_.num_dp_ranks; ++i) {
    workers_.emplace_back(StubWorkerOptions{
        .num_blocks = options_.num_blocks,
        .block_size = options_.block_size,
        .max_num_seqs = options_.max_num_seqs,
        .max_num_batched_tokens = options_.max_num_batched_tokens,
        .max_model_len = options_.max_model_len,
        .vocab_size = kVocabSize,
        .num_tail_blocks = options_.num_tail_blocks,
        .tail_tokens = options_.tail_tokens,
        .num_host_blocks = options_.num_host_blocks,
        .num_host_tail_blocks = options_.num_host_tail_blocks,
        .disk = {.num_slots = {options_.num_disk_blocks, options_.num_disk_tail_blocks},
                 .max_copies = options_.max_disk_copies,
                 .max_delay = 1 + Draw(6),
                 .failed_percent = Draw(2) * Draw(40),
                 .seed = random_()},
        .num_speculative_tokens = options_.num_speculative_tokens,
        .right_drafts_percent = 30 + Draw(60)});
  }
  CountViews();
  views_.assign(static_cast<size_t>(options_.num_dp_ranks), RankView(&options_));
}

coordinator::SequenceSpec SchedulerSimulation::DrawSpec() {
  coordinator::SequenceSpec spec;
  spec.id = next_id_++;
  spec.tenant = std::string(1, static_cast<char>('a' + Draw(3)));
  const auto longest = static_cast<uint64_t>(options_.max_model_len - 1);
  const uint64_t usual =
      std::min(longest, 20 + static_cast<uint64_t>(options_.tail_tokens));
  const size_t length = 1 + Draw(Chance(30) ? longest : usual);
  spec.prompt = shared_prompts_[Draw(shared_prompts_.size())];
  spec.prompt.resize(length);
  const size_t shared = Draw(length + 1);
  for (size_t i = shared; i < length; ++i) {
    spec.prompt[i] = static_cast<int32_t>(Draw(kVocabSize));
  }
  spec.max_tokens = static_cast<int64_t>(1 + Draw(40));
  spec.sampling.seed = spec.id;
  spec.sampling.choice_index = static_cast<uint32_t>(Draw(3));
  spec.priority = static_cast<int32_t>(Draw(3)) - 1;
  spec.arrival = now_;
  spec.deadline = Chance(20) ? now_ + absl::Seconds(static_cast<int64_t>(Draw(60)))
                             : absl::InfiniteFuture();
  return spec;
}

int64_t SchedulerSimulation::MaxLength(const coordinator::SequenceSpec& spec) const {
  return std::min(options_.max_model_len, std::ssize(spec.prompt) + spec.max_tokens);
}

absl::Status SchedulerSimulation::Arrive() {
  const coordinator::SequenceSpec spec = DrawSpec();
  const absl::Status status = scheduler_->Enqueue(spec);
  if (status.ok()) {
    live_[spec.id] = {.spec = spec, .generated = {}};
    return absl::OkStatus();
  }
  const TenantPolicy* policy = PolicyOf(spec.tenant);
  if (status.code() == absl::StatusCode::kInvalidArgument && policy != nullptr &&
      policy->max_running_tokens > 0 && MaxLength(spec) > policy->max_running_tokens) {
    ++coverage_.over_quota;
    return absl::OkStatus();
  }
  if (status.code() != absl::StatusCode::kResourceExhausted) {
    return WithContext(status, "enqueue");
  }
  return CheckRefusal(spec.tenant);
}

const SchedulerSimulation::TenantPolicy* SchedulerSimulation::PolicyOf(
    const std::string& tenant) const {
  for (const TenantPolicy& policy : options_.tenants) {
    if (policy.name == tenant) {
      return &policy;
    }
  }
  return nullptr;
}

absl::Status SchedulerSimulation::CheckRefusal(const std::string& tenant) const {
  const coordinator::SchedulerStats stats = scheduler_->stats();
  double weights = 0;
  for (const TenantPolicy& policy : options_.tenants) {
    weights += policy.weight;
  }
  for (size_t i = 0; i < options_.tenants.size(); ++i) {
    const TenantPolicy& policy = options_.tenants[i];
    const auto share = static_cast<int64_t>(
        static_cast<double>(options_.max_waiting / 2) * policy.weight / weights);
    if (policy.name == tenant && stats.tenants[i].num_waiting < share) {
      return InternalF("tenant {} is refused with {} of its {} places taken", tenant,
                       stats.tenants[i].num_waiting, share);
    }
  }
  // Of the common places a tenant leaves as many as it takes: with four names at most,
  // one in eight is free for who has none waiting.
  if (stats.num_waiting == 0) {
    return InternalF("tenant {} is refused by an empty queue", tenant);
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::CheckQuotas() {
  std::map<std::string, int64_t> running;
  for (const RankView& view : views_) {
    for (const auto& [idx, slot] : view.slots()) {
      const auto found = live_.find(slot.sequence);
      if (found != live_.end()) {
        running[slot.tenant] += MaxLength(found->second.spec);
      }
    }
  }
  for (const TenantPolicy& policy : options_.tenants) {
    if (policy.max_running_tokens == 0) {
      continue;
    }
    if (running[policy.name] > policy.max_running_tokens) {
      return InternalF("{} tokens of tenant {} run, expected at most {}",
                       running[policy.name], policy.name, policy.max_running_tokens);
    }
    coverage_.near_quota += 2 * running[policy.name] > policy.max_running_tokens ? 1 : 0;
  }
  return absl::OkStatus();
}

void SchedulerSimulation::CancelOne() {
  if (live_.empty()) {
    return;
  }
  auto victim = live_.begin();
  std::advance(victim, Draw(live_.size()));
  scheduler_->Finish(victim->first);
  ended_.insert(victim->first);
  live_.erase(victim);
  ++coverage_.cancelled;
}

absl::Status SchedulerSimulation::ExpireDue() {
  std::vector<coordinator::SequenceId> due;
  for (const auto& [id, request] : live_) {
    if (request.spec.deadline <= now_) {
      due.push_back(id);
    }
  }
  const std::vector<coordinator::SequenceId> expired = scheduler_->Expired(now_);
  if (expired != due) {
    return InternalF("{} sequences expired, expected {}", expired.size(), due.size());
  }
  for (const coordinator::SequenceId id : expired) {
    scheduler_->Finish(id);
    ended_.insert(id);
    live_.erase(id);
    ++coverage_.expired;
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::Tick(bool arrivals) {
  now_ += absl::Seconds(1);
  if (arrivals) {
    for (uint64_t i = Draw(4); i > 0; --i) {
      TESSERA_RETURN_IF_ERROR(Arrive());
    }
    if (Chance(5)) {
      CancelOne();
    }
    if (Chance(1)) {
      ++epoch_;
      ++coverage_.epochs;
      StartGroup();
    }
  }
  TESSERA_RETURN_IF_ERROR(ExpireDue());
  const bool can_plan = results_.size() < 2 && (scheduler_->has_work() || Chance(2));
  if (can_plan && (results_.empty() || Chance(80))) {
    TESSERA_RETURN_IF_ERROR(PlanStep());
  } else if (results_.empty() && !live_.empty()) {
    return InternalF("nothing to do and nothing in flight with {} live sequences",
                     live_.size());
  }
  if (!results_.empty() &&
      (results_.size() == 2 || Chance(60) || !scheduler_->has_work())) {
    TESSERA_RETURN_IF_ERROR(AcceptStep());
  }
  return scheduler_->CheckInvariants();
}

absl::Status SchedulerSimulation::PlanStep() {
  coordinator::PlannedStep step;
  bool probed = false;
  if (results_.empty() && Chance(3)) {
    auto probe = scheduler_->PlanProbe(1);
    if (probe.ok()) {
      step = *std::move(probe);
      probed = true;
      ++coverage_.probes;
    }
  }
  if (!probed) {
    coverage_.steps_ahead += results_.empty() ? 0 : 1;
    step = scheduler_->Plan(now_);
  }
  StubTransfers transfers;
  RankView::Transfers tenants;
  for (size_t rank = 0; rank < workers_.size(); ++rank) {
    const proto::StepPlan& plan = step.plans[rank];
    if (plan.transfers != step.plans.front().transfers) {
      return InternalF("ranks 0 and {} differ about transfers", rank);
    }
    TESSERA_RETURN_IF_ERROR(workers_[rank].Send(plan, &transfers));
    TESSERA_RETURN_IF_ERROR(
        views_[rank].TakeSends(plan, static_cast<int64_t>(rank), &tenants));
  }
  std::vector<proto::StepResult> results;
  int64_t num_tokens = 0;
  int64_t num_drafts = 0;
  for (size_t rank = 0; rank < workers_.size(); ++rank) {
    TESSERA_RETURN_IF_ERROR(views_[rank].TakePlan(
        step.plans[rank], [this](coordinator::SequenceId id) { return TenantOf(id); },
        tenants));
    TESSERA_ASSIGN_OR_RETURN(proto::StepResult result,
                             workers_[rank].Execute(step.plans[rank], nullptr, &transfers,
                                                    static_cast<uint32_t>(rank)));
    views_[rank].TakeDiskReport(result);
    if (!probed && static_cast<int64_t>(rank) < options_.num_prefill_ranks &&
        !result.sampled.empty()) {
      return InternalF("prefill rank {} sampled", rank);
    }
    num_tokens += result.counters.num_tokens;
    for (const proto::SlotWork& work : step.plans[rank].work) {
      num_drafts += work.num_drafts;
    }
    results.push_back(std::move(result));
  }
  if (!transfers.empty()) {
    return InternalF("{} blocks were sent to nobody", transfers.size());
  }
  TESSERA_RETURN_IF_ERROR(CheckQuotas());
  // A worker may have fewer drafts than it is allowed.
  if (num_tokens > step.num_tokens || num_tokens < step.num_tokens - num_drafts) {
    return InternalF("{} tokens planned, {} of them drafts, and {} reported",
                     step.num_tokens, num_drafts, num_tokens);
  }
  coverage_.planned_drafts += num_drafts;
  results_.push_back(std::move(results));
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::AcceptStep() {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<coordinator::AcceptedToken> accepted,
                           scheduler_->Accept(results_.front()));
  size_t num_sampled = 0;
  for (const proto::StepResult& result : results_.front()) {
    num_sampled += result.sampled.size();
  }
  coverage_.dropped_tokens += static_cast<int64_t>(num_sampled - accepted.size());
  for (size_t rank = 0; rank < views_.size(); ++rank) {
    views_[rank].TakeResult(results_.front()[rank]);
  }
  results_.pop_front();
  const std::set<coordinator::SequenceId> ended_before = ended_;
  for (const coordinator::AcceptedToken& token : accepted) {
    if (ended_.contains(token.sequence) && !ended_before.contains(token.sequence)) {
      ++coverage_.tokens_after_a_stop;
      continue;
    }
    TESSERA_RETURN_IF_ERROR(TakeToken(token));
  }
  return absl::OkStatus();
}

absl::Status SchedulerSimulation::TakeToken(const coordinator::AcceptedToken& token) {
  const auto found = live_.find(token.sequence);
  if (found == live_.end()) {
    return InternalF("token for sequence {}, which is not live", token.sequence);
  }
  Request& request = found->second;
  if (token.index != std::ssize(request.generated)) {
    return InternalF("token {} of sequence {}, expected {}", token.index, token.sequence,
                     request.generated.size());
  }
  std::vector<int32_t> history = request.spec.prompt;
  history.insert(history.end(), request.generated.begin(), request.generated.end());
  const int32_t expected =
      StubToken(history, static_cast<uint32_t>(request.spec.prompt.size()),
                request.spec.sampling, kVocabSize);
  if (token.sampled.token != expected) {
    return InternalF("sequence {} token {} is {}, expected {}", token.sequence,
                     token.index, token.sampled.token, expected);
  }
  request.generated.push_back(token.sampled.token);
  ++coverage_.tokens;
  const bool last = std::ssize(request.generated) == request.spec.max_tokens ||
                    std::ssize(history) + 1 == options_.max_model_len;
  if (token.length_reached != last) {
    return InternalF("sequence {} token {}: length_reached is {}", token.sequence,
                     token.index, token.length_reached);
  }
  if (last || token.sampled.token == kStopToken) {
    scheduler_->Finish(token.sequence);
    ended_.insert(token.sequence);
    live_.erase(found);
    ++coverage_.finished;
  }
  return absl::OkStatus();
}

}  // namespace tessera::testing
