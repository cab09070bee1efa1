// The operations view: health, rates, ranks, requests, caches, Engram, experts, errors and
// configuration of the server, live, and the buttons that drain it.

import {requestJson} from "./api.js";
import {Chart} from "./charts.js";
import {announce, confirmDialog, el, replace} from "./dom.js";
import {ExpertMap} from "./experts.js";
import {count, milliseconds, percent, seconds} from "./format.js";
import * as panels from "./panels.js";

const SPANS = [["recent", "5 min", 300], ["past", "1 h", 3600]];

const CHARTS = [
  {title: "Output tokens/s", series: [{name: "generated_tokens", label: "output"}], format: count},
  {title: "Prompt tokens/s", series: [{name: "prompt_tokens", label: "prompt"}], format: count},
  {title: "First token", series: [{name: "first_token_ms", label: "median"}, {name: "first_token_ms_95", label: "p95"}], format: milliseconds},
  {title: "Token gap", series: [{name: "token_gap_ms", label: "median"}, {name: "token_gap_ms_95", label: "p95"}], format: milliseconds},
  {title: "Sequences", series: [{name: "running", label: "running"}, {name: "waiting", label: "waiting"}], format: count},
  {title: "KV blocks in use", series: [{name: "kv_used_ratio", label: "used"}], format: (value) => percent(value), max: 1},
  {title: "Step time", series: [{name: "step_ms", label: "step"}, {name: "scheduler_ms", label: "scheduler"}], format: milliseconds},
  {title: "Engram rows/s", series: [{name: "engram_rows", label: "rows"}], format: count},
  {title: "Engram wait", series: [{name: "engram_wait_ms", label: "per step"}], format: milliseconds},
  {title: "Expert imbalance", series: [{name: "expert_imbalance", label: "max / mean"}], format: (value) => (value === null ? "–" : value.toFixed(1))},
  {title: "Requests/s", series: [{name: "requests", label: "ended"}, {name: "failed", label: "failed"}], format: count},
];

export class Operations {
  constructor(node, feed) {
    this.feed = feed;
    this.span = "recent";
    this.visible = false;
    this.banner = el("div", {class: "banner card", role: "status"});
    this.tiles = el("div", {class: "tiles"});
    this.charts = CHARTS.map((chart) => new Chart(chart));
    this.panels = new Map();
    this.experts = new ExpertMap(feed);
    this.configText = el("pre", {class: "config", tabindex: "0", role: "region", "aria-label": "Configuration"});
    this.content = el("div", {class: "ops-content", hidden: true}, this.tiles,
      el("div", {class: "section-head"}, el("h2", {}, "Activity"), this.spanButtons()),
      el("div", {class: "charts"}, this.charts.map((chart) => chart.node)),
      el("div", {class: "columns"},
        this.panel("topology", "Topology", "wide"), this.panel("queue", "Requests", "wide"),
        this.panel("kvTiers", "KV cache by tier"), this.panel("engram", "Engram"),
        this.panel("expertPanel", "Experts by rank"), this.panel("errors", "Recent errors"), this.experts.node,
        el("section", {class: "card panel wide"}, el("h2", {}, "Configuration in force"), this.configText)));
    this.placeholder = el("div", {class: "placeholder"});
    node.append(el("h1", {class: "sr-only"}, "Operations"), this.banner, this.placeholder, this.content);
    feed.onChange(() => this.draw());
    this.draw();
  }

  panel(name, title, extra = "") {
    const body = el("div", {class: "panel-body"});
    this.panels.set(name, {body, text: ""});
    return el("section", {class: `card panel ${extra}`}, el("h2", {}, title), body);
  }

