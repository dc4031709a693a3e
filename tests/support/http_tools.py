"""http_tools.py URL [bare] - tools of a model whose chat template knows them; bare: calls are written without tags."""
import json
import sys

from http_client import Server, check, done

s = Server(sys.argv[1])
QUESTION = [{"role": "user", "content": "Why?"}]
PET = {"type": "object", "properties": {"kind": {"$ref": "#/$defs/kind"}}, "required": ["kind"], "additionalProperties": False,
       "$defs": {"kind": {"enum": ["cat", "dog"]}}}
TOOLS = [{"type": "function", "function": {"name": "pet", "description": "A pet.", "parameters": PET}},
         {"type": "function", "function": {"name": "now"}}]
STRICT = [{"type": "function", "function": {**t["function"], "strict": True}} for t in TOOLS]
CHAT = "/v1/chat/completions"
# By the limit of tokens alone it is known which of the two an answer is, whatever the model would rather write: calls take
# more than SHORT tokens, and a text of so many characters more than LONG.
SHORT, LONG = 12, 400
WORD, TALE = {"enum": ["a", "b"]}, {"type": "string", "minLength": 4000}


def ask(max_tokens=40, **more):
    status, _, j = s.post(CHAT, **{"messages": QUESTION, "temperature": 0, "max_tokens": max_tokens, **more})
    check(f"{more.get('tool_choice', 'auto')} is answered", status == 200, j)
    return j


def free():
    """The model chooses: what it says is no call, and every byte of it is told."""
    without, offered = ask(), ask(tools=TOOLS)
    check("tools are shown", offered["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"] + 50, offered["usage"])
    text = offered["choices"][0]["message"]["content"]
    check("a text", text and "tool_calls" not in offered["choices"][0]["message"], offered)
    chunks = [j for _, j in s.events(CHAT, messages=QUESTION, temperature=0, max_tokens=40, tools=TOOLS) if j != "[DONE]"]
    streamed = "".join(j["choices"][0]["delta"].get("content") or "" for j in chunks)
    check("the same, streamed", streamed == text, (streamed, text))
    with_logprobs = ask(tools=TOOLS, logprobs=True)
    content, n = with_logprobs["choices"][0]["logprobs"]["content"], with_logprobs["usage"]["completion_tokens"]
    # A model that ends its answer early, or in the middle of a character, has tokens without a text at its end.
    check("with log-probabilities", with_logprobs["choices"][0]["message"]["content"] == text and n - 4 <= len(content) <= n
          and content == ask(tools=TOOLS, logprobs=True)["choices"][0]["logprobs"]["content"], with_logprobs)
    hidden = ask(tools=TOOLS, tool_choice="none")
    check("tools that are not shown", hidden["usage"]["prompt_tokens"] == without["usage"]["prompt_tokens"], hidden["usage"])


def called():
    j = ask(400, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "pet"}})
    call = j["choices"][0]["message"]["tool_calls"][0]
    check("a call", json.loads(call["function"]["arguments"])["kind"] in ("cat", "dog"), j)
    chunks = [x for _, x in s.events(CHAT, messages=QUESTION, temperature=0, tools=TOOLS, tool_choice="required") if x != "[DONE]"]
    deltas = [c for x in chunks for c in x["choices"][0]["delta"].get("tool_calls", [])]
    check("a call, streamed", len(deltas) == 1 and deltas[0]["index"] == 0 and deltas[0]["function"]["name"] in ("pet", "now")
          and chunks[-1]["choices"][0]["finish_reason"] == "tool_calls", chunks)
    k = ask(400, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "pet"}}, logprobs=True)["choices"][0]
    check("a call has no log-probabilities", "tool_calls" in k["message"] and k["logprobs"] == {"content": [], "refusal": None}, k)
    told = QUESTION + [j["choices"][0]["message"], {"role": "tool", "tool_call_id": call["id"], "content": "one eye"}]
    status, _, k = s.post(CHAT, messages=told, tools=TOOLS, temperature=0, max_tokens=4)
    check("its result", status == 200 and k["usage"]["prompt_tokens"] > j["usage"]["prompt_tokens"], k)
    check("what was read before costs nothing", k["usage"]["prompt_tokens_details"]["cached_tokens"] > 100, k["usage"])
    status, _, k = s.post("/api/chat", messages=QUESTION, tools=TOOLS, stream=False, options={"num_predict": 5})
    check("Ollama's", status == 200 and k["eval_count"] == 5, k)
    status, _, k = s.post("/v1/messages", messages=QUESTION, max_tokens=5, tools=[{"name": "pet", "input_schema": PET}])
    check("Anthropic's", status == 200 and k["content"][0]["type"] == "text", k)
    _, _, k = s.post("/api/show", model="x")
    check("it says so", k["capabilities"] == ["completion", "tools"], k)


