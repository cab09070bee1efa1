#include "coordinator/service/tier_metrics.h"

#include "prometheus/family.h"

namespace tessera::coordinator {

TierMetrics::TierMetrics(prometheus::Registry* registry) {
  auto& blocks = prometheus::BuildGauge()
                     .Name("tessera_host_blocks")
                     .Help("Host blocks of the prefix cache, by state.")
                     .Register(*registry);
  cached_ = &blocks.Add({{"state", "cached"}});
  free_ = &blocks.Add({{"state", "free"}});
  auto& hits = prometheus::BuildCounter()
                   .Name("tessera_prefix_tier_hit_tokens_total")
                   .Help("Tokens found in the prefix cache, by where they were.")
                   .Register(*registry);
  device_hits_.counter = &hits.Add({{"tier", "device"}});
  host_hits_.counter = &hits.Add({{"tier", "host"}});
  auto& copies = prometheus::BuildCounter()
                     .Name("tessera_host_copied_blocks_total")
                     .Help("Blocks and tail blocks copied to host memory and back.")
                     .Register(*registry);
  offloaded_.counter = &copies.Add({{"direction", "offload"}});
  restored_.counter = &copies.Add({{"direction", "restore"}});
}

void TierMetrics::Total::Set(uint64_t now) {
  // A smaller total means that the scheduler was replaced.
  counter->Increment(now >= seen ? static_cast<double>(now - seen) : 0);
  seen = now;
}

void TierMetrics::OnStep(const EngineGauges& gauges) {
  cached_->Set(static_cast<double>(gauges.host_blocks_cached));
  free_->Set(static_cast<double>(gauges.host_blocks_total - gauges.host_blocks_cached));
  device_hits_.Set(gauges.prefix_hit_tokens - gauges.host_hit_tokens);
  host_hits_.Set(gauges.host_hit_tokens);
  offloaded_.Set(gauges.offloaded_blocks);
  restored_.Set(gauges.restored_blocks);
}

}  // namespace tessera::coordinator
