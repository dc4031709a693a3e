"""llm and gistd: the model that the daemon serves is `gistd`, whichever it is."""

from __future__ import annotations

import json
from typing import Any, AsyncIterator, Iterator, List, Optional, Tuple

import gistd
import llm
from pydantic import Field


class _Options(llm.Options):
    max_tokens: Optional[int] = Field(description="The most tokens to write", default=None, ge=1)
    temperature: Optional[float] = Field(description="0: always the likeliest token", default=None, ge=0)
    top_k: Optional[int] = Field(description="Of so many of the likeliest tokens", default=None, ge=1)
    top_p: Optional[float] = Field(description="Of the likeliest tokens of so much probability", default=None, ge=0, le=1)
    min_p: Optional[float] = Field(description="Of tokens with so much of the likeliest one's", default=None, ge=0, le=1)
    repeat_penalty: Optional[float] = Field(description="Above 1: what was said is said less", default=None, gt=0)
    seed: Optional[int] = Field(description="The same seed, the same answer", default=None, ge=0)
    memory: Optional[str] = Field(description="auto, or a compressor of gistctl(1)", default=None)
    private: Optional[bool] = Field(description="Nothing is kept when it is answered", default=None)


def _messages(prompt: Any) -> List[Tuple[str, str]]:
    """All that was said: llm's chain, of which only text is something for gistd."""
    found = []
    for message in prompt.messages:
        said = "".join(part.text for part in message.parts if isinstance(getattr(part, "text", None), str))
        if message.role == "system":
            found = [m for m in found if m[0] != "system"]  # the last one counts, and stands first
            found.insert(0, ("system", said))
        else:
            found.append((message.role, said))
    return found


def _sampling(prompt: Any) -> gistd.Sampling:
    given = {k: v for k, v in prompt.options.model_dump().items() if v is not None and k not in ("memory", "private")}
    if prompt.schema:
        given["schema"] = json.dumps(prompt.schema)
    if "repeat_penalty" in given:
        given["repeat_last_n"] = 256
    return gistd.Sampling(**given)


def _session(prompt: Any) -> "dict[str, Any]":
    return {"memory": prompt.options.memory or "auto", "private": bool(prompt.options.private), "label": "llm"}


def _say_usage(response: Any, asked: gistd.Usage, result: gistd.Result) -> None:
    cached = asked.shared_tokens + asked.restored_tokens
    details = {"cached_tokens": cached, "gist_tokens": asked.gist_tokens, "hydrated_tokens": asked.hydrated_tokens}
    response.set_usage(input=asked.prompt_tokens, output=result.usage.generated_tokens,
                       details={k: v for k, v in details.items() if v})


class Gistd(llm.Model):
    model_id = "gistd"
    can_stream = True
    supports_schema = True
    Options = _Options

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        try:
            with gistd.Client(name="llm") as client, client.open(**_session(prompt)) as session:
                asked = session.append(_messages(prompt), answer=True)
                with session.generate(_sampling(prompt)) as said:
                    yield from said
                _say_usage(response, asked, said.result)
        except gistd.GistError as e:
            raise llm.ModelError(str(e)) from e


class AsyncGistd(llm.AsyncModel):
    model_id = "gistd"
    can_stream = True
    supports_schema = True
    Options = _Options

    async def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> AsyncIterator[str]:
        try:
            async with await gistd.AsyncClient.connect(name="llm") as client:
                async with await client.open(**_session(prompt)) as session:
                    asked = await session.append(_messages(prompt), answer=True)
                    async with session.generate(_sampling(prompt)) as said:
                        async for piece in said:
                            yield piece
                    _say_usage(response, asked, said.result)
        except gistd.GistError as e:
            raise llm.ModelError(str(e)) from e


@llm.hookimpl
def register_models(register: Any) -> None:
    register(Gistd(), AsyncGistd())
