"""http_tools.py URL - tools of a model whose chat template knows them."""
import json
import sys

from http_client import Server, check, done

s = Server(sys.argv[1])
QUESTION = [{"role": "user", "content": "Why?"}]
PET = {"type": "object", "properties": {"kind": {"$ref": "#/$defs/kind"}}, "required": ["kind"], "additionalProperties": False,
       "$defs": {"kind": {"enum": ["cat", "dog"]}}}
TOOLS = [{"type": "function", "function": {"name": "pet", "description": "A pet.", "parameters": PET}},
         {"type": "function", "function": {"name": "now"}}]
CHAT = "/v1/chat/completions"


def ask(max_tokens=40, **more):
    status, _, j = s.post(CHAT, messages=QUESTION, temperature=0, max_tokens=max_tokens, **more)
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


free()
called()
done()
