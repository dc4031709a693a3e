"""What is said to gistd and what comes back, as plain objects."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar, Union

from ._lib import ffi, lib, on_logprob


class Code(IntEnum):
    """The daemon's codes of errors (gist.h)."""

    OK = 0
    TRANSPORT = 1
    INTERNAL = 2
    BAD_REQUEST = 3
    NOT_FOUND = 4
    BUSY = 5
    CONTEXT_LENGTH_EXCEEDED = 6
    POOL_FULL = 7
    LIMIT = 8
    CANCELLED = 9
    UNSUPPORTED = 10
    SHUTTING_DOWN = 11
    NO_MEMORY = 12
    NAME_EXISTS = 13
    WRONG_MODEL = 14
    STORAGE = 15
    DEADLINE = 16


class GistError(Exception):
    """What went wrong, in libgist's own sentence. `errno` is its negative return value."""

    code = Code.INTERNAL
    errno: Optional[int]

    def __init__(self, sentence: str, errno: int = 0) -> None:
        super().__init__(sentence)
        self.errno = errno


class TransportError(GistError, ConnectionError):
    """There is no daemon, it died, or it refused the connection."""

    code = Code.TRANSPORT


class InternalError(GistError):
    code = Code.INTERNAL


class BadRequest(GistError, ValueError):
    code = Code.BAD_REQUEST


class NotFound(GistError, LookupError):
    code = Code.NOT_FOUND


class Busy(GistError):
    """The session is at work."""

    code = Code.BUSY


class ContextLengthExceeded(GistError):
    code = Code.CONTEXT_LENGTH_EXCEEDED


class PoolFull(GistError):
    """The daemon has no page left."""

    code = Code.POOL_FULL


class LimitReached(GistError):
    """A limit that the daemon sets each client or user."""

    code = Code.LIMIT


class Cancelled(GistError):
    code = Code.CANCELLED


class Unsupported(GistError):
    code = Code.UNSUPPORTED


class ShuttingDown(GistError):
    code = Code.SHUTTING_DOWN


class NoMemory(GistError, MemoryError):
    code = Code.NO_MEMORY


class NameExists(GistError):
    """The name is taken; replace=True takes it over."""

    code = Code.NAME_EXISTS


class WrongModel(GistError):
    """It was saved with another model or adapter."""

    code = Code.WRONG_MODEL


class StorageError(GistError):
    """The daemon's store is off, or its disk fails."""

    code = Code.STORAGE


class DeadlineExceeded(GistError, TimeoutError):
    """The time that the client gives its requests is over."""

    code = Code.DEADLINE


_ERRORS: "dict[int, Type[GistError]]" = {c.code: c for c in GistError.__subclasses__()}


def error(code: int, sentence: str, errno: int) -> GistError:
    return _ERRORS.get(code, GistError)(sentence, errno)


class Priority(IntEnum):
    INTERACTIVE = 0
    BACKGROUND = 1


class Reason(IntEnum):
    """Why an answer ended."""

    END_OF_TEXT = 0
    STOP = 1
    LENGTH = 2
    CONTEXT_FULL = 3
    POOL_FULL = 4
    CANCELLED = 5
    CUT = 6  # with an error, or for what only a later library has a name


class State(IntEnum):
    """Of something that has a name."""

    READY = 0
    READING = 1
    OTHER_MODEL = 2
    DAMAGED = 3


class Pooling(IntEnum):
    """What becomes of a text's tokens in its embedding."""

    MEAN = 0
    LAST = 1


T = TypeVar("T")


def text(chars: Any) -> str:
    return str(ffi.string(chars).decode(errors="replace")) if chars else ""


def from_struct(cls: Type[T], struct: Any) -> T:
    """A dataclass whose fields have the struct's names."""
    values = {}
    for f in fields(cls):  # type: ignore[arg-type]
        value = getattr(struct, f.name)
        if isinstance(value, ffi.CData):
            value = tuple(value) if ffi.typeof(value).kind == "array" else text(value)
        elif f.type == "bool":
            value = bool(value)
        elif f.type == "State":
            value = State(value)
        values[f.name] = value
    return cls(**values)


