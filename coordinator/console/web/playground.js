// The playground: mode and model on top, history left, conversation in the middle,
// settings right. On narrow screens the sides are drawers.

import {requestJson} from "./api.js";
import {ChatView} from "./chat_view.js";
import {CompletionView} from "./completion_view.js";
import {el, iconButton, replace} from "./dom.js";
import {SettingsPanel} from "./settings_panel.js";

const MODES = [["chat", "Chat"], ["completion", "Completion"], ["fim", "Fill in the middle"]];

export class Playground {
  constructor(node) {
    this.node = node;
    this.mode = "chat";
    this.models = el("select", {id: "model", "aria-label": "Model"});
    const side = el("aside", {class: "side", "aria-label": "Settings"});
    this.settings = new SettingsPanel(side);
    const parts = {settings: this.settings, model: () => this.chosenModel()};
    this.chat = new ChatView(parts);
    this.completion = new CompletionView(parts);
    this.historyPane = el("aside", {class: "history-pane", "aria-label": "History"}, this.chat.side);
    this.settingsPane = side;
    this.chat.onNavigate = () => this.closeDrawers();
    this.modeButtons = MODES.map(([mode, label]) => el("button", {
      type: "button", class: "tab", onclick: () => this.setMode(mode), dataset: {mode}}, label));
    this.content = el("div", {class: "content"});
    this.scrim = el("div", {class: "scrim", hidden: true, onclick: () => this.closeDrawers()});
    this.historyToggle = iconButton("menu", "History", () => this.toggle(this.historyPane, this.historyToggle),
      {class: "icon-button drawer-toggle", "aria-expanded": "false"});
    this.settingsToggle = iconButton("sliders", "Settings", () => this.toggle(this.settingsPane, this.settingsToggle),
      {class: "icon-button drawer-toggle", "aria-expanded": "false"});
    this.problem = el("p", {class: "problem", role: "alert", hidden: true});
    node.append(
      el("h1", {class: "sr-only"}, "Playground"),
      this.historyPane,
      el("div", {class: "middle"},
        el("div", {class: "toolbar"}, this.historyToggle,
          el("div", {class: "tabs", role: "group", "aria-label": "Mode"}, this.modeButtons),
          el("div", {class: "toolbar-end"}, this.models, this.settingsToggle)),
        this.problem, this.content),
      this.settingsPane, this.scrim);
    document.addEventListener("keydown", (event) => this.onKey(event));
    this.setMode("chat");
    this.loadModels();
  }

  onKey(event) {
    if (event.key !== "Escape" || this.node.hidden || document.querySelector("dialog[open]")) return;
    if (!this.scrim.hidden) {
      this.closeDrawers();
    } else {
      this.chat.stop();
      this.completion.stop();
    }
  }

  setMode(mode) {
    this.mode = mode;
    for (const button of this.modeButtons) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    this.node.classList.toggle("no-history", mode !== "chat");
    this.historyToggle.hidden = mode !== "chat";
    if (mode !== "chat") this.completion.setMode(mode === "fim");
    replace(this.content, mode === "chat" ? this.chat.node : this.completion.node);
  }

  toggle(pane, button) {
    const open = !pane.classList.contains("open");
    this.closeDrawers();
    pane.classList.toggle("open", open);
    this.scrim.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    if (open) pane.querySelector("button, input, textarea, summary")?.focus();
  }

  closeDrawers() {
    for (const pane of [this.historyPane, this.settingsPane]) pane.classList.remove("open");
    for (const button of [this.historyToggle, this.settingsToggle]) button.setAttribute("aria-expanded", "false");
    this.scrim.hidden = true;
  }

  // The chosen model's name, once the list is here; throws what the page says where there is none.
  async chosenModel() {
    await this.listed;
    if (this.models.value === "") throw new Error(this.problem.textContent || "The server serves no model.");
    return this.models.value;
  }

  loadModels() {
    this.listed = this.listModels();
  }

  async listModels() {
    try {
      const {data} = await requestJson("/v1/models");
      replace(this.models, data.map((model) => el("option", {value: model.id}, model.id)));
      this.problem.hidden = true;
    } catch (error) {
      this.problem.hidden = false;
      this.problem.textContent = error.status === 401
        ? "This server asks for an API key: enter it with the key button above."
        : `The models cannot be listed: ${error.message}.`;
    }
  }
}
