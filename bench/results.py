"""docs/results.md: parts between markers are ours, the rest of the page belongs to people."""
import datetime
import os
import platform

from common import N_CPUS, ROOT

RESULTS = os.path.join(ROOT, "docs/results.md")
BEGIN, END = "<!-- bench:{} begin -->", "<!-- bench:{} end -->"
ORDER = ("ring", "floors", "Q4_1", "Q4_0", "Q4_K_M", "Q8_0", "F16", "8B", "memory", "restart", "spill", "profile", "io", "weights",
         "before-after")


def machine():
    cpu = "unknown CPU"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return f"{cpu}, {N_CPUS} CPUs, Linux {platform.release()}, {datetime.date.today()}"


def insert(text, part, block):
    """Behind the last of the parts that come before it, else at the end of the page."""
    for before in reversed(ORDER[:ORDER.index(part)]):
        end = END.format(before)
        if end in text:
            head, rest = text.split(end, 1)
            return f"{head}{end}\n\n{block}{rest}"
    return text.rstrip("\n") + "\n\n" + block + "\n"


def write(part, lines):
    """Prints the part and puts it between its markers."""
    lines = [*lines, "", f"Machine: {machine()}."]
    print("\n".join(lines) + "\n", flush=True)
    text = "# Measured results\n"
    if os.path.exists(RESULTS):
        with open(RESULTS) as f:
            text = f.read()
    begin, end = BEGIN.format(part), END.format(part)
    block = "\n".join([begin, *lines, end])
    if begin in text and end in text:
        head, rest = text.split(begin, 1)
        text = head + block + rest.split(end, 1)[1]
    else:
        text = insert(text, part, block)
    with open(RESULTS + ".new", "w") as f:
        f.write(text)
    os.replace(RESULTS + ".new", RESULTS)
