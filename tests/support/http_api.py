"""http_api.py URL - what gist-http answers, in the words of each API, by a model that knows nothing."""
import json
import sys

from http_client import Server, chat, check, done

s = Server(sys.argv[1])
ids = {}


def usage_adds_up(what, u):
    g = u["gistd"]
    check(f"{what}: usage adds up", u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"], u)
    check(f"{what}: cached tokens are honest",
          u["prompt_tokens_details"]["cached_tokens"] == g["shared"] + g["restored"]
          and g["computed"] + g["shared"] + g["restored"] == u["prompt_tokens"], u)


def openai():
    status, _, j = s.post("/v1/chat/completions", **chat("Why is the sky blue?", max_tokens=8))
    c = j["choices"][0]
    check("a chat is answered", status == 200 and j["object"] == "chat.completion" and c["message"]["content"], j)
    check("max_tokens ends it", c["finish_reason"] == "length" and j["usage"]["completion_tokens"] == 8, j)
    usage_adds_up("chat", j["usage"])
    whole = c["message"]["content"]

    parts, last = [], None
    for _, d in s.events("/v1/chat/completions", **chat("Why is the sky blue?", max_completion_tokens=8),
                         stream_options={"include_usage": True}):
        if d == "[DONE]":
            last = d
        elif d["choices"]:
            parts.append(d["choices"][0])
            check("usage is null until the end", d["usage"] is None, d)
        else:
            usage_adds_up("stream", d["usage"])
    check("a stream says the same", "".join(p["delta"].get("content", "") for p in parts) == whole, parts)
    check("it begins with the role, ends with the reason",
          parts[0]["delta"]["role"] == "assistant" and parts[-1]["finish_reason"] == "length" and last == "[DONE]", parts)
    check("without usage there is none", all(d == "[DONE]" or "usage" not in d for _, d in s.events(
        "/v1/chat/completions", **chat("Why?", max_tokens=2))))

    # A stateless chat that is sent again and again costs its new tokens: all but a page and the turn.
    texts, cost = ["Tell me about the sea, the wind and the waves. " * 20], []
    for turn in range(4):
        _, _, j = s.post("/v1/chat/completions", **chat(*texts, max_tokens=24))
        u = j["usage"]
        usage_adds_up(f"turn {turn}", u)
        cost.append((u["prompt_tokens"], u["gistd"]["computed"]))
        texts += [j["choices"][0]["message"]["content"], f"And what of {turn}?"]
    check("the first turn is computed", cost[0][1] > 100, cost)
    for before, now in zip(cost, cost[1:]):
        check("a later turn computes its new tokens alone", now[1] <= now[0] - before[0] + 16 and now[0] > before[0], cost)

    _, _, j = s.post("/v1/chat/completions", **chat("Name a colour.", max_tokens=6, n=3, temperature=1, seed=5))
    answers = [c["message"]["content"] for c in j["choices"]]
    check("n answers", len(answers) == 3 and [c["index"] for c in j["choices"]] == [0, 1, 2], j)
    one = s.post("/v1/chat/completions", **chat("Name a colour.", max_tokens=6))[2]
    check("they differ", len(set(answers)) > 1, answers)
    check("the prompt is read once", j["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
          and j["usage"]["completion_tokens"] == 18, j["usage"])
    _, _, k = s.post("/v1/chat/completions", **chat("Name a colour.", max_tokens=6, n=3, temperature=1, seed=5))
    check("a seed repeats them", [c["message"]["content"] for c in k["choices"]] == answers, (answers, k))
    _, _, k = s.post("/v1/chat/completions", **chat("Name a colour.", max_tokens=6, n=3, temperature=1, seed=6))
    check("another does not", [c["message"]["content"] for c in k["choices"]] != answers, k)

    # All of them write at the same time: what the last one says first comes before the end of the first.
    told = [(d["choices"][0]["index"], d["choices"][0]["delta"].get("content", ""), d["choices"][0]["finish_reason"])
            for _, d in s.events("/v1/chat/completions", **chat("Name a colour.", max_tokens=24, n=3, temperature=1, seed=5),
                                 ignore_eos=True) if d != "[DONE]"]
    check("a stream of n answers says each", sorted(i for i, _, reason in told if reason) == [0, 1, 2], told)
    check("at once", next(k for k, (i, text, _) in enumerate(told) if i == 2 and text)
          < next(k for k, (i, _, reason) in enumerate(told) if i == 0 and reason), told)
    _, _, k = s.post("/v1/chat/completions", **chat("Name a colour.", max_tokens=24, n=3, temperature=1, seed=5), ignore_eos=True)
    check("the same as without one", ["".join(text for i, text, _ in told if i == n) for n in range(3)]
          == [c["message"]["content"] for c in k["choices"]], (told, k))

    stop = whole[3:6]
    _, _, j = s.post("/v1/chat/completions", **chat("Why is the sky blue?", max_tokens=8, stop=[stop]))
    check("stop ends it", j["choices"][0] == {**j["choices"][0], "finish_reason": "stop"}
          and j["choices"][0]["message"]["content"] == whole[:whole.index(stop)], (whole, j))

    _, _, j = s.post("/v1/completions", prompt=["One, two,", "The sea"], n=2, max_tokens=3, temperature=0, echo=True)
    check("completions of two prompts", [c["text"][:7] for c in j["choices"]] == ["One, tw"] * 2 + ["The sea"] * 2
          and [c["index"] for c in j["choices"]] == [0, 1, 2, 3], j)
    _, _, j = s.post("/v1/completions", prompt=[40, 41, 42], max_tokens=3, temperature=0)
    check("token ids", j["usage"]["prompt_tokens"] == 3 and len(j["choices"]) == 1, j)
    _, _, j = s.post("/v1/completions", prompt="The sea", temperature=0)
    check("16 tokens where nothing is said", j["usage"]["completion_tokens"] == 16, j)
    text = "".join(d["choices"][0]["text"] for _, d in s.events("/v1/completions", prompt="The sea", temperature=0)
                   if d != "[DONE]")
    check("completions stream the same", text == j["choices"][0]["text"], text)

    status, _, j = s.ask("GET", "/v1/models")
    ids["model"] = j["data"][0]["id"]
    check("models", status == 200 and j["object"] == "list" and len(j["data"]) == 1, j)
    status, _, j = s.ask("GET", "/v1/models/" + ids["model"].replace(" ", "%20"))
    check("one model", status == 200 and j["id"] == ids["model"], j)
    status, _, j = s.ask("GET", "/v1/models/nothing")
    check("no other", status == 404 and ids["model"] in j["error"]["message"], j)


def deadlines():
    long = {"max_tokens": 1000000, "ignore_eos": True, "gistd": {"deadline": 0.05}}
    status, headers, j = s.post("/v1/chat/completions", **chat("On and on", **long))
    check("a time that is over", status == 504 and j["error"]["code"] == "deadline_exceeded", (status, j))
    check("nobody need ask again", headers["X-Should-Retry"] == "false" and not headers["Retry-After"], headers)
    status, _, j = s.post("/v1/messages", **chat("Whoever reads this " * 3000, max_tokens=2, gistd={"deadline": 0.001}))
    check("in Anthropic's words", status == 504 and j["error"]["type"] == "timeout_error", (status, j))
    events = list(s.events("/v1/completions", prompt="On and on", **{**long, "gistd": {"deadline": 2}}))
    check("a stream says so", any("error" in j and j["error"]["code"] == "deadline_exceeded" for _, j in events), events[-2:])
    check("nor is it of the next", s.post("/v1/completions", prompt="On and on", max_tokens=200, ignore_eos=True)[0] == 200)
    for wrong in (0, -1, "1", 1e9):
        status, _, j = s.post("/v1/completions", prompt="x", gistd={"deadline": wrong})
        check(f"a deadline of {wrong!r}", status == 400 and "deadline" in j["error"]["message"], (status, j))


def responses():
    body = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}], "instructions": "Be short.",
            "max_output_tokens": 5, "temperature": 0}
    _, _, j = s.post("/v1/responses", **body)
    text = j["output"][0]["content"][0]["text"]
    check("a response", j["status"] == "incomplete" and j["incomplete_details"] == {"reason": "max_output_tokens"} and text, j)
    check("its limit", j["max_output_tokens"] == 5, j)
    check("its usage", j["usage"]["output_tokens"] == 5 and j["usage"]["input_tokens"] > 5, j)
    events = list(s.events("/v1/responses", **body))
    names = [e for e, _ in events]
    check("its events", names[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                                      "response.content_part.added"]
          and names[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                             "response.incomplete"] and set(names[4:-4]) == {"response.output_text.delta"}, names)
    check("types and numbers", all(d["type"] == e and d["sequence_number"] == i for i, (e, d) in enumerate(events)), events)
    check("the same text", "".join(d.get("delta", "") for _, d in events) == text
          and events[-1][1]["response"]["output"][0]["content"][0]["text"] == text, events)