  spanButtons() {
    const buttons = SPANS.map(([name, label]) => el("button", {type: "button", class: "tab", "aria-pressed": String(name === this.span), onclick: () => {
      this.span = name;
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(SPANS[i][0] === name)));
      this.draw();
    }}, label));
    return el("div", {class: "tabs", role: "group", "aria-label": "Span"}, buttons);
  }

  setVisible(visible) {
    this.visible = visible;
    if (visible) this.draw();
    this.experts.setVisible(visible);
  }

  draw() {
    if (!this.visible) return;
    const {state, connection, denied} = this.feed;
    const known = state !== null && !denied;
    this.content.hidden = !known;
    this.content.classList.toggle("old", connection !== "live");
    this.placeholder.hidden = known;
    this.drawBanner();
    if (!known) {
      replace(this.placeholder, this.placeholderText());
      return;
    }
    replace(this.tiles, panels.tiles(state));
    const [, , span] = SPANS.find(([name]) => name === this.span);
    for (const chart of this.charts) chart.draw(state[this.span], span);
    for (const [name, panel] of this.panels) this.drawPanel(name, panel, state);
    if (this.configText.textContent !== state.config) this.configText.textContent = state.config;
  }

  // A panel whose text stays is left alone, so that focus, selection and scrolling stay too.
  drawPanel(name, panel, state) {
    const fresh = el("div", {}, panels[name](state));
    if (fresh.textContent === panel.text) return;
    panel.text = fresh.textContent;
    const scrolled = panel.body.querySelector(".table-scroll");
    const place = scrolled ? [scrolled.scrollLeft, scrolled.scrollTop, scrolled === document.activeElement] : null;
    replace(panel.body, [...fresh.childNodes]);
    const after = panel.body.querySelector(".table-scroll");
    if (place && after) {
      [after.scrollLeft, after.scrollTop] = place;
      if (place[2]) after.focus();
    }
  }

  placeholderText() {
    const {denied, connection} = this.feed;
    if (denied?.status === 404) return el("p", {}, "This server has no operations routes.");
    if (denied) {
      return [el("h2", {}, denied.status === 401 ? "A key is needed" : "This is for administrators"),
        el("p", {}, denied.status === 401
          ? "Operations are shown to holders of a key of the role admin. Enter it with the key button above."
          : `The server says: ${denied.message}.`)];
    }
    return el("p", {}, connection === "disconnected" ? "The server cannot be reached. Trying again." : "Loading …");
  }

  drawBanner() {
    const {state, connection, denied} = this.feed;
    this.banner.hidden = state === null || Boolean(denied);
    if (this.banner.hidden) return;
    const {health, server} = state;
    const [kind, title, text] = this.bannerWords(health, connection);
    this.banner.dataset.kind = kind;
    const key = `${kind}|${title}|${text}|${health.cordoned}|${connection}`;
    if (key === this.bannerKey) return;
    this.bannerKey = key;
    const live = connection === "live";
    const action = health.cordoned
      ? el("button", {type: "button", class: "button primary", id: "undrain", disabled: !live, onclick: () => this.change("undrain")}, "Take requests again")
      : el("button", {type: "button", class: "button", id: "drain", disabled: !live, onclick: () => this.change("drain")}, "Drain");
    const focused = ["drain", "undrain"].includes(document.activeElement?.id);
    replace(this.banner, el("span", {class: "banner-dot", "aria-hidden": "true"}),
      el("div", {class: "banner-text"}, el("strong", {}, title), el("span", {}, text)),
      el("div", {class: "banner-facts note"}, `${server.model} · ${server.backend} · ${server.version}`), action);
    if (focused) action.focus();
  }

  bannerWords(health, connection) {
    if (connection === "disconnected") {
      return ["bad", "Disconnected", `What you see is ${seconds(this.feed.ageSeconds())} old; trying to reach the server.`];
    }
    if (connection === "stale") {
      return ["warn", "Stale", `Last update ${Math.round(this.feed.ageSeconds())} s ago.`];
    }
    if (health.fatal) return ["bad", "Cannot serve", health.fatal];
    if (health.cordoned) return ["warn", "Drained", "No new requests are taken; those under way finish. The group stays warm."];
    if (health.draining) return ["warn", "Shutting down", "Requests under way finish."];
    if (!health.ready) return ["warn", "Not ready", health.phase];
    return ["good", "Ready", `${health.expected_ranks} of ${health.expected_ranks} ranks answer, epoch ${health.epoch}.`];
  }

  async change(what) {
    const drain = what === "drain";
    if (drain && !await confirmDialog("Drain this server?",
      "It takes no new requests until you let it again. Requests under way finish, /readyz answers 503.", "Drain")) {
      return;
    }
    try {
      this.feed.take(await requestJson(`/admin/v1/${what}`, {method: "POST", body: {}}));
      announce(drain ? "The server is drained" : "The server takes requests again");
    } catch (error) {
      await confirmDialog("That did not work", error.message, "Close");
    }
  }
}
