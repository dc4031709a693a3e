"""http_clients.py URL - the clients that people have, unchanged but for the address: openai, anthropic, ollama and llm.

One that is not installed is left out, which the output says. Exit code 77: none is.
"""
import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile

from http_client import check, done

url = sys.argv[1]
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]


def with_openai(openai):
    c = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    model = c.models.list().data[0].id
    check("openai: a model by its id", c.models.retrieve(model).id == model)
    r = c.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=0)
    text = r.choices[0].message.content
    check("openai: chat", text and r.choices[0].finish_reason == "length" and r.usage.completion_tokens == 8, r)
    r = c.chat.completions.create(model="gpt-4o", messages=QUESTION, max_tokens=8, temperature=0)
    check("openai: sent again", r.usage.prompt_tokens_details.cached_tokens > 0 and r.usage.gistd["computed"] < 32, r.usage)
    check("openai: the same", r.choices[0].message.content == text, r)
    parts = list(c.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=0, stream=True,
                                           stream_options={"include_usage": True}))
    check("openai: stream", "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == text, parts)
    check("openai: its usage", parts[-1].usage.completion_tokens == 8 and not parts[-1].choices, parts[-1])
    with c.chat.completions.stream(model=model, messages=QUESTION, temperature=0, stop=[text[3:6]]) as s:
        kinds = [e.type for e in s]
        final = s.get_final_completion()
    check("openai: the helper for streams", final.choices[0].message.content == text[:text.index(text[3:6])]
          and "content.done" in kinds, final)
    r = c.chat.completions.create(model=model, messages=QUESTION, max_tokens=3, n=2, extra_body={"memory": "full"})
    check("openai: two answers, memory in extra_body", [x.index for x in r.choices] == [0, 1], r)
    r = c.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=0, logprobs=True, top_logprobs=2)
    check("openai: logprobs", len(r.choices[0].logprobs.content) == 8
          and len(r.choices[0].logprobs.content[0].top_logprobs) == 2, r)
    schema = {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"],
              "additionalProperties": False}
    r = c.chat.completions.create(model=model, messages=QUESTION, temperature=0, response_format={
        "type": "json_schema", "json_schema": {"name": "pet", "strict": True, "schema": schema}})
    check("openai: JSON Schema", json.loads(r.choices[0].message.content)["kind"] in ("cat", "dog"), r)
    r = c.completions.create(model=model, prompt="The sea", max_tokens=4, echo=True)
    check("openai: completion", r.choices[0].text.startswith("The sea"), r)

    r = c.responses.create(model=model, input="Why?", max_output_tokens=6, temperature=0)
    check("openai: response", r.status == "incomplete" and r.output_text and r.usage.output_tokens == 6, r)
    with c.responses.stream(model=model, input="Why?", max_output_tokens=6, temperature=0) as s:
        deltas = [e.delta for e in s if e.type == "response.output_text.delta"]
    check("openai: response, streamed", "".join(deltas) == r.output_text, deltas)

    long = [{"role": "user", "content": "word " * 6000}]
    try:
        c.chat.completions.create(model=model, messages=long, extra_body={"memory": "full"})
        check("openai: too long", False)
    except openai.BadRequestError as e:
        check("openai: too long", e.code == "context_length_exceeded" and "context_length_exceeded" in str(e), e)
    try:
        c.chat.completions.create(model=model, messages=QUESTION, tools=[{"type": "function", "function": {"name": "f"}}])
        check("openai: tools", False)
    except openai.BadRequestError as e:
        check("openai: tools", e.param == "tools", e)
    try:
        c.models.retrieve("none")
        check("openai: no such model", False)
    except openai.NotFoundError as e:
        check("openai: no such model", model in str(e), e)

    async def at_once():
        a = openai.AsyncOpenAI(base_url=url + "/v1", api_key="none")
        one = lambda: a.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=0)
        return await asyncio.gather(*[one() for _ in range(6)])
    check("openai: six at once say the same", {r.choices[0].message.content for r in asyncio.run(at_once())} == {text})


