"""The blocking client."""

from __future__ import annotations

import select
from types import TracebackType
from typing import Any, Callable, Iterator, List, Optional, Sequence, Type, Union
from weakref import WeakValueDictionary

from . import _lib
from ._lib import ffi, lib
from ._scores import Span, start_choices, start_embed, start_score
from ._types import (Answer, Attached, Choice, Embedding, GistError, Info, Kept, Logprob, Memory, MemoryLike,
                     MessageLike, Pooling, Priority, Reason, Result, Row, Sampling, Score, Ticket, TransportError,
                     Usage, error, from_struct, memory_struct, messages_struct, sampling_struct, text)

Progress = Callable[[int, int], None]


class _Several:
    """One of several answers, as it comes."""

    def __init__(self) -> None:
        self.text = ""
        self.reason = Reason.CUT
        self.stop: Optional[int] = None
        self.usage = Usage()


def _stop(result: Any) -> Optional[int]:
    return int(result.stop) - 1 if result.stop else None


class _Request:
    """One that was sent and is not answered yet."""

    def __init__(self, client: "Client", progress: Optional[Progress] = None) -> None:
        self.client = client
        self.handle = ffi.new_handle(self)
        self.number = ffi.new("uint64_t *")
        self.kept = Kept()
        self.progress = progress
        self.pieces: List[str] = []
        self.tokens: List[int] = []
        self.logprobs: List[Logprob] = []
        self.several: List[_Several] = []
        self.first = 0  # tokens of the answer before those that come
        self.take: Optional[Callable[[Any], Any]] = None  # makes value of what came
        self.value: Any = None
        self.done = False
        self.err = 0
        self.usage = Usage()
        self.reason = Reason.END_OF_TEXT
        self.stop: Optional[int] = None
        self.failure: Optional[BaseException] = None  # in somebody's callback
        self.error: Optional[BaseException] = None  # of the request, kept before another one has its own
        self.on_end: Optional[Callable[[], None]] = None
        self.on_piece: Optional[Callable[[str, List[int]], None]] = None

    def on_done(self, err: int, result: Any) -> None:
        self.done, self.err = True, err
        try:
            if result:  # also of an answer that was cut
                self.usage = from_struct(Usage, result.usage)
                self.reason = Reason(result.reason)
                self.stop = _stop(result)
            if err < 0:
                self.error = self.failure or self.client._error(err)
        except BaseException as e:  # a reason of a later library, or Ctrl-C: whoever waits has to hear of it
            self.failure = e
        finally:
            self.client._requests.discard(self)
            if self.on_end:
                self.on_end()

    def on_value(self, err: int, what: Any) -> None:
        try:
            if what and self.take:
                self.value = self.take(what)
        except BaseException as e:
            self.failure = e
        self.on_done(err, ffi.NULL)

    def on_logprob(self, token: Any) -> None:
        top = tuple((token.top_ids[i], token.top_logprobs[i]) for i in range(token.n_top))
        self.logprobs.append(Logprob(token.id, token.logprob, top, token.answer))

    def on_answers(self, answer: int, said: str, ids: List[int]) -> int:
        if not self.several:  # one that goes on: a stream's
            return self.on_text(said, ids)
        self.several[answer].text += said
        return 0

    def on_answer(self, answer: int, result: Any) -> None:
        try:
            if result and self.several:
                self.several[answer].reason = Reason(result.reason)
                self.several[answer].stop = _stop(result)
                self.several[answer].usage = from_struct(Usage, result.usage)
        except BaseException as e:
            self.failure = e

    def on_text(self, said: str, ids: List[int]) -> int:
        self.tokens += ids
        if self.on_piece:
            self.on_piece(said, ids)
        else:
            self.pieces.append(said)
        return 0

    def on_progress(self, n_read: int, n_tokens: int) -> None:
        if self.progress and self.failure is None:
            try:
                self.progress(n_read, n_tokens)
            except BaseException as e:
                self.failure = e
                lib.gist_cancel(self.client._conn, self.number[0])

    def finish(self) -> None:
        """Raises what went wrong."""
        if self.error:
            raise self.error
        if self.failure:
            raise self.failure