@dataclass(frozen=True)
class Usage:
    """What a request took, and what an answer stands on."""

    prompt_tokens: int = 0  # in the session now
    computed_tokens: int = 0  # read by this request
    generated_tokens: int = 0
    prompt_ns: int = 0
    first_token_ns: int = 0
    generate_ns: int = 0
    raw_tokens: int = 0  # of prompt_tokens: there as they are
    gist_tokens: int = 0  # and there as gists,
    gists: int = 0  # keys that stand for them
    shared_tokens: int = 0  # not computed: an earlier session had read them
    restored_tokens: int = 0  # not computed: they came back from the disk
    approximate_tokens: int = 0  # of documents that were read alone
    hydrated_tokens: int = 0  # of raw_tokens: brought back for this prompt
    hydrated_disk_tokens: int = 0  # of these: from the disk
    recomputed_tokens: int = 0  # of these: computed again
    missed_tokens: int = 0  # the prompt points to them, but they can't come back
    ratio: int = 0  # tokens a gist stands for at first; 0: there are none
    at_ratio: Tuple[int, ...] = ()  # of gist_tokens: at that ratio, at twice, four times it
    drafted_tokens: int = 0  # guessed ahead
    accepted_tokens: int = 0  # and right: each a step of the model less


@dataclass(frozen=True)
class Result:
    """How an answer ended."""

    reason: Reason
    usage: Usage
    stop: Optional[int] = None  # with Reason.STOP: which of Sampling.stop, from 0; None: an older daemon does not say


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    text: str
    reason: Reason
    usage: Usage
    asked: Usage  # what reading the question took
    logprobs: Sequence[Logprob] = ()  # when Sampling.logprobs asks for them
    stop: Optional[int] = None  # as in Result

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Logprob:
    """A token and the natural logarithm of its probability, before penalties, temperature and grammar."""

    id: int
    logprob: float
    top: Tuple[Tuple[int, float], ...] = ()  # the likeliest in its place, from the likeliest on
    answer: int = 0  # of which answer


@dataclass(frozen=True)
class Choice:
    """How likely the model finds a continuation."""

    ids: Tuple[int, ...]
    logprobs: Tuple[float, ...]  # of each id
    sum: float

    @property
    def mean(self) -> float:
        """A token: what to compare continuations of different lengths by."""
        return self.sum / len(self.ids) if self.ids else float("-inf")


@dataclass(frozen=True)
class Score:
    """Log-probabilities of a text's own tokens; the first of each window has none (nan)."""

    ids: Tuple[int, ...]
    logprobs: Tuple[float, ...]
    usage: Usage


@dataclass(frozen=True)
class Embedding:
    """A text's vector; numpy.asarray(vector) copies nothing."""

    vector: "array[float]"
    n_tokens: int


@dataclass(frozen=True)
class Info:
    """The daemon and its model."""

    version: str
    model: str
    model_digest: str
    n_vocab: int
    context_max: int
    segment_default: int
    chat: bool  # a known chat template


@dataclass(frozen=True)
class Ticket:
    """What it takes to come back to a session (Session.keep). Who has the token, and is of this user, has the session:
    it is kept as a password is."""

    token: bytes
    seconds: int  # how long the session stays behind its connection
    max_bytes: int  # of an answer that nobody reads; then it waits


@dataclass(frozen=True)
class Attached:
    """A session that was come back to, and the last answer of it."""

    n_tokens: int  # of the session
    answers: int  # of the last request for some; 0: there is none to resume
    first: int  # tokens of the answer that can't be had again,
    unread: int  # that the connection before had read,
    written: int  # that there are by now
    seconds: int  # as in Ticket


@dataclass(frozen=True)
class Row:
    """A saved session or a document."""

    name: str
    label: str
    model: str  # that it was saved with
    state: State
    n_tokens: int
    n_read: int
    pinned: bool
    kept: bool  # on disk; else it goes with the daemon
    at_s: int  # when it was saved or added, seconds since 1970
    bytes: int


@dataclass(frozen=True)
class Memory:
    """What becomes of old context (gist.h, struct gist_memory). None: the daemon's choice."""

    compressor: str = "full"
    ratio: Optional[int] = None
    sinks: Optional[int] = None
    keep_tail: int = 0
    adapter: Optional[str] = None
    budget: Optional[int] = None
    hydrate: Optional[int] = None
    late: bool = False
    fixed: bool = False


