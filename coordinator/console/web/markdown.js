// Markdown as DOM nodes. The text comes from a model and is not trusted: it becomes text
// nodes inside elements of a fixed list, links only to http, https and mailto, images stay
// links. HTML in the text is text.

import {copyText, el, iconButton} from "./dom.js";
import {highlight} from "./highlight.js";

const MAX_DEPTH = 8;

export function renderMarkdown(text) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

const FENCE = /^(\s{0,3})(`{3,}|~{3,})\s*([\w+#.-]*)\s*.*$/;
const HEADING = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^\s{0,3}([-*_])(\s*\1){2,}\s*$/;
const QUOTE = /^\s{0,3}>\s?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const TABLE_LINE = /^\s*\|?\s*:?-{1,}:?\s*(\|\s*:?-{1,}:?\s*)*\|?\s*$/;

function blocks(lines, depth) {
  const nodes = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    if (line.trim() === "") {
      i += 1;
      continue;
    }
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (fence) {
      const end = fenceEnd(lines, i, fence[2]);
      nodes.push(codeBlock(lines.slice(i + 1, end).join("\n"), fence[3].toLowerCase()));
      i = end + 1;
    } else if (heading) {
      // The page has its own h1 and h2.
      nodes.push(el(`h${Math.min(heading[1].length + 2, 6)}`, {}, inline(heading[2])));
      i += 1;
    } else if (RULE.test(line)) {
      nodes.push(el("hr"));
      i += 1;
    } else if (QUOTE.test(line) && depth < MAX_DEPTH) {
      const begin = i;
      while (i < lines.length && QUOTE.test(lines[i])) i += 1;
      const inner = lines.slice(begin, i).map((quoted) => quoted.replace(QUOTE, ""));
      nodes.push(el("blockquote", {}, blocks(inner, depth + 1)));
    } else if (ITEM.test(line) && depth < MAX_DEPTH) {
      const list = takeList(lines, i, depth);
      nodes.push(list.node);
      i = list.end;
    } else if (line.includes("|") && i + 1 < lines.length && TABLE_LINE.test(lines[i + 1]) &&
               lines[i + 1].includes("-")) {
      const begin = i;
      i += 2;
      while (i < lines.length && lines[i].includes("|") && lines[i].trim() !== "") i += 1;
      nodes.push(table(lines.slice(begin, i)));
    } else {
      const begin = i;
      i += 1;
      while (i < lines.length && lines[i].trim() !== "" && !startsBlock(lines[i])) i += 1;
      nodes.push(el("p", {}, inline(lines.slice(begin, i).join("\n"))));
    }
  }
  return nodes;
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || ITEM.test(line) ||
    RULE.test(line);
}

// The line that closes a fence; a stream that has not come so far is open to its end.
function fenceEnd(lines, begin, mark) {
  for (let i = begin + 1; i < lines.length; i += 1) {
    const text = lines[i].trim();
    if (text.length >= mark.length && text === text[0].repeat(text.length) && text[0] === mark[0]) {
      return i;
    }
  }
  return lines.length;
}

function codeBlock(code, language) {
  const body = el("code", {}, highlight(code, language));
  const copy = iconButton("copy", "Copy code", () => copyText(code, copy));
  return el("div", {class: "code-block"},
    el("div", {class: "code-head"}, el("span", {}, language || "text"), copy),
    el("pre", {tabindex: "0", "aria-label": `Code, ${language || "text"}`, role: "region"}, body));
}

function takeList(lines, begin, depth) {
  const first = ITEM.exec(lines[begin]);
  const ordered = /\d/.test(first[2]);
  const indent = first[1].length;
  const node = el(ordered ? "ol" : "ul");
  if (ordered) node.start = Number.parseInt(first[2], 10);
  let i = begin;
  while (i < lines.length) {
    const item = ITEM.exec(lines[i]);
    if (!item || item[1].length > indent + 1 || item[1].length < indent ||
        /\d/.test(item[2]) !== ordered) {
      break;
    }
    const width = item[1].length + item[2].length + 1;
    const inner = [item[3]];
    i += 1;
    while (i < lines.length) {
      const blank = lines[i].trim() === "";
      const deeper = lines[i].search(/\S/) >= Math.min(width, indent + 2);
      if (blank ? !(i + 1 < lines.length && lines[i + 1].search(/\S/) >= indent + 2)
        : !deeper && (ITEM.test(lines[i]) || startsBlock(lines[i]))) {
        break;
      }
      inner.push(lines[i].slice(Math.min(width, Math.max(lines[i].search(/\S/), 0))));
      i += 1;
    }
    const content = blocks(inner, depth + 1);
    const tight = content.length > 0 && content[0].tagName === "P";
    node.append(el("li", {}, tight ? [...content[0].childNodes, ...content.slice(1)] : content));
    while (i < lines.length && lines[i].trim() === "" && ITEM.test(lines[i + 1] ?? "")) i += 1;
  }
  return {node, end: Math.max(i, begin + 1)};
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

function table(lines) {
  const align = cells(lines[1]).map((mark) => (/^:-+:$/.test(mark) ? "center" : /-:$/.test(mark) ? "right" : "left"));
  const row = (tag, line) => el("tr", {}, cells(line).map((cell, column) =>
    el(tag, {class: `align-${align[column] ?? "left"}`}, inline(cell))));
  return el("div", {class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Table"},
    el("table", {}, el("thead", {}, row("th", lines[0])),
      el("tbody", {}, lines.slice(2).map((line) => row("td", line)))));
}

const INLINE = new RegExp([
  "(?<escape>\\\\[\\\\`*_{}\\[\\]()#+.!|~>-])",
  "(?<code>(?<ticks>`+)(?!`)(?<codeText>[^]*?[^`])\\k<ticks>(?!`))",
  "(?<link>!?\\[(?<label>[^\\]\\n]{0,500})\\]\\((?<target>[^\\s)]{1,2000})(?:\\s+\"[^\"\\n]*\")?\\))",
  "(?<url>https?:\\/\\/[^\\s<>()\\]]+[^\\s<>()\\].,;:!?'\"])",
  "(?<strong>(?:\\*\\*|__)(?=\\S)(?<strongText>[^]*?\\S)(?:\\*\\*|__))",
  "(?<strike>~~(?=\\S)(?<strikeText>[^]*?\\S)~~)",
  "(?<em>\\*(?=[^\\s*])(?<emText>[^*]*?[^\\s*])\\*|(?<![A-Za-z0-9_])_(?=[^\\s_])(?<emText2>[^_]*?[^\\s_])_(?![A-Za-z0-9_]))",
  "(?<break> {2,}\\n)",
].join("|"), "g");

