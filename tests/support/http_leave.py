"""http_leave.py URL SOCKET - clients that leave: while their prompt is read, while they are answered, all at once and
in a stream. The daemon stops working for them. And streams that have nothing to say: they say so.
"""
import sys

from http_client import Server, chat, check, daemon_status, done, until

s = Server(sys.argv[1])


def idle(j):
    return j["requests_running"] == 0 and not [x for x in j["sessions"] if x["label"] == "http"]


def reading(j):
    return [x for x in j["sessions"] if x["label"] == "http" and x["n_tokens"] > 0]


# A text that takes a while, whatever this machine is: doubled until a comment came while it was read.
n, comment = 4000, None
while not comment and n < 500_000:
    n *= 2
    text = " ".join(f"{i} {n}" for i in range(n // 4))
    for event, d in s.events("/v1/chat/completions", **chat(text, max_tokens=1)):
        if event == ":" and d.startswith("reading the prompt"):
            comment = d
            break
check("a comment while a prompt is read", comment, n)

for stream in (False, True):
    before = until("nothing runs", daemon_status, idle)["prompt_tokens_total"]
    sock = s.send("/v1/chat/completions", {**chat(f"Number {stream}. " + text, max_tokens=1), "stream": stream})
    n_tokens = s.post("/v1/messages/count_tokens", **chat(f"Number {stream}. " + text))[2]["input_tokens"]
    until("the prompt is being read", daemon_status, reading)
    sock.close()
    after = until(f"who leaves while a prompt is read is not waited for, stream {stream}", daemon_status, idle)
    read = after["prompt_tokens_total"] - before
    check(f"reading ends with the client, stream {stream}", read < n_tokens, (read, n_tokens))

# The same as ids, of which nothing need be encoded.
before = until("nothing runs", daemon_status, idle)["prompt_tokens_total"]
sock = s.send("/v1/completions", {"prompt": [5 + i * i % 97 for i in range(n_tokens)], "max_tokens": 1})
until("the ids are being read", daemon_status, reading)
sock.close()
read = until("who leaves while ids are read is not waited for", daemon_status, idle)["prompt_tokens_total"] - before
check("reading ids ends with the client", read < n_tokens, (read, n_tokens))

for stream in (False, True):
    before = until("nothing runs", daemon_status, idle)["generated_tokens_total"]
    sock = s.send("/v1/completions", {"prompt": "One", "max_tokens": 1000000, "stream": stream, "ignore_eos": True})
    until("it is being answered", daemon_status, lambda j: j["generated_tokens_total"] > before + 5)
    sock.close()
    until(f"who leaves in the middle of an answer is not answered, stream {stream}", daemon_status, idle)
    check(f"left in the middle, stream {stream}", True)
check("all is well", s.post("/v1/chat/completions", **chat("Why?", max_tokens=2))[0] == 200)
done()
