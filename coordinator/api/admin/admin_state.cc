#include "coordinator/api/admin/admin_state.h"

#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

double UnixSeconds(absl::Time time) { return Seconds(time - absl::UnixEpoch()); }

// Three decimals: the page draws, it does not account.
json Rounded(double value) { return std::round(value * 1000) / 1000; }

json Rounded(const std::optional<double>& value) {
  return value.has_value() ? Rounded(*value) : json(nullptr);
}

// One array per field: half the bytes of an array of objects.
json Columns(const std::vector<ActivitySample>& samples) {
  json columns = json::object();
  const auto add = [&](const char* name, auto field) {
    json& column = columns[name] = json::array();
    for (const ActivitySample& sample : samples) {
      column.push_back(Rounded(sample.*field));
    }
  };
  json& end = columns["end"] = json::array();
  json& running = columns["running"] = json::array();
  json& waiting = columns["waiting"] = json::array();
  for (const ActivitySample& sample : samples) {
    end.push_back(Rounded(UnixSeconds(sample.end)));
    running.push_back(sample.running);
    waiting.push_back(sample.waiting);
  }
  add("requests", &ActivitySample::requests);
  add("failed", &ActivitySample::failed);
  add("prompt_tokens", &ActivitySample::prompt_tokens);
  add("generated_tokens", &ActivitySample::generated_tokens);
  add("steps", &ActivitySample::steps);
  add("step_ms", &ActivitySample::step_ms);
  add("scheduler_ms", &ActivitySample::scheduler_ms);
  add("first_token_ms", &ActivitySample::first_token_ms);
  add("first_token_ms_95", &ActivitySample::first_token_ms_95);
  add("token_gap_ms", &ActivitySample::token_gap_ms);
  add("token_gap_ms_95", &ActivitySample::token_gap_ms_95);
  add("engram_rows", &ActivitySample::engram_rows);
  add("engram_late_waits", &ActivitySample::engram_late_waits);
  add("engram_wait_ms", &ActivitySample::engram_wait_ms);
  add("prefix_hit_ratio", &ActivitySample::prefix_hit_ratio);
  add("draft_acceptance", &ActivitySample::draft_acceptance);
  add("expert_imbalance", &ActivitySample::expert_imbalance);
  add("kv_used_ratio", &ActivitySample::kv_used_ratio);
  return columns;
}

json Health(const EngineStatus& status, const EngineReport& report,
            const ServerFacts& facts, absl::Time now) {
  json health = {{"ready", status.ready},       {"draining", status.draining},
                 {"cordoned", report.cordoned}, {"phase", status.phase},
                 {"epoch", report.epoch},       {"expected_ranks", facts.tp * facts.dp},
                 {"last_step_age_s", nullptr},  {"fatal", nullptr}};
  if (report.last_step != absl::InfinitePast()) {
    health["last_step_age_s"] = Rounded(Seconds(now - report.last_step));
  }
  if (!status.fatal.ok()) {
    health["fatal"] = std::string(status.fatal.message());
  }
  return health;
}

json Ranks(const std::vector<RankActivity>& activity, const ServerFacts& facts) {
  json ranks = json::array();
  for (int64_t rank = 0; rank < facts.tp * facts.dp; ++rank) {
    json entry = {
        {"rank", rank}, {"tp_rank", rank % facts.tp}, {"dp_rank", rank / facts.tp}};
    if (rank < std::ssize(activity)) {
      const RankActivity& seen = activity[static_cast<size_t>(rank)];
      entry["steps"] = Rounded(seen.steps);
      entry["tokens"] = Rounded(seen.tokens);
      entry["step_ms"] = Rounded(seen.step_ms);
      entry["collective_ms"] = Rounded(seen.collective_ms);
      entry["collective_bytes"] = Rounded(seen.collective_bytes);
      entry["engram_wait_ms"] = Rounded(seen.engram_wait_ms);
      entry["engram_rows"] = Rounded(seen.engram_rows);
      entry["expert_imbalance"] = Rounded(seen.expert_imbalance);
    }
    ranks.push_back(std::move(entry));
  }
  return ranks;
}

json Members(const EngineReport& report, absl::Time now) {
  json members = json::array();
  for (const MemberReport& member : report.members) {
    members.push_back(
        {{"role", member.role},
         {"rank", member.rank},
         {"address", member.address},
         {"liveness", member.liveness},
         {"heartbeat_age_s", Rounded(Seconds(now - member.last_heartbeat))}});
  }
  return members;
}