def anthropic():
    body = chat("Why is the sky blue?", max_tokens=6, system="Be short.")
    status, _, j = s.post("/v1/messages", **body)
    text = j["content"][0]["text"]
    check("a message", status == 200 and j["type"] == "message" and j["stop_reason"] == "max_tokens" and text, j)
    u = j["usage"]
    total = u["input_tokens"] + u["cache_read_input_tokens"]
    events = list(s.events("/v1/messages", **body))
    names = [e for e, _ in events]
    check("its events", names[:2] == ["message_start", "content_block_start"]
          and names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
          and set(names[2:-3]) == {"content_block_delta"}, names)
    check("events name themselves", all(d["type"] == e for e, d in events), events)
    check("the same text", "".join(d["delta"]["text"] for e, d in events if e == "content_block_delta") == text, events)
    check("a beginning that is known is read from the cache",
          events[0][1]["message"]["usage"]["cache_read_input_tokens"] > 0, events[0])
    _, _, j = s.post("/v1/messages/count_tokens", **body)
    check("tokens are counted", j == {"input_tokens": total}, (j, total))
    _, _, j = s.post("/v1/messages/count_tokens", **chat("word " * 6000))
    check("a long text's too", j["input_tokens"] > 6000, j)
    stop = text[2:5]
    _, _, j = s.post("/v1/messages", **{**body, "stop_sequences": [stop]})
    check("a stop sequence is told", j["stop_reason"] == "stop_sequence" and j["stop_sequence"] == stop, j)
    several = {**body, "stop_sequences": ["\x01never", stop, stop[:-1] or stop, stop[0]]}  # each a beginning of the one before
    _, _, j = s.post("/v1/messages", **several)
    check("which of several", j["stop_reason"] == "stop_sequence" and j["stop_sequence"] == stop[0], j)
    end = [d["delta"] for e, d in s.events("/v1/messages", **several) if e == "message_delta"]
    check("in a stream, too", end == [{"stop_reason": "stop_sequence", "stop_sequence": stop[0]}], end)
    # Two halves of an answer: the second begins where the first, sent as the assistant's, ends.
    _, _, j = s.post("/v1/messages", **{**chat("Why is the sky blue?", " the"), "system": "Be short.", "max_tokens": 3})
    plain = s.post("/v1/messages", **{**body, "max_tokens": 3})[2]
    check("an answer that is begun is gone on with", j["usage"]["input_tokens"] + j["usage"]["cache_read_input_tokens"]
          == total + 1 and j["content"] != plain["content"], (j, total))
    status, _, j = s.post("/v1/messages", **chat("Why?"))
    check("max_tokens is asked for", status == 400 and j["type"] == "error" and "max_tokens" in j["error"]["message"], j)


