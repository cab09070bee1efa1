// Small DOM builders. Text always enters the page as text nodes: nothing here parses markup.

// el("p", {class: "note", onclick: f}, "text", node, [more nodes]).
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else if (name === "class") {
      node.className = value;
    } else if (name === "dataset") {
      Object.assign(node.dataset, value);
    } else if (name in node && typeof value !== "string") {
      node[name] = value;
    } else if (name === "value") {
      node.value = value;
    } else {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  append(node, children);
  return node;
}

export function append(node, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child);
  }
  return node;
}

export function replace(node, ...children) {
  node.replaceChildren();
  return append(node, children);
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Line icons on a grid of 16.
const ICONS = {
  send: "M8 13V3M4 7l4-4 4 4",
  stop: "M4.5 4.5h7v7h-7z",
  copy: "M5.5 5.5h7v7h-7zM3.5 10.5v-7h7",
  edit: "M3 13h2.5L13 5.5 10.5 3 3 10.5zM9 4.5L11.5 7",
  retry: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5v3h-3",
  trash: "M3 4.5h10M6.5 4V2.8h3V4M4.5 4.5l.6 8.7h5.8l.6-8.7",
  plus: "M8 3v10M3 8h10",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
  sliders: "M2.5 5h6M11.5 5h2M2.5 11h2M7.5 11h6M10 3.3v3.4M6 9.3v3.4",
  key: "M9.2 6.8a3 3 0 1 0-2.4 2.4L8 10.5h1.5V12H11v1.5h2.3v-2.3zM5.4 5.4h.1",
  moon: "M12.8 9.8A5.3 5.3 0 0 1 6.2 3.2a5.3 5.3 0 1 0 6.6 6.6z",
  sun: "M8 5.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6zM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9",
  auto: "M8 2.5a5.5 5.5 0 1 0 0 11zM8 2.5a5.5 5.5 0 0 1 0 11",
  code: "M5.5 4.5L2 8l3.5 3.5M10.5 4.5L14 8l-3.5 3.5",
  down: "M8 3v8M4.5 8L8 11.5 11.5 8M3.5 13.5h9",
  up: "M8 11.5V3.5M4.5 7L8 3.5 11.5 7M3.5 13.5h9",
  close: "M4 4l8 8M12 4l-8 8",
  warning: "M8 2.5l6 10.5H2zM8 6.5v3M8 11.3v.2",
};

export function icon(name) {
  const node = svg("svg", {
    viewBox: "0 0 16 16", width: 16, height: 16, fill: "none", stroke: "currentColor",
    "stroke-width": 1.4, "stroke-linecap": "round", "stroke-linejoin": "round",
    "aria-hidden": "true",
  });
  node.append(svg("path", {d: ICONS[name]}));
  return node;
}

export function iconButton(name, label, onclick, properties = {}) {
  return el("button", {
    type: "button", class: "icon-button", "aria-label": label, title: label, onclick,
    ...properties,
  }, icon(name));
}

let announced = 0;

// Tells users of screen readers what others see; at most one message at a time.
export function announce(text) {
  const live = document.getElementById("live");
  announced += 1;
  live.textContent = announced % 2 ? text : `${text} `;
}

export async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied");
    flash(button, "Copied");
  } catch {
    flash(button, "Copying is not allowed here");
  }
}

function flash(button, text) {
  if (!button) return;
  const before = button.title;
  button.title = text;
  button.classList.add("done");
  setTimeout(() => {
    button.title = before;
    button.classList.remove("done");
  }, 1200);
}

export function downloadText(name, text, type = "application/json") {
  const url = URL.createObjectURL(new Blob([text], {type}));
  const link = el("a", {href: url, download: name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// A modal dialog; resolves with the value that `close` was called with, or null.
export function openDialog(title, build) {
  return new Promise((resolve) => {
    const dialog = el("dialog", {class: "dialog", "aria-label": title});
    let result = null;
    const close = (value) => {
      result = value;
      dialog.close();
    };
    append(dialog, [
      el("div", {class: "dialog-head"}, el("h2", {}, title),
        iconButton("close", "Close", () => close(null))),
      build(close),
    ]);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function confirmDialog(title, text, action) {
  return openDialog(title, (close) => el("form", {
    onsubmit: (event) => {
      event.preventDefault();
      close(true);
    },
  }, el("p", {}, text), el("div", {class: "dialog-actions"},
    el("button", {type: "button", class: "button", onclick: () => close(null)}, "Cancel"),
    el("button", {type: "submit", class: "button danger", autofocus: true}, action))));
}
