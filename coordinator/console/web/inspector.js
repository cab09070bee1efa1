// The token inspector: every token of a reply, coloured by its probability; the one in
// focus shows its alternatives, id and bytes.

import {el, replace} from "./dom.js";
import {percent} from "./format.js";

// Five classes of probability: colour is never the only sign, the detail says the number.
function classOf(logprob) {
  const probability = Math.exp(logprob);
  return probability >= 0.9 ? 5 : probability >= 0.6 ? 4 : probability >= 0.3 ? 3 : probability >= 0.1 ? 2 : 1;
}

function visible(text) {
  return text.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
}

function hex(bytes) {
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

export function tokenInspector(tokens) {
  if (tokens.length === 0) {
    return el("p", {class: "note"}, "No tokens were recorded. Switch on “Record tokens and log-probabilities” under Inspector and ask again.");
  }
  const detail = el("div", {class: "token-detail", "aria-live": "polite"});
  const strip = el("div", {class: "token-strip", role: "listbox", "aria-label": "Tokens of the reply"});
  const buttons = tokens.map((token, index) => el("button", {
    type: "button", role: "option", class: `token p${classOf(token.logprob)}`, tabindex: "-1",
    "aria-label": `${token.text}, ${percent(Math.exp(token.logprob), 1)}`,
    onclick: () => choose(index),
  }, visible(token.text)));
  const choose = (index) => {
    buttons.forEach((button, other) => {
      button.setAttribute("aria-selected", String(other === index));
      button.tabIndex = other === index ? 0 : -1;
    });
    buttons[index].focus();
    replace(detail, tokenDetail(tokens[index], index));
  };
  strip.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    const index = buttons.indexOf(document.activeElement) + step;
    choose(Math.min(Math.max(index, 0), buttons.length - 1));
  });
  buttons[0].tabIndex = 0;
  // A token that ends a line ends it here too, after its own box.
  strip.append(...buttons.flatMap((button, i) => (tokens[i].text.endsWith("\n") ? [button, el("br")] : [button])));
  replace(detail, el("p", {class: "note"}, "Choose a token, or walk with the arrow keys."));
  return el("div", {class: "inspector"}, legend(), strip, detail);
}

function legend() {
  const steps = [["p5", "≥ 90 %"], ["p4", "≥ 60 %"], ["p3", "≥ 30 %"], ["p2", "≥ 10 %"], ["p1", "below"]];
  return el("p", {class: "token-legend"}, "Probability ", steps.map(([name, label]) =>
    el("span", {class: `token ${name}`}, label)));
}

function tokenDetail(token, index) {
  const rows = token.top.length > 0 ? token.top : [token];
  const chosen = rows.some((row) => row.text === token.text && row.logprob === token.logprob);
  const all = chosen ? rows : [...rows, token];
  return el("div", {},
    el("dl", {class: "facts"},
      fact("Token", `“${visible(token.text)}”`), fact("Position", String(index)),
      fact("Id", token.id === null ? "–" : String(token.id)), fact("Bytes", hex(token.bytes)),
      fact("Log-probability", token.logprob.toFixed(4))),
    el("table", {class: "top-table"}, el("thead", {}, el("tr", {},
      el("th", {}, "Alternative"), el("th", {}, "Bytes"), el("th", {}, "Probability"), el("td", {}))),
    el("tbody", {}, all.map((row) => {
      const probability = Math.exp(row.logprob);
      const bar = el("span", {class: "bar-fill"});
      bar.style.width = `${(probability * 100).toFixed(1)}%`;
      return el("tr", {class: row.text === token.text ? "chosen" : ""},
        el("td", {class: "mono"}, visible(row.text)), el("td", {class: "mono"}, hex(row.bytes)),
        el("td", {class: "align-right"}, percent(probability, 2)), el("td", {class: "bar-cell"}, bar));
    }))));
}

function fact(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {class: "mono"}, value));
}
