// Colours code: strings, comments, numbers and keywords, as spans around text nodes. One
// set of rules for the languages that models write most; what it does not know stays plain.

import {el} from "./dom.js";

const WORDS = {
  python: "and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield None True False self match case",
  javascript: "async await break case catch class const continue debugger default delete do else export extends finally for from function if import in instanceof let new of return static super switch this throw try typeof var void while yield null undefined true false",
  c: "alignas auto bool break case catch char class const constexpr continue default delete do double else enum explicit extern false float for friend if inline int long namespace new noexcept nullptr operator override private protected public return short signed sizeof static static_cast struct switch template this throw true try typedef typename union unsigned using virtual void volatile while",
  rust: "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while",
  go: "break case chan const continue default defer else fallthrough for func go goto if import interface map package range return select struct switch type var nil true false",
  shell: "if then else elif fi for while until do done case esac function in select return exit local export set unset echo cd sudo",
  sql: "select from where and or not insert into values update set delete create table drop alter join left right inner outer on group by order having limit as distinct union null is in like between primary key",
  json: "true false null",
};
const ALIASES = {
  py: "python", python3: "python", js: "javascript", ts: "javascript", typescript: "javascript",
  jsx: "javascript", tsx: "javascript", java: "c", cpp: "c", "c++": "c", cc: "c", h: "c", cs: "c",
  cuda: "c", rs: "rust", golang: "go", sh: "shell", bash: "shell", zsh: "shell", console: "shell",
  yaml: "shell", toml: "shell",
};
const HASH_COMMENTS = new Set(["python", "shell"]);
// Beyond this, colouring would be felt while a reply streams.
const MAX_LENGTH = 20000;

export function highlight(code, language) {
  const name = ALIASES[language] ?? language;
  const words = WORDS[name];
  if (!words || code.length > MAX_LENGTH) return [document.createTextNode(code)];
  const keywords = new Set(words.split(" "));
  const comment = name === "sql" ? "--[^\\n]*" : HASH_COMMENTS.has(name) ? "#[^\\n]*" : "\\/\\/[^\\n]*|\\/\\*[^]*?\\*\\/";
  const pattern = new RegExp(
    `(?<comment>${comment})` +
    "|(?<string>\"\"\"[^]*?\"\"\"|'''[^]*?'''|\"(?:\\\\.|[^\"\\\\\\n])*\"|'(?:\\\\.|[^'\\\\\\n])*'|`(?:\\\\.|[^`\\\\])*`)" +
    "|(?<number>\\b\\d[\\w.]*\\b)|(?<word>[A-Za-z_][A-Za-z0-9_]*)", "g");
  const nodes = [];
  let plain = "";
  let from = 0;
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
  };
  for (const match of code.matchAll(pattern)) {
    plain += code.slice(from, match.index);
    from = match.index + match[0].length;
    const {comment: remark, string, number, word} = match.groups;
    const wanted = name === "sql" ? word?.toLowerCase() : word;
    const kind = remark ? "comment" : string ? "string" : number ? "number"
      : keywords.has(wanted) ? "keyword" : code[from] === "(" ? "call" : null;
    if (kind) {
      flush();
      nodes.push(el("span", {class: `hl-${kind}`}, match[0]));
    } else {
      plain += match[0];
    }
  }
  plain += code.slice(from);
  flush();
  return nodes;
}
