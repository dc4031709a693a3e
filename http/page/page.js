// The page of gist-http: chats with documents, and what becomes of them in memory.
//
// The browser owns what was said; the server keeps a session of each chat open as long as it can, and is told
// all of it once more when it could not (http/live.h). Whatever comes from a model, a file or a server becomes
// text of the document and nothing else.

import * as keep from "./keep.js";
import { Trouble, ask, goOn, leave, turn, useKey } from "./wire.js";
import { about, bar, counts, draw, make, many, n, words } from "./map.js";
import { plain, short, since, size, span } from "./words.js";

const $ = id => document.getElementById(id);
const DOC_BYTES = 8 << 20, PASTE_CHARS = 2000;
const ANSWER_TOKENS = 1024; // a small model may never end by itself

let chats = [], chat = null, daemon = null;
let going = null; // the turn under way: {chat, abort, session, stopping}
const waiting = []; // turns that come behind it

// --- the list of chats ---------------------------------------------------------------------------

function newChat() {
  const c = chats.find(x => x.messages.length === 0) ||
    { id: crypto.randomUUID?.() || String(Math.random()).slice(2), title: "New chat", at: Date.now(), messages: [], live: null, memory: null };
  if (!chats.includes(c)) chats.unshift(c);
  openChat(c);
  $("say").focus();
}

function openChat(c) {
  chat = c;
  location.hash = c.id;
  close("chats");
  drawChats();
  drawLog();
  drawMemory();
  refreshMemory();
}

// One that was deleted while it was answered stays so; a private one is this page's alone.
function store(c) {
  if (c.messages.length && chats.includes(c) && !c.private) keep.put(c);
}

function save(c) {
  c.at = Date.now();
  store(c);
}

// What others may read of it: gistctl shows the titles of sessions.
const label = c => c.private ? "private chat" : short(c.title);

async function removeChat(c) {
  for (const w of waiting.splice(0)) if (w.c !== c) waiting.push(w);
  if (going?.chat === c) going.abort.abort();
  if (c.live) ask("DELETE", `sessions/${c.live.id}`).catch(() => {});
  chats = chats.filter(x => x !== c);
  await keep.remove(c.id);
  if (chat === c) chats.length ? openChat(chats[0]) : newChat();
  else drawChats();
}

function rename(c, row) {
  const input = make("input");
  input.value = c.title;
  input.setAttribute("aria-label", "Name of the chat");
  const end = take => {
    const title = input.value.trim();
    if (take && title && title !== c.title) {
      c.title = title.slice(0, 80);
      c.named = true;
      store(c);
      if (c.live) ask("POST", `sessions/${c.live.id}`, { title: label(c) }).catch(() => {});
    }
    drawChats();
  };
  input.onkeydown = e => {
    if (e.key === "Enter") end(true);
    if (e.key === "Escape") { e.stopPropagation(); end(false); }
  };
  input.onblur = () => end(true);
  row.replaceChildren(input);
  input.focus();
  input.select();
}

function act(text, label, fn) {
  const b = make("button", "act", text);
  b.setAttribute("aria-label", label);
  b.onclick = fn;
  return b;
}

function chatRow(c) {
  const row = make("li", `chat${c === chat ? " on" : ""}`), go = make("button", "go");
  go.append(make("span", "", c.title), make("span", "fine", (c.private ? "private, " : "") + (c.messages.length ? since(c.at) : "nothing yet")));
  if (c === chat) go.setAttribute("aria-current", "true");
  go.onclick = () => openChat(c);
  const sure = () => {
    const yes = act("Delete", `Yes, delete ${c.title}`, () => removeChat(c));
    const two = make("span", "acts sure");
    two.append(yes, act("Keep", `Keep ${c.title}`, drawChats));
    row.replaceChildren(make("span", "go", "Delete it?"), two);
    yes.focus();
  };
  const acts = make("span", "acts");
  acts.append(act("Rename", `Rename ${c.title}`, () => rename(c, row)), act("Delete", `Delete ${c.title}`, sure));
  row.append(go, acts);
  return row;
}

function drawChats() {
  $("chat-list").replaceChildren(...chats.map(chatRow));
}

// --- the conversation ----------------------------------------------------------------------------

