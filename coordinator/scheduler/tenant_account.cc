#include "coordinator/scheduler/tenant_account.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace tessera::coordinator {

void TenantAccount::Enter(const Sequence& sequence) {
  if (num_running == 0) {
    tolerated_tokens = sequence.max_length;
  }
  ++num_running;
  running_tokens += sequence.max_length;
  pending_tokens += sequence.num_known();
}

void TenantAccount::Leave(const Sequence& sequence) {
  --num_running;
  running_tokens -= sequence.max_length;
  pending_tokens -= sequence.prefilling ? sequence.num_known() : 0;
  tolerated_tokens = std::min(tolerated_tokens, running_tokens);
  TESSERA_CHECK(num_running >= 0 && running_tokens >= 0 && pending_tokens >= 0);
}

void TenantAccount::Charge(int64_t count, bool prefill) {
  scheduled_tokens += static_cast<uint64_t>(count);
  virtual_time += static_cast<double>(count) / policy.weight;
  pending_tokens -= prefill ? count : 0;
}

bool PrefillsBefore::operator()(const Sequence* a, const Sequence* b) const {
  if (a->spec.priority != b->spec.priority) {
    return a->spec.priority < b->spec.priority;
  }
  if (a->tenant->virtual_time != b->tenant->virtual_time) {
    return a->tenant->virtual_time < b->tenant->virtual_time;
  }
  return a->num_known() != b->num_known() ? a->num_known() < b->num_known()
                                          : a->order < b->order;
}

void SortForPreemption(std::vector<Sequence*>* running) {
  std::sort(running->begin(), running->end(), RunsBefore());
  for (const Sequence* sequence : *running) {
    sequence->tenant->held_blocks = 0;
  }
  // A sequence's key: what its tenant holds up to and with it. The greatest key is then
  // the last sequence of the tenant that holds most.
  std::vector<std::pair<double, Sequence*>> keyed;
  keyed.reserve(running->size());
  for (Sequence* sequence : *running) {
    TenantAccount* tenant = sequence->tenant;
    tenant->held_blocks += static_cast<double>(std::ssize(sequence->blocks));
    keyed.emplace_back(tenant->held_blocks / tenant->policy.weight, sequence);
  }
  std::stable_sort(keyed.begin(), keyed.end(), [](const auto& a, const auto& b) {
    return a.second->spec.priority != b.second->spec.priority
               ? a.second->spec.priority < b.second->spec.priority
               : a.first < b.first;
  });
  std::transform(keyed.begin(), keyed.end(), running->begin(),
                 [](const auto& entry) { return entry.second; });
}

}  // namespace tessera::coordinator
