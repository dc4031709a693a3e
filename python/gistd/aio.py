"""The client for asyncio. A thread of its own has the connection, and the loop is never held up."""

from __future__ import annotations

import asyncio
import os
import queue
import select
import threading
from types import TracebackType
from typing import Any, AsyncIterator, Callable, List, Optional, Sequence, Type, TypeVar, Union

from ._client import Client, Progress, Session, _Request, _sampling
from ._scores import Span
from ._types import (Answer, Attached, Choice, Embedding, Info, Logprob, MemoryLike, MessageLike, Pooling, Priority,
                     Result, Row, Sampling, Score, Ticket, Usage)

T = TypeVar("T")


class AsyncClient:
    """`async with await AsyncClient.connect() as client`: as Client, with coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: "queue.SimpleQueue[Optional[Callable[[], None]]]" = queue.SimpleQueue()
        self._lock = threading.Lock()  # of the two: a number that is closed may be another file's
        self._bell, self._ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="gistd", daemon=True)
        self._client: Optional[Client] = None
        self._closed = False

    @classmethod
    async def connect(cls, path: Optional[str] = None, **options: Any) -> "AsyncClient":
        """Options are Client's."""
        self = cls()
        self._thread.start()

        def make() -> None:
            self._client = Client(path, **options)

        try:
            await self._call(make)
        except Exception:
            await self.close()
            raise
        except BaseException:
            self._end()  # make() may wait on for a daemon that loads its model; nobody waits for make()
            raise
        return self

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        watched = -1
        while self._work():
            if self._client and watched < 0:
                watched = self._client.fileno()
                poll.register(watched, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            if self._bell in ready:
                os.read(self._bell, 4096)
            if self._client and watched in ready:
                self._client.dispatch()
                if self._client._dead:  # it would be readable for ever
                    poll.unregister(watched)
        if self._client:
            self._client.close()
        with self._lock:
            os.close(self._bell)
            os.close(self._ring)

    def _work(self) -> bool:
        """What was posted; False: the last of it was the end."""
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is None:
                return False
            job()
        return True

    def _post(self, job: Optional[Callable[[], None]]) -> None:
        with self._lock:
            self._jobs.put(job)
            try:
                os.write(self._ring, b"1")
            except BlockingIOError:
                pass  # it rings already

    def _tell(self, call: Callable[..., Any], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _call(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """work() in the thread."""
        if self._closed:
            raise ValueError("the client is closed")
        future: "asyncio.Future[T]" = self._loop.create_future()

        def settle(set_it: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                set_it(value)

        def job() -> None:
            try:
                value = work()
            except BaseException as e:
                self._tell(settle, future.set_exception, e)
            else:
                self._tell(settle, future.set_result, value)

        self._post(job)
        return future

    async def _request(self, start: Callable[[], _Request], progress: Optional[Progress] = None) -> _Request:
        """One that is sent, until it is answered. Who stops waiting cancels it."""
        ended = asyncio.Event()

        def begin() -> _Request:
            request = start()
            request.on_end = lambda: self._tell(ended.set)
            if request.done:
                request.on_end()
            return request

        begun = self._call(begin)
        try:
            request = await asyncio.shield(begun)
            await ended.wait()
        except asyncio.CancelledError:
            await asyncio.shield(self._drop(begun))
            raise
        request.finish()
        return request

    async def _drop(self, begun: "asyncio.Future[_Request]") -> None:
        try:
            request = await begun
            await self._call(lambda: request.client._cancel(request))
        except Exception:
            pass  # it never began, or the client is closed: there is nothing to end, and a task is cancelled

    # --- what Client has -----------------------------------------------------------------------------------------

    @property
    def _sync(self) -> Client:
        assert self._client is not None
        return self._client

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._post(None)

    async def close(self) -> None:
        self._end()
        await self._loop.run_in_executor(None, self._thread.join)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    async def open(self, **options: Any) -> "AsyncSession":
        """Options are those of Client.open()."""
        return AsyncSession(self, await self._call(lambda: self._sync.open(**options)))

    async def attach(self, token: Union[bytes, str], *, realm: Optional[str] = None) -> "AsyncSession":
        return AsyncSession(self, await self._call(lambda: self._sync.attach(token, realm=realm)))

    async def restore(self, name: str, *, label: Optional[str] = None) -> "AsyncSession":
        return AsyncSession(self, await self._call(lambda: self._sync.restore(name, label=label)))

    async def sessions(self) -> List[Row]:
        return await self._call(lambda: self._sync.sessions())

    async def delete_session(self, name: str) -> None:
        await self._call(lambda: self._sync.delete_session(name))

    async def add_document(self, name: str, said: str, *, memory: MemoryLike = "full", role: Optional[str] = None,
                           segment: Optional[int] = None, priority: Priority = Priority.INTERACTIVE, pin: bool = False,
                           plain: bool = False, replace: bool = False, public: bool = False,
                           progress: Optional[Progress] = None) -> Usage:
        """progress is called in the loop."""
        request = await self._request(lambda: self._sync._add_document(
            name, said, memory, role, segment, priority, pin, plain, replace, public, self._in_loop(progress)))
        return request.usage

    def _in_loop(self, progress: Optional[Progress]) -> Optional[Progress]:
        return (lambda n_read, n_tokens: self._tell(progress, n_read, n_tokens)) if progress else None

    async def documents(self) -> List[Row]:
        return await self._call(lambda: self._sync.documents())

    async def delete_document(self, name: str) -> None:
        await self._call(lambda: self._sync.delete_document(name))

    async def info(self) -> Info:
        return await self._call(lambda: self._sync.info)

    async def ping(self) -> None:
        await self._call(lambda: self._sync.ping())

    async def set_deadline(self, seconds: Optional[float]) -> None:
        await self._call(lambda: self._sync.set_deadline(seconds))

    async def score(self, what: Span, *, window: Optional[int] = None, segment: Optional[int] = None,
                    memory: Optional[MemoryLike] = None) -> Score:
        score: Score = (await self._request(lambda: self._sync._score(what, window, segment, memory))).value
        return score

    async def embed(self, texts: Sequence[Span], *, pooling: Pooling = Pooling.MEAN, normalise: bool = True,
                    priority: Priority = Priority.INTERACTIVE) -> List[Embedding]:
        request = await self._request(lambda: self._sync._embed(texts, pooling, normalise, priority))
        rows: List[Embedding] = request.value
        return rows

    async def tokenize(self, said: str, *, special: bool = False) -> List[int]:
        return await self._call(lambda: self._sync.tokenize(said, special=special))

    async def detokenize(self, ids: Sequence[int]) -> str:
        return await self._call(lambda: self._sync.detokenize(ids))


class AsyncSession:
    """As Session, with coroutines."""

    def __init__(self, client: AsyncClient, session: Session) -> None:
        self.client = client
        self._session = session

    @property
    def usage(self) -> Usage:
        return self._session.usage

    @property
    def attached(self) -> Optional[Attached]:
        return self._session.attached

    async def close(self) -> None:
        if not self.client._closed:
            await self.client._call(self._session.close)

    async def __aenter__(self) -> "AsyncSession":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    async def append(self, what: Union[str, Sequence[MessageLike]], *, answer: bool = False, special: bool = False,
                     progress: Optional[Progress] = None) -> Usage:
        progress = self.client._in_loop(progress)
        request = await self.client._request(lambda: self._session._append(what, answer, special, progress))
        self._session.usage = request.usage
        return request.usage

    async def append_tokens(self, ids: Sequence[int]) -> Usage:
        request = await self.client._request(lambda: self._session._append_tokens(ids))
        self._session.usage = request.usage
        return request.usage

    def generate(self, sampling: Optional[Sampling] = None, **options: Any) -> "AsyncStream":
        """`async for piece in session.generate()`. Use `async with` where it may be left early."""
        chosen = _sampling(sampling, options)
        return AsyncStream(self, lambda: self._session._generate(chosen))

    async def keep(self, seconds: int = 0) -> Ticket:
        return await self.client._call(lambda: self._session.keep(seconds))

    def resume(self, start: Optional[int] = 0) -> "AsyncStream":
        return AsyncStream(self, lambda: self._session._resume(start))

    async def resume_answers(self) -> List[Answer]:
        return self._session._take_several(await self.client._request(lambda: self._session._resume(0, True)))

    async def answers(self, n: int, sampling: Optional[Sampling] = None, **options: Any) -> List[Answer]:
        chosen = _sampling(sampling, options)
        return self._session._take_several(await self.client._request(lambda: self._session._answers(n, chosen)))

    async def score(self, choices: Sequence[Span], *, special: bool = False) -> List[Choice]:
        choice: List[Choice] = (await self.client._request(lambda: self._session._score(choices, special))).value
        return choice

    async def ask(self, question: str, sampling: Optional[Sampling] = None, *, system: Optional[str] = None,
                  **options: Any) -> Answer:
        what = await self.client._call(lambda: self._session._question(question, system))
        asked = await self.append(what, answer=True)
        async with self.generate(sampling, **options) as stream:
            said = "".join([piece async for piece in stream])
        return Answer(said, stream.result.reason, stream.result.usage, asked, stream.logprobs, stream.result.stop)

    async def fork(self, label: Optional[str] = None) -> "AsyncSession":
        return AsyncSession(self.client, await self.client._call(lambda: self._session.fork(label)))

    async def rewind(self, n_tokens: int) -> None:
        await self.client._call(lambda: self._session.rewind(n_tokens))

    async def save(self, name: str, *, replace: bool = False) -> None:
        await self.client._call(lambda: self._session.save(name, replace=replace))


class AsyncStream:
    """An answer that is being written; it begins with the first piece that is asked for."""

    def __init__(self, session: AsyncSession, start: Callable[[], _Request]) -> None:
        self.session = session
        self._start = start
        self._pieces: "asyncio.Queue[Optional[str]]" = asyncio.Queue()
        self._begun: "Optional[asyncio.Future[_Request]]" = None
        self._request: Optional[_Request] = None

    def _begin(self) -> _Request:
        client = self.session.client
        request = self._start()
        self._request = request
        request.on_piece = lambda said, ids: client._tell(self._pieces.put_nowait, said)
        request.on_end = lambda: client._tell(self._pieces.put_nowait, None)
        return request

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        if self._begun is None:
            self._begun = self.session.client._call(self._begin)
        await asyncio.shield(self._begun)
        piece = await self._pieces.get()
        if piece is not None:
            return piece
        self._pieces.put_nowait(None)  # and so it stays
        request = self._request
        assert request is not None
        request.finish()
        self.session._session.usage = request.usage
        raise StopAsyncIteration

    @property
    def tokens(self) -> List[int]:
        return list(self._request.tokens) if self._request else []

    @property
    def first(self) -> int:
        return self._request.first if self._request else 0

    @property
    def logprobs(self) -> List[Logprob]:
        return list(self._request.logprobs) if self._request else []

    @property
    def result(self) -> Result:
        if self._request is None or not self._request.done:
            raise ValueError("the answer has not ended")
        self._request.finish()
        return Result(self._request.reason, self._request.usage, self._request.stop)

    async def close(self) -> None:
        """Ends the answer, if it has not ended."""
        if self._begun is not None and not self.session.client._closed:
            await asyncio.shield(self.session.client._drop(self._begun))

    async def __aenter__(self) -> "AsyncStream":
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()
