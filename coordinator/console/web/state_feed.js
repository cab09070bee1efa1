// The server's state as it changes: /admin/v1/state once, then /admin/v1/events. It tells
// apart a server that is slow to speak (stale) from one that is gone (disconnected), and
// comes back by itself. Without the right to see it, /readyz says at least the health.

import {readEvents, request, requestJson} from "./api.js";

const STALE_MS = 4000;
const RETRY_MS = [500, 1000, 2000, 5000];
const KEEP = 300;

export class StateFeed {
  constructor() {
    this.state = null;
    this.listeners = [];
    this.healthListeners = [];
    this.connection = "connecting";
    this.denied = null;
    this.failures = 0;
    this.run = 0;
  }

  // `f(feed)` after every change of the state or of the connection.
  onChange(f) {
    this.listeners.push(f);
  }

  onHealth(f) {
    this.healthListeners.push(f);
  }

  start() {
    setInterval(() => this.checkAge(), 1000);
    this.loop();
  }

  restart() {
    this.failures = 0;
    this.abort?.abort();
    this.loop();
  }

  ageSeconds() {
    return this.seen ? (performance.now() - this.seen) / 1000 : null;
  }

  async loop() {
    const run = ++this.run;
    while (run === this.run) {
      this.abort = new AbortController();
      try {
        await this.follow(this.abort.signal);
        throw new Error("the stream ended");
      } catch (error) {
        if (run !== this.run) return;
        this.denied = error.status === 401 || error.status === 403 || error.status === 404 ? error : null;
        if (this.denied) {
          await this.pollHealth();
        } else {
          this.setConnection("disconnected");
        }
      }
      const pause = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
      this.failures += 1;
      await new Promise((resolve) => setTimeout(resolve, this.denied ? 5000 : pause));
    }
  }

  async follow(signal) {
    this.take(await requestJson("/admin/v1/state", {signal}));
    const response = await request("/admin/v1/events", {signal});
    for await (const {data} of readEvents(response)) this.take(JSON.parse(data));
  }

  take(update) {
    this.failures = 0;
    this.denied = null;
    this.seen = performance.now();
    const before = this.state;
    this.state = {...before, ...update};
    // An update has the last second alone: it extends the history.
    if (before && !update.past) {
      this.state.recent = extend(before.recent, update.recent, KEEP);
      this.state.past = before.past;
    }
    this.setConnection("live");
  }

  async pollHealth() {
    try {
      const response = await fetch("/readyz", {cache: "no-store"});
      const body = await response.json();
      this.tellHealth(body.ready ? "ready" : body.phase, body.ready ? "good" : "warn");
      this.setConnection("denied");
    } catch {
      this.setConnection("disconnected");
    }
  }

  checkAge() {
    if (this.connection === "live" && performance.now() - this.seen > STALE_MS) {
      this.setConnection("stale");
    } else if (this.connection === "stale") {
      this.notify();
    }
  }

  setConnection(connection) {
    this.connection = connection;
    this.notify();
  }

  notify() {
    const health = this.state?.health;
    if (this.connection === "disconnected") {
      this.tellHealth("disconnected", "bad");
    } else if (this.connection === "stale") {
      this.tellHealth("stale", "warn");
    } else if (this.connection === "live") {
      this.tellHealth(health.ready ? "ready" : health.phase, health.ready ? "good" : health.fatal ? "bad" : "warn");
    }
    for (const listener of this.listeners) listener(this);
  }

  tellHealth(text, kind) {
    for (const listener of this.healthListeners) listener(text, kind);
  }
}

function extend(before, update, keep) {
  const last = before.end.at(-1) ?? 0;
  if (update.end.length === 0 || update.end[0] <= last) return before;
  return Object.fromEntries(Object.entries(update).map(([name, values]) =>
    [name, [...(before[name] ?? []), ...values].slice(-keep)]));
}