// Text, with what stands between ``` as it is.
function fill(to, text) {
  const parts = text.split(/^```[^\n]*\n?/m);
  to.replaceChildren(...parts.map((p, i) => i % 2 ? make("pre", "", p.replace(/\n$/, "")) : document.createTextNode(p)));
}

function empty() {
  const e = make("div", "empty");
  e.append(make("h2", "", "Drop a text here, however long, and ask about it."));
  const p = make("p");
  p.append("The model reads it once. When it is longer than the model's window, the oldest parts become ",
    make("strong", "", "gists"), ", a few keys in place of many, and those that a question points to come back as they were read: they are ",
    make("strong", "", "hydrated"), ". The picture of memory shows it as it happens.");
  const add = make("button", "", "Choose a text file");
  add.onclick = () => $("file").click();
  const row = make("div", "example");
  row.append(add);
  e.append(p, make("p", "", "Or just write below. Nothing leaves this machine but to the server that sent this page."));
  if (chat.private)
    e.append(make("p", "private", "This chat is private: neither this browser nor the daemon stores anything of it, and it ends when the page is closed or loaded again."));
  e.append(row);
  return e;
}

function trouble(m) {
  const e = make("div", "trouble");
  e.setAttribute("role", "alert");
  const again = make("button", "", "Try again");
  again.onclick = () => retry(m);
  e.append(make("b", "", m.trouble[0]), make("p", "", m.trouble[1]), again);
  return e;
}

function soFar(p) {
  return `${n(p.read)} of ${many(p.of, "token")}` + (p.rate > 0 ? `, about ${span((p.of - p.read) / p.rate)} left` : "");
}

const loads = m => `The model had been put away, and is loaded again: ${n(m.loading)} %`;

function docState(m) {
  if (m.state === "reading" && m.loading) return loads(m);
  if (m.state === "reading") return m.progress?.of ? `Reading: ${soFar(m.progress)}` : "Waiting to be read";
  if (m.state === "stopped") return "Stopped: the model has not read it";
  if (m.state === "failed") return "Not read";
  if (!m.stats) return "Not read yet: it will be, with the next question";
  const known = m.stats.shared + m.stats.restored;
  return `${many(m.stats.computed + known, "token")}, read in ${span(m.stats.ms / 1000)}` +
    (known ? ` (${n(known)} were known already)` : "");
}

function drawDoc(m) {
  const e = make("div", "doc");
  e.append(make("div", "name", m.name), make("div", "fine", `${size(new Blob([m.text]).size)} of text`));
  if (m.state === "reading") {
    const b = make("div", "bar");
    b.setAttribute("role", "progressbar");
    const done = m.progress?.of ? m.progress.read / m.progress.of : 0;
    b.setAttribute("aria-valuenow", Math.round(100 * done));
    b.setAttribute("aria-label", `Reading ${m.name}`);
    bar(b, [["raw", done], ["cached", 1 - done]], `Reading ${m.name}`);
    e.append(b);
  }
  e.append(make("div", "fine state", docState(m)));
  if (m.state === "stopped") {
    const b = make("button", "", "Read it");
    b.onclick = () => retry(m);
    e.append(b);
  }
  return e;
}

function answerFoot(m) {
  if (m.state === "reading" && m.loading) return loads(m);
  if (m.state === "reading" && m.progress?.of > 400) return `Reading ${soFar(m.progress)}`;
  if (m.state === "stopped") return "Stopped";
  const why = { length: "Cut here: say \u201cgo on\u201d for more", context_full: "Cut: the model's window is full", pool_full: "Cut: the daemon has no memory left" };
  return why[m.reason] || "";
}

function drawMessage(m) {
  if (m.doc) return drawDoc(m);
  const e = make("div", `turn ${m.role}${m.state === "going" || m.state === "reading" ? " going" : ""}`);
  const text = make("div", "text");
  if (m.role === "user") text.textContent = m.text;
  else fill(text, m.text);
  e.append(make("div", "who", m.role === "user" ? "You" : daemon?.model || "The model"), text);
  const foot = m.role === "user" ? "" : answerFoot(m);
  if (foot) e.append(make("div", "fine foot", foot));
  return e;
}

const drawn = new Map(); // a message and where it is shown

function drawLog() {
  drawn.clear();
  const parts = chat.messages.flatMap(m => {
    const e = drawMessage(m);
    drawn.set(m, e);
    return m.trouble ? [e, trouble(m)] : [e];
  });
  $("log").replaceChildren(...(parts.length ? parts : [empty()]));
  toEnd(true);
  buttons();
}

// Follows what is said, unless somebody reads further up.
function toEnd(always) {
  const log = $("log");
  if (always || log.scrollHeight - log.scrollTop - log.clientHeight < 160) log.scrollTop = log.scrollHeight;
}

let redraws = new Set();
function redraw(m) {
  if (redraws.size === 0)
    requestAnimationFrame(() => {
      for (const x of redraws) {
        const e = drawMessage(x), old = drawn.get(x);
        if (!old?.isConnected) continue;
        old.replaceWith(e);
        drawn.set(x, e);
      }
      redraws = new Set();
      toEnd();
    });
  redraws.add(m);
}

function buttons() {
  const busy = going !== null;
  $("stop").hidden = !busy;
  $("send").disabled = $("say").value.trim() === "";
  $("private").checked = chat.private === true;
  $("private").disabled = chat.messages.length > 0;
  $("log").setAttribute("aria-busy", busy);
}

// --- turns ---------------------------------------------------------------------------------------

const asSent = m => ({ role: m.role, content: m.doc ? `Document "${m.name}":\n\n${m.text}` : m.text });

// What the server has to know before `m`, all of it or what is new.
const before = (c, m) => c.messages.slice(0, c.messages.indexOf(m)).filter(x => x.known);

function noteProgress(m, p) {
  const now = performance.now();
  m.progress ||= { from: p.read, at: now };
  // What was known already is there at once, and is no speed.
  if (!m.progress.of) Object.assign(m.progress, { from: p.read, at: now });
  Object.assign(m.progress, p);
  const s = (now - m.progress.at) / 1000;
  m.progress.rate = s > 0.4 ? (p.read - m.progress.from) / s : 0;
  if (m.progress.rate > 0) speed("read-speed", m.progress.rate);
}

const speed = (id, rate) => { $(id).textContent = `${rate < 10 ? rate.toFixed(1) : n(rate)} tokens/s`; };

function hears(c, m, answer) {
  return (event, j) => {
    if (event !== "loading") delete (answer || m).loading;
    if (event === "session") { // what was said comes from its beginning, also to who comes back
      c.live = { id: j.id, turns: j.turns };
      if (answer) answer.text = "";
      save(c);
      going.session = j.id;
      if (going.stopping) stop();
    } else if (event === "loading") {
      (answer || m).loading = j.percent;
    } else if (event === "reading") {
      noteProgress(answer || m, j);
    } else if (event === "memory") {
      c.memory = j;
      if (answer?.state === "going") {
        const k = counts(j);
        c.stands = { raw: k.raw, hydrated: k.hydrated, gist_tokens: k.gists, gists: k.keys, missed: 0 };
      }
      if (c === chat) drawMemory();
    } else if (event === "read") {
      m.known = true;
      m.stats = j;
      if (answer) { answer.state = "going"; answer.at = performance.now(); answer.from = 0; }
      if (j.computed > 32 && j.ms > 0) speed("read-speed", j.computed / (j.ms / 1000));
    } else if (event === "text") {
      if (answer.text === "") { answer.at = performance.now(); answer.from = j.tokens; }
      answer.text += j.text;
      const s = (performance.now() - answer.at) / 1000;
      if (s > 0.5) speed("say-speed", (j.tokens - answer.from) / s);
    } else if (event === "done") {
      c.live.turns = j.turns;
      if (answer) {
        answer.known = answer.text !== "";
        answer.reason = j.reason;
        answer.state = j.reason === "stopped" ? "stopped" : "done";
        if (j.tokens > 1 && j.ms > 0) speed("say-speed", j.tokens / (j.ms / 1000));
        c.stands = { ...j.gistd, raw: j.gistd.raw - j.gistd.hydrated };
      }
      if (m.doc) m.state = "done";
      if (c === chat) drawMemory();
    }
    redraw(m);
    if (answer) redraw(answer);
  };
}

// One message to the server: what is new, or the whole chat when the session is gone.
async function tell(c, m, answer, back) {
  const on = hears(c, m, answer), rest = { answer: answer !== null, title: label(c), temperature: 0.7, max_tokens: ANSWER_TOKENS };
  if (c.private) rest.gistd = { private: true };
  if (back) return goOn(c.live, on, going.abort.signal);
  if (c.live) {
    try {
      return await turn({ ...rest, session: c.live.id, turns: c.live.turns, messages: [asSent(m)] }, on, going.abort.signal);
    } catch (e) {
      if (e.code !== "session_gone") throw e;
      c.live = null;
    }
  }
  const messages = [...before(c, m), m].map(asSent);
  return turn({ ...rest, messages }, on, going.abort.signal);
}

function undo(c, m, answer, e) {
  if (e.code !== "stopped") c.live = null; // what the server has of it is not known any more
  if (answer && !answer.text) c.messages.splice(c.messages.indexOf(answer), 1);
  else if (answer) Object.assign(answer, { state: "stopped", known: true });
  if (m.doc) m.state = e.code === "stopped" || e.name === "AbortError" ? "stopped" : "failed";
  if (e.name === "AbortError") return;
  if (e.code === "stopped" && m.doc) return;
  m.trouble = plain(e);
  if (e.code === "invalid_api_key") askKey();
}

// back: the page comes back to an answer that was being written when it was left.
async function run({ c, m, back }) {
  const at = c.messages.indexOf(m) + 1;
  const answer = m.doc ? null : back ? c.messages[at] : { role: "assistant", text: "", state: "reading" };
  delete m.trouble;
  delete m.progress;
  if (answer && !back) c.messages.splice(at, 0, answer);
  if (m.doc) m.state = "reading";
  going = { chat: c, abort: new AbortController(), session: c.live?.id };
  if (c === chat) drawLog();
  try {
    await tell(c, m, answer, back);
  } catch (e) {
    if (!(e instanceof Trouble) && e.name !== "AbortError") throw e;
    undo(c, m, answer, e);
  } finally {
    going = null;
    save(c);
    if (c === chat) { drawLog(); drawMemory(); }
    drawChats();
    look();
  }
}

let running = false;
async function pump() {
  if (running) return;
  running = true;
  try {
    while (waiting.length) await run(waiting.shift());
  } finally {
    running = false;
    buttons();
  }
}

function add(c, m) {
  c.messages.push(m);
  if (!c.named && !c.messages.slice(0, -1).some(x => !x.doc)) {
    c.title = (m.doc ? m.name : m.text).split("\n")[0].slice(0, 60);
  }
  save(c);
  waiting.push({ c, m });
  if (c === chat) drawLog();
  drawChats();
  pump();
}

function retry(m) {
  if (waiting.some(w => w.m === m)) return;
  delete m.trouble;
  waiting.push({ c: chat, m });
  pump();
}

function submit() {
  const text = $("say").value.trim();
  if (!text) return;
  $("say").value = "";
  grow();
  add(chat, { role: "user", text });
}

// Ends what is under way, and what waits behind it.
function stop() {
  if (!going) return;
  for (const w of waiting.splice(0)) if (w.m.doc) w.m.state = "stopped";
  going.stopping = true;
  if (!going.session) return; // as soon as there is one
  const mine = going;
  ask("POST", `sessions/${going.session}/stop`, {}).catch(() => mine.abort.abort());
}

// --- documents -----------------------------------------------------------------------------------

async function addFile(file) {
  const m = { doc: true, role: "user", name: file.name || "Pasted text", text: "" };
  const refuse = why => notice(`${m.name} was not added: ${why}`);
  if (file.size > DOC_BYTES) return refuse(`it has ${size(file.size)}, and this page takes ${size(DOC_BYTES)} at most. Longer texts go by \`gistctl doc add\`.`);
  try {
    m.text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    return refuse("it is no text in UTF-8. Save or convert it as plain text first (PDFs: `pdftotext`).");
  }
  if (m.text.includes("\0")) return refuse("it is no text file. Save or convert it as plain text first.");
  if (!m.text.trim()) return refuse("there is nothing in it.");
  notice("");
  add(chat, m);
}

