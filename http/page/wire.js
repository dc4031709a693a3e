// What the page asks gist-http, and how it hears the answers (docs/http.md, /gist/v1).

import { setting } from "./keep.js";

const KEY = "gistd-key";
let key = setting("sessionStorage", KEY);

export function useKey(k) {
  key = setting("sessionStorage", KEY, k);
}

export class Trouble extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

function headers(body) {
  const h = {};
  if (key) h.Authorization = `Bearer ${key}`;
  if (body) h["Content-Type"] = "application/json";
  return h;
}

async function send(method, path, body, signal) {
  let r;
  try {
    r = await fetch(`/gist/v1/${path}`, {
      method, signal, headers: headers(body), body: body && JSON.stringify(body), cache: "no-store", credentials: "omit",
    });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Trouble("unreachable", "", 0);
  }
  if (r.ok) return r;
  const j = await r.json().catch(() => ({}));
  throw new Trouble(j.error?.code || `status ${r.status}`, j.error?.message || `The server answered with status ${r.status}.`, r.status);
}

export async function ask(method, path, body) {
  return (await send(method, path, body)).json();
}

// What a line of an event says. Lines end with \n alone: a text may have the line separators of Unicode, which end
// one for a regular expression.
function line(block, name) {
  return block.split("\n").find(l => l.startsWith(`${name}: `))?.slice(name.length + 2);
}

// A turn: calls on(event, data) for each event until the stream ends. Throws Trouble.
export async function turn(body, on, signal) {
  const r = await send("POST", "chat", body, signal);
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", ended = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      rest += value;
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = line(block, "event"), data = line(block, "data");
        if (!event || !data) continue; // a comment
        const j = JSON.parse(data);
        if (event === "error") throw new Trouble(j.error?.code || "failed", j.error?.message || "", 200);
        ended ||= event === "done";
        on(event, j);
      }
    }
  } catch (e) {
    if (e instanceof Trouble || e.name === "AbortError") throw e;
    throw new Trouble("unreachable", "", 0);
  }
  if (!ended) throw new Trouble("unreachable", "", 0);
}
