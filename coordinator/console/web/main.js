// Starts the console: chooses the view by the address, keeps theme and key, and shows the
// server's state in the bar.

import {apiKey, setApiKey} from "./api.js";
import {el, icon, openDialog, replace} from "./dom.js";
import {StateFeed} from "./state_feed.js";
import {Operations} from "./operations.js";
import {Playground} from "./playground.js";

const THEMES = ["auto", "light", "dark"];
const THEME_NAME = "tessera.theme";
const THEME_ICONS = {auto: "auto", light: "sun", dark: "moon"};

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  localStorage.setItem(THEME_NAME, theme);
  const button = document.getElementById("theme-button");
  replace(button, icon(THEME_ICONS[theme]));
  button.setAttribute("aria-label", `Colour theme: ${theme}`);
  button.title = `Colour theme: ${theme}`;
  document.dispatchEvent(new CustomEvent("theme"));
}

function askKey() {
  return openDialog("API key", (close) => {
    const key = el("input", {type: "password", id: "key-input", autocomplete: "off", value: apiKey()});
    const remember = el("input", {type: "checkbox", id: "key-remember", checked: Boolean(localStorage.getItem("tessera.key"))});
    return el("form", {onsubmit: (event) => {
      event.preventDefault();
      setApiKey(key.value.trim(), remember.checked);
      close(true);
    }},
    el("p", {}, "Sent with every request to this server. The operations view and draining need a key of the role admin."),
    el("div", {class: "field"}, el("label", {for: "key-input"}, "Key"), key),
    el("div", {class: "field check"}, el("label", {for: "key-remember"}, "Keep in this browser after it is closed"), remember),
    el("div", {class: "dialog-actions"},
      el("button", {type: "button", class: "button", onclick: () => {
        setApiKey("", false);
        close(true);
      }}, "Forget"),
      el("button", {type: "submit", class: "button primary"}, "Use")));
  });
}

function start() {
  const feed = new StateFeed();
  const views = {
    playground: new Playground(document.getElementById("playground")),
    operations: new Operations(document.getElementById("operations"), feed),
  };
  const show = () => {
    const name = location.hash === "#/operations" ? "operations" : "playground";
    for (const view of Object.keys(views)) document.getElementById(view).hidden = view !== name;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.view === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${name === "operations" ? "Operations" : "Playground"} · Tessera console`;
    views.operations.setVisible(name === "operations");
  };
  window.addEventListener("hashchange", show);
  setTheme(THEMES.includes(localStorage.getItem(THEME_NAME)) ? localStorage.getItem(THEME_NAME) : "auto");
  document.getElementById("theme-button").addEventListener("click", () => {
    const now = localStorage.getItem(THEME_NAME) ?? "auto";
    setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  });
  const keyButton = document.getElementById("key-button");
  keyButton.append(icon("key"));
  keyButton.addEventListener("click", async () => {
    if (await askKey()) {
      views.playground.loadModels();
      feed.restart();
    }
  });
  const pill = document.getElementById("server-state");
  feed.onHealth((text, kind) => {
    pill.textContent = text;
    pill.dataset.kind = kind;
  });
  show();
  feed.start();
}

start();
