// Chats, kept in this browser alone: in IndexedDB, or as long as the page lives where there is none.

const NAME = "gistd", STORE = "chats";
let base = null;
const here = new Map();
export let lasting = true;

function wait(request) {
  return new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });
}

export async function open() {
  try {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    base = await wait(request);
  } catch {
    lasting = false;
  }
}

const store = mode => base.transaction(STORE, mode).objectStore(STORE);

// What is written is sent off at once with its commit: a page that is left right after loses nothing.
function write(request) {
  request.transaction.commit();
  return wait(request);
}

// All of them, the one that was used last first.
export async function list() {
  const all = base ? await wait(store("readonly").getAll()) : [...here.values()];
  return all.sort((a, b) => b.at - a.at);
}

export async function put(chat) {
  try {
    if (base) await write(store("readwrite").put(structuredClone(chat)));
    else here.set(chat.id, chat);
  } catch {
    lasting = false; // the disk is full, or the browser forbids it
  }
}

// A word in localStorage or sessionStorage, where it is put first if there is a value. A browser that keeps nothing of
// pages throws at the very name.
export function setting(where, name, value) {
  try {
    if (value !== undefined) window[where].setItem(name, value);
    return window[where].getItem(name) || "";
  } catch {
    return value || "";
  }
}

export async function remove(id) {
  if (base) await write(store("readwrite").delete(id));
  here.delete(id);
}