async function addFiles(files) {
  for (const f of files) await addFile(f);
  $("say").focus();
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// --- the picture ---------------------------------------------------------------------------------

let at = -1; // the segment that is looked at

function drawMemory() {
  const mem = chat.memory, strip = $("strip");
  const none = !mem || mem.segments.length === 0;
  strip.hidden = none;
  $("budget").hidden = none;
  $("stands").hidden = !chat.stands;
  if (chat.stands) drawStands(chat.stands);
  if (none) {
    $("map").replaceChildren();
    $("map").setAttribute("aria-label", "Nothing is in memory");
    $("map-at").textContent = $("budget-line").textContent = "";
    $("map-line").textContent = chat.messages.length
      ? "This chat is not in memory now. It is read again when you go on, as far as the daemon does not know it."
      : "Nothing yet. Each part of what is read becomes a column here.";
    return;
  }
  const line = $("map-line");
  line.replaceChildren(make("strong", "", n(mem.tokens)), ` token${mem.tokens === 1 ? "" : "s"} of text, held by `,
    make("strong", "", n(mem.keys)), ` key${mem.keys === 1 ? "" : "s"}`);
  draw($("map"), mem);
  at = Math.min(at, mem.segments.length - 1);
  pointAt(at);
  $("budget").firstElementChild.style.width = `${Math.min(100, 100 * mem.keys / mem.budget)}%`;
  $("budget-line").textContent = `${n(100 * mem.keys / mem.budget)} % of the ${n(mem.budget)} keys that the model's window takes`;
  const small = make("div", "map");
  draw(small, mem);
  small.removeAttribute("aria-label");
  strip.replaceChildren(small, make("span", "fine", words(mem).split(";")[0]));
}

function drawStands(s) {
  const parts = [];
  if (s.raw) parts.push(`${many(s.raw, "token")} as they were read`);
  if (s.hydrated) parts.push(`${n(s.hydrated)} hydrated for it`);
  if (s.gist_tokens) parts.push(`${n(s.gist_tokens)} as ${many(s.gists, "gist")}`);
  const missed = s.missed ? ` ${many(s.missed, "token")} that it points to could not come back.` : "";
  const text = parts.join(", ").replace(/, ([^,]*)$/, parts.length > 2 ? ", and $1" : " and $1");
  $("stands-line").textContent = `${text}.${missed}`;
  bar($("stands-bar"), [["raw", s.raw], ["hydrated", s.hydrated], ["gists", s.gist_tokens]], text);
}

const slots = () => [...$("map").querySelectorAll(".slot:not(.blank)")];

function pointAt(i) {
  at = i;
  slots().forEach((e, k) => e.classList.toggle("at", k === i));
  const s = chat.memory?.segments[i];
  $("map-at").textContent = s ? about(s, i) : chat.memory ? "Point at a column to see what it is." : "";
}

const idle = () => !going || going.chat !== chat;

async function refreshMemory() {
  const c = chat;
  if (!c.live || !idle()) return;
  try {
    c.memory = await ask("GET", `sessions/${c.live.id}/memory`);
  } catch (e) {
    if (e.code !== "session_gone") return;
    c.live = c.memory = null;
  }
  if (c === chat && idle()) drawMemory();
}

function drawDaemon(d) {
  const mb = pages => size(pages * d.page_bytes);
  const used = d.pages - d.pages_free - d.pages_cached;
  $("model").textContent = `${d.model}, a window of ${many(d.context, "token")}` +
    (d.idle ? "; put away while nobody asks, and loaded again for the next question" : "");
  bar($("pool-bar"), [["raw", used], ["cached", d.pages_cached], ["free", d.pages_free]],
    `${mb(used)} in use, ${mb(d.pages_cached)} remembered, ${mb(d.pages_free)} free`);
  $("pool-line").textContent = `Of ${mb(d.pages)} for context ${mb(used)} are in use, of all programs together; ${mb(d.pages_cached)} are remembered until they are wanted.`;
  $("store-line").textContent = d.store.on
    ? d.store.degraded || `On the disk: ${size(d.store.bytes)} of at most ${size(d.store.limit)}.`
    : `Nothing is kept on the disk: ${d.store.why || "it is switched off"}.`;
}

let looking = 0, downs = 0;

// Who serves, how full it is; and whether anybody does.
async function look() {
  clearTimeout(looking);
  try {
    daemon = await ask("GET", "memory");
    drawDaemon(daemon);
    if (downs) { notice(""); downs = 0; refreshMemory(); }
  } catch (e) {
    downs++;
    $("model").textContent = "";
    if (e.code === "invalid_api_key") askKey();
    else notice(plain(e).join(" "));
  }
  if (!document.hidden) looking = setTimeout(look, downs ? 2000 : 4000);
}

// --- keys ----------------------------------------------------------------------------------------

function askKey() {
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

$("key-form").onsubmit = () => {
  useKey($("key").value.trim());
  $("key").value = "";
  downs = 1;
  look();
};

// --- what people do ------------------------------------------------------------------------------

function grow() {
  const say = $("say");
  say.style.height = "auto";
  say.style.height = `${say.scrollHeight + 2}px`;
  buttons();
}

function close(id) {
  $(id).classList.remove("open");
  $(`show-${id}`).setAttribute("aria-expanded", "false");
}

function toggle(id) {
  const on = !$(id).classList.contains("open");
  close("chats");
  close("memory");
  $(id).classList.toggle("open", on);
  $(`show-${id}`).setAttribute("aria-expanded", on);
}

const themes = ["system", "light", "dark"], THEME = "gistd-theme";
let themed = "system";
function theme(name) {
  themed = themes.includes(name) ? name : "system";
  if (themed === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = themed;
  $("theme").textContent = `Theme: ${themed}`;
}

$("theme").onclick = () => theme(keep.setting("localStorage", THEME, themes[(themes.indexOf(themed) + 1) % 3]));
$("new").onclick = newChat;
$("show-chats").onclick = () => toggle("chats");
$("show-memory").onclick = $("strip").onclick = () => toggle("memory");
$("stop").onclick = stop;
$("private").onchange = e => {
  chat.private = e.target.checked;
  drawChats();
  drawLog();
};
$("form").onsubmit = e => { e.preventDefault(); submit(); };
$("say").oninput = grow;
$("say").onkeydown = e => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); submit(); }
};
$("say").onpaste = e => {
  const files = [...e.clipboardData.files], text = e.clipboardData.getData("text/plain");
  if (files.length) { e.preventDefault(); addFiles(files); }
  else if (text.length > PASTE_CHARS) { e.preventDefault(); addFiles([new File([text], "Pasted text")]); }
};
$("file").onchange = e => { addFiles([...e.target.files]); e.target.value = ""; };
$("attach").onkeydown = e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); $("file").click(); } };

