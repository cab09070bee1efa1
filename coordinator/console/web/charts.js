// Line charts as SVG: a few series over time, with axes, a legend and the values under the
// pointer. Colours come from the style sheet, so that both themes work.

import {el, replace, svg} from "./dom.js";
import {clockTime} from "./format.js";

const WIDTH = 320;
const HEIGHT = 124;
const LEFT = 52;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

// `series`: [{name, label}] of the columns to draw; `format`: of values.
export class Chart {
  constructor({title, series, format, max}) {
    this.title = title;
    this.series = series;
    this.format = format;
    this.fixedMax = max;
    this.value = el("span", {class: "chart-value"});
    this.plot = svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart-plot", role: "img"});
    this.tip = el("div", {class: "chart-tip", hidden: true});
    const legend = series.length > 1 ? el("span", {class: "chart-legend"}, series.map((entry, i) =>
      el("span", {class: `key s${i}`}, entry.label))) : null;
    this.node = el("figure", {class: "chart card"},
      el("figcaption", {}, el("span", {}, title), legend, this.value), this.plot, this.tip);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.unpoint());
  }

  draw(columns, span) {
    this.columns = columns;
    const ends = columns.end;
    const now = ends.at(-1) ?? 0;
    this.begin = now - span;
    this.end = now;
    const max = this.fixedMax ?? niceMax(Math.max(...this.series.flatMap(({name}) =>
      columns[name].filter((value) => value !== null)), 0));
    this.max = max;
    const children = [...this.axes(max, span)];
    this.series.forEach(({name}, i) => {
      const lines = this.lines(ends, columns[name]);
      if (i === 0 && this.series.length === 1) children.push(...lines.map((line) => this.area(line)));
      children.push(...lines.map((line) => (line.length === 1
        ? svg("circle", {cx: line[0][0], cy: line[0][1], r: 1.7, class: `dot s${i}`})
        : svg("polyline", {points: line.map((p) => p.join(",")).join(" "), class: `line s${i}`}))));
    });
    this.cursor = svg("line", {class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden"});
    replace(this.plot, ...children, this.cursor);
    const last = columns[this.series[0].name].at(-1);
    this.value.textContent = this.format(last ?? null);
    this.plot.setAttribute("aria-label", `${this.title}, now ${this.format(last ?? null)}, largest ${this.format(max)}`);
  }

  x(end) {
    return LEFT + ((end - this.begin) / (this.end - this.begin || 1)) * (WIDTH - LEFT - RIGHT);
  }

  y(value) {
    return TOP + (1 - value / (this.max || 1)) * (HEIGHT - TOP - BOTTOM);
  }

  // Runs without gaps.
  lines(ends, values) {
    const runs = [];
    let run = null;
    values.forEach((value, i) => {
      if (value === null || ends[i] < this.begin) {
        run = null;
        return;
      }
      if (run === null) {
        run = [];
        runs.push(run);
      }
      run.push([this.x(ends[i]).toFixed(1), this.y(value).toFixed(1)]);
    });
    return runs;
  }

  area(points) {
    const base = HEIGHT - BOTTOM;
    const all = [[points[0][0], base], ...points, [points.at(-1)[0], base]];
    return svg("polygon", {points: all.map((p) => p.join(",")).join(" "), class: "area"});
  }

  axes(max, span) {
    const nodes = [];
    for (const part of [0, 0.5, 1]) {
      const y = this.y(max * part);
      nodes.push(svg("line", {class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y}));
      const label = svg("text", {class: "axis", x: LEFT - 6, y: y + 3.5, "text-anchor": "end"});
      label.textContent = part === 0 ? "0" : this.format(max * part);
      nodes.push(label);
    }
    for (const part of [0, 0.5, 1]) {
      const x = LEFT + part * (WIDTH - LEFT - RIGHT);
      const label = svg("text", {class: "axis", x, y: HEIGHT - 5, "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle"});
      const ago = span * (1 - part);
      label.textContent = ago === 0 ? "now" : `−${ago >= 120 ? `${ago / 60} min` : `${ago} s`}`;
      nodes.push(label);
    }
    return nodes;
  }

  point(event) {
    if (!this.columns || this.columns.end.length === 0) return;
    const box = this.plot.getBoundingClientRect();
    const time = this.begin + ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * (this.end - this.begin);
    let best = 0;
    this.columns.end.forEach((end, i) => {
      if (Math.abs(end - time) < Math.abs(this.columns.end[best] - time)) best = i;
    });
    const x = this.x(this.columns.end[best]);
    for (const name of ["x1", "x2"]) this.cursor.setAttribute(name, x);
    this.cursor.setAttribute("visibility", x < LEFT ? "hidden" : "visible");
    this.tip.hidden = false;
    replace(this.tip, `${clockTime(this.columns.end[best])}  `, this.series.map(({name, label}) =>
      el("span", {}, this.series.length > 1 ? `${label} ` : "", el("b", {}, this.format(this.columns[name][best])), " ")));
  }

  unpoint() {
    this.tip.hidden = true;
    this.cursor?.setAttribute("visibility", "hidden");
  }
}

function niceMax(value) {
  if (value <= 0) return 1;
  const decade = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * decade).find((step) => step >= value);
}