class Client:
    """A connection to gistd. Use it in one thread at a time.

    path None: $GISTD_SOCKET, the user's own daemon, the machine's. timeout: seconds, None for ever.
    """

    def __init__(self, path: Optional[str] = None, *, name: Optional[str] = None, timeout: Optional[float] = 60.0,
                 any_server: bool = False) -> None:
        kept = Kept()
        opts = kept.new("struct gist_connect_opts *", {
            "size": ffi.sizeof("struct gist_connect_opts"),
            "path": kept.chars(path),
            "name": kept.chars(name),
            "timeout_ms": -1 if timeout is None else max(1, int(timeout * 1000)),
            "flags": lib.GIST_ANY_SERVER if any_server else 0,
        })
        conn = ffi.new("gist_conn **")
        err = lib.gist_connect_with_sized(_lib.sizes(), opts, conn)
        self._conn: Any = ffi.NULL
        self._requests: "set[_Request]" = set()
        self._sessions: "WeakValueDictionary[int, Session]" = WeakValueDictionary()  # by where libgist has them
        self._dead = False
        if err < 0:
            raise self._error(err)
        self._conn = conn[0]

    def _error(self, err: int) -> GistError:
        return error(lib.gist_error_code(self._conn), text(lib.gist_error(self._conn)), err)

    def _check(self, err: int) -> int:
        if err < 0:
            raise self._error(err)
        return err

    def _open(self) -> Any:
        if self._conn == ffi.NULL:
            raise ValueError("the client is closed")
        return self._conn

    def close(self) -> None:
        """Ends its sessions, too."""
        conn, self._conn = self._conn, ffi.NULL
        if conn != ffi.NULL:
            lib.gist_disconnect(conn)
        self._end_all(TransportError("the connection was closed"))

    def _end_all(self, failure: GistError) -> None:
        for request in list(self._requests):
            request.error, request.done = request.error or failure, True
            self._requests.discard(request)
            if request.on_end:
                request.on_end()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    # --- requests ------------------------------------------------------------------------------------------------

    def _start(self, request: _Request, err: int) -> _Request:
        self._check(err)
        self._requests.add(request)
        return request

    def fileno(self) -> int:
        """Readable when dispatch() has something to do."""
        return int(lib.gist_fd(self._open()))

    def dispatch(self) -> None:
        """Handles what is there; for programs with a loop of their own."""
        err = lib.gist_dispatch(self._open())
        if err < 0:
            self._dead = True
            self._end_all(self._error(err))

    def _wait(self, until: Callable[[], bool]) -> None:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while not until():
            poll.poll()
            self.dispatch()

    def _result(self, request: _Request) -> _Request:
        try:
            self._wait(lambda: request.done)
        except BaseException:
            self._cancel(request)
            raise
        request.finish()
        return request

    def _cancel(self, request: _Request) -> None:
        """Until it has ended: its session is free then."""
        if not request.done and self._conn != ffi.NULL:
            lib.gist_cancel(self._conn, request.number[0])
            self._wait(lambda: request.done)

    # --- sessions ------------------------------------------------------------------------------------------------

    def open(self, *, memory: MemoryLike = "auto", documents: Sequence[str] = (), label: Optional[str] = None,
             priority: Priority = Priority.INTERACTIVE, segment: Optional[int] = None, private: bool = False,
             public: bool = False, realm: Optional[str] = None) -> "Session":
        """A new session. It begins with the documents; theirs is the memory then. realm: sessions of one take over
        what others of it have read, and nothing of any other's (struct gist_policy)."""
        kept = Kept()
        auto = memory == "auto" and not documents
        flags = (lib.GIST_PRIVATE if private else 0) | (lib.GIST_PUBLIC if public else 0)
        flags |= (lib.GIST_AUTO if auto else 0) | (lib.GIST_SET_SEGMENT if segment is not None else 0)
        policy = kept.new("struct gist_policy *", {
            "size": ffi.sizeof("struct gist_policy"),
            "segment": segment or 0,
            "priority": priority,
            "label": kept.chars(label),
            "memory": memory_struct(memory, kept),
            "flags": flags,
            "documents": kept.list_of_chars(documents),
            "n_documents": len(documents),
            "realm": kept.chars(realm),
        })
        session = ffi.new("gist_session **")
        self._check(lib.gist_open(self._open(), policy, session))
        return Session(self, session[0])

    def attach(self, token: Union[bytes, str], *, realm: Optional[str] = None) -> "Session":
        """The session that Session.keep() gave this token of, bytes or their hexadecimal digits, which from here on
        is this client's; `attached` says how far it is, resume() goes on with its answer. realm: the one that it was
        opened with. NotFound: the token is wrong, its time is over, or the daemon was started again."""
        token = bytes.fromhex(token) if isinstance(token, str) else bytes(token)
        if len(token) != lib.GIST_TOKEN_BYTES:
            raise ValueError(f"the token has {len(token)} bytes: those of Session.keep() have {lib.GIST_TOKEN_BYTES}")
        kept = Kept()
        session = ffi.new("gist_session **")
        at = ffi.new("struct gist_attached *", {"size": ffi.sizeof("struct gist_attached")})
        self._check(lib.gist_attach(self._open(), token, kept.chars(realm), session, at))
        # One that this client has already is the same one.
        s = self._sessions.get(_address(session[0])) or Session(self, session[0])
        s.attached = from_struct(Attached, at)
        s._answering = s.attached.answers
        return s

    def restore(self, name: str, *, label: Optional[str] = None) -> "Session":
        """A session that stands where the saved one did."""
        kept = Kept()
        session = ffi.new("gist_session **")
        self._check(lib.gist_restore(self._open(), kept.chars(name), kept.chars(label), session))
        return Session(self, session[0])

    def sessions(self) -> List[Row]:
        """Those that were saved."""
        return self._rows(lib.GIST_SESSIONS)

    def delete_session(self, name: str) -> None:
        self._check(lib.gist_delete(self._open(), lib.GIST_SESSIONS, name.encode()))

    # --- documents -----------------------------------------------------------------------------------------------

    def add_document(self, name: str, said: str, *, memory: MemoryLike = "full", role: Optional[str] = None,
                     segment: Optional[int] = None, priority: Priority = Priority.INTERACTIVE, pin: bool = False,
                     plain: bool = False, replace: bool = False, public: bool = False,
                     progress: Optional[Progress] = None) -> Usage:
        """A text that sessions begin with (open(documents=[name])): it is read once, here. memory "auto" takes texts
        of any length; documents of which several begin one session are kept "full"."""
        return self._result(self._add_document(name, said, memory, role, segment, priority, pin, plain, replace,
                                               public, progress)).usage

    def _add_document(self, name: str, said: str, memory: MemoryLike, role: Optional[str], segment: Optional[int],
                      priority: Priority, pin: bool, plain: bool, replace: bool, public: bool,
                      progress: Optional[Progress]) -> _Request:
        request = _Request(self, progress)
        kept, data = request.kept, said.encode()
        flags = (lib.GIST_PIN if pin else 0) | (lib.GIST_PLAIN if plain else 0)
        flags |= (lib.GIST_REPLACE if replace else 0) | (lib.GIST_PUBLIC if public else 0)
        flags |= lib.GIST_SET_SEGMENT if segment is not None else 0
        document = kept.new("struct gist_document *", {
            "size": ffi.sizeof("struct gist_document"),
            "segment": segment or 0,
            "memory": memory_struct(Memory("auto") if memory == "auto" else memory, kept),
            "priority": priority,
            "role": kept.chars(role),
            "on_progress": _lib.on_progress if progress else ffi.NULL,
            "arg": request.handle,
            "flags": flags,
        })
        return self._start(request, lib.gist_document_add_start(self._open(), name.encode(), data, len(data), document,
                                                                _lib.on_done, request.handle, request.number))

    def documents(self) -> List[Row]:
        return self._rows(lib.GIST_DOCUMENTS)

    def delete_document(self, name: str) -> None:
        self._check(lib.gist_delete(self._open(), lib.GIST_DOCUMENTS, name.encode()))

    def _rows(self, kind: int) -> List[Row]:
        rows: List[Row] = []
        handle = ffi.new_handle(lambda row: rows.append(from_struct(Row, row)))
        self._check(lib.gist_list(self._open(), kind, _lib.on_row, handle))
        return rows

    # --- without a session ---------------------------------------------------------------------------------------

    @property
    def info(self) -> Info:
        info = ffi.new("struct gist_info *")
        lib.gist_info(self._open(), info)
        return from_struct(Info, info)

    def ping(self) -> None:
        self._check(lib.gist_ping(self._open()))

    def set_deadline(self, seconds: Optional[float]) -> None:
        """Requests that are made from now on end with DeadlineExceeded when they have not ended by themselves so long
        after they reached the daemon. None: none does."""
        if seconds is not None and seconds <= 0:
            raise ValueError(f"a deadline of {seconds} seconds is over already: give more than 0, or None for none")
        self._check(lib.gist_set_deadline(self._open(), 0 if seconds is None else max(1, int(seconds * 1000))))

    def score(self, what: Span, *, window: Optional[int] = None, segment: Optional[int] = None,
              memory: Optional[MemoryLike] = None) -> Score:
        """Log-probabilities of a text's own tokens, in windows that do not overlap."""
        score: Score = self._result(self._score(what, window, segment, memory)).value
        return score

    def _score(self, what: Span, window: Optional[int], segment: Optional[int],
               memory: Optional[MemoryLike]) -> _Request:
        request = _Request(self)
        return self._start(request, start_score(request, self._open(), what, window, segment, memory))

    def embed(self, texts: Sequence[Span], *, pooling: Pooling = Pooling.MEAN, normalise: bool = True,
              priority: Priority = Priority.INTERACTIVE) -> List[Embedding]:
        """A vector for each text, read from nothing and alone."""
        rows: List[Embedding] = self._result(self._embed(texts, pooling, normalise, priority)).value
        return rows

    def _embed(self, texts: Sequence[Span], pooling: Pooling, normalise: bool, priority: Priority) -> _Request:
        request = _Request(self)
        return self._start(request, start_embed(request, self._open(), texts, pooling, normalise, priority))

    def tokenize(self, said: str, *, special: bool = False) -> List[int]:
        data = said.encode()
        ids, n = ffi.new("uint32_t **"), ffi.new("size_t *")
        self._check(lib.gist_tokenize(self._open(), data, len(data), lib.GIST_SPECIAL if special else 0, ids, n))
        try:
            return list(ffi.unpack(ids[0], n[0])) if n[0] else []
        finally:
            lib.free(ids[0])

    def detokenize(self, ids: Sequence[int]) -> str:
        said, n = ffi.new("char **"), ffi.new("size_t *")
        self._check(lib.gist_detokenize(self._open(), ffi.new("uint32_t[]", list(ids)), len(ids), said, n))
        try:
            return bytes(ffi.buffer(said[0], n[0])).decode(errors="replace")
        finally:
            lib.free(said[0])


