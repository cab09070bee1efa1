// The chat: the conversation in the middle, its composer, and the history beside it.

import {announce, confirmDialog, downloadText, el, icon, iconButton, replace} from "./dom.js";
import {streamReply} from "./chat_stream.js";
import {MessageView} from "./message_view.js";
import {deleteConversation, isConversation, loadConversations, newConversation, saveConversation, toStored} from "./store.js";

const MAX_IMPORT_BYTES = 4 << 20;
const NEAR_END_PIXELS = 80;

export class ChatView {
  // `settings`: the SettingsPanel; `model()`: a promise of the chosen model's name.
  constructor({settings, model}) {
    this.settings = settings;
    this.model = model;
    this.abort = null;
    this.log = el("div", {class: "log", role: "log", "aria-label": "Conversation", tabindex: "0"});
    this.history = el("ul", {class: "history-list"});
    this.node = el("div", {class: "chat"}, this.log, this.composer());
    this.side = el("div", {class: "history"},
      el("button", {type: "button", class: "button wide", onclick: () => this.open(newConversation())},
        icon("plus"), "New chat"),
      this.history,
      el("div", {class: "history-foot"},
        el("button", {type: "button", class: "button", onclick: () => this.exportChat()}, icon("down"), "Export"),
        el("button", {type: "button", class: "button", onclick: () => this.importChat()}, icon("up"), "Import")));
    this.open(loadConversations()[0] ?? newConversation());
  }

