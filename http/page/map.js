// The picture of memory: a column for each segment of the text, in reading order, as high as the part
// of it that is left.

const PER_ROW = 44;
const number = new Intl.NumberFormat("en");
export const n = x => number.format(Math.round(x));

export function make(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}

export function many(count, one, more = one + "s") {
  return `${n(count)} ${count === 1 ? one : more}`;
}

function slot(s, full) {
  const known = ["raw", "gists", "hydrated"].includes(s.state) ? s.state : "raw";
  const e = make("span", `slot ${known}${s.stored ? " disk" : ""}`);
  const col = make("span", "col");
  // The open segment is as high as it is full.
  col.style.height = `${Math.min(100, 100 * s.keys / full)}%`;
  e.append(col, make("i"));
  return e;
}

// One line about a segment.
export function about(s, i) {
  const where = `Part ${i + 1}: ${many(s.tokens, "token")}`;
  const disk = s.stored ? "; also on the disk" : "";
  if (s.state === "gists" && s.keys === 0) return `${where}, forgotten${disk}`;
  if (s.state === "gists") return `${where} as ${many(s.keys, "gist")}${s.ratio ? `, ratio ${s.ratio}` : ""}${disk}`;
  if (s.state === "hydrated") return `${where}, back as they were read for the last question${disk}`;
  return `${where}, raw${disk}`;
}

export function counts(memory) {
  const c = { raw: 0, gists: 0, hydrated: 0, stored: 0, keys: 0 };
  for (const s of memory.segments) {
    c[s.state] = (c[s.state] || 0) + s.tokens;
    if (s.state === "gists") c.keys += s.keys;
    if (s.stored) c.stored += s.tokens;
  }
  return c;
}

// In words, for who does not see it.
export function words(memory) {
  const c = counts(memory);
  const parts = [`${many(memory.tokens, "token")} of text, held by ${many(memory.keys, "key")}`];
  if (c.raw) parts.push(`${n(c.raw)} raw`);
  if (c.gists) parts.push(`${n(c.gists)} as ${many(c.keys, "gist")}`);
  if (c.hydrated) parts.push(`${n(c.hydrated)} hydrated`);
  if (c.stored) parts.push(`${n(c.stored)} also on the disk`);
  return parts.join("; ");
}

export function draw(to, memory) {
  const rows = [];
  const all = memory.segments;
  const lines = Math.max(1, Math.ceil(all.length / PER_ROW));
  const per = Math.min(PER_ROW, Math.max(24, Math.ceil(all.length / lines)));
  for (let at = 0; at < all.length; at += per) {
    const row = make("div", "row");
    for (const s of all.slice(at, at + per)) row.append(slot(s, memory.segment));
    for (let i = all.length - at; i < per; i++) row.append(make("span", "slot blank"));
    rows.push(row);
  }
  to.replaceChildren(...rows);
  to.setAttribute("aria-label", words(memory));
}

// Parts of a whole, as a bar.
export function bar(to, parts, label) {
  const sum = parts.reduce((a, p) => a + p[1], 0) || 1;
  to.replaceChildren(...parts.filter(p => p[1] > 0).map(([cls, count]) => {
    const e = make("i", cls);
    e.style.width = `${100 * count / sum}%`;
    return e;
  }));
  to.setAttribute("aria-label", label);
}