class Session:
    """A growing text in the daemon: append to it, generate from it, append again. Nothing is read twice."""

    def __init__(self, client: Client, session: Any) -> None:
        self.client = client
        self._session: Any = session
        self._left: Optional[_Request] = None  # an answer that was left early, and is being ended
        self._answering = 0  # how many answers the last request was for
        self.attached: Optional[Attached] = None  # of one that was come back to
        client._sessions[_address(session)] = self
        usage = ffi.new("struct gist_usage *")
        lib.gist_session_usage(session, usage)
        self.usage = from_struct(Usage, usage)  # of what opened it, then of the last request

    def _open(self) -> Any:
        self.client._open()
        if self._session == ffi.NULL:
            raise ValueError("the session is closed")
        return self._session

    def _idle(self) -> Any:
        """The session, when it is not at work on what nobody wants any more."""
        session = self._open()
        left, self._left = self._left, None
        if left:
            self.client._cancel(left)
        return session

    @property
    def id(self) -> int:
        return int(lib.gist_session_id(self._open()))

    def close(self) -> None:
        session, self._session = self._session, ffi.NULL
        if session != ffi.NULL and self.client._conn != ffi.NULL:
            self.client._sessions.pop(_address(session), None)
            lib.gist_close(session)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    # --- reading -------------------------------------------------------------------------------------------------

    def append(self, what: Union[str, Sequence[MessageLike]], *, answer: bool = False, special: bool = False,
               progress: Optional[Progress] = None) -> Usage:
        """A text, or chat messages: ("user", "...") or {"role": "user", "content": "..."}.

        answer: messages end with the head of the assistant's turn, so that generate() answers.
        """
        request = self.client._result(self._append(what, answer, special, progress))
        self.usage = request.usage
        return self.usage

    def _append(self, what: Union[str, Sequence[MessageLike]], answer: bool, special: bool,
                progress: Optional[Progress]) -> _Request:
        request, session = _Request(self.client, progress), self._idle()
        lib.gist_on_progress(session, _lib.on_progress if progress else ffi.NULL, request.handle)
        if isinstance(what, str):
            data = what.encode()
            err = lib.gist_append_text_start(session, data, len(data), lib.GIST_SPECIAL if special else 0, _lib.on_done,
                                             request.handle, request.number)
        else:
            err = lib.gist_append_chat_start(session, messages_struct(what, request.kept), len(what),
                                             lib.GIST_OPEN_ANSWER if answer else 0, _lib.on_done, request.handle,
                                             request.number)
        return self.client._start(request, err)

    def append_tokens(self, ids: Sequence[int]) -> Usage:
        self.usage = self.client._result(self._append_tokens(ids)).usage
        return self.usage

    def _append_tokens(self, ids: Sequence[int]) -> _Request:
        request, session = _Request(self.client), self._idle()
        lib.gist_on_progress(session, ffi.NULL, ffi.NULL)
        err = lib.gist_append_tokens_start(session, ffi.new("uint32_t[]", list(ids)), len(ids), _lib.on_done,
                                           request.handle, request.number)
        return self.client._start(request, err)

    # --- writing -------------------------------------------------------------------------------------------------

    def generate(self, sampling: Optional[Sampling] = None, **options: Any) -> "Stream":
        """The model goes on: an iterator of pieces of text. Options are Sampling's. Leaving the iterator early ends
        the answer; what was said stays in the session."""
        return Stream(self, self._generate(_sampling(sampling, options)))

    def _generate(self, sampling: Sampling) -> _Request:
        request = _Request(self.client)
        self._answering = 1
        err = lib.gist_generate_start(self._idle(), sampling_struct(sampling, request.kept), _lib.on_text, _lib.on_done,
                                      request.handle, request.number)
        return self.client._start(request, err)

    def answers(self, n: int, sampling: Optional[Sampling] = None, **options: Any) -> List[Answer]:
        """n answers to what stands here, written at once, each with a seed of its own: the session stays as it is."""
        return self._take_several(self.client._result(self._answers(n, _sampling(sampling, options))))

    def _answers(self, n: int, sampling: Sampling) -> _Request:
        request = _Request(self.client)
        request.several = [_Several() for _ in range(n)]
        self._answering = n
        err = lib.gist_generate_several_start(self._idle(), sampling_struct(sampling, request.kept), n,
                                              _lib.on_answers, _lib.on_answer, _lib.on_done, request.handle,
                                              request.number)
        return self.client._start(request, err)

    def _take_several(self, request: _Request) -> List[Answer]:
        logprobs = [[t for t in request.logprobs if t.answer == i] for i in range(len(request.several))]
        return [Answer(a.text, a.reason, a.usage, self.usage, mine, a.stop)
                for a, mine in zip(request.several, logprobs)]

    def score(self, choices: Sequence[Span], *, special: bool = False) -> List[Choice]:
        """How likely each of several continuations is, behind where the session stands: it stays as it is."""
        choice: List[Choice] = self.client._result(self._score(choices, special)).value
        return choice

    def _score(self, choices: Sequence[Span], special: bool) -> _Request:
        request = _Request(self.client)
        return self.client._start(request, start_choices(request, self._idle(), choices, special))

    def ask(self, question: str, sampling: Optional[Sampling] = None, *, system: Optional[str] = None,
            **options: Any) -> Answer:
        """The whole answer to a user's message, or to a text where the model has no chat template."""
        asked = self.append(self._question(question, system), answer=True)
        with self.generate(sampling, **options) as stream:
            said = "".join(stream)
        return Answer(said, stream.result.reason, stream.result.usage, asked, stream.logprobs, stream.result.stop)

    def _question(self, question: str, system: Optional[str]) -> Union[str, Sequence[MessageLike]]:
        if not self.client.info.chat:
            return question if system is None else system + "\n\n" + question
        return [*([("system", system)] if system is not None else []), ("user", question)]

    # --- behind the end of its connection ------------------------------------------------------------------------

    def keep(self, seconds: int = 0) -> Ticket:
        """From now on the session stays for so many seconds (0: the most that the daemon allows) when its connection
        ends, by Client.close() as by kill -9, and an answer that it writes goes on: Client.attach(ticket.token), of
        another process too, comes back to it. close() ends it as ever. Not while it is at work; asked once more it
        has another token, and the one before is good for nothing."""
        kept = ffi.new("struct gist_kept *", {"size": ffi.sizeof("struct gist_kept")})
        self.client._check(lib.gist_keep(self._idle(), seconds, kept))
        return Ticket(bytes(ffi.buffer(kept.token)), kept.seconds, kept.bytes)

    def resume(self, start: Optional[int] = 0) -> "Stream":
        """The answer of a session that was come back to: what there is of it behind its first `start` tokens, then
        the rest as it is written. None: what the connection before had not read; what it had, its program need not
        have seen. Stream.first: where it begins, later than asked for where the daemon has no more."""
        return Stream(self, self._resume(start))

    def _resume(self, start: Optional[int], several: bool = False) -> _Request:
        if not several and self._answering > 1:
            raise ValueError(f"the session wrote {self._answering} answers at once: resume_answers() has them")
        request = _Request(self.client)
        request.several = [_Several() for _ in range(self._answering)] if several else []
        how = request.kept.new("struct gist_resume *", {
            "size": ffi.sizeof("struct gist_resume"),
            "from": start or 0,
            "flags": lib.GIST_SET_FROM if start is not None else 0,
            "on_resumed": _lib.on_resumed,
            "on_answer": _lib.on_answer,
            "on_logprob": _lib.on_logprob,
        })
        err = lib.gist_resume_start(self._idle(), how, _lib.on_answers, _lib.on_done, request.handle, request.number)
        return self.client._start(request, err)

    def resume_answers(self) -> List[Answer]:
        """What answers() of a session that was come back to would have given."""
        return self._take_several(self.client._result(self._resume(0, True)))

    # --- where it stands -----------------------------------------------------------------------------------------

    def fork(self, label: Optional[str] = None) -> "Session":
        """Another session that goes on from here; memory is shared."""
        kept = Kept()
        session = ffi.new("gist_session **")
        self.client._check(lib.gist_fork(self._idle(), kept.chars(label), session))
        fork = Session(self.client, session[0])
        fork.usage = self.usage
        return fork

    def rewind(self, n_tokens: int) -> None:
        """Back to its first n_tokens, of usage.prompt_tokens."""
        self.client._check(lib.gist_rewind(self._idle(), n_tokens))

    def save(self, name: str, *, replace: bool = False) -> None:
        """Keeps where it stands, on disk, for Client.restore()."""
        self.client._check(lib.gist_save(self._idle(), name.encode(), lib.GIST_REPLACE if replace else 0))