  composer() {
    this.input = el("textarea", {rows: "1", "aria-label": "Message", placeholder: "Write a message"});
    this.sendButton = el("button", {type: "submit", class: "send", "aria-label": "Send", title: "Send (Enter)"}, icon("send"));
    this.stopButton = el("button", {type: "button", class: "send stop", "aria-label": "Stop", title: "Stop (Esc)", hidden: true,
      onclick: () => this.stop()}, icon("stop"));
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send(this.input.value);
      }
    });
    this.input.addEventListener("input", () => this.fitInput());
    this.problem = el("p", {class: "field-error", role: "alert"});
    return el("form", {class: "composer", onsubmit: (event) => {
      event.preventDefault();
      this.send(this.input.value);
    }}, this.problem, el("div", {class: "composer-box"}, this.input, this.sendButton, this.stopButton),
    el("p", {class: "hint"}, "Enter sends, Shift+Enter starts a line, Esc stops. Conversations stay in this browser."));
  }

  fitInput() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, 220)}px`;
  }

  open(conversation) {
    this.stop();
    this.conversation = conversation;
    this.views = [];
    replace(this.log);
    if (conversation.messages.length === 0) this.log.append(this.welcome());
    for (const message of conversation.messages) this.addView(message);
    this.drawHistory();
    this.log.scrollTop = this.log.scrollHeight;
  }

  welcome() {
    const ideas = ["Write a function that adds two numbers.", "What is a list in Python?", "Hello"];
    return el("div", {class: "welcome"}, el("h2", {}, "Ask the model"),
      el("p", {}, "Replies stream as they are made. Settings, tools and the token inspector are in the panel beside."),
      el("div", {class: "ideas"}, ideas.map((text) => el("button", {
        type: "button", class: "button", onclick: () => this.send(text)}, text))));
  }

  drawHistory() {
    replace(this.history, loadConversations().map((entry) => el("li", {},
      el("button", {type: "button", class: "history-item", "aria-current": entry.id === this.conversation.id ? "true" : null,
        onclick: () => {
          this.open(entry);
          this.onNavigate?.();
        }}, entry.title || "Untitled"),
      iconButton("trash", `Delete “${entry.title || "Untitled"}”`, async () => {
        if (!await confirmDialog("Delete this chat?", "It is removed from this browser.", "Delete")) return;
        deleteConversation(entry.id);
        if (entry.id === this.conversation.id) this.open(newConversation());
        else this.drawHistory();
      }))));
  }

  addView(message) {
    const {messages} = this.conversation;
    const actions = {};
    if (message.role === "user") {
      actions.edit = (text) => {
        this.truncate(messages.indexOf(message));
        this.send(text);
      };
    } else if (message.role === "assistant") {
      actions.regenerate = () => {
        this.truncate(messages.indexOf(message));
        this.ask();
      };
      actions.sendTools = (results) => this.sendTools(results);
    }
    const view = new MessageView(message, actions);
    view.onDraw = () => this.followEnd();
    this.views.push(view);
    this.log.append(view.node);
    return view;
  }

  truncate(index) {
    this.stop();
    if (index < 0) return;
    this.conversation.messages.splice(index);
    for (const view of this.views.splice(index)) view.node.remove();
  }

  followEnd() {
    if (this.atEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  // A reply under way is never replaced by another message.
  send(text) {
    if (this.abort || text.trim() === "") return;
    this.log.querySelector(".welcome")?.remove();
    this.input.value = "";
    this.fitInput();
    const message = {role: "user", content: text};
    this.conversation.messages.push(message);
    this.addView(message);
    this.ask();
  }

  sendTools(results) {
    for (const {call, content} of results) {
      const message = {role: "tool", content, toolCallId: call.id};
      this.conversation.messages.push(message);
      this.addView(message);
    }
    this.ask();
  }

  requestMessages() {
    const messages = this.settings.system.trim() ? [{role: "system", content: this.settings.system}] : [];
    this.conversation.messages.forEach((message, index, all) => {
      if (message.role === "tool") {
        messages.push({role: "tool", tool_call_id: message.toolCallId, content: message.content});
      } else if (message.toolCalls?.length > 0) {
        const answered = all[index + 1]?.role === "tool";
        messages.push({role: "assistant", content: message.content,
          ...(answered && message.reasoning ? {reasoning_content: message.reasoning} : {}),
          tool_calls: message.toolCalls.map((call) => ({id: call.id, type: "function",
            function: {name: call.name, arguments: call.arguments}}))});
      } else if (!(message.role === "assistant" && message.content === "")) {
        messages.push({role: message.role, content: message.content});
      }
    });
    return messages;
  }

  async ask() {
    let body;
    try {
      body = {messages: this.requestMessages(), ...this.settings.body("chat")};
      this.problem.textContent = "";
    } catch (error) {
      this.problem.textContent = error.message;
      return;
    }
    const {conversation} = this;
    const abort = new AbortController();
    this.abort = abort;
    this.setBusy(true);
    announce("The model is answering");
    const message = {role: "assistant", content: "", reasoning: "", toolCalls: []};
    const view = this.addView(message);
    view.setStreaming(true);
    this.atEnd = true;
    this.followEnd();
    this.log.onscroll = () => {
      this.atEnd = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < NEAR_END_PIXELS;
    };
    const reply = await streamReply("/v1/chat/completions", this.model(), body, {
      signal: abort.signal, onChange: (grown) => view.update(Object.assign(message, grown)),
    });
    Object.assign(message, reply);
    view.message = message;
    view.setStreaming(false);
    this.followEnd();
    if (this.abort === abort) {
      this.abort = null;
      this.setBusy(false);
    }
    // What was deleted or cut off meanwhile stays gone.
    if (this.views.includes(view) && this.conversation === conversation) {
      conversation.messages.push(message);
      saveConversation(conversation);
      this.drawHistory();
    }
    announce(reply.error ? `Error: ${reply.error}` : reply.stopped ? "Stopped" : `The model answered: ${reply.content.slice(0, 300)}`);
  }

  setBusy(busy) {
    this.sendButton.hidden = busy;
    this.stopButton.hidden = !busy;
    if (!busy && document.activeElement === document.body) this.input.focus();
  }

  stop() {
    this.abort?.abort();
    this.abort = null;
    this.setBusy?.(false);
  }

  exportChat() {
    downloadText(`tessera-chat-${new Date().toISOString().slice(0, 10)}.json`,
      `${JSON.stringify({format: "tessera-chat", version: 1, system: this.settings.system, conversation: toStored(this.conversation)}, null, 2)}\n`);
  }

  importChat() {
    const input = el("input", {type: "file", accept: "application/json"});
    input.addEventListener("change", async () => {
      const file = input.files[0];
      try {
        if (file.size > MAX_IMPORT_BYTES) throw new Error("it is too large");
        const {conversation} = JSON.parse(await file.text());
        if (!isConversation(conversation)) throw new Error("it holds no conversation");
        const copy = {...newConversation(), messages: conversation.messages};
        saveConversation(copy);
        this.open(copy);
      } catch (error) {
        this.problem.textContent = `The file cannot be read: ${error.message}`;
      }
    });
    input.click();
  }
}