def schema(s):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": s}}


def is_call(call):
    """Of STRICT tools."""
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
    return (name == "pet" and set(arguments) == {"kind"} and arguments["kind"] in ("cat", "dog")) or (name, arguments) == ("now", {})


def streamed(**body):
    """What the pieces of each answer are together: its text, its calls, and why it ended."""
    all = {}
    for _, j in s.events(CHAT, messages=QUESTION, **body):
        for c in j["choices"] if j != "[DONE]" else []:
            seen = all.setdefault(c["index"], {"text": "", "calls": [], "reason": None, "logprobs": []})
            seen["text"] += c["delta"].get("content") or ""
            seen["calls"] += c["delta"].get("tool_calls") or []
            seen["logprobs"] += (c.get("logprobs") or {}).get("content") or []
            seen["reason"] = c["finish_reason"] or seen["reason"]
    return all


def word_or_calls(what, text, calls, reason, most=100):
    """An answer is one or the other, and whole; as of a schema of whole numbers and STRICT tools."""
    ok = 0 < len(calls) <= most and all(map(is_call, calls)) and not text and reason == "tool_calls" if calls else \
        reason == "stop" and isinstance(json.loads(text)["x"], int)
    check(f"{what}: calls, or an answer in the format", ok, (text, calls, reason))


def held_to_a_format():
    j = ask(SHORT, tools=TOOLS, response_format=schema(WORD), logprobs=True)["choices"][0]
    text = j["message"]["content"]
    check("an answer in the format", text in ('"a"', '"b"') and j["finish_reason"] == "stop" and "tool_calls" not in j["message"], j)
    check("its log-probabilities", "".join(t["token"] for t in j["logprobs"]["content"]) == text, j)
    k = streamed(temperature=0, max_tokens=SHORT, tools=TOOLS, response_format=schema(WORD), logprobs=True)[0]
    check("the same, streamed", (k["text"], k["calls"], k["reason"]) == (text, [], "stop")
          and [t["token"] for t in k["logprobs"]] == [t["token"] for t in j["logprobs"]["content"]], (k, j))
    j = ask(SHORT, tools=TOOLS, grammar='root ::= "yes" | "no"')["choices"][0]
    check("by a grammar", j["message"]["content"] in ("yes", "no") and j["finish_reason"] == "stop", j)
    j = ask(SHORT, tools=TOOLS, response_format=schema(WORD), tool_choice="none")["choices"][0]
    check("without a choice", j["message"]["content"] in ('"a"', '"b"'), j)
    _, _, j = s.post("/api/chat", messages=QUESTION, tools=TOOLS, format=WORD, stream=False, options={"num_predict": SHORT})
    check("Ollama's", j["message"]["content"] in ('"a"', '"b"'), j)
    _, _, j = s.post("/v1/messages", messages=QUESTION, max_tokens=SHORT, tools=[{"name": "pet", "input_schema": PET}],
                     output_config={"format": {"type": "json_schema", "schema": WORD}})
    check("Anthropic's", [b["text"] in ('"a"', '"b"') for b in j["content"]] == [True] and j["stop_reason"] == "end_turn", j)
    _, _, j = s.post("/v1/responses", input="Why?", max_output_tokens=SHORT, tools=[{"type": "function", **TOOLS[0]["function"]}],
                     text={"format": {"type": "json_schema", "name": "x", "schema": WORD}})
    check("of the responses", [i["content"][0]["text"] in ('"a"', '"b"') for i in j["output"]] == [True], j)