const slotAt = e => slots().indexOf(e.target.closest?.(".slot"));
$("map").onpointermove = e => { const i = slotAt(e); if (i >= 0) pointAt(i); };
$("map").onpointerleave = () => pointAt(-1);
$("map").onkeydown = e => {
  const step = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[e.key];
  if (!step || !chat.memory) return;
  e.preventDefault();
  pointAt(Math.max(0, Math.min(chat.memory.segments.length - 1, at + step)));
};

document.onkeydown = e => {
  if (e.key === "Escape") {
    if ($("chats").classList.contains("open") || $("memory").classList.contains("open")) { close("chats"); close("memory"); }
    else if (going) stop();
  }
  if (e.key.toLowerCase() === "o" && e.ctrlKey && e.shiftKey) { e.preventDefault(); newChat(); }
};

let drags = 0;
const hasFiles = e => e.dataTransfer?.types.includes("Files");
addEventListener("dragenter", e => { if (hasFiles(e)) { e.preventDefault(); drags++; $("drop").hidden = false; } });
addEventListener("dragleave", e => { if (hasFiles(e) && --drags <= 0) { drags = 0; $("drop").hidden = true; } });
addEventListener("dragover", e => { if (hasFiles(e)) e.preventDefault(); });
addEventListener("drop", e => {
  if (!hasFiles(e)) return;
  e.preventDefault();
  drags = 0;
  $("drop").hidden = true;
  addFiles([...e.dataTransfer.files]);
});
// Nobody can come back to a private chat.
onpagehide = () => { for (const c of chats) if (c.private && c.live) leave(c.live.id); };
document.onvisibilitychange = () => { if (!document.hidden) { look(); refreshMemory(); } };

// --- the beginning -------------------------------------------------------------------------------

theme(keep.setting("localStorage", THEME));
await keep.open();
chats = await keep.list();
for (const c of chats)
  for (const [i, m] of c.messages.entries()) { // what was under way when the page was left
    delete m.progress;
    if (m.state !== "reading" && m.state !== "going") continue;
    if (c.live) waiting.push({ c, m: m.doc ? m : c.messages[i - 1], back: true });
    else m.state = m.doc || m.text ? "stopped" : "done";
  }
const wanted = chats.find(c => c.id === location.hash.slice(1)) || chats[0];
if (wanted) openChat(wanted);
else newChat();
pump();
look();
