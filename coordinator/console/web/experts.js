// The map of expert load: a row per MoE layer, a column per routed expert, coloured by the
// expert's share of its layer's mean. Where the screen has no room for a column each, one
// stands for the busiest of its neighbours. A table says the same in words.

import {requestJson} from "./api.js";
import {el, replace} from "./dom.js";
import {count} from "./format.js";

const PERIOD_MS = 3000;
const VIEWS = [["recent", "Last minute"], ["total", "Since the start"]];
const STOPS = [0, 0.5, 1, 2, 4];  // times the mean, of the colours --h0 to --h4
const LEFT = 30;
const TOP = 18;
const MIN_CELL = 4;

export class ExpertMap {
  constructor(feed) {
    this.feed = feed;
    this.view = "recent";
    this.asked = -Infinity;
    this.visible = false;
    this.data = null;
    this.at = null;  // {row, column} under the pointer or the arrow keys
    this.note = el("p", {class: "note"});
    this.canvas = el("canvas", {class: "heat", role: "img", tabindex: "0"});
    this.readout = el("p", {class: "heat-readout", role: "status"});
    this.legend = el("div", {class: "heat-legend"},
      ["0", "½", "1, even", "2", "4 and more"].map((text, i) => el("span", {class: `key h${i}`}, text)),
      el("span", {}, "times the layer's mean"));
    this.table = el("div", {class: "table-scroll heat-table", tabindex: "0", role: "region", "aria-label": "Load by layer"});
    this.map = el("div", {hidden: true}, el("div", {class: "heat-box"}, this.canvas), this.readout, this.legend,
      el("details", {}, el("summary", {}, "By layer"), this.table));
    this.node = el("section", {class: "card panel wide experts"},
      el("div", {class: "section-head"}, el("h2", {}, "Load of every expert"), this.viewButtons()), this.note, this.map);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.move(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.move(null));
    new ResizeObserver(() => this.draw()).observe(this.node);
    document.addEventListener("theme", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    feed.onChange(() => this.poll());
  }

  viewButtons() {
    const buttons = VIEWS.map(([name, label]) => el("button", {type: "button", class: "tab", "aria-pressed": String(name === this.view), onclick: () => {
      this.view = name;
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(VIEWS[i][0] === name)));
      this.draw();
    }}, label));
    return el("div", {class: "tabs", role: "group", "aria-label": "Span of the load"}, buttons);
  }

  setVisible(visible) {
    this.visible = visible;
    this.poll();
  }

  // The feed's events are the clock: a server that is silent or refuses is not asked.
  async poll() {
    const {connection, denied} = this.feed;
    if (!this.visible || connection !== "live" || denied || performance.now() - this.asked < PERIOD_MS) return;
    this.asked = performance.now();
    try {
      this.data = await requestJson("/admin/v1/experts");
      this.draw();
    } catch {
      // The feed tells of a server that is gone, or that wants another key.
    }
  }

  draw() {
    if (!this.visible || this.data === null) return;
    const {layers, rank_of_expert: ranks} = this.data;
    this.rows = layers.map((layer) => rowOf(layer, layer[this.view], ranks));
    const busiest = this.rows.reduce((best, row) => (row.share > (best?.share ?? 0) ? row : best), null);
    this.map.hidden = busiest === null;
    this.note.textContent = layers.length === 0 ? "This model has no routed experts."
      : busiest === null ? `Nothing was routed ${this.view === "recent" ? `in the last ${this.data.window_s} s` : "since the start"}.`
        : `Busiest: expert ${busiest.expert} of layer ${busiest.layer} on rank ${ranks[busiest.expert]}, ` +
          `${busiest.share.toFixed(1)} times its layer's mean. Tokens of requests, with drafts that were verified; no health steps.`;
    if (busiest === null) return;
    this.canvas.setAttribute("aria-label",
      `Heat map: ${layers.length} layers by ${ranks.length} experts. ${this.note.textContent} The table by layer has the figures.`);
    this.paint(ranks);
    this.tell();
    this.fillTable();
  }

  paint(ranks) {
    const width = this.canvas.parentElement.clientWidth;
    if (width < LEFT + MIN_CELL) return;
    this.perCell = 1;
    while ((width - LEFT) / Math.ceil(ranks.length / this.perCell) < MIN_CELL) this.perCell *= 2;
    this.columns = Math.ceil(ranks.length / this.perCell);
    this.cellWidth = (width - LEFT) / this.columns;
    this.cellHeight = Math.max(6, Math.min(22, Math.floor(360 / this.rows.length)));
    const height = TOP + this.cellHeight * this.rows.length;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = `11px ${getComputedStyle(this.canvas).fontFamily}`;
    const style = getComputedStyle(document.documentElement);
    const colours = STOPS.map((_, i) => rgbOf(style.getPropertyValue(`--h${i}`)));
    const gap = this.cellWidth >= 6 ? 1 : 0;
    this.rows.forEach((row, y) => {
      for (let x = 0; x < this.columns; x += 1) {
        pen.fillStyle = colourOf(row.mean > 0 ? this.cell(y, x).items / row.mean : 0, colours);
        pen.fillRect(LEFT + x * this.cellWidth, TOP + y * this.cellHeight, this.cellWidth - gap, this.cellHeight - 1);
      }
    });
    pen.fillStyle = style.getPropertyValue("--muted");
    this.label(pen, ranks, height);
    if (this.at === null) return;
    pen.strokeStyle = style.getPropertyValue("--text");
    pen.lineWidth = 2;
    pen.strokeRect(LEFT + this.at.column * this.cellWidth - 1, TOP + this.at.row * this.cellHeight - 1, this.cellWidth + 1, this.cellHeight + 1);
  }

  // Layers at the left; at the top which rank's experts begin here, or the experts' numbers.
  label(pen, ranks, height) {
    const every = Math.ceil(13 / this.cellHeight);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    this.rows.forEach((row, y) => {
      if (y % every === 0) pen.fillText(String(row.layer), LEFT - 6, TOP + (y + 0.5) * this.cellHeight);
    });
    pen.textAlign = "left";
    const spread = ranks.at(-1) > 0;
    const right = LEFT + this.columns * this.cellWidth;
    // Lines through the map only where each rank has room for its name.
    const lines = (right - LEFT) / (ranks.at(-1) + 1) > pen.measureText("rank 00").width;
    let free = 0;
    for (let x = 0; x < this.columns; x += 1) {
      const expert = x * this.perCell;
      const begins = x === 0 || ranks[expert] !== ranks[expert - this.perCell];
      if (spread ? !begins : expert % Math.max(this.perCell, 32) !== 0) continue;
      const left = LEFT + x * this.cellWidth;
      const text = spread ? `rank ${ranks[expert]}` : String(expert);
      const end = left + pen.measureText(text).width + 4;
      if (left < free || end > right) continue;
      free = end + 6;
      pen.fillText(text, left + 3, TOP / 2);
      if (spread && x > 0) pen.fillRect(left - 1, 4, 1, (lines ? height : TOP) - 5);
    }
  }

  // The busiest expert of a cell.
  cell(row, column) {
    const items = this.rows[row].items;
    const begin = column * this.perCell;
    const end = Math.min(begin + this.perCell, items.length);
    let expert = begin;
    for (let i = begin + 1; i < end; i += 1) if (items[i] > items[expert]) expert = i;
    return {begin, end, expert, items: items[expert]};
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - LEFT) / this.cellWidth);
    const row = Math.floor((event.clientY - box.top - TOP) / this.cellHeight);
    const inside = column >= 0 && column < this.columns && row >= 0 && row < this.rows.length;
    this.move(inside ? {row, column} : null);
  }

  key(event) {
    const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity]};
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const within = (value, size) => Math.max(0, Math.min(value, size - 1));
    this.move(this.at === null ? {row: 0, column: 0}
      : {row: within(this.at.row + step[0], this.rows.length), column: within(this.at.column + step[1], this.columns)});
  }

  move(at) {
    if (at?.row === this.at?.row && at?.column === this.at?.column) return;
    this.at = at;
    this.paint(this.data.rank_of_expert);
    this.tell();
  }

  tell() {
    if (this.at !== null && (this.at.row >= this.rows.length || this.at.column >= this.columns)) this.at = null;
    if (this.at === null) {
      this.readout.textContent = this.perCell > 1 ? `Each cell is the busiest of ${this.perCell} experts. Point at one, or use the arrow keys.`
        : "Point at a cell, or use the arrow keys.";
      return;
    }
    const {expert, items, begin, end} = this.cell(this.at.row, this.at.column);
    const {layer, mean} = this.rows[this.at.row];
    this.readout.textContent = `Layer ${layer}, ${end - begin > 1 ? `experts ${begin} to ${end - 1}, busiest ` : ""}expert ${expert} ` +
      `on rank ${this.data.rank_of_expert[expert]}: ${items.toLocaleString("en")} items, ${(mean > 0 ? items / mean : 0).toFixed(2)} times the mean.`;
  }

  fillTable() {
    const head = ["Layer", "Items", "Busiest expert", "× mean", "Busiest rank", "× mean"];
    const fresh = el("table", {class: "grid-table"}, el("thead", {}, el("tr", {}, head.map((name) => el("th", {scope: "col"}, name)))),
      el("tbody", {}, this.rows.map((row) => el("tr", {}, [String(row.layer), count(row.sum), row.sum ? String(row.expert) : "–",
        row.sum ? row.share.toFixed(2) : "–", row.sum ? String(row.rank) : "–", row.sum ? row.rankShare.toFixed(2) : "–"]
        .map((text) => el("td", {}, text))))));
    const place = [this.table.scrollLeft, this.table.scrollTop];
    replace(this.table, fresh);
    [this.table.scrollLeft, this.table.scrollTop] = place;
  }
}

// Sums of one layer, its busiest expert and the rank whose experts had most to do.
function rowOf(layer, items, ranks) {
  const sum = items.reduce((a, b) => a + b, 0);
  const mean = items.length > 0 ? sum / items.length : 0;
  const byRank = new Array(items.length > 0 ? Math.max(...ranks) + 1 : 0).fill(0);
  items.forEach((value, expert) => {
    byRank[ranks[expert]] += value;
  });
  const most = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
  const expert = most(items);
  const rank = most(byRank);
  return {layer: layer.layer, items, sum, mean, expert, rank, share: sum > 0 ? items[expert] / mean : 0,
    rankShare: sum > 0 ? (byRank[rank] * byRank.length) / sum : 0};
}

function rgbOf(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.trim().slice(at, at + 2), 16));
}

function colourOf(share, colours) {
  const upper = STOPS.findIndex((stop) => share < stop);
  if (upper < 0) return `rgb(${colours.at(-1).join(" ")})`;
  const part = (share - STOPS[upper - 1]) / (STOPS[upper] - STOPS[upper - 1]);
  return `rgb(${colours[upper].map((value, i) => Math.round(colours[upper - 1][i] * (1 - part) + value * part)).join(" ")})`;
}
