// Conversations and settings, kept in this browser and nowhere else.

const CONVERSATIONS = "tessera.conversations";
const SETTINGS = "tessera.settings";
const MAX_CONVERSATIONS = 50;

function read(name, fallback) {
  try {
    const value = JSON.parse(localStorage.getItem(name));
    return value ?? fallback;
  } catch {
    return fallback;
  }
}

// Where the browser's storage is full, the oldest conversations make room.
function write(name, value) {
  for (;;) {
    try {
      localStorage.setItem(name, JSON.stringify(value));
      return;
    } catch {
      if (!Array.isArray(value) || value.length <= 1) return;
      value.pop();
    }
  }
}

export function newConversation() {
  return {id: crypto.randomUUID(), title: "", updated: Date.now(), messages: []};
}

// Newest first.
export function loadConversations() {
  return read(CONVERSATIONS, []).filter(isConversation);
}

export function saveConversation(conversation) {
  conversation.updated = Date.now();
  conversation.title = titleOf(conversation);
  const others = loadConversations().filter((other) => other.id !== conversation.id);
  write(CONVERSATIONS, [conversation, ...others].slice(0, MAX_CONVERSATIONS).map(toStored));
}

export function deleteConversation(id) {
  write(CONVERSATIONS, loadConversations().filter((other) => other.id !== id));
}

// What an inspector shows of a reply stays with the page: it is many times the text.
export function toStored(conversation) {
  const messages = conversation.messages.map((message) => {
    const {tokens, raw, request, ...kept} = message;
    return kept;
  });
  return {...conversation, messages};
}

export function isConversation(value) {
  return typeof value?.id === "string" && Array.isArray(value.messages) &&
    value.messages.every((message) => typeof message?.role === "string" &&
      typeof message.content === "string");
}

function titleOf(conversation) {
  const first = conversation.messages.find((message) => message.role === "user");
  return (first?.content ?? "").replace(/\s+/g, " ").trim().slice(0, 60);
}

export function loadSettings() {
  return read(SETTINGS, {});
}

export function saveSettings(settings) {
  write(SETTINGS, settings);
}