def held_to_calls():
    body = {"temperature": 0, "max_tokens": LONG, "response_format": schema(TALE)}
    j = ask(**body, tools=STRICT, logprobs=True)["choices"][0]
    calls = j["message"]["tool_calls"]
    check("calls", calls and all(map(is_call, calls)) and not j["message"]["content"] and j["finish_reason"] == "tool_calls", j)
    check("they have no log-probabilities", j["logprobs"]["content"] == [], j)
    k = streamed(**body, tools=STRICT)[0]
    check("the same, streamed", [c["function"] for c in k["calls"]] == [c["function"] for c in calls] and not k["text"]
          and [c["index"] for c in k["calls"]] == list(range(len(calls))) and k["reason"] == "tool_calls", (k, calls))
    j = ask(**body, tools=TOOLS)["choices"][0]
    check("arguments of any kind", all(isinstance(json.loads(c["function"]["arguments"]), dict) for c in j["message"]["tool_calls"]), j)
    j = ask(**body, tools=STRICT, tool_choice="required")["choices"][0]
    check("where one must be made", len(j["message"]["tool_calls"]) == 1, j)
    _, _, j = s.post("/v1/messages", messages=QUESTION, max_tokens=LONG, output_config={"format": {"type": "json_schema", "schema": TALE}},
                     tools=[{"name": "pet", "input_schema": PET, "strict": True}], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    check("Anthropic's call", [b["input"]["kind"] in ("cat", "dog") for b in j["content"]] == [True] and j["stop_reason"] == "tool_use", j)
    _, _, j = s.post("/v1/responses", input="Why?", max_output_tokens=LONG, parallel_tool_calls=False,
                     tools=[{"type": "function", **STRICT[0]["function"]}], text={"format": {"type": "json_schema", "name": "x", "schema": TALE}})
    check("a call of the responses", [i["type"] for i in j["output"]] == ["function_call"], j)
    _, _, j = s.post("/api/chat", messages=QUESTION, tools=STRICT, format=TALE, stream=False, options={"num_predict": LONG})
    check("Ollama's calls", j["message"]["tool_calls"], j)


def held_to_both():
    number = schema({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]})
    for seed in range(4):
        for more in {}, {"parallel_tool_calls": False}:
            body = {"temperature": 1, "seed": seed, "max_tokens": LONG, "tools": STRICT, "response_format": number, **more}
            j = ask(**body)["choices"][0]
            word_or_calls(f"seed {seed}, {more}", j["message"]["content"], j["message"].get("tool_calls", []), j["finish_reason"],
                          1 if more else 100)
    for k in streamed(temperature=1, seed=9, n=6, max_tokens=LONG, tools=STRICT, response_format=number).values():
        word_or_calls("six, streamed", k["text"], k["calls"], k["reason"])


def ask_refused(what, body, *says):
    for stream in False, True:
        status, _, j = s.post(CHAT, messages=QUESTION, max_tokens=LONG, stream=stream, **body)
        check(f"{what} is refused", status == 400 and all(word in j["error"]["message"] for word in says), (status, j))


def not_held():
    bad = {"name": "bad", "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}
    ask_refused("any text", {"tools": TOOLS, "grammar": "root ::= .*"}, "nobody could tell")
    ask_refused("a schema", {"tools": TOOLS, "response_format": schema(bad["parameters"])}, "the schema's /properties/a/not")
    ask_refused("a tool's schema", {"tools": [{"type": "function", "function": {**bad, "strict": True}}], "response_format": schema(WORD)},
                "the tool bad", "/properties/a/not")
    ask(SHORT, tools=[{"type": "function", "function": bad}], response_format=schema(WORD))
    ask_refused("a grammar", {"tools": TOOLS, "grammar": "root ::= (\n"}, "line 2")
    # A call without tags is an object like any other.
    body = {"tools": TOOLS, "response_format": {"type": "json_object"}}
    if "bare" in sys.argv[2:]:
        ask_refused("an object like a call", body, "begin with", "pet")
    else:
        j = ask(LONG, **body)["choices"][0]
        check("any object", "tool_calls" in j["message"] or isinstance(json.loads(j["message"]["content"]), dict), j)


free()
called()
held_to_a_format()
held_to_calls()
held_to_both()
not_held()
done()
