"""http_embed.py URL GISTCTL - embeddings of gist-http, in the words of each API, beside those of gistctl."""
import base64
import json
import math
import struct
import subprocess
import sys

from http_client import Server, check, done

s = Server(sys.argv[1])
texts = ["The cat sleeps on the windowsill.", "x", "Interest rates rose again, \u00fcber 3 %."]


def norm(v):
    return math.sqrt(sum(x * x for x in v))


def near(a, b, most=1e-5):
    return len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) < most


def gistctl(*args):
    out = subprocess.run([sys.argv[2], "embed", "--json", *args, *(w for t in texts for w in ("--text", t))],
                         capture_output=True, check=True).stdout
    return [e["embedding"] for e in json.loads(out)["embeddings"]]


own, raw, last = gistctl("--normalise"), gistctl(), gistctl("--normalise", "--pooling", "last")
status, _, j = s.post("/v1/embeddings", model="any", input=texts)
rows = [d["embedding"] for d in j["data"]]
check("three rows", status == 200 and j["object"] == "list" and [d["index"] for d in j["data"]] == [0, 1, 2]
      and all(d["object"] == "embedding" for d in j["data"]), j)
check("of the model's width, of length 1", all(len(r) == 96 and abs(norm(r) - 1) < 1e-5 for r in rows), rows)
check("as gistctl has them", all(near(a, b) for a, b in zip(rows, own)), (rows, own))
check("they differ", not near(rows[0], rows[1], 1e-2) and not near(rows[0], rows[2], 1e-2), rows)
check("usage", j["usage"]["prompt_tokens"] == j["usage"]["total_tokens"] > 3 and j["model"], j["usage"])
_, _, one = s.post("/v1/embeddings", input=texts[2])
check("one text", len(one["data"]) == 1 and near(one["data"][0]["embedding"], rows[2]), one)
_, _, j = s.post("/v1/embeddings", input=texts, encoding_format="base64", dimensions=96)
got = [list(struct.unpack("<96f", base64.b64decode(d["embedding"]))) for d in j["data"]]
check("base64", all(near(a, b) for a, b in zip(got, rows)), got)
_, _, j = s.post("/v1/embeddings", input=texts, gistd={"pooling": "last", "priority": "background"})
check("the last token's", all(near(d["embedding"], b) for d, b in zip(j["data"], last)) and not near(last[0], own[0], 1e-2), j)
_, _, j = s.post("/v1/embeddings", input=texts, gistd={"normalise": False})
check("as it is", all(near(d["embedding"], b, 1e-4) for d, b in zip(j["data"], raw)), j)
_, _, a = s.post("/v1/embeddings", input=[40, 41, 42])
_, _, b = s.post("/v1/embeddings", input=[[7], [40, 41, 42]])
check("token ids", len(a["data"]) == 1 and a["usage"]["prompt_tokens"] == 3 and b["usage"]["prompt_tokens"] == 4
      and near(a["data"][0]["embedding"], b["data"][1]["embedding"]), (a, b))

status, _, j = s.post("/api/embed", model="any", input=texts)
check("ollama", status == 200 and j["model"] and j["total_duration"] > 0 and j["prompt_eval_count"] > 3
      and all(near(x, y) for x, y in zip(j["embeddings"], rows)), j)
_, _, j = s.post("/api/embed", input=texts[0])
check("ollama: one", len(j["embeddings"]) == 1 and near(j["embeddings"][0], rows[0]), j)
_, _, j = s.post("/api/embeddings", prompt=texts[0])
check("ollama: the older call, not of length 1", near(j["embedding"], raw[0], 1e-4) and abs(norm(j["embedding"]) - 1) > 1e-3, j)


def refused(what, words, path="/v1/embeddings", **body):
    st, _, got = s.post(path, **body)
    text = got["error"]["message"] if isinstance(got["error"], dict) else got["error"]
    check(what, st == 400 and words in text, (st, got))


refused("nothing", "there is no `input`")
refused("no texts", "there is no `input`", input=[])
refused("a number", "`input` holds a number", input=3)
refused("an empty text", "text 2 of 2 is empty", input=["a", ""])
refused("an empty list", "text 1 of 1 is empty", input=[[]])
refused("texts and ids", "something else", input=[[1], "a"])
refused("ids and texts", "something else", input=[1, "a"])
refused("an id that is none", "token id 4000000000 does not exist", input=[4000000000])
refused("an id that is no id", "something else", input=[1, -1])
refused("a text that is too long", "context_length_exceeded: text 1 of 2", input=["long words " * 9000, "x"])
refused("too many", "2049 texts in one request", input=["a"] * 2049)
refused("other dimensions", "`dimensions` is 32: this model's embeddings have 96", input="a", dimensions=32)
refused("another encoding", "`encoding_format` is \"hex\"", input="a", encoding_format="hex")
refused("another pooling", "`pooling` is \"max\"", input="a", gistd={"pooling": "max"})
refused("ollama: no prompt", "there is no `prompt`", "/api/embeddings")
refused("ollama: dimensions", "this model's embeddings have 96", "/api/embed", input="a", dimensions=3)
status, headers, _ = s.ask("GET", "/v1/embeddings")
check("by the wrong method", status == 405 and headers["Allow"] == "POST", status)
done()
