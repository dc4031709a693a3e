"""with_template.py GGUF TEMPLATE OUT - the file with another chat template, behind which white space fills what
tensors are aligned to. One of the same length shifts nothing else.
"""
import struct
import sys

ALIGNMENT = 32
KEY = b"tokenizer.chat_template"

gguf, template = (open(path, "rb").read() for path in sys.argv[1:3])
at = gguf.index(struct.pack("<Q", len(KEY)) + KEY) + 8 + len(KEY)
kind, old = struct.unpack_from("<IQ", gguf, at)
if kind != 8:
    sys.exit(f"{sys.argv[1]}: its chat template is no string")
new = template + b" " * ((old - len(template)) % ALIGNMENT)
with open(sys.argv[3], "wb") as out:
    out.write(gguf[:at + 4] + struct.pack("<Q", len(new)) + new + gguf[at + 12 + old:])
