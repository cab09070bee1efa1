// The panels of the operations view that are no charts: each is a function from the state
// to nodes.

import {el} from "./dom.js";
import {bytes, clockTime, count, milliseconds, percent, seconds} from "./format.js";

export function tiles(state) {
  const {totals, queue, kv} = state;
  const last = (name) => state.recent[name].at(-1) ?? null;
  const latest = (name) => state.recent[name].findLast((value) => value !== null) ?? null;
  const device = kv.find((tier) => tier.name === "device");
  const failedRatio = totals.requests + totals.refused > 0
    ? totals.failed / (totals.requests + totals.refused) : null;
  const hits = totals.prefix_query_tokens > 0 ? totals.prefix_hit_tokens / totals.prefix_query_tokens : null;
  return [
    tile("Requests/s", count(last("requests")), `${count(totals.requests)} in all`),
    tile("Tokens/s", count(last("generated_tokens")), `${count(totals.generated_tokens)} in all`),
    tile("First token", milliseconds(latest("first_token_ms")), `p95 ${milliseconds(latest("first_token_ms_95"))}`),
    tile("Token gap", milliseconds(latest("token_gap_ms")), `p95 ${milliseconds(latest("token_gap_ms_95"))}`),
    tile("Running", count(queue.running), `of ${count(state.server.max_num_seqs * state.server.dp)} slots`),
    tile("Waiting", count(queue.waiting), `${count(totals.preemptions)} preemptions`),
    tile("KV in use", percent(device && device.total > 0 ? device.used / device.total : null), device ? `${count(device.used)} of ${count(device.total)} blocks` : ""),
    tile("Prefix hits", percent(hits), `${count(totals.prefix_hit_tokens)} tokens`),
    tile("Errors", percent(failedRatio, 1), `${count(totals.refused)} refused`),
  ];
}

function tile(name, value, note) {
  return el("div", {class: "tile card"}, el("div", {class: "tile-name"}, name),
    el("div", {class: "tile-value"}, value), el("div", {class: "tile-note"}, note));
}

export function topology(state) {
  const worker = (rank) => state.members.find((member) => member.role === "worker" && member.rank === rank);
  const shards = state.members.filter((member) => member.role === "engram");
  const groups = [];
  for (let dp = 0; dp < state.server.dp; dp += 1) {
    const ranks = state.ranks.filter((rank) => rank.dp_rank === dp);
    groups.push(el("div", {class: "dp-group"}, el("div", {class: "dp-name"}, `DP rank ${dp}`),
      el("div", {class: "rank-list"}, ranks.map((rank) => rankCard(rank, worker(rank.rank))))));
  }
  return [
    el("p", {class: "note"}, `tp ${state.server.tp} × dp ${state.server.dp}, experts spread over ${state.ranks.length} ${state.ranks.length === 1 ? "rank" : "ranks"}; ` +
      (state.members.length > 0 ? "processes of their own." : "threads of this process.")),
    el("div", {class: "group-list"}, groups),
    shards.length > 0 ? el("div", {class: "dp-group"}, el("div", {class: "dp-name"}, "Engram shards"),
      el("div", {class: "rank-list"}, shards.map(shardCard))) : null,
  ];
}

function rankCard(rank, member) {
  return el("div", {class: `rank ${member ? member.liveness : ""}`},
    el("div", {class: "rank-head"}, el("b", {}, `Rank ${rank.rank}`), el("span", {class: "note"}, `TP ${rank.tp_rank} · EP ${rank.rank}`)),
    el("dl", {}, fact("Step", milliseconds(rank.step_ms)), fact("Collectives", milliseconds(rank.collective_ms)),
      fact("Tokens/s", count(rank.tokens)), fact("Engram wait", milliseconds(rank.engram_wait_ms)),
      member ? fact("Heartbeat", `${seconds(member.heartbeat_age_s)} ago`) : null,
      member ? fact("Address", member.address) : null));
}

function shardCard(member) {
  return el("div", {class: `rank ${member.liveness}`},
    el("div", {class: "rank-head"}, el("b", {}, `Shard ${member.rank}`), el("span", {class: "note"}, member.liveness)),
    el("dl", {}, fact("Heartbeat", `${seconds(member.heartbeat_age_s)} ago`), fact("Address", member.address)));
}

function fact(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value));
}

