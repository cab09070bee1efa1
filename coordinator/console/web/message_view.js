// One message of the conversation: its text, reasoning, tool calls, numbers and actions.

import {append, copyText, el, icon, iconButton, replace} from "./dom.js";
import {count, milliseconds} from "./format.js";
import {tokenInspector} from "./inspector.js";
import {renderMarkdown} from "./markdown.js";
import {showRequest} from "./snippets.js";

const FINISH = {
  stop: "finished", length: "cut at the token limit", tool_calls: "asks for tools",
  content_filter: "filtered",
};
// A long text is drawn anew less often while it grows.
const SLOW_LENGTH = 20000;
const SLOW_PERIOD_MS = 300;

// `actions`: {edit(text), remove()} of a user's message, {regenerate(), sendTools(results)}
// of a reply; absent ones have no button.
export class MessageView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.tab = "answer";
    this.streaming = false;
    this.node = el("article", {class: `message ${message.role}`, "aria-label": labelOf(message.role)});
    this.body = el("div", {class: "message-body"});
    this.foot = el("div", {class: "message-foot"});
    this.reasoningBody = el("div", {class: "reasoning-body"});
    this.reasoning = el("details", {class: "reasoning", hidden: true},
      el("summary", {}, "Reasoning"), this.reasoningBody);
    this.node.append(el("div", {class: "message-role"}, labelOf(message.role)), this.reasoning,
      this.body, this.foot);
    this.draw();
  }

  // While a reply grows: at most once per frame.
  update(message) {
    this.message = message;
    if (this.pending) return;
    this.pending = true;
    const size = message.content.length + message.reasoning.length;
    const draw = () => {
      this.pending = false;
      this.draw();
      this.onDraw?.();
    };
    if (size > SLOW_LENGTH) {
      setTimeout(draw, SLOW_PERIOD_MS);
    } else {
      requestAnimationFrame(draw);
    }
  }

  setStreaming(streaming) {
    this.streaming = streaming;
    this.node.classList.toggle("streaming", streaming);
    this.node.setAttribute("aria-busy", String(streaming));
    if (streaming) this.reasoning.open = true;
    else if (this.message.content) this.reasoning.open = false;
    this.draw();
  }

  draw() {
    const {message} = this;
    const thinks = Boolean(message.reasoning);
    this.reasoning.hidden = !thinks;
    if (thinks) replace(this.reasoningBody, renderMarkdown(message.reasoning));
    if (this.editing) return;
    replace(this.body, this.tabBody());
    replace(this.foot, this.streaming ? [] : [this.statsLine(), this.actionBar()]);
  }

  tabBody() {
    const {message} = this;
    if (this.tab === "tokens") return tokenInspector(message.tokens ?? []);
    if (this.tab === "raw") {
      return el("pre", {class: "raw", tabindex: "0", role: "region", "aria-label": "Server-sent events"},
        (message.raw ?? []).map((line) => `data: ${line}\n\n`).join("") || "Nothing was recorded.");
    }
    if (message.role === "user" || message.role === "tool") {
      return el("div", {class: "plain"}, message.content);
    }
    const parts = renderMarkdown(message.content);
    if (this.streaming && !message.content && !message.reasoning) {
      parts.push(el("span", {class: "waiting", "aria-label": "Waiting for the first token"},
        el("i"), el("i"), el("i")));
    }
    for (const call of message.toolCalls ?? []) parts.push(toolCard(call));
    if (message.error) parts.push(el("p", {class: "problem", role: "alert"}, icon("warning"), message.error));
    if (message.stopped) parts.push(el("p", {class: "note"}, "Stopped."));
    if (!this.streaming && (message.toolCalls ?? []).length > 0 && this.actions.sendTools) {
      parts.push(this.toolResults());
    }
    return parts;
  }

  statsLine() {
    const {stats, finish} = this.message;
    if (!stats) return null;
    const facts = [
      ["TTFT", stats.ttftMs === null ? null : milliseconds(stats.ttftMs)],
      ["Rate", stats.tokensPerSecond === null ? null : `${stats.tokensPerSecond.toFixed(1)} tokens/s`],
      ["Prompt", stats.prompt === null ? null : `${count(stats.prompt)}${stats.cached ? ` (${count(stats.cached)} cached)` : ""}`],
      ["Generated", stats.generated === null ? null : `${count(stats.generated)}${stats.reasoning ? ` (${count(stats.reasoning)} reasoning)` : ""}`],
      ["Drafts kept", stats.accepted ? count(stats.accepted) : null],
      ["End", finish ? (FINISH[finish] ?? finish) : null],
    ].filter(([, value]) => value !== null);
    return el("dl", {class: "stats"}, facts.map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  actionBar() {
    const {message, actions} = this;
    const bar = el("div", {class: "actions"});
    const copy = iconButton("copy", "Copy text", () => copyText(message.content, copy));
    bar.append(copy);
    if (actions.edit) bar.append(iconButton("edit", "Edit and send again", () => this.edit()));
    if (actions.regenerate) bar.append(iconButton("retry", "Regenerate", actions.regenerate));
    if (message.role === "assistant") {
      if (message.request) {
        bar.append(iconButton("code", "View as code", () => showRequest(message.request.path, message.request.body)));
      }
      if (message.raw) bar.append(this.tabs());
    }
    return bar;
  }

  tabs() {
    const names = {answer: "Answer", tokens: "Tokens", raw: "Raw SSE"};
    return el("div", {class: "tabs small", role: "group", "aria-label": "View of the reply"},
      Object.entries(names).map(([name, label]) => el("button", {
        type: "button", class: "tab", "aria-pressed": String(this.tab === name), onclick: () => {
          this.tab = name;
          this.draw();
          [...this.foot.querySelectorAll(".tab")].find((tab) => tab.textContent === label)?.focus();
        },
      }, label)));
  }

  edit() {
    this.editing = true;
    const box = el("textarea", {rows: "4", "aria-label": "Message", value: this.message.content});
    const finish = (text) => {
      this.editing = false;
      this.draw();
      if (text !== null && text.trim() !== "") this.actions.edit(text);
    };
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") finish(null);
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        finish(box.value);
      }
    });
    replace(this.foot);
    replace(this.body, box, el("div", {class: "edit-actions"},
      el("button", {type: "button", class: "button", onclick: () => finish(null)}, "Cancel"),
      el("button", {type: "button", class: "button primary", onclick: () => finish(box.value)}, "Send")));
    box.focus();
  }

  toolResults() {
    const boxes = this.message.toolCalls.map((call) => ({
      call, box: el("textarea", {rows: "2", class: "mono", "aria-label": `Result of ${call.name}`, placeholder: `Result of ${call.name}`}),
    }));
    return el("form", {class: "tool-results", onsubmit: (event) => {
      event.preventDefault();
      this.actions.sendTools(boxes.map(({call, box}) => ({call, content: box.value})));
    }}, boxes.map(({box}) => box), el("button", {type: "submit", class: "button"}, "Send results"));
  }
}

function labelOf(role) {
  return {user: "You", assistant: "Model", tool: "Tool result", system: "System"}[role] ?? role;
}

// A call with its arguments as the model meant them, or as it wrote them where that is no JSON.
function toolCard(call) {
  let value;
  try {
    value = JSON.parse(call.arguments);
  } catch {
    value = undefined;
  }
  const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
  const rows = isObject ? Object.entries(value).map(([name, argument]) => el("tr", {},
    el("th", {scope: "row", class: "mono"}, name),
    el("td", {class: "mono"}, typeof argument === "string" ? argument : JSON.stringify(argument)))) : [];
  const card = el("div", {class: "tool-card"},
    el("div", {class: "tool-head"}, el("span", {class: "tool-name mono"}, call.name || "…"),
      el("span", {class: "note"}, isObject ? "arguments parsed" : call.arguments ? "arguments are not complete JSON" : "")));
  return append(card, [isObject ? el("table", {}, el("tbody", {}, rows))
    : el("pre", {class: "mono", tabindex: "0"}, call.arguments)]);
}