def with_anthropic(anthropic):
    c = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    model = c.models.list().data[0].id
    ask = dict(model=model, max_tokens=8, extra_body={"temperature": 0}, system="Be short.", messages=QUESTION)
    r = c.messages.create(**ask)
    text = r.content[0].text
    check("anthropic: message", text and r.stop_reason == "max_tokens" and r.usage.output_tokens == 8, r)
    with c.messages.stream(**ask) as s:
        parts = list(s.text_stream)
        final = s.get_final_message()
    check("anthropic: stream", "".join(parts) == text and final.content[0].text == text, final)
    check("anthropic: its end", final.stop_reason == "max_tokens" and final.usage.output_tokens == 8, final)
    check("anthropic: the cache", final.usage.cache_read_input_tokens > 0, final.usage)
    kinds = [e.type for e in c.messages.create(**ask, stream=True)]
    check("anthropic: events", kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds)
    n = c.messages.count_tokens(model=model, system="Be short.", messages=QUESTION).input_tokens
    check("anthropic: count_tokens", n == r.usage.input_tokens + r.usage.cache_read_input_tokens, (n, r.usage))
    blocks = [{"role": "user", "content": [{"type": "text", "text": "Why is the sky blue?"}]}]
    r = c.messages.create(**{**ask, "messages": blocks, "stop_sequences": [text[2:5]]})
    check("anthropic: stop", r.stop_reason == "stop_sequence" and r.stop_sequence == text[2:5], r)
    try:
        c.messages.create(**ask, tools=[{"name": "f", "input_schema": {"type": "object"}}])
        check("anthropic: tools", False)
    except anthropic.BadRequestError as e:
        check("anthropic: tools", "tools" in e.body["error"]["message"] and e.body["type"] == "error", e)

    async def once():
        a = anthropic.AsyncAnthropic(base_url=url, api_key="none")
        async with a.messages.stream(**ask) as s:
            return await s.get_final_text()
    check("anthropic: asyncio", asyncio.run(once()) == text)


def with_ollama(ollama):
    c = ollama.Client(host=url)
    model = c.list().models[0].model
    options = {"num_predict": 6, "temperature": 0}
    r = c.chat(model=model, messages=QUESTION, options=options)
    text = r.message.content
    check("ollama: chat", text and r.done_reason == "length" and r.eval_count == 6, r)
    parts = list(c.chat(model=model, messages=QUESTION, options=options, stream=True))
    check("ollama: stream", "".join(p.message.content for p in parts) == text and parts[-1].done, parts)
    r = c.generate(model=model, prompt="Why?", options=options)
    check("ollama: generate", r.response and r.eval_count == 6, r)
    parts = list(c.generate(model=model, prompt="Why?", options=options, stream=True))
    check("ollama: generate, streamed", "".join(p.response for p in parts) == r.response, parts)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    r = c.chat(model=model, messages=QUESTION, options={"temperature": 0}, format=schema)
    check("ollama: format", json.loads(r.message.content)["ok"] in (True, False), r)
    check("ollama: ps", c.ps().models[0].model == model)
    check("ollama: show", "completion" in c.show(model).capabilities)
    try:
        c.embed(model=model, input="x")
        check("ollama: embed", False)
    except ollama.ResponseError as e:
        check("ollama: embed", e.status_code == 404 and "/api/embed" in e.error, e)
    r = asyncio.run(ollama.AsyncClient(host=url).chat(model=model, messages=QUESTION, options=options))
    check("ollama: asyncio", r.message.content == text, r)


def with_llm(_):
    with tempfile.TemporaryDirectory() as home:
        with open(os.path.join(home, "extra-openai-models.yaml"), "w") as f:
            f.write(f"- model_id: gist\n  model_name: gist\n  api_base: {url}/v1\n")
        env = {**os.environ, "LLM_USER_PATH": home, "OPENAI_API_KEY": "none"}

        def llm(*argv):
            return subprocess.run([sys.executable, "-m", "llm", *argv], env=env, capture_output=True, text=True, timeout=120,
                                  stdin=subprocess.DEVNULL)
        options = ["-o", "max_tokens", "6", "-o", "temperature", "0"]
        r = llm("-m", "gist", *options, "Why is the sky blue?")
        check("llm: streamed", r.returncode == 0 and r.stdout.strip(), r)
        k = llm("-m", "gist", "--no-stream", *options, "Why is the sky blue?")
        check("llm: at once", k.stdout == r.stdout, (k, r))
        k = llm("-c", *options, "And the sea?")
        check("llm: the conversation goes on", k.returncode == 0, k)
        logs = json.loads(llm("logs", "list", "-n", "3", "--json").stdout)
        check("llm: it has the usage", all(x["input_tokens"] for x in logs), logs)


had = 0
for name, run in {"openai": with_openai, "anthropic": with_anthropic, "ollama": with_ollama, "llm": with_llm}.items():
    try:
        module = importlib.import_module(name)
    except ImportError as e:
        print(f"left out: {name}: {e}")
        continue
    had += 1
    run(module)
if not had:
    print("none of the clients openai, anthropic, ollama, llm is installed (tests/requirements-http.txt)")
    sys.exit(77)
done()