json Queue(const EngineStatus& status, const EngineReport& report, absl::Time now) {
  json requests = json::array();
  for (const RequestReport& request : report.requests) {
    requests.push_back({{"id", request.id},
                        {"tenant", request.tenant},
                        {"priority", request.priority},
                        {"choices", request.num_choices},
                        {"state", !request.started              ? "waiting"
                                  : request.dp_rank.has_value() ? "running"
                                                                : "preempted"},
                        {"age_s", Rounded(Seconds(now - request.arrival))},
                        {"deadline_s", Rounded(Seconds(request.deadline - now))},
                        {"prompt_tokens", request.prompt_tokens},
                        {"cached_tokens", request.cached_tokens},
                        {"computed_tokens", request.computed_tokens},
                        {"completion_tokens", request.completion_tokens},
                        {"max_tokens", request.max_tokens},
                        {"dp_rank", request.dp_rank.has_value() ? json(*request.dp_rank)
                                                                : json(nullptr)}});
  }
  return {{"running", status.num_running},
          {"waiting", status.num_waiting},
          {"total", report.num_requests},
          {"requests", std::move(requests)}};
}

void AddTier(const char* name, const BlockUse& use, int64_t block_size, json* tiers) {
  if (use.total > 0) {
    tiers->push_back({{"name", name},
                      {"total", use.total},
                      {"used", use.used},
                      {"cached", use.cached},
                      {"block_tokens", block_size}});
  }
}

json Totals(const ActivityTotals& totals) {
  return {{"requests", totals.requests},
          {"failed", totals.failed},
          {"refused", totals.refused},
          {"prompt_tokens", totals.prompt_tokens},
          {"generated_tokens", totals.generated_tokens},
          {"group_failures", totals.group_failures},
          {"preemptions", totals.preemptions},
          {"prefix_query_tokens", totals.prefix_query_tokens},
          {"prefix_hit_tokens", totals.prefix_hit_tokens},
          {"engram_rows", totals.engram_rows},
          {"engram_late_waits", totals.engram_late_waits}};
}

json Errors(const std::vector<ActivityError>& errors) {
  json list = json::array();
  for (const ActivityError& error : errors) {
    list.push_back({{"time", Rounded(UnixSeconds(error.time))},
                    {"kind", error.kind},
                    {"code", error.code},
                    {"subject", error.subject},
                    {"message", error.message}});
  }
  return list;
}

}  // namespace

AdminState::AdminState(ServerFacts facts, Engine* engine, EngineOperations* operations,
                       ActivityRecorder* activity, Clock* clock)
    : facts_(std::move(facts)),
      engine_(engine),
      operations_(operations),
      activity_(activity),
      clock_(clock),
      start_(clock->Now()) {}

std::string AdminState::Whole() { return Write(/*whole=*/true); }

std::string AdminState::Update() { return Write(/*whole=*/false); }

std::string AdminState::Write(bool whole) {
  const EngineStatus status = engine_->status();
  const EngineReport report = operations_->Report();
  const Activity activity = activity_->Read(whole);
  const absl::Time now = clock_->Now();
  json tiers = json::array();
  AddTier("device", activity.blocks, facts_.block_size, &tiers);
  AddTier("tail", activity.tail_blocks, facts_.block_size, &tiers);
  AddTier("host",
          {.total = report.host_blocks_total, .cached = report.host_blocks_cached},
          facts_.block_size, &tiers);
  AddTier(
      "host_tail",
      {.total = report.host_tail_blocks_total, .cached = report.host_tail_blocks_cached},
      facts_.block_size, &tiers);
  json state = {{"time", Rounded(UnixSeconds(now))},
                {"uptime_s", Rounded(Seconds(now - start_))},
                {"health", Health(status, report, facts_, now)},
                {"ranks", Ranks(activity.ranks, facts_)},
                {"members", Members(report, now)},
                {"kv", std::move(tiers)},
                {"queue", Queue(status, report, now)},
                {"totals", Totals(activity.totals)},
                {"recent", Columns(activity.recent)},
                {"errors", Errors(activity.errors)}};
  if (whole) {
    state["past"] = Columns(activity.past);
    state["recent_period_s"] = Seconds(activity.recent_period);
    state["past_period_s"] = Seconds(activity.long_period);
    state["server"] = {{"model", facts_.model},
                       {"version", facts_.version},
                       {"fingerprint", facts_.fingerprint},
                       {"tp", facts_.tp},
                       {"dp", facts_.dp},
                       {"max_model_len", facts_.max_model_len},
                       {"max_num_seqs", facts_.max_num_seqs},
                       {"speculative_tokens", facts_.num_speculative_tokens},
                       {"engram", facts_.has_engram},
                       {"kv_cache_dtype", facts_.kv_cache_dtype},
                       {"backend", facts_.backend}};
    state["config"] = facts_.config;
  }
  return DumpJson(state);
}

}  // namespace tessera::coordinator