MemoryLike = Union[str, Memory]
Message = Tuple[str, str]  # role, text
MessageLike = Union[Message, Mapping[str, str]]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the defaults are greedy, until the model ends its answer."""

    max_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: Optional[float] = None
    min_p: float = 0.0
    repeat_penalty: Optional[float] = None
    repeat_last_n: int = 0
    seed: int = 0
    stop: Sequence[str] = ()  # the one that is complete first ends the answer
    ignore_eog: bool = False
    grammar: Optional[str] = None  # GBNF
    schema: Optional[str] = None  # JSON Schema
    draft: Optional[int] = None  # tokens guessed ahead, 15 at most; the answer is the same. None: as the daemon does
    logprobs: Optional[int] = None  # of each token, and of so many of the likeliest in its place, 20 at most


class Kept:
    """C memory that a struct points to, as long as the struct is used."""

    def __init__(self) -> None:
        self.all: List[Any] = []

    def new(self, ctype: str, value: Any = None) -> Any:
        self.all.append(ffi.new(ctype, value))
        return self.all[-1]

    def chars(self, value: Optional[str]) -> Any:
        return ffi.NULL if value is None else self.new("char[]", value.encode())

    def list_of_chars(self, values: Sequence[str]) -> Any:
        return self.new("const char *[]", [self.chars(v) for v in values]) if values else ffi.NULL


_COMPRESSORS = {text(lib.gist_compressor_name(i)): i for i in range(64) if lib.gist_compressor_name(i)}


def memory_struct(memory: MemoryLike, kept: Kept) -> Any:
    """struct gist_memory, or NULL for "auto", which gist_policy.flags says."""
    if memory == "auto":
        return ffi.NULL
    m = Memory(memory) if isinstance(memory, str) else memory
    if m.compressor != "auto" and m.compressor not in _COMPRESSORS:
        raise ValueError(f"there is no compressor {m.compressor!r}: auto, {', '.join(_COMPRESSORS)} are")
    flags = (lib.GIST_LATE if m.late else 0) | (lib.GIST_FIXED if m.fixed else 0)
    flags |= lib.GIST_AUTO if m.compressor == "auto" else 0
    for value, flag in ((m.ratio, lib.GIST_SET_RATIO), (m.sinks, lib.GIST_SET_SINKS),
                        (m.budget, lib.GIST_SET_BUDGET), (m.hydrate, lib.GIST_SET_HYDRATE)):
        flags |= flag if value is not None else 0
    return kept.new("struct gist_memory *", {
        "size": ffi.sizeof("struct gist_memory"),
        "compressor": _COMPRESSORS.get(m.compressor, 0),
        "ratio": m.ratio or 0,
        "sinks": m.sinks or 0,
        "keep_tail": m.keep_tail,
        "adapter": kept.chars(m.adapter),
        "budget": m.budget or 0,
        "hydrate": m.hydrate or 0,
        "flags": flags,
    })


def sampling_struct(s: Sampling, kept: Kept) -> Any:
    if s.grammar is not None and s.schema is not None:
        raise ValueError("an answer has a grammar or a schema, not both")
    form = s.grammar if s.grammar is not None else s.schema
    grammar = form.encode() if form is not None else b""
    flags = lib.GIST_SET_TOP_P if s.top_p is not None else 0
    flags |= lib.GIST_SET_REPEAT_PENALTY if s.repeat_penalty is not None else 0
    flags |= lib.GIST_SET_DRAFT if s.draft is not None else 0
    flags |= lib.GIST_SET_LOGPROBS if s.logprobs is not None else 0
    return kept.new("struct gist_sampling *", {
        "size": ffi.sizeof("struct gist_sampling"),
        "max_tokens": s.max_tokens,
        "temperature": s.temperature,
        "top_k": s.top_k,
        "top_p": s.top_p or 0.0,
        "min_p": s.min_p,
        "repeat_penalty": s.repeat_penalty or 0.0,
        "repeat_last_n": s.repeat_last_n,
        "seed": s.seed,
        "stop": kept.list_of_chars(s.stop),
        "n_stop": len(s.stop),
        "ignore_eog": s.ignore_eog,
        "flags": flags,
        "grammar": lib.GIST_GBNF if s.grammar is not None else lib.GIST_JSON_SCHEMA if form is not None else 0,
        "grammar_text": kept.new("char[]", grammar) if form is not None else ffi.NULL,
        "grammar_len": len(grammar),
        "draft": s.draft or 0,
        "logprobs": s.logprobs or 0,
        "on_logprob": on_logprob if s.logprobs is not None else ffi.NULL,
    })


def messages_struct(messages: Sequence[MessageLike], kept: Kept) -> Any:
    pairs = [(m["role"], m["content"]) if isinstance(m, Mapping) else m for m in messages]
    return kept.new("struct gist_message[]", [(kept.chars(role), kept.chars(said)) for role, said in pairs])