function inline(text, depth = 0) {
  if (depth > MAX_DEPTH || text.length > 50000) return [document.createTextNode(text)];
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > from) nodes.push(document.createTextNode(text.slice(from, match.index)));
    from = match.index + match[0].length;
    nodes.push(inlineNode(match, depth));
  }
  if (from < text.length) nodes.push(document.createTextNode(text.slice(from)));
  return nodes;
}

function inlineNode(match, depth) {
  const part = match.groups;
  if (part.escape) return document.createTextNode(part.escape.slice(1));
  if (part.code) return el("code", {}, part.codeText.replace(/^ (.*) $/, "$1"));
  if (part.link) return link(part.target, inline(part.label, depth + 1), match[0]);
  if (part.url) return link(part.url, [document.createTextNode(part.url)], part.url);
  if (part.strong) return el("strong", {}, inline(part.strongText, depth + 1));
  if (part.strike) return el("s", {}, inline(part.strikeText, depth + 1));
  if (part.em) return el("em", {}, inline(part.emText ?? part.emText2, depth + 1));
  return el("br");
}

function link(target, label, source) {
  let url;
  try {
    url = new URL(target);
  } catch {
    return document.createTextNode(source);
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return document.createTextNode(source);
  return el("a", {href: url.href, rel: "noopener noreferrer nofollow", target: "_blank"}, label);
}
