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
  disk_hits_.counter = &hits.Add({{"tier", "disk"}});
  AddDisk(registry);
  auto& copies = prometheus::BuildCounter()
                     .Name("tessera_host_copied_blocks_total")
                     .Help("Blocks and tail blocks copied to host memory and back.")
                     .Register(*registry);
  offloaded_.counter = &copies.Add({{"direction", "offload"}});
  restored_.counter = &copies.Add({{"direction", "restore"}});
  const auto counter = [registry](const char* name, const char* help) {
    return &prometheus::BuildCounter().Name(name).Help(help).Register(*registry).Add({});
  };
  auto& sequences = prometheus::BuildCounter()
                        .Name("tessera_hand_over_sequences_total")
                        .Help(
                            "Sequences that a prefill rank handed to a decode rank: "
                            "whole, or given up before.")
                        .Register(*registry);
  handed_over_.counter = &sequences.Add({{"outcome", "whole"}});
  given_up_.counter = &sequences.Add({{"outcome", "given_up"}});
  handed_over_tokens_.counter =
      counter("tessera_hand_over_tokens_total", "Tokens of the blocks handed over.");
  handed_over_blocks_.counter =
      counter("tessera_hand_over_blocks_total", "Blocks and tail blocks handed over.");
  recomputed_tokens_.counter =
      counter("tessera_hand_over_recomputed_tokens_total",
              "Tokens handed over in vain, or not at all, and computed again.");
  transfer_bytes_ = counter("tessera_hand_over_bytes_total",
                            "Bytes of blocks that ranks sent to each other.");
}

void TierMetrics::AddDisk(prometheus::Registry* registry) {
  auto& blocks = prometheus::BuildGauge()
                     .Name("tessera_disk_blocks")
                     .Help("Disk blocks of the prefix cache, by state.")
                     .Register(*registry);
  disk_cached_ = &blocks.Add({{"state", "cached"}});
  disk_free_ = &blocks.Add({{"state", "free"}});
  auto& copies = prometheus::BuildCounter()
                     .Name("tessera_disk_copied_blocks_total")
                     .Help(
                         "Blocks and tail blocks of host memory that were to be written "
                         "to the disk, or read from there.")
                     .Register(*registry);
  spilled_.counter = &copies.Add({{"direction", "spill"}});
  fetched_.counter = &copies.Add({{"direction", "fetch"}});
  auto& bytes = prometheus::BuildCounter()
                    .Name("tessera_disk_bytes_total")
                    .Help("Bytes of blocks that were written to the disk, and read.")
                    .Register(*registry);
  disk_written_bytes_ = &bytes.Add({{"direction", "spill"}});
  disk_read_bytes_ = &bytes.Add({{"direction", "fetch"}});
  failed_disk_copies_.counter =
      &prometheus::BuildCounter()
           .Name("tessera_disk_failed_copies_total")
           .Help("Disk copies that failed, or came back damaged: computed again.")
           .Register(*registry)
           .Add({});
  auto& waits = prometheus::BuildCounter()
                    .Name("tessera_disk_waits_total")
                    .Help("Sequences that waited for the disk: to the end, or too long.")
                    .Register(*registry);
  disk_waits_.counter = &waits.Add({{"outcome", "whole"}});
  given_up_disk_waits_.counter = &waits.Add({{"outcome", "given_up"}});
}

void TierMetrics::Total::Set(uint64_t now) {
  // A smaller total means that the scheduler was replaced.
  counter->Increment(now >= seen ? static_cast<double>(now - seen) : 0);
  seen = now;
}

void TierMetrics::OnStep(const EngineGauges& gauges,
                         std::span<const proto::StepCounters> rank_counters) {
  cached_->Set(static_cast<double>(gauges.host_blocks_cached));
  free_->Set(static_cast<double>(gauges.host_blocks_total - gauges.host_blocks_cached));
  device_hits_.Set(gauges.prefix_hit_tokens - gauges.host_hit_tokens -
                   gauges.disk_hit_tokens);
  disk_hits_.Set(gauges.disk_hit_tokens);
  disk_cached_->Set(static_cast<double>(gauges.disk_blocks_cached));
  disk_free_->Set(
      static_cast<double>(gauges.disk_blocks_total - gauges.disk_blocks_cached));
  spilled_.Set(gauges.spilled_blocks);
  fetched_.Set(gauges.fetched_blocks);
  failed_disk_copies_.Set(gauges.failed_disk_copies);
  disk_waits_.Set(gauges.disk_waits - gauges.given_up_disk_waits);
  given_up_disk_waits_.Set(gauges.given_up_disk_waits);
  host_hits_.Set(gauges.host_hit_tokens);
  offloaded_.Set(gauges.offloaded_blocks);
  restored_.Set(gauges.restored_blocks);
  handed_over_.Set(gauges.handed_over_sequences);
  given_up_.Set(gauges.given_up_sequences);
  handed_over_tokens_.Set(gauges.handed_over_tokens);
  handed_over_blocks_.Set(gauges.handed_over_blocks);
  recomputed_tokens_.Set(gauges.handed_over_recomputed_tokens);
  for (const proto::StepCounters& rank : rank_counters) {
    transfer_bytes_->Increment(static_cast<double>(rank.transfer_bytes));
    disk_written_bytes_->Increment(static_cast<double>(rank.disk_written_bytes));
    disk_read_bytes_->Increment(static_cast<double>(rank.disk_read_bytes));
  }
}

}  // namespace tessera::coordinator
