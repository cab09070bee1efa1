// One streamed reply of /v1/chat/completions or /v1/completions, gathered as it comes:
// text, reasoning, tool calls, tokens with their log-probabilities, usage and times.

import {ApiError, readEvents, request} from "./api.js";

const MAX_RAW_EVENTS = 5000;

export function emptyReply() {
  return {
    role: "assistant", content: "", reasoning: "", toolCalls: [], tokens: [], raw: [],
    finish: null, usage: null, stats: null, error: null, stopped: false,
  };
}

// `model`: a promise of its name. Calls `onChange(reply)` after every event; never throws: failures are reply.error.
export async function streamReply(path, model, fields, {signal, onChange}) {
  const reply = emptyReply();
  let begin = performance.now();
  const times = {first: null, last: null, events: 0};
  try {
    const body = {model: await model, ...fields};
    reply.request = {path, body};
    begin = performance.now();
    const response = await request(path, {method: "POST", body, signal});
    for await (const event of readEvents(response)) {
      if (reply.raw.length < MAX_RAW_EVENTS) reply.raw.push(event.data);
      if (event.data === "[DONE]") break;
      takeChunk(reply, JSON.parse(event.data), times);
      onChange(reply);
    }
    if (reply.finish === null) throw new ApiError(0, "the answer ended before it was complete", "cut");
  } catch (error) {
    if (error.name === "AbortError") {
      reply.stopped = true;
    } else {
      reply.error = error.message || String(error);
    }
  }
  reply.stats = statsOf(reply, begin, times);
  onChange(reply);
  return reply;
}

function takeChunk(reply, chunk, times) {
  if (chunk.error) throw new ApiError(0, chunk.error.message, chunk.error.code);
  if (chunk.usage) reply.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const delta = choice.delta ?? {content: choice.text};
  const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
  if (delta.content || reasoning || delta.tool_calls) {
    times.last = performance.now();
    times.first ??= times.last;
    times.events += 1;
  }
  reply.reasoning += reasoning;
  reply.content += delta.content ?? "";
  for (const call of delta.tool_calls ?? []) takeToolCall(reply.toolCalls, call);
  if (choice.logprobs) takeLogprobs(reply.tokens, choice);
  if (choice.finish_reason) reply.finish = choice.finish_reason;
}

function takeToolCall(calls, piece) {
  const call = (calls[piece.index] ??= {id: "", name: "", arguments: ""});
  call.id ||= piece.id ?? "";
  call.name += piece.function?.name ?? "";
  call.arguments += piece.function?.arguments ?? "";
}

// Chat and completions give log-probabilities in different shapes; ids come beside them.
function takeLogprobs(tokens, choice) {
  const ids = choice.token_ids ?? [];
  const chat = [...(choice.logprobs.reasoning_content ?? []), ...(choice.logprobs.content ?? [])];
  chat.forEach((entry, i) => tokens.push({
    text: entry.token, logprob: entry.logprob, bytes: entry.bytes ?? [], id: ids[i] ?? null,
    top: (entry.top_logprobs ?? []).map((other) => ({
      text: other.token, logprob: other.logprob, bytes: other.bytes ?? [],
    })),
  }));
  (choice.logprobs.tokens ?? []).forEach((text, i) => tokens.push({
    text, logprob: choice.logprobs.token_logprobs[i], bytes: [...new TextEncoder().encode(text)],
    id: ids[i] ?? null,
    top: Object.entries(choice.logprobs.top_logprobs?.[i] ?? {}).map(([other, logprob]) => ({
      text: other, logprob, bytes: [...new TextEncoder().encode(other)],
    })).sort((a, b) => b.logprob - a.logprob),
  }));
}

function statsOf(reply, begin, times) {
  const usage = reply.usage;
  const generated = usage?.completion_tokens ?? null;
  const decode = times.first === null ? 0 : (times.last - times.first) / 1000;
  return {
    ttftMs: times.first === null ? null : times.first - begin,
    totalMs: performance.now() - begin,
    // The first token came with the prefill; the rate is that of the others.
    tokensPerSecond: generated > 1 && decode > 0 ? (generated - 1) / decode : null,
    prompt: usage?.prompt_tokens ?? null,
    cached: usage?.prompt_tokens_details?.cached_tokens ?? usage?.prompt_cache_hit_tokens ?? null,
    generated,
    reasoning: usage?.completion_tokens_details?.reasoning_tokens ?? null,
    accepted: usage?.completion_tokens_details?.accepted_prediction_tokens ?? null,
  };
}