class Stream:
    """An answer that is being written. result and tokens are there when it has ended."""

    def __init__(self, session: Session, request: _Request) -> None:
        self.session = session
        self._request = request

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        request, client = self._request, self.session.client
        try:
            client._wait(lambda: bool(request.pieces) or request.done)
        except BaseException:
            self.close()
            raise
        if request.pieces:
            return request.pieces.pop(0)
        request.finish()
        self.session.usage = request.usage
        raise StopIteration

    @property
    def tokens(self) -> List[int]:
        return list(self._request.tokens)

    @property
    def first(self) -> int:
        """Tokens of the answer before those that come here: of one that was resumed."""
        return self._request.first

    @property
    def logprobs(self) -> List[Logprob]:
        """Of the tokens so far, when Sampling.logprobs asks for them."""
        return list(self._request.logprobs)

    @property
    def result(self) -> Result:
        if not self._request.done:
            raise ValueError("the answer has not ended")
        self._request.finish()
        return Result(self._request.reason, self._request.usage, self._request.stop)

    def close(self) -> None:
        """Ends the answer, if it has not ended."""
        self.session.client._cancel(self._request)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def __del__(self) -> None:
        # `for piece in session.generate(): break` drops it: without this the session would stay busy.
        request = self._request
        if not request.done and request.client._conn != ffi.NULL:
            lib.gist_cancel(request.client._conn, request.number[0])
            self.session._left = request


def _address(session: Any) -> int:
    return int(ffi.cast("uintptr_t", session))


def _sampling(sampling: Optional[Sampling], options: Any) -> Sampling:
    if sampling is not None and options:
        raise TypeError("give a Sampling or its fields, not both")
    return sampling if sampling is not None else Sampling(**options)
