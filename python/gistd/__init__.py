"""gistd - a language model that stays in memory, for the programs of one machine.

    import gistd

    with gistd.Client() as client, client.open() as session:
        session.append([("user", "Why is the sky blue?")], answer=True)
        for piece in session.generate(max_tokens=100):
            print(piece, end="", flush=True)

AsyncClient is the same for asyncio. Errors are exceptions (GistError) with libgist's own sentence.
"""

from ._client import Client, Session, Stream
from ._types import (Answer, Attached, BadRequest, Busy, Cancelled, Choice, Code, ContextLengthExceeded, DeadlineExceeded,
                     Embedding, GistError, Info, InternalError, LimitReached, Logprob, Memory, NameExists, NoMemory,
                     NotFound, Pooling, PoolFull, Priority, Reason, Result, Row, Sampling, Score, ShuttingDown, State,
                     StorageError, Ticket, TransportError, Unsupported, Usage, WrongModel)
from .aio import AsyncClient, AsyncSession, AsyncStream

__all__ = [
    "Answer", "AsyncClient", "AsyncSession", "AsyncStream", "Attached", "BadRequest", "Busy", "Cancelled", "Choice",
    "Client", "Code", "ContextLengthExceeded", "DeadlineExceeded", "Embedding", "GistError", "Info", "InternalError",
    "LimitReached", "Logprob", "Memory", "NameExists", "NoMemory", "NotFound", "Pooling", "PoolFull", "Priority",
    "Reason", "Result", "Row", "Sampling", "Score", "Session", "ShuttingDown", "State", "StorageError", "Stream",
    "Ticket", "TransportError", "Unsupported", "Usage", "WrongModel",
]
