"""http_end.py URL PID - the server is told to end while it streams: the stream ends with a sentence."""
import os
import signal
import sys

from http_client import Server, check, done

s, seen, told = Server(sys.argv[1]), [], False
for _, d in s.events("/v1/completions", prompt="One", max_tokens=1000000, ignore_eos=True):
    if not told:
        os.kill(int(sys.argv[2]), signal.SIGTERM)
        told = True
    seen.append(d)
check("it says why it ends", any(d != "[DONE]" and "stopped" in str(d.get("error")) for d in seen[-2:]), seen[-2:])
done()
