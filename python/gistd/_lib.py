"""libgist by cffi: the declarations of gist.h, the library, and the C functions that it calls back."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from cffi import FFI

ffi: Any = FFI()


def _header() -> str:
    """gist.h of the wheel, or of the repository that this file stands in, with its parts in their places."""
    here = Path(__file__).resolve().parent
    for path in (here / "gist.h", here.parent.parent / "client" / "gist.h"):
        if path.exists():
            return re.sub(r'#include "(gist/\w+\.h)"', lambda m: (path.parent / m[1]).read_text(), path.read_text())
    raise ImportError(f"gistd was installed without {here / 'gist.h'}: build it by `pip wheel`")


def declarations(header: str) -> str:
    """What cffi reads of it: no preprocessor but constants that are numbers, no attributes."""
    text = re.sub(r"/\*.*?\*/", " ", header, flags=re.S).replace("\\\n", " ")
    text = re.sub(r'#ifdef __cplusplus\n.*?\n#endif', "", text, flags=re.S)
    text = re.sub(r"static const .*?};", "", text, flags=re.S)  # sizes(), below
    lines = []
    for line in text.splitlines():
        define = re.match(r"#define (GIST_\w+)\s+(\w+)\s*$", line)
        if define:
            value = "0xffffffff" if define[2] == "UINT32_MAX" else define[2]
            if re.fullmatch(r"(0x[0-9a-fA-F]+|\d+)[uU]?", value):
                lines.append(f"#define {define[1]} {value.rstrip('uU')}")
        elif not line.startswith("#"):
            lines.append(line.replace("GIST_API ", ""))
    return "\n".join(lines)


_OURS = """
void free(void *);
"""

ffi.cdef(declarations(_header()) + _OURS)


def _load() -> Any:
    path = os.environ.get("LIBGIST", "libgist.so.0")
    try:
        return ffi.dlopen(path)
    except OSError as e:
        raise ImportError(f"libgist can't be loaded: {e}; install the package libgist0, or let LIBGIST name "
                          "the file libgist.so.0") from None


lib: Any = _load()


def sizes() -> Any:
    """What gist_connect, a macro in C, tells the library: how long its structs are here, where it may be a later one."""
    names = [name for name, _ in ffi.typeof("struct gist_sizes").fields if name != "size"]
    lengths = {name: ffi.sizeof("struct gist_" + name) for name in names}
    return ffi.new("struct gist_sizes *", {"size": ffi.sizeof("struct gist_sizes"), **lengths})


# Requests are handles. What one of these functions raises is kept by the request, and raised where it is awaited.
@ffi.callback("gist_done_fn *")
def on_done(arg: Any, err: int, result: Any) -> None:
    ffi.from_handle(arg).on_done(err, result)


def _said(text: Any, length: int) -> str:
    return str((bytes(ffi.buffer(text, length)) if length else b"").decode(errors="replace"))


@ffi.callback("gist_text_fn *", error=1)
def on_text(arg: Any, text: Any, length: int, ids: Any, n_ids: int) -> int:
    return int(ffi.from_handle(arg).on_text(_said(text, length), ffi.unpack(ids, n_ids) if n_ids else []))


@ffi.callback("gist_logprob_fn *")
def on_logprob(arg: Any, token: Any) -> None:
    ffi.from_handle(arg).on_logprob(token)


@ffi.callback("gist_answers_fn *", error=1)
def on_answers(arg: Any, answer: int, text: Any, length: int, ids: Any, n_ids: int) -> int:
    taken = ffi.unpack(ids, n_ids) if n_ids else []
    return int(ffi.from_handle(arg).on_answers(answer, _said(text, length), taken))


@ffi.callback("gist_resumed_fn *")
def on_resumed(arg: Any, first: int) -> None:
    ffi.from_handle(arg).first = first


@ffi.callback("gist_answer_fn *")
def on_answer(arg: Any, answer: int, result: Any) -> None:
    ffi.from_handle(arg).on_answer(answer, result)


# What came of a request lives until it returns.
def _on_value(arg: Any, err: int, what: Any) -> None:
    ffi.from_handle(arg).on_value(err, what)


on_choices, on_score, on_embeddings = (ffi.callback(f"gist_{kind}_fn *")(_on_value)
                                       for kind in ("choices", "score", "embeddings"))


@ffi.callback("gist_progress_fn *")
def on_progress(arg: Any, n_read: int, n_tokens: int) -> None:
    ffi.from_handle(arg).on_progress(n_read, n_tokens)


@ffi.callback("gist_row_fn *", error=1)
def on_row(arg: Any, row: Any) -> int:
    ffi.from_handle(arg)(row)
    return 0
