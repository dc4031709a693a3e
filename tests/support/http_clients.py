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
# Of a tool with a reference in its schema, and of one without arguments. The model's template knows no tools: it can
# be made to call one, and not be asked to.
PET = {"type": "object", "properties": {"kind": {"$ref": "#/$defs/kind"}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
       "required": ["kind", "n"], "additionalProperties": False, "$defs": {"kind": {"enum": ["cat", "dog"]}}}


def is_pet(x):
    return x["kind"] in ("cat", "dog") and 0 <= x["n"] <= 9 and len(x) == 2


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
    openai_tools(openai, c, model)
    openai_response_tools(c, model)
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


def openai_tools(openai, c, model):
    tools = [{"type": "function", "function": {"name": "pet", "description": "A pet.", "parameters": PET}},
             {"type": "function", "function": {"name": "now"}}]
    ask = dict(model=model, messages=QUESTION, tools=tools, temperature=0)
    try:
        c.chat.completions.create(**ask)
        check("openai: tools of a template without", False)
    except openai.BadRequestError as e:
        check("openai: tools of a template without", e.param == "tools" and "tool_choice" in str(e), e)
    r = c.chat.completions.create(**ask, tool_choice="none", max_tokens=3)
    check("openai: no tool", r.choices[0].message.content and not r.choices[0].message.tool_calls, r)
    named = {"type": "function", "function": {"name": "pet"}}
    r = c.chat.completions.create(**ask, tool_choice=named)
    m = r.choices[0].message
    check("openai: a named tool is called", r.choices[0].finish_reason == "tool_calls" and len(m.tool_calls) == 1
          and m.tool_calls[0].function.name == "pet" and is_pet(json.loads(m.tool_calls[0].function.arguments))
          and m.content is None, r)
    with c.chat.completions.stream(**ask, tool_choice=named) as s:
        final = s.get_final_completion()
    k = final.choices[0].message.tool_calls
    check("openai: the same, streamed", len(k) == 1 and k[0].function.arguments == m.tool_calls[0].function.arguments
          and k[0].id != m.tool_calls[0].id and final.choices[0].finish_reason == "tool_calls", final)
    r = c.chat.completions.create(**{**ask, "temperature": 1}, tool_choice="required", n=3)
    called = [x.message.tool_calls[0] for x in r.choices]
    check("openai: some tool is called in each answer", all(
        x.function.name == "now" and x.function.arguments == "{}" or is_pet(json.loads(x.function.arguments)) for x in called)
        and len({x.id for x in called}) == 3, r)
    try:
        c.chat.completions.create(**ask, tool_choice=named, max_tokens=4)
        check("openai: a call that can't be whole is refused", False)
    except openai.BadRequestError as e:
        check("openai: a call that can't be whole is refused", "tokens to be whole; max_tokens is 4" in str(e), e)
    told = QUESTION + [m, {"role": "tool", "tool_call_id": m.tool_calls[0].id, "content": "It has one eye."}]
    r = c.chat.completions.create(model=model, messages=told, max_tokens=4, temperature=0)
    check("openai: a tool's result", r.choices[0].message.content and r.usage.completion_tokens == 4, r)
    bad = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]
    try:
        c.chat.completions.create(model=model, messages=QUESTION, tools=bad, tool_choice="required")
        check("openai: a schema that can't be enforced", False)
    except openai.BadRequestError as e:
        check("openai: a schema that can't be enforced", "not" in str(e), e)


def openai_response_tools(c, model):
    tools = [{"type": "function", "name": "pet", "description": "A pet.", "parameters": PET, "strict": True}]
    ask = dict(model=model, input="Why?", tools=tools, tool_choice={"type": "function", "name": "pet"}, temperature=0)
    r = c.responses.create(**ask)
    check("openai: response that calls", len(r.output) == 1 and r.output[0].type == "function_call" and r.output[0].name == "pet"
          and is_pet(json.loads(r.output[0].arguments)), r)
    with c.responses.stream(**ask) as s:
        kinds = [e.type for e in s]
        final = s.get_final_response()
    check("openai: the same, streamed", final.output[0].arguments == r.output[0].arguments
          and "response.function_call_arguments.done" in kinds, (kinds, final))
    told = [{"role": "user", "content": "Why?"}, r.output[0].model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": r.output[0].call_id, "output": "One eye."}]
    r = c.responses.create(model=model, input=told, max_output_tokens=4)
    check("openai: response to a result", r.output_text and r.usage.output_tokens == 4, r)


def anthropic_tools(anthropic, c, model):
    tools = [{"name": "pet", "description": "A pet.", "input_schema": PET}]
    ask = dict(model=model, max_tokens=200, messages=QUESTION, tools=tools)
    try:
        c.messages.create(**ask)
        check("anthropic: tools of a template without", False)
    except anthropic.BadRequestError as e:
        check("anthropic: tools of a template without", "tools" in e.body["error"]["message"] and e.body["type"] == "error", e)
    for choice in {"type": "tool", "name": "pet"}, {"type": "any"}:
        r = c.messages.create(**ask, tool_choice=choice)
        check(f"anthropic: a tool by {choice['type']}", r.stop_reason == "tool_use" and len(r.content) == 1
              and r.content[0].type == "tool_use" and is_pet(r.content[0].input), r)
    with c.messages.stream(**ask, tool_choice=choice) as s:
        final = s.get_final_message()
    check("anthropic: the same, streamed", final.stop_reason == "tool_use" and len(final.content) == 1
          and final.content[0].name == "pet" and is_pet(final.content[0].input), final)
    told = QUESTION + [{"role": "assistant", "content": r.content}, {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": r.content[0].id, "content": "One eye."}, {"type": "text", "text": "So?"}]}]
    k = c.messages.create(model=model, max_tokens=4, messages=told)
    check("anthropic: a tool's result", k.content[0].type == "text" and k.usage.output_tokens == 4, k)
    without = c.messages.count_tokens(model=model, messages=QUESTION).input_tokens
    with_tools = c.messages.count_tokens(model=model, messages=QUESTION, tools=tools, tool_choice=choice).input_tokens
    check("anthropic: tools are counted", with_tools > without + 50, (without, with_tools))


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
    anthropic_tools(anthropic, c, model)

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
    def pet(kind: str) -> str:
        """A pet."""
    try:
        c.chat(model=model, messages=QUESTION, tools=[pet])
        check("ollama: tools of a template without", False)
    except ollama.ResponseError as e:
        check("ollama: tools of a template without", e.status_code == 400 and "tools" in e.error, e)
    told = QUESTION + [{"role": "assistant", "tool_calls": [{"function": {"name": "pet", "arguments": {"kind": "cat"}}}]},
                       {"role": "tool", "tool_name": "pet", "content": "One eye."}]
    r = c.chat(model=model, messages=told, options=options)
    check("ollama: a tool's result", r.message.content and r.eval_count == 6, r)
    check("ollama: ps", c.ps().models[0].model == model)
    check("ollama: show", "completion" in c.show(model).capabilities)
    rows = c.embed(model=model, input=["x", "y and more"]).embeddings
    check("ollama: embed", len(rows) == 2 and len(rows[0]) == len(rows[1]) > 1 and rows[0] != rows[1], rows)
    check("ollama: embeddings", len(c.embeddings(model=model, prompt="x").embedding) == len(rows[0]))
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
