// Numbers, times and errors in words.

import { n } from "./map.js";

export const since = at => {
  const min = Math.round((Date.now() - at) / 60000);
  if (min < 1) return "just now";
  if (min < 60) return `${min} min ago`;
  if (min < 1440) return `${Math.round(min / 60)} h ago`;
  return new Date(at).toLocaleDateString();
};

export function size(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  if (bytes < 1e6) return `${n(bytes / 1000)} KB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

export function span(s) {
  if (s < 60) return `${Math.max(1, Math.round(s))} s`;
  return `${Math.round(s / 60)} min`;
}

// As a title of a session, which may have 127 bytes.
export const short = text => {
  let t = text.slice(0, 100);
  while (new TextEncoder().encode(t).length > 120) t = t.slice(0, -1);
  return t;
};

// What went wrong, in words of who reads it, and what to do.
export function plain(e) {
  const advice = {
    unreachable: ["gist-http does not answer.", "Is it still running? Start it again (`gist-http`, or `systemctl --user start gist-http`), then try again. What you wrote is kept."],
    service_unavailable: ["The daemon is not there.", e.message],
    model_loading: ["The model is being loaded.", e.message],
    context_length_exceeded: ["That is too long for this model.", e.message],
    overloaded: ["The daemon has no memory left for now.", `${e.message}. Close other programs' sessions, or delete chats here, and try again.`],
    rate_limit_exceeded: ["Too much at once.", `${e.message}.`],
    request_too_large: ["That is more than gist-http takes at once.", e.message],
    invalid_api_key: ["This server wants a key.", "Try again and enter it."],
    stopped: ["Stopped.", "Nothing of it was read."],
    session_gone: ["The answer is lost.", "The page was away for too long, or the server was started again. Try again: what the model has read is mostly known still."],
  };
  return advice[e.code] || ["That did not work.", e.message || String(e)];
}
