"""What the model makes of texts: requests whose answer is numbers."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple, Union

from . import _lib
from ._lib import ffi, lib
from ._types import Choice, Embedding, Kept, MemoryLike, Pooling, Priority, Score, Usage, from_struct, memory_struct

if TYPE_CHECKING:
    from ._client import Client, Session, _Request

Span = Union[str, Sequence[int]]  # a text, or token ids


def _unpack(at: Any, n: int) -> Tuple[Any, ...]:
    return tuple(ffi.unpack(at, n)) if n else ()


def _span(what: Span, kept: Kept) -> Tuple[Any, int]:
    """Where it lies, and how much of it there is."""
    if isinstance(what, str):
        data = what.encode()
        return kept.new("char[]", data), len(data)
    return kept.new("uint32_t[]", list(what)), len(what)


def _spans(what: Sequence[Span], kept: Kept) -> Tuple[Any, int]:
    """struct gist_span[], and the flag of what is in them."""
    texts = [isinstance(w, str) for w in what]
    if any(texts) and not all(texts):
        raise TypeError("give texts or lists of token ids, not both")
    return kept.new("struct gist_span[]", [_span(w, kept) for w in what]), 0 if all(texts) else lib.GIST_TOKENS


def start_choices(request: "_Request", session: Any, choices: Sequence[Span], special: bool) -> int:
    spans, flags = _spans(choices, request.kept)

    def take(c: Any) -> List[Choice]:
        request.usage = from_struct(Usage, c.usage)
        rows = [c.choices[i] for i in range(c.n)]
        return [Choice(_unpack(r.ids, r.n), _unpack(r.logprobs, r.n), r.sum) for r in rows]

    request.take = take
    return int(lib.gist_score_choices_start(session, spans, len(choices), flags | (lib.GIST_SPECIAL if special else 0),
                                            _lib.on_choices, request.handle, request.number))


def start_score(request: "_Request", conn: Any, what: Span, window: Optional[int], segment: Optional[int],
                memory: Optional[MemoryLike]) -> int:
    kept = request.kept
    if memory == "auto":
        raise ValueError('a text is scored with a fixed memory: "full", or a Memory with a compressor')
    flags = (lib.GIST_SET_WINDOW if window is not None else 0) | (lib.GIST_SET_SEGMENT if segment is not None else 0)
    opts = kept.new("struct gist_score_opts *", {
        "size": ffi.sizeof("struct gist_score_opts"),
        "window": window or 0,
        "segment": segment or 0,
        "memory": memory_struct(memory, kept) if memory is not None else ffi.NULL,
        "flags": flags,
    })

    def take(s: Any) -> Score:
        request.usage = from_struct(Usage, s.usage)
        return Score(_unpack(s.ids, s.n), _unpack(s.logprobs, s.n), request.usage)

    request.take = take
    start = lib.gist_score_text_start if isinstance(what, str) else lib.gist_score_tokens_start
    return int(start(conn, *_span(what, kept), opts, _lib.on_score, request.handle, request.number))


def start_embed(request: "_Request", conn: Any, texts: Sequence[Span], pooling: Pooling, normalise: bool,
                priority: Priority) -> int:
    kept = request.kept
    spans, flags = _spans(texts, kept)
    opts = kept.new("struct gist_embed_opts *", {
        "size": ffi.sizeof("struct gist_embed_opts"),
        "pooling": pooling,
        "priority": priority,
        "flags": flags | (lib.GIST_NORMALISE if normalise else 0),
    })

    def take(e: Any) -> List[Embedding]:
        request.usage = from_struct(Usage, e.usage)
        rows = []
        for i in range(e.n):
            vector = array("f")
            vector.frombytes(bytes(ffi.buffer(e.vectors + i * e.n_embd, 4 * e.n_embd)))
            rows.append(Embedding(vector, e.n_tokens[i]))
        return rows

    request.take = take
    return int(lib.gist_embed_start(conn, spans, len(texts), opts, _lib.on_embeddings, request.handle, request.number))
