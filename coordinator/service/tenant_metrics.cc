#include "coordinator/service/tenant_metrics.h"

#include <algorithm>
#include <cstddef>

#include "prometheus/family.h"

namespace tessera::coordinator {
namespace {

// A smaller total means that the scheduler was replaced.
void Advance(prometheus::Counter* counter, uint64_t before, uint64_t now) {
  counter->Increment(now >= before ? static_cast<double>(now - before) : 0);
}

}  // namespace

TenantMetrics::TenantMetrics(const std::vector<std::string>& tenants,
                             prometheus::Registry* registry) {
  if (tenants.empty()) {
    return;
  }
  const auto gauges = [&](const char* name,
                          const char* help) -> prometheus::Family<prometheus::Gauge>& {
    return prometheus::BuildGauge().Name(name).Help(help).Register(*registry);
  };
  const auto counters =
      [&](const char* name,
          const char* help) -> prometheus::Family<prometheus::Counter>& {
    return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
  };
  auto& waiting = gauges("tessera_tenant_waiting_sequences", "Sequences that wait.");
  auto& running =
      gauges("tessera_tenant_running_sequences", "Sequences that hold a slot.");
  auto& running_tokens = gauges("tessera_tenant_running_tokens",
                                "Tokens of running sequences, those to come included.");
  auto& scheduled =
      counters("tessera_tenant_scheduled_tokens_total",
               "Tokens computed for the tenant: prompts, generated and recomputed ones.");
  auto& preemptions = counters("tessera_tenant_preemptions_total",
                               "Sequences of the tenant that lost their blocks.");
  for (const std::string& tenant : tenants) {
    const prometheus::Labels labels = {{"tenant", tenant}};
    series_.push_back({.waiting = &waiting.Add(labels),
                       .running = &running.Add(labels),
                       .running_tokens = &running_tokens.Add(labels),
                       .scheduled_tokens = &scheduled.Add(labels),
                       .preemptions = &preemptions.Add(labels)});
  }
}

void TenantMetrics::OnStep(std::span<const TenantGauges> gauges) {
  for (size_t i = 0; i < std::min(series_.size(), gauges.size()); ++i) {
    Series& series = series_[i];
    series.waiting->Set(static_cast<double>(gauges[i].num_waiting));
    series.running->Set(static_cast<double>(gauges[i].num_running));
    series.running_tokens->Set(static_cast<double>(gauges[i].running_tokens));
    Advance(series.scheduled_tokens, series.seen.scheduled_tokens,
            gauges[i].scheduled_tokens);
    Advance(series.preemptions, series.seen.preemptions, gauges[i].preemptions);
    series.seen = gauges[i];
  }
}

}  // namespace tessera::coordinator