export function queue(state) {
  const {requests, total} = state.queue;
  if (requests.length === 0) return el("p", {class: "note empty"}, "No request is under way.");
  const head = ["Request", "State", "Age", "Deadline", "Priority", "Tenant", "Prompt", "Cached", "Output", "DP"];
  return [
    total > requests.length ? el("p", {class: "note"}, `The ${requests.length} oldest of ${total}.`) : null,
    el("div", {class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Requests"},
      el("table", {class: "grid-table"}, el("thead", {}, el("tr", {}, head.map((name) => el("th", {scope: "col"}, name)))),
        el("tbody", {}, requests.map((request) => el("tr", {},
          el("td", {class: "mono"}, request.id), el("td", {}, el("span", {class: `tag ${request.state}`}, request.state)),
          el("td", {}, seconds(request.age_s)), el("td", {}, `in ${seconds(Math.max(request.deadline_s, 0))}`),
          el("td", {}, String(request.priority)), el("td", {}, request.tenant || "–"),
          el("td", {}, count(request.prompt_tokens)), el("td", {}, count(request.cached_tokens)),
          el("td", {}, `${count(request.completion_tokens)} / ${count(request.max_tokens)}`),
          el("td", {}, request.dp_rank === null ? "–" : String(request.dp_rank))))))),
  ];
}

const TIER_NAMES = {device: "Device", tail: "Tail rows", host: "Host memory", host_tail: "Tail rows in host memory", disk: "Disk"};

export function kvTiers(state) {
  if (state.kv.length === 0) return el("p", {class: "note empty"}, "No step has run yet.");
  return state.kv.map((tier) => {
    const used = el("span", {class: "bar-fill used"});
    const cached = el("span", {class: "bar-fill cached"});
    used.style.width = `${(tier.used / tier.total) * 100}%`;
    cached.style.width = `${(tier.cached / tier.total) * 100}%`;
    const free = tier.total - tier.used - tier.cached;
    return el("div", {class: "tier"},
      el("div", {class: "tier-head"}, el("b", {}, TIER_NAMES[tier.name] ?? tier.name),
        el("span", {class: "note"}, `${count(tier.total * tier.block_tokens)} tokens in ${count(tier.total)} blocks of ${tier.block_tokens}`)),
      el("div", {class: "bar", role: "img", "aria-label": `${percent(tier.used / tier.total)} used, ${percent(tier.cached / tier.total)} cached`}, used, cached),
      el("div", {class: "tier-foot"}, el("span", {class: "key used"}, `${count(tier.used)} used`),
        el("span", {class: "key cached"}, `${count(tier.cached)} cached`), el("span", {class: "key free"}, `${count(free)} free`)));
  });
}

export function engram(state) {
  if (!state.server.engram) return el("p", {class: "note empty"}, "This model has no Engram tables.");
  const last = (name) => state.recent[name].at(-1) ?? null;
  const latest = (name) => state.recent[name].findLast((value) => value !== null) ?? null;
  const shards = state.members.filter((member) => member.role === "engram");
  return [
    el("dl", {class: "facts"}, fact("Rows/s", count(last("engram_rows"))), fact("Rows in all", count(state.totals.engram_rows)),
      fact("Wait per step", milliseconds(latest("engram_wait_ms"))), fact("Late waits", count(state.totals.engram_late_waits)),
      fact("Source", shards.length > 0 ? `${shards.length} shard processes` : "the ranks' own memory")),
    el("table", {class: "grid-table"}, el("thead", {}, el("tr", {}, ["Rank", "Rows/s", "Wait per step"].map((name) => el("th", {scope: "col"}, name)))),
      el("tbody", {}, state.ranks.map((rank) => el("tr", {}, el("td", {}, String(rank.rank)),
        el("td", {}, count(rank.engram_rows)), el("td", {}, milliseconds(rank.engram_wait_ms)))))),
  ];
}

// Per rank: how unevenly experts were asked, and what the exchange cost.
export function expertPanel(state) {
  const seen = state.ranks.filter((rank) => rank.expert_imbalance > 0);
  if (seen.length === 0) return el("p", {class: "note empty"}, "No expert has been asked yet.");
  return [
    el("p", {class: "note"}, "Largest over mean load of the ranks' experts in a step; 1 is even."),
    el("table", {class: "grid-table"}, el("thead", {}, el("tr", {}, ["Rank", "Imbalance", "Exchanged", "Collectives"].map((name) => el("th", {scope: "col"}, name)))),
      el("tbody", {}, state.ranks.map((rank) => el("tr", {}, el("td", {}, String(rank.rank)),
        el("td", {}, (rank.expert_imbalance ?? 0).toFixed(2)), el("td", {}, `${bytes(rank.collective_bytes)}/s`),
        el("td", {}, milliseconds(rank.collective_ms)))))),
  ];
}

const KIND_NAMES = {request: "Request failed", refused: "Request refused", group: "Group lost"};

export function errors(state) {
  if (state.errors.length === 0) return el("p", {class: "note empty"}, "No errors since the start.");
  return el("ul", {class: "error-list"}, state.errors.map((error) => el("li", {},
    el("time", {class: "note"}, clockTime(error.time)), el("b", {}, KIND_NAMES[error.kind] ?? error.kind),
    el("span", {class: "mono"}, error.code), el("span", {}, error.message), el("span", {class: "mono note"}, error.subject))));
}
