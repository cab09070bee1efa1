// A request as a command or a program that others can run.

import {copyText, el, openDialog} from "./dom.js";

function quoted(text) {
  return `'${text.replace(/'/g, "'\\''")}'`;
}

function curl(path, body) {
  return `curl ${location.origin}${path} \\\n  --no-buffer --header 'Content-Type: application/json' \\\n` +
    `  --header "Authorization: Bearer $TESSERA_API_KEY" \\\n  --data ${quoted(JSON.stringify(body, null, 2))}\n`;
}

// JSON as a Python literal: only three words differ.
function pythonLiteral(value, indent) {
  return JSON.stringify(value, null, 4)
    .split("\n").map((line, i) => (i === 0 ? line : " ".repeat(indent) + line)).join("\n")
    .replace(/("(?:\\.|[^"\\])*")|\btrue\b|\bfalse\b|\bnull\b/g, (word, string) =>
      string ?? {true: "True", false: "False", null: "None"}[word]);
}

// Fields that the client's library names; the others travel in extra_body.
const KNOWN = new Set(["model", "messages", "prompt", "suffix", "stream", "stream_options", "max_tokens",
  "temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs",
  "tools", "tool_choice", "response_format", "reasoning_effort"]);

function python(path, body) {
  const chat = path.endsWith("/chat/completions");
  const known = Object.entries(body).filter(([name]) => KNOWN.has(name));
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !KNOWN.has(name)));
  const lines = known.map(([name, value]) => `    ${name}=${pythonLiteral(value, 4)},`);
  if (Object.keys(extra).length > 0) lines.push(`    extra_body=${pythonLiteral(extra, 4)},`);
  const text = chat ? "chunk.choices[0].delta.content" : "chunk.choices[0].text";
  return `import os\n\nfrom openai import OpenAI\n\nclient = OpenAI(\n    base_url="${location.origin}/v1",\n` +
    `    api_key=os.environ.get("TESSERA_API_KEY", "none"),\n)\nstream = client.${chat ? "chat.completions" : "completions"}.create(\n` +
    `${lines.join("\n")}\n)\nfor chunk in stream:\n    if chunk.choices:\n        print(${text} or "", end="", flush=True)\n`;
}

function javascript(path, body) {
  const chat = path.endsWith("/chat/completions");
  const text = chat ? "chunk.choices[0]?.delta.content" : "chunk.choices[0]?.text";
  return `import OpenAI from "openai";\n\nconst client = new OpenAI({\n  baseURL: "${location.origin}/v1",\n` +
    `  apiKey: process.env.TESSERA_API_KEY ?? "none",\n});\nconst stream = await client.${chat ? "chat.completions" : "completions"}.create(` +
    `${JSON.stringify(body, null, 2)});\nfor await (const chunk of stream) {\n  process.stdout.write(${text} ?? "");\n}\n`;
}

export function showRequest(path, body) {
  const forms = {curl: curl(path, body), Python: python(path, body), JavaScript: javascript(path, body),
    JSON: `${JSON.stringify(body, null, 2)}\n`};
  return openDialog("This request as code", () => {
    const code = el("pre", {class: "code-view", tabindex: "0", role: "region", "aria-label": "Code"});
    let shown = "curl";
    const tabs = Object.keys(forms).map((name) => el("button", {
      type: "button", class: "tab", onclick: () => show(name)}, name));
    const show = (name) => {
      shown = name;
      code.textContent = forms[name];
      tabs.forEach((tab) => tab.setAttribute("aria-pressed", String(tab.textContent === name)));
    };
    show("curl");
    const copy = el("button", {type: "button", class: "button", onclick: () => copyText(forms[shown], copy)}, "Copy");
    return el("div", {}, el("div", {class: "tabs", role: "group", "aria-label": "Form"}, tabs), code,
      el("div", {class: "dialog-actions"}, copy));
  });
}
