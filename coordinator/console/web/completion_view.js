// Plain completion and fill-in-the-middle: a text goes in, its continuation streams out.

import {announce, copyText, el, iconButton, replace} from "./dom.js";
import {streamReply} from "./chat_stream.js";
import {MessageView} from "./message_view.js";

export class CompletionView {
  constructor({settings, model}) {
    this.settings = settings;
    this.model = model;
    this.abort = null;
    this.prompt = el("textarea", {class: "mono", rows: "10", spellcheck: "false", id: "completion-prompt",
      value: "def add(a, b):\n"});
    this.suffix = el("textarea", {class: "mono", rows: "5", spellcheck: "false", id: "completion-suffix"});
    this.suffixField = el("div", {class: "field"}, el("label", {for: "completion-suffix"}, "Text after the gap"), this.suffix);
    this.result = el("div", {class: "completion-result"});
    this.problem = el("p", {class: "field-error", role: "alert"});
    this.run = el("button", {type: "submit", class: "button primary"}, "Complete");
    this.stopButton = el("button", {type: "button", class: "button", hidden: true, onclick: () => this.stop()}, "Stop");
    this.insert = el("button", {type: "button", class: "button", hidden: true, onclick: () => this.insertResult()}, "Append to the prompt");
    const copy = iconButton("copy", "Copy result", () => copyText(this.reply?.content ?? "", copy));
    this.node = el("form", {class: "completion", onsubmit: (event) => {
      event.preventDefault();
      this.ask();
    }},
    el("div", {class: "field"}, el("label", {for: "completion-prompt"}, "Prompt"), this.prompt),
    this.suffixField, this.problem,
    el("div", {class: "completion-actions"}, this.run, this.stopButton, this.insert, copy), this.result);
    this.prompt.addEventListener("keydown", (event) => this.onKey(event));
    this.suffix.addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.ask();
    }
  }

  // `middle`: the text after the gap takes part.
  setMode(middle) {
    this.middle = middle;
    this.suffixField.hidden = !middle;
    this.run.textContent = middle ? "Fill the gap" : "Complete";
  }

  async ask() {
    if (this.abort) return;
    let body;
    try {
      body = {prompt: this.prompt.value, ...this.settings.body("completion")};
      if (this.middle) body.suffix = this.suffix.value;
      this.problem.textContent = "";
    } catch (error) {
      this.problem.textContent = error.message;
      return;
    }
    this.abort = new AbortController();
    this.setBusy(true);
    const view = new CompletionMessage({role: "assistant", content: "", reasoning: "", toolCalls: []}, {});
    view.setStreaming(true);
    replace(this.result, view.node);
    this.reply = await streamReply("/v1/completions", this.model(), body, {
      signal: this.abort.signal, onChange: (reply) => view.update(reply),
    });
    view.message = this.reply;
    view.setStreaming(false);
    this.abort = null;
    this.setBusy(false);
    announce(this.reply.error ? `Error: ${this.reply.error}` : "The completion is ready");
  }

  setBusy(busy) {
    this.run.disabled = busy;
    this.stopButton.hidden = !busy;
    this.insert.hidden = busy || !this.reply?.content;
  }

  stop() {
    this.abort?.abort();
  }

  insertResult() {
    if (this.middle) {
      this.prompt.value += this.reply.content + this.suffix.value;
      this.suffix.value = "";
    } else {
      this.prompt.value += this.reply.content;
    }
    this.insert.hidden = true;
    this.prompt.focus();
  }
}

// A completion is text as it is, not Markdown.
class CompletionMessage extends MessageView {
  tabBody() {
    if (this.tab !== "answer" || this.message.error || !this.message.content) return super.tabBody();
    return [el("pre", {class: "plain mono", tabindex: "0", role: "region", "aria-label": "Completion"}, this.message.content),
      this.message.stopped ? el("p", {class: "note"}, "Stopped.") : null];
  }
}
