// The panel beside the playground: system prompt, sampling, reasoning, output format and
// tools. It knows how its fields become fields of a request.

import {el} from "./dom.js";
import {loadSettings, saveSettings} from "./store.js";

// name, label, and the range of a number; empty means: as the server likes.
const NUMBERS = [
  ["max_tokens", "Max tokens", {min: 1, step: 1}],
  ["temperature", "Temperature", {min: 0, max: 2, step: 0.05}],
  ["top_p", "Top p", {min: 0, max: 1, step: 0.01}],
  ["top_k", "Top k", {min: 0, step: 1}],
  ["min_p", "Min p", {min: 0, max: 1, step: 0.01}],
  ["repetition_penalty", "Repetition penalty", {min: 0.01, step: 0.01}],
  ["presence_penalty", "Presence penalty", {min: -2, max: 2, step: 0.1}],
  ["frequency_penalty", "Frequency penalty", {min: -2, max: 2, step: 0.1}],
  ["min_tokens", "Min tokens", {min: 0, step: 1}],
  ["seed", "Seed", {step: 1}],
];

export const EXAMPLE_TOOLS = JSON.stringify([{
  type: "function",
  function: {
    name: "get_weather",
    description: "Current weather of a city.",
    parameters: {
      type: "object",
      properties: {city: {type: "string"}, unit: {type: "string", enum: ["celsius", "fahrenheit"]}},
      required: ["city"],
    },
  },
}], null, 2);

const EXAMPLE_SCHEMA = JSON.stringify({
  type: "object",
  properties: {name: {type: "string"}, year: {type: "integer"}},
  required: ["name", "year"],
  additionalProperties: false,
}, null, 2);

export class SettingsPanel {
  constructor(node) {
    this.values = loadSettings();
    this.node = node;
    this.errors = {};
    this.build();
  }

  build() {
    this.node.append(
      this.group("Instructions", true, this.text("system", "System prompt", 4)),
      this.group("Sampling", true,
        el("div", {class: "field-grid"}, NUMBERS.map(([name, label, range]) => this.number(name, label, range))),
        this.text("stop", "Stop strings, one per line", 2)),
      this.group("Reasoning", false,
        this.select("thinking", "Thinking", [["", "Server's default"], ["on", "On"], ["off", "Off"]]),
        this.select("reasoning_effort", "Effort", [["", "Server's default"], ["low", "Low"], ["medium", "Medium"], ["high", "High"], ["max", "Max"]])),
      this.group("Output format", false,
        this.select("format", "Format", [["", "Text"], ["json_object", "Any JSON object"], ["json_schema", "JSON schema"]]),
        this.json("schema", "Schema", EXAMPLE_SCHEMA)),
      this.group("Tools", false, this.json("tools", "Tools", EXAMPLE_TOOLS),
        this.select("tool_choice", "Choice", [["", "Auto"], ["none", "None"], ["required", "Required"]])),
      this.group("Inspector", false, this.check("logprobs", "Record tokens and log-probabilities"),
        this.number("top_logprobs", "Alternatives per token", {min: 0, max: 20, step: 1})));
  }

  group(title, open, ...fields) {
    return el("details", {class: "group", open}, el("summary", {}, title), el("div", {class: "group-body"}, fields));
  }

  field(name, label, control) {
    const id = `setting-${name}`;
    control.id = id;
    control.addEventListener("input", () => {
      this.values[name] = control.type === "checkbox" ? control.checked : control.value;
      saveSettings(this.values);
    });
    return el("div", {class: "field"}, el("label", {for: id}, label), control);
  }

  number(name, label, range) {
    return this.field(name, label, el("input", {
      type: "number", inputmode: "decimal", placeholder: "default", value: this.values[name] ?? "",
      ...Object.fromEntries(Object.entries(range).map(([key, value]) => [key, String(value)])),
    }));
  }

  text(name, label, rows) {
    return this.field(name, label, el("textarea", {rows: String(rows), value: this.values[name] ?? ""}));
  }

  select(name, label, options) {
    const control = el("select", {}, options.map(([value, text]) => el("option", {value}, text)));
    control.value = this.values[name] ?? "";
    return this.field(name, label, control);
  }

  check(name, label) {
    const control = el("input", {type: "checkbox", checked: Boolean(this.values[name])});
    const node = this.field(name, label, control);
    node.classList.add("check");
    return node;
  }

  json(name, label, example) {
    const control = el("textarea", {rows: "6", class: "mono", spellcheck: "false", value: this.values[name] ?? "", placeholder: example});
    const problem = el("p", {class: "field-error", id: `setting-${name}-error`, role: "alert"});
    control.setAttribute("aria-describedby", problem.id);
    const check = () => {
      const message = jsonProblem(control.value);
      problem.textContent = message;
      control.setAttribute("aria-invalid", String(message !== ""));
    };
    control.addEventListener("input", check);
    check();
    const fill = el("button", {type: "button", class: "link-button", onclick: () => {
      control.value = example;
      control.dispatchEvent(new Event("input"));
    }}, "Insert an example");
    return el("div", {}, this.field(name, label, control), problem, fill);
  }

  // The request's fields, without model and messages. Throws an Error that says which
  // editor holds no JSON.
  body(mode) {
    const body = {stream: true, stream_options: {include_usage: true}};
    for (const [name] of NUMBERS) {
      const value = Number.parseFloat(this.values[name]);
      if (Number.isFinite(value)) body[name] = value;
    }
    const stop = (this.values.stop ?? "").split("\n").filter((line) => line !== "");
    if (stop.length > 0) body.stop = stop;
    if (this.values.logprobs) {
      const top = Number.parseInt(this.values.top_logprobs, 10);
      const count = Number.isFinite(top) ? top : 5;
      Object.assign(body, mode === "chat" ? {logprobs: true, top_logprobs: count} : {logprobs: count});
      body.return_token_ids = true;
    }
    if (mode === "chat") this.addChatFields(body);
    return body;
  }

  addChatFields(body) {
    const {thinking, reasoning_effort: effort, format, schema, tools, tool_choice: choice} = this.values;
    if (thinking) body.thinking = {type: thinking === "on" ? "enabled" : "disabled"};
    if (effort) body.reasoning_effort = effort;
    if (format === "json_object") body.response_format = {type: "json_object"};
    if (format === "json_schema") {
      body.response_format = {
        type: "json_schema",
        json_schema: {name: "reply", strict: true, schema: parse("The schema", schema)},
      };
    }
    if ((tools ?? "").trim() !== "") {
      const list = parse("The list of tools", tools);
      body.tools = Array.isArray(list) ? list : [list];
      if (choice) body.tool_choice = choice;
    }
  }

  get system() {
    return this.values.system ?? "";
  }
}

function jsonProblem(text) {
  if (text.trim() === "") return "";
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `Not JSON: ${error.message}`;
  }
}

function parse(what, text) {
  try {
    return JSON.parse(text ?? "");
  } catch {
    throw new Error(`${what} is not JSON.`);
  }
}