def ollama():
    body = {**chat("Why?"), "options": {"num_predict": 4, "temperature": 0}}
    _, headers, raw = s.post("/api/chat", **body)
    lines = [json.loads(line) for line in raw.splitlines()]
    check("lines", headers["Content-Type"] == "application/x-ndjson" and [x["done"] for x in lines[-2:]] == [False, True], raw)
    check("the last sums up", lines[-1]["eval_count"] == 4 and lines[-1]["done_reason"] == "length", lines[-1])
    _, _, j = s.post("/api/chat", **body, stream=False)
    check("all at once", j["message"]["content"] == "".join(x["message"]["content"] for x in lines) and j["done"], j)
    _, _, j = s.post("/api/generate", prompt="Why?", stream=False, options={"num_predict": 3, "temperature": 0})
    check("generate", j["eval_count"] == 3 and j["response"], j)
    _, _, k = s.post("/api/generate", prompt="Why?", stream=False, raw=True, options={"num_predict": 3})
    check("raw has no template", k["prompt_eval_count"] < j["prompt_eval_count"], k)
    _, _, j = s.post("/api/chat", model="x", stream=False)
    check("loading", j["done_reason"] == "load", j)
    _, _, j = s.ask("GET", "/api/tags")
    check("tags", j["models"][0]["name"] == ids["model"] and j["models"][0]["size"] > 0, j)
    _, _, j = s.ask("GET", "/api/ps")
    check("ps", j["models"][0]["name"] == ids["model"], j)
    _, _, j = s.post("/api/show", model=ids["model"])
    check("show", j["capabilities"] == ["completion"], j)
    _, _, j = s.ask("GET", "/api/version")
    check("version", j["version"], j)
    status, _, j = s.post("/api/pull", model="x")
    check("what is not there", status == 404 and "/api/pull" in j["error"], j)


