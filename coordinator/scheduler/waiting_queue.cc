#include "coordinator/scheduler/waiting_queue.h"

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "fmt/format.h"

#include "common/check.h"
#include "common/status.h"

namespace tessera::coordinator {
namespace {

// Names come from clients where no keys are configured: so many that have nothing are
// remembered.
constexpr size_t kMaxIdleTenants = 1024;

}  // namespace

WaitingQueue::WaitingQueue(const SchedulerOptions& options)
    : max_waiting_(options.max_waiting) {
  SetTenants(options.tenants, options.other_tenants);
  num_lasting_ = configured_.size();
}

void WaitingQueue::SetTenants(std::span<const TenantPolicy> tenants,
                              const TenantPolicy& others) {
  others_ = others;
  configured_.resize(num_lasting_);
  for (auto& [name, account] : accounts_) {
    account.configured = false;
    account.policy = others_;
    account.policy.name = name;
    account.num_seats = 0;
    account.tolerated_tokens = account.running_tokens;
  }
  for (TenantAccount* account : configured_) {
    account->configured = true;
  }
  double total_weight = 0;
  for (const TenantPolicy& policy : tenants) {
    total_weight += policy.weight;
  }
  num_common_ = max_waiting_;
  for (const TenantPolicy& policy : tenants) {
    TenantAccount& account = accounts_[policy.name];
    account.policy = policy;
    account.num_seats = static_cast<int64_t>(static_cast<double>(max_waiting_ / 2) *
                                             policy.weight / total_weight);
    num_common_ -= account.num_seats;
    if (!std::exchange(account.configured, true)) {
      configured_.push_back(&account);
    }
  }
  common_taken_ = 0;
  for (const auto& [name, account] : accounts_) {
    common_taken_ += CommonOf(account);
  }
}

std::vector<TenantStats> WaitingQueue::Report() const {
  std::vector<TenantStats> report;
  for (const TenantAccount* tenant : configured_) {
    if (report.size() == kMaxReportedTenants) {
      break;
    }
    report.push_back({.num_waiting = std::ssize(tenant->waiting),
                      .num_running = tenant->num_running,
                      .running_tokens = tenant->running_tokens,
                      .scheduled_tokens = tenant->scheduled_tokens,
                      .preemptions = tenant->preemptions});
  }
  return report;
}

TenantAccount* WaitingQueue::Account(const std::string& name) {
  const auto found = accounts_.find(name);
  if (found != accounts_.end()) {
    return &found->second;
  }
  if (accounts_.size() >= configured_.size() + kMaxIdleTenants) {
    DropIdle();
  }
  TenantAccount& account = accounts_[name];
  account.policy = others_;
  account.policy.name = name;
  return &account;
}

void WaitingQueue::RetireIdle() {
  std::erase_if(active_, [this](TenantAccount* tenant) {
    if (!tenant->idle()) {
      return false;
    }
    latest_ = std::max(latest_, tenant->virtual_time);
    tenant->active = false;
    return true;
  });
}

void WaitingQueue::DropIdle() {
  RetireIdle();
  std::erase_if(accounts_, [](const auto& entry) {
    return !entry.second.configured && entry.second.idle();
  });
}

int64_t WaitingQueue::CommonOf(const TenantAccount& tenant) {
  return std::max<int64_t>(0, std::ssize(tenant.waiting) - tenant.num_seats);
}

absl::Status WaitingQueue::CheckRoom(const TenantAccount& tenant) const {
  if (std::ssize(tenant.waiting) < tenant.num_seats) {
    return absl::OkStatus();
  }
  const int64_t free = num_common_ - common_taken_;
  if (free <= 0) {
    return absl::ResourceExhaustedError(
        fmt::format("{} sequences wait, the most allowed", size_));
  }
  if (accounts_.size() > 1 && CommonOf(tenant) >= free) {
    return absl::ResourceExhaustedError(
        fmt::format("{} sequences of this tenant wait, the most allowed while {} wait "
                    "together",
                    tenant.waiting.size(), size_));
  }
  return absl::OkStatus();
}

double WaitingQueue::StartTime() {
  RetireIdle();
  double least = std::numeric_limits<double>::infinity();
  double greatest = latest_;
  for (const TenantAccount* tenant : active_) {
    if (tenant->backlogged()) {
      least = std::min(least, tenant->virtual_time);
    }
    greatest = std::max(greatest, tenant->virtual_time);
  }
  // With nobody waiting nobody is behind.
  return least == std::numeric_limits<double>::infinity() ? greatest : least;
}

double WaitingQueue::busy_weight() const {
  double total = 0;
  for (const TenantAccount* tenant : active_) {
    total += tenant->idle() ? 0 : tenant->policy.weight;
  }
  return total;
}

void WaitingQueue::Add(Sequence* sequence) {
  TenantAccount* tenant = sequence->tenant;
  if (!tenant->backlogged()) {
    tenant->virtual_time = std::max(tenant->virtual_time, StartTime());
  }
  if (tenant->waiting.empty()) {
    waiting_tenants_.push_back(tenant);
  }
  if (!tenant->active) {
    tenant->active = true;
    active_.push_back(tenant);
  }
  common_taken_ -= CommonOf(*tenant);
  tenant->waiting.insert(sequence);
  common_taken_ += CommonOf(*tenant);
  ++size_;
  sequence->waiting_tokens = sequence->num_tokens();
  num_tokens_ += sequence->waiting_tokens;
}

void WaitingQueue::Remove(Sequence* sequence) {
  TenantAccount* tenant = sequence->tenant;
  common_taken_ -= CommonOf(*tenant);
  TESSERA_CHECK_EQ(tenant->waiting.erase(sequence), 1u);
  common_taken_ += CommonOf(*tenant);
  if (tenant->waiting.empty()) {
    std::erase(waiting_tenants_, tenant);
  }
  --size_;
  num_tokens_ -= sequence->waiting_tokens;
}

Sequence* WaitingQueue::Front(absl::Time now, std::span<Sequence* const> passed) const {
  Sequence* best = nullptr;
  const auto key = [](const Sequence& sequence) {
    const TenantAccount& account = *sequence.tenant;
    return std::make_tuple(
        sequence.spec.priority, account.admission_time(),
        static_cast<double>(account.num_running) / account.policy.weight, sequence.order);
  };
  for (const TenantAccount* tenant : waiting_tenants_) {
    const auto first = std::find_if(
        tenant->waiting.begin(), tenant->waiting.end(), [&](const Sequence* sequence) {
          return sequence->plannable() && sequence->spec.deadline > now &&
                 !sequence->disk_wait.has_value() &&
                 std::find(passed.begin(), passed.end(), sequence) == passed.end();
        });
    if (first != tenant->waiting.end() && tenant->Allows(**first) &&
        (best == nullptr || key(**first) < key(*best))) {
      best = *first;
    }
  }
  return best;
}

absl::Status WaitingQueue::CheckInvariants(
    const std::vector<const Sequence*>& running) const {
  struct Counts {
    int64_t num_running = 0;
    int64_t running_tokens = 0;
    int64_t pending_tokens = 0;
    bool operator==(const Counts&) const = default;
  };
  std::map<const TenantAccount*, Counts> counted;
  for (const Sequence* sequence : running) {
    Counts& counts = counted[sequence->tenant];
    ++counts.num_running;
    counts.running_tokens += sequence->max_length;
    counts.pending_tokens += sequence->prefilling ? sequence->num_known() : 0;
  }
  int64_t size = 0;
  int64_t num_tokens = 0;
  int64_t common = 0;
  for (const auto& [name, account] : accounts_) {
    size += std::ssize(account.waiting);
    common += CommonOf(account);
    for (const Sequence* sequence : account.waiting) {
      num_tokens += sequence->waiting_tokens;
    }
    const Counts& counts = counted[&account];
    if (counts !=
        Counts{account.num_running, account.running_tokens, account.pending_tokens}) {
      return InternalF(
          "tenant {} has {} running sequences of {} tokens with {} to prefill, counted "
          "{}, {} and {}",
          name, account.num_running, account.running_tokens, account.pending_tokens,
          counts.num_running, counts.running_tokens, counts.pending_tokens);
    }
    if (account.policy.max_running_tokens > 0 &&
        account.running_tokens >
            std::max(account.policy.max_running_tokens, account.tolerated_tokens)) {
      return InternalF("tenant {} runs {} tokens, expected at most {}", name,
                       account.running_tokens, account.policy.max_running_tokens);
    }
  }
  if (size != size_ || num_tokens != num_tokens_ || common != common_taken_) {
    return InternalF(
        "{} sequences with {} tokens wait in {} common places, counted {}, {} and {}",
        size_, num_tokens_, common_taken_, size, num_tokens, common);
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
