// What the page asks gist-http, and how it hears the answers (docs/http.md, /gist/v1).

import { setting } from "./keep.js";

const KEY = "gistd-key";
const AGAIN_MS = 500, DEAF_MS = 20000, BUSY_MS = 90000; // how often it is tried again, and for how long
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

// Ends a session, from a page that is being left.
export function leave(id) {
  fetch(`/gist/v1/sessions/${id}`, { method: "DELETE", headers: headers(), keepalive: true, credentials: "omit" }).catch(() => {});
}

// What a line of an event says. Lines end with \n alone: a text may have the line separators of Unicode, which end
// one for a regular expression.
function line(block, name) {
  return block.split("\n").find(l => l.startsWith(`${name}: `))?.slice(name.length + 2);
}

// A stream of events: calls on(event, data) for each until it ends. Throws Trouble.
async function follow(r, on) {
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

const pause = ms => new Promise(done => setTimeout(done, ms));

// Back to a turn of the session {id, turns}, whose page was left or whose connection was lost: all of it once more, and
// what still comes. Whoever serves it may need a minute to see that the connection before is lost.
export async function goOn({ id, turns }, on, signal) {
  for (let since = performance.now(), gone = 0;;) {
    try {
      const r = await send("GET", `answers/${id}/${turns}`, null, signal);
      since = performance.now();
      return await follow(r, on);
    } catch (e) {
      // One that has just ended may be on its way to where it is kept.
      const later = e.code === "unreachable" || e.code === "rate_limit_exceeded" || (e.code === "session_gone" && gone++ === 0);
      if (!later || performance.now() - since > (e.status === 429 ? BUSY_MS : DEAF_MS)) throw e;
    }
    await pause(AGAIN_MS);
    signal.throwIfAborted();
  }
}

// A turn, told by its events as above. One whose connection is lost goes on by another.
export async function turn(body, on, signal) {
  let live = null;
  const hear = (event, j) => {
    if (event === "session") live = { id: j.id, turns: j.turns };
    on(event, j);
  };
  try {
    return await follow(await send("POST", "chat", { ...body, detachable: true }, signal), hear);
  } catch (e) {
    if (e.code !== "unreachable" || !live) throw e;
  }
  return goOn(live, on, signal);
}