def refused(what, path, body, *words, status=400):
    got, _, j = s.ask("POST", path, body)
    text = j["error"]["message"] if isinstance(j, dict) and isinstance(j.get("error"), dict) else str(j)
    check(f"{what} is refused", got == status and all(w in text for w in words), (got, j))
    return j


def refusals():
    c, m, o = "/v1/chat/completions", "/v1/messages", "/api/chat"
    ok = chat("Why?", max_tokens=2)
    for field, value in {"tools": [{"type": "web_search"}], "logit_bias": {"1": 2}, "presence_penalty": 1, "functions": [{}]}.items():
        j = refused(field, c, {**ok, field: value}, field)
        check(f"{field} is named", j["error"]["param"] == field and j["error"]["code"] == "unsupported_parameter", j)
    for field, value in {"tools": [], "logprobs": False, "presence_penalty": 0, "user": "me", "metadata": {"a": "b"},
                         "response_format": {"type": "text"}, "nonsense": [1, {}], "stop": None}.items():
        check(f"{field} that asks for nothing", s.ask("POST", c, {**ok, field: value})[0] == 200, field)
    refused("likely tokens of nothing", c, {**ok, "top_logprobs": 3}, "top_logprobs", "logprobs")
    refused("too many of them", c, {**ok, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "20")
    refused("completions' logprobs as chat has them", "/v1/completions", {"prompt": "x", "logprobs": True}, "logprobs")
    refused("a temperature", c, {**ok, "temperature": 3}, "temperature", "from 0 to 2")
    refused("a string as a number", c, {**ok, "max_tokens": "many"}, "max_tokens", "a string")
    refused("no tokens", c, {**ok, "max_tokens": 0}, "max_tokens")
    refused("half an answer", c, {**ok, "n": 1.5}, "n")
    refused("no messages", c, {}, "message")
    refused("messages that are none", c, {"messages": "x"}, "messages", "an array")
    refused("an unknown role", c, {"messages": [{"role": "king", "content": "x"}]}, "king")
    refused("a call without a name", c, {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "name")
    refused("a choice of no tool", c, {**ok, "tool_choice": "required"}, "tool_choice", "tools")
    refused("an image", c, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url", "text")
    refused("a NUL", c, {"messages": [{"role": "user", "content": "a\0b"}]}, "JSON")
    refused("too many messages", c, chat(*["x"] * 1025), "1024")
    refused("a previous response", "/v1/responses", {"input": "x", "previous_response_id": "y"}, "previous_response_id")
    refused("thinking", m, {**ok, "thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking")
    refused("tools", m, {**ok, "tools": [{"name": "x"}]}, "tools")
    refused("a format", o, {**ok, "format": "xml"}, "format", "xml")
    refused("a type of format", c, {**ok, "response_format": {"type": "xml"}}, "response_format", "xml")
    refused("no schema", c, {**ok, "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "schema")
    refused("a grammar that is none", c, {**ok, "grammar": "root ::= ("}, "grammar")
    refused("two", c, {**ok, "grammar": "root ::= [a-z]", "response_format": {"type": "json_object"}}, "grammar")
    refused("a grammar that is too large", c, {**ok, "grammar": 'root ::= [ab]* "a" [ab]{24}'}, "too large")
    refused("no JSON", c, b"{", "byte 1")
    refused("too many values", c, b'{"x": [' + b"[]," * (1 << 19) + b"0]}", "million values")
    refused("a NUL in a text", c, {**ok, "stop": "a\0b"}, "NUL")
    refused("a NUL in a name", c, {**ok, "max_tokens\0x": 1}, "NUL")
    check("none but what looks like it", s.post(c, **{**ok, "stop": "\\u0000"})[0] == 200)
    for prompt in ("", [], [""]):
        refused(f"no prompt: {prompt}", "/v1/completions", {"prompt": prompt}, "`prompt` is empty")
    refused("no object", c, b"[1]", "an array")
    refused("nothing", c, b"", "no body")
    refused("a compressor", c, {**ok, "memory": "magic"}, "magic", "auto")
    refused("a priority", c, {**ok, "gistd": {"priority": "king"}}, "priority")
    long = chat("word " * 6000, max_tokens=2)
    for path in (c, m):
        j = refused("a text that may not be compressed", path, {**long, "memory": "full"}, "context_length_exceeded", "auto")
    check("OpenAI has a code for it", refused("it", c, {**long, "memory": "full"})["error"]["code"]
          == "context_length_exceeded")
    status, _, j = s.ask("POST", c, {**long, "stream": True, "memory": "full"})
    check("a stream is refused by its status", status == 400, (status, j))
    status, _, j = s.ask("POST", c, long)
    g = j["usage"]["gistd"]
    check("a text longer than the window is read", status == 200 and g["gist_tokens"] > 0 and g["gists"] > 0, j)
    status, _, j = s.ask("POST", c, {**ok, "gistd": {"memory": "select", "ratio": 8, "budget": 1024, "private": True,
                                                     "priority": "background", "hydrate": "off"}})
    check("memory is what is asked for", status == 200 and j["usage"]["gistd"]["ratio"] == 8, j)


def formats():
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8},
                                               "kind": {"enum": ["cat", "dog"]}, "n": {"type": "integer"}},
              "required": ["name", "kind", "n"], "additionalProperties": False}

    def fits(what, text):
        try:
            j = json.loads(text)
            ok = set(j) == {"name", "kind", "n"} and j["kind"] in ("cat", "dog") and isinstance(j["n"], int) \
                and len(j["name"]) <= 8
        except ValueError:
            ok = False
        check(f"{what}: the answer fits the schema", ok, text)

    ask = chat("Name a pet.", max_tokens=400, seed=3)
    openai_format = {"type": "json_schema", "json_schema": {"name": "pet", "strict": True, "schema": schema}}
    _, _, j = s.post("/v1/chat/completions", **ask, response_format=openai_format)
    fits("chat", j["choices"][0]["message"]["content"])
    text = "".join(d["choices"][0]["delta"].get("content", "") for _, d in s.events(
        "/v1/chat/completions", **ask, response_format=openai_format) if d != "[DONE]")
    fits("stream", text)
    _, _, j = s.post("/v1/responses", input="Name a pet.", temperature=0, max_output_tokens=400,
                     text={"format": {"type": "json_schema", "name": "pet", "schema": schema}})
    fits("response", j["output"][0]["content"][0]["text"])
    _, _, j = s.post("/v1/messages", **ask, output_config={"format": {"type": "json_schema", "schema": schema}})
    fits("message", j["content"][0]["text"])
    _, _, j = s.post("/api/chat", **chat("Name a pet."), format=schema, stream=False, options={"temperature": 0, "num_predict": 400})
    fits("Ollama", j["message"]["content"])
    _, _, j = s.post("/v1/completions", prompt="A colour: ", grammar='root ::= "red" | "blue"', temperature=0)
    check("a grammar", j["choices"][0]["text"] in ("red", "blue") and j["choices"][0]["finish_reason"] == "stop", j)
    _, _, j = s.post("/v1/completions", prompt="A pet: ", max_tokens=400, seed=3, response_format=openai_format)
    fits("completion", j["choices"][0]["text"])
    _, _, j = s.post("/v1/chat/completions", **chat("Name a pet.", max_tokens=20), response_format={"type": "json_object"})
    check("an object", isinstance(json.loads(j["choices"][0]["message"]["content"]), dict)
          and j["choices"][0]["finish_reason"] == "stop" and j["usage"]["completion_tokens"] <= 20, j)
    status, _, j = s.post("/v1/chat/completions", **chat("Name a pet.", max_tokens=3), response_format=openai_format)
    check("a limit that no answer fits is refused", status == 400 and "tokens to be whole" in j["error"]["message"], (status, j))
    least = int(j["error"]["message"].split(" needs ")[1].split()[0])
    _, _, j = s.post("/v1/chat/completions", **chat("Name a pet.", max_tokens=least), response_format=openai_format)
    fits("the smallest limit", j["choices"][0]["message"]["content"])
    status, _, j = s.post("/v1/chat/completions", **ask, response_format={
        "type": "json_schema", "json_schema": {"schema": {"type": "object", "not": {"required": ["x"]}}}})
    check("what can't be enforced is refused", status == 400 and "not" in j["error"]["message"], (status, j))
    bad = {"type": "object", "not": {"required": ["x"]}}
    for path, body in {"/v1/chat/completions": {**ask, "response_format": {"type": "json_schema", "json_schema": {"schema": bad}}},
                       "/v1/completions": {"prompt": "A pet: ", "response_format": {"type": "json_schema",
                                                                                    "json_schema": {"schema": bad}}},
                       "/v1/responses": {"input": "Name a pet.", "text": {"format": {"type": "json_schema", "name": "pet",
                                                                                     "schema": bad}}},
                       "/v1/messages": {**ask, "output_config": {"format": {"type": "json_schema", "schema": bad}}},
                       "/api/chat": {**chat("Name a pet."), "format": bad}}.items():
        refused(f"{path}: a stream of it", path, {**body, "stream": True}, "not")


def logprobs():
    ask = chat("Why is the sky blue?", max_tokens=8, logprobs=True, top_logprobs=3)
    _, _, j = s.post("/v1/chat/completions", **ask)
    c = j["choices"][0]
    content = c["logprobs"]["content"]
    check("each token has one", len(content) == 8 and all(x["logprob"] <= 0 for x in content), c)
    check("their texts are the answer's", "".join(x["token"] for x in content) == c["message"]["content"], c)
    check("the likeliest is what a greedy answer says, and the first of three", all(
        len(x["top_logprobs"]) == 3 and x["top_logprobs"][0]["token"] == x["token"]
        and x["top_logprobs"][0]["logprob"] == x["logprob"]
        and x["top_logprobs"] == sorted(x["top_logprobs"], key=lambda t: -t["logprob"]) for x in content), content)
    check("bytes", all(bytes(x["bytes"]).decode() == x["token"] for x in content if x["bytes"] is not None), content)
    parts = [d["choices"][0] for _, d in s.events("/v1/chat/completions", **ask) if d != "[DONE]"]
    check("a stream tells the same", [x for p in parts if p["logprobs"] for x in p["logprobs"]["content"]] == content
          and "".join(p["delta"].get("content", "") for p in parts) == c["message"]["content"], parts)
    check("the reason comes last", [bool(p["finish_reason"]) for p in parts] == [False] * (len(parts) - 1) + [True], parts)
    _, _, j = s.post("/v1/chat/completions", **{**ask, "top_logprobs": 0, "n": 2})
    check("of two answers, without others", all(len(x["logprobs"]["content"]) == 8
                                               and not x["logprobs"]["content"][0]["top_logprobs"] for x in j["choices"]), j)
    _, _, j = s.post("/v1/completions", prompt="The sea", max_tokens=6, logprobs=2, temperature=0, echo=True)
    c, p = j["choices"][0], j["choices"][0]["logprobs"]
    check("completions", len(p["tokens"]) == len(p["token_logprobs"]) == len(p["top_logprobs"]) == 6
          and "The sea" + "".join(p["tokens"]) == c["text"], j)
    check("where they are", all(c["text"].encode()[at:].startswith(t.encode()) for at, t in zip(p["text_offset"], p["tokens"])), p)
    parts = [d["choices"][0] for _, d in s.events("/v1/completions", prompt="The sea", max_tokens=6, logprobs=2, temperature=0,
                                                  echo=True) if d != "[DONE]"]
    check("streamed", [t for x in parts if x["logprobs"] for t in x["logprobs"]["text_offset"]] == p["text_offset"], parts)


def other_logprobs():
    """Those of Responses and Ollama: the tokens, and what each stands beside, as chat completions have them."""
    _, _, j = s.post("/v1/chat/completions", **chat("Why?", max_tokens=6, logprobs=True, top_logprobs=2), ignore_eos=True)
    content = j["choices"][0]["logprobs"]["content"]
    n = {"max_output_tokens": 6, "temperature": 0, "top_logprobs": 2, "include": ["message.output_text.logprobs"], "ignore_eos": True}
    _, _, j = s.post("/v1/responses", input="Why?", **n)
    part = j["output"][0]["content"][0]
    check("a response has them", len(content) == 6 and part["logprobs"] == content, (part, content))
    events = list(s.events("/v1/responses", input="Why?", **n))
    deltas = [d for e, d in events if e == "response.output_text.delta"]
    check("its stream tells them with the text", [x for d in deltas for x in d["logprobs"]] == content
          and all(d["logprobs"] for d in deltas), deltas)
    done = next(d for e, d in events if e == "response.output_text.done")
    check("and once more at its end", done["logprobs"] == part["logprobs"]
          and events[-1][1]["response"]["output"][0]["content"][0] == part, events[-3:])
    _, _, j = s.post("/v1/responses", input="Why?", max_output_tokens=2)
    check("who does not ask has none", j["output"][0]["content"][0]["logprobs"] == [], j)
    refused("likely tokens of nothing", "/v1/responses", {"input": "x", "top_logprobs": 2}, "include", "logprobs")

    for path, body in {"/api/chat": chat("Why?"), "/api/generate": {"prompt": "Why?"}}.items():
        body = {**body, "options": {"num_predict": 6, "temperature": 0, "repeat_penalty": 1}, "logprobs": True, "top_logprobs": 2}
        _, _, j = s.post(path, **body, stream=False)
        check(f"{path} has them", j["logprobs"] == content[:j["eval_count"]], (j, content))
        lines = [json.loads(line) for line in s.post(path, **body)[2].splitlines()]
        check(f"{path}: lines tell the same", [x for l in lines[:-1] for x in l["logprobs"]] == j["logprobs"]
              and "logprobs" not in lines[-1], lines)
        refused("likely tokens of nothing", path, {**body, "logprobs": False}, "logprobs")


def methods():
    status, headers, j = s.ask("GET", "/v1/chat/completions")
    check("a wrong method", status == 405 and headers["Allow"] == "POST", (status, j))
    check("nothing there", s.ask("GET", "/v2/none")[0] == 404)
    status, headers, body = s.ask("HEAD", "/health")
    check("HEAD", status == 200 and body == b"", (status, body))
    check("/", b"gist-http" in s.ask("GET", "/")[2])
    status, headers, _ = s.post("/v1/chat/completions", **chat("Why?", max_tokens=1))
    check("a request has an id", len(headers["X-Request-Id"]) == 24, headers)
    for what, headers in {"an answer": headers, "a refusal": s.post("/v1/chat/completions")[1],
                          "what is known": s.ask("GET", "/v1/models")[1], "no path": s.ask("GET", "/v2/none")[1],
                          "embeddings": s.post("/v1/embeddings", input="x")[1], "a line": s.ask("GET", "/")[1],
                          "the page": s.ask("GET", "/", headers={"Accept": "text/html"})[1],
                          "a stream": s.post("/api/generate", prompt="x", options={"num_predict": 1})[1]}.items():
        check(f"no browser guesses what {what} is", headers.get_all("X-Content-Type-Options") == ["nosniff"], headers)


openai()
responses()
anthropic()
deadlines()
ollama()
refusals()
formats()
logprobs()
other_logprobs()
methods()
done()
