"""weight_keep.py GISTD GISTCTL MODEL LARGE - packed weights that a service manager keeps from one start to the next.

A start with kept weights reads no byte of the file's tensors and computes the same; descriptors that are forged,
damaged or of another model are refused and removed; a daemon that is killed at any moment leaves the next start
whole. LARGE is a model of tens of MB, for the memory limits.
"""
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from manager import Manager

gistd, gistctl, source, large = sys.argv[1:5]
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
SEALS = 2 | 4 | 8                # shrink, grow, write
HEAD = 2 << 20                   # the weights begin here (engine/file/image.h)
TEXT = "The capital of France is Paris, and the river that flows through it is the Seine."
TAKEN = "those that the service manager kept"

tmp = tempfile.mkdtemp(prefix="gistd-keep-")
model, sock = os.path.join(tmp, "model.gguf"), os.path.join(tmp, "sock")
checks = 0


def check(what, ok, *seen):
    global checks
    checks += 1
    if not ok:
        sys.exit(f"FAILED: {what}: {seen!r}\n{m.log()}")


def score():
    run = subprocess.run([gistctl, "--socket", sock, "score", "--json", "-"], input=TEXT.encode(), capture_output=True)
    check("score", run.returncode == 0, run.stderr)
    return json.loads(run.stdout)["logprobs"]


def ready(what, *args):
    m.start(*args)
    check(f"{what}: READY", m.wait("READY=1") is not None)


def bytes_read():
    """By all system calls of the daemon so far."""
    with open(f"/proc/{m.pid}/io", encoding="ascii") as f:
        return int(f.readline().split()[1])


def only():
    check("one descriptor is kept", m.count() == 1, m.store)
    return next(l[0] for l in m.store.values())


def rewrite(path, change):
    """Its bytes, as nobody would: state and inode stay."""
    st = os.stat(path)
    with open(path, "r+b") as f:
        data = f.read()
        f.seek(0)
        f.write(change(data))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def contents(fd):
    return os.pread(fd, os.fstat(fd).st_size, 0)


def memfd(data, seals=SEALS):
    fd = os.memfd_create("forged", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, len(data))
    os.pwrite(fd, data, 0)
    fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


def flip(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def swap(fd):
    """What the manager has under that name is this one now."""
    name = next(iter(m.store))
    os.close(m.store[name][0])
    m.store[name] = [fd]


def new_manager(**how):
    shutil.rmtree(os.path.join(tmp, "m"), ignore_errors=True)
    os.mkdir(os.path.join(tmp, "m"))
    return Manager(os.path.join(tmp, "m"), [gistd, "--model", model, "--socket", sock, "--kv-bytes", "4M",
                                            "--threads", "2"], **how)


def taken_up():
    global m
    m = new_manager()
    ready("first start")
    fd, want, first = only(), score(), bytes_read()
    check("it is sealed", fcntl.fcntl(fd, F_GET_SEALS) & SEALS == SEALS)
    check("the name says what it is", next(iter(m.store)).startswith("gistd-weights-"), m.store)
    check("a clean end", m.stop() == 0)
    good = open(model, "rb").read()
    # A file without its tensors: who read them would compute something else, or nothing.
    with open(model, "rb") as f:
        header = f.read().rindex(b"weight")
    rewrite(model, lambda d: d[:header + 64] + b"\xff" * (len(d) - header - 64))
    ready("second start")
    check("it says so", TAKEN in m.log())
    check("the same bits", score() == want)
    check("less was read", bytes_read() < first - (len(good) - header) * 9 // 10, bytes_read(), first)
    check("nothing new is stored", only() == fd)
    m.stop(signal.SIGKILL)
    ready("start after kill -9")
    check("it says so again", TAKEN in m.log())
    check("the same bits again", score() == want)
    m.stop()
    rewrite(model, lambda d: good)
    return want


def refused(want, what, fd, sentence):
    swap(fd)
    before = os.fstat(fd).st_ino
    ready(what)
    check(f"{what}: the log says why", sentence in m.log() and TAKEN not in m.log())
    check(f"{what}: it was removed", any("FDSTOREREMOVE=1" in h for h in m.heard))
    check(f"{what}: a new one is there", os.fstat(only()).st_ino != before)
    check(f"{what}: the file's weights", score() == want)
    m.stop()


def forged(want):
    good = contents(only())
    refused(want, "a descriptor that is not sealed", memfd(good, 0), "not sealed")
    refused(want, "one that can grow", memfd(good, SEALS & ~4), "not sealed")
    refused(want, "one that is too short", memfd(good[:-4096]), "bytes that this model takes")
    refused(want, "one that is too long", memfd(good + bytes(4096)), "bytes that this model takes")
    refused(want, "a flipped bit of a weight", memfd(flip(good, HEAD + 100)), "digests")
    refused(want, "a flipped bit of the last layer", memfd(flip(good, len(good) - 5000)), "digests")
    refused(want, "a flipped bit of the header", memfd(flip(good, 60)), "header is damaged")
    refused(want, "a flipped bit of a digest", memfd(flip(good, 4100)), "damaged")
    refused(want, "zeros", memfd(bytes(len(good))), "of no use")
    refused(want, "a folder", os.open(tmp, os.O_RDONLY), "not sealed")
    # The same bytes in a file of another state: whoever touched it may have changed it.
    os.utime(model)
    refused(want, "a model that was touched", memfd(good), "of no use")


def killed(want):
    """At each kind of message, the one that hands over among them; and with nothing in the store, and with what
    is of no use in it."""
    for at in "Loading", "FDSTOREREMOVE=1", "FDSTORE=1", "READY=1":
        m.on_message = lambda text, at=at: text.startswith(("STATUS=" + at, at)) and os.kill(m.pid, signal.SIGKILL)
        if at == "FDSTOREREMOVE=1":
            swap(memfd(bytes(4096)))
        else:
            for fd in [fd for l in m.store.values() for fd in l]:
                os.close(fd)
            m.store.clear()
        m.start()
        m.wait("never said")
        m.on_message = None
        check(f"killed at {at}", m.code == -signal.SIGKILL, m.code)
        m.stop()
        kept = m.count()
        ready(f"start after a kill at {at}")
        check(f"kill at {at}: what is kept is used", (TAKEN in m.log()) == (kept == 1), kept)
        check(f"kill at {at}: the same bits", score() == want)
        m.stop()
    check("handed over before READY", kept == 1)


def switched(want):
    global m
    ready("weight-keep no", "--weight-keep", "no")
    check("no: what was kept is gone", m.count() == 0 and TAKEN not in m.log())
    check("no: the same bits", score() == want)
    m.stop()
    m = new_manager(says_so=False)
    ready("a manager that says nothing")
    check("auto: nothing is handed over", m.count() == 0)
    m.stop()
    ready("weight-keep yes", "--weight-keep", "yes")
    only()
    m.stop()
    ready("weight-keep yes", "--weight-keep", "yes")
    check("yes: it is taken up", TAKEN in m.log() and score() == want)
    m.stop()


def beside_a_socket(want):
    """Of a socket unit: the daemon makes none of its own, and tells the two apart."""
    global sock
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        sock = os.path.join(tmp, "handed")
        listener.bind(sock)
        listener.listen(8)
        m.sockets = [("gistd.socket", listener.fileno())]
        ready("with a socket", "--weight-keep", "yes")
        check("both were taken", TAKEN in m.log() and "on " + sock in m.log() and score() == want)
        m.stop()
        m.sockets = []


def beside_an_image(want):
    """A descriptor comes before an image; one that is of no use goes, whatever the weights come from then."""
    global m
    cache = os.path.join(tmp, "weights")
    m = new_manager()
    ready("with a folder for images", "--weight-cache", cache)
    end = time.monotonic() + 60
    while not (os.path.isdir(cache) and os.listdir(cache)):   # it has a name when it is whole
        check("an image is written", time.monotonic() < end)
        time.sleep(0.02)
    m.stop()
    ready("a descriptor and an image", "--weight-cache", cache)
    check("the descriptor comes first", TAKEN in m.log() and score() == want)
    m.stop()
    swap(memfd(bytes(4096)))
    ready("a bad descriptor and an image", "--weight-cache", cache)
    check("the image is mapped", "mapped from their image" in m.log() and "of no use" in m.log() and score() == want)
    check("the bad one is gone", m.count() == 0)
    m.stop()
    m.store["gistd-weights-x"] = [memfd(bytes(4096))]
    ready("weights that pass through", "--weight-cache", cache, "--weight-bytes", "442368")
    check("nothing is kept of those", m.count() == 0 and "of no use" in m.log() and score() == want)
    m.stop()


def counted_once():
    """A limit that has no room for the weights has room for those that are there already."""
    global m
    with open(gistd, "rb") as f:
        program = f.read()
    if b"__asan_init" in program or b"__tsan_init" in program:
        return                  # a sanitizer's own memory is past any limit
    m = new_manager()
    m.argv[m.argv.index(model)] = large
    m.argv += ["--batch-tokens", "16"]
    ready("a large model")
    m.stop()
    size = os.stat(large).st_size
    m.before_exec = lambda: resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    ready("within the limit")
    check("it was taken up", TAKEN in m.log())
    m.stop()
    for fd in next(iter(m.store.values())):
        os.close(fd)
    m.store.clear()
    m.start()
    check("without them it is refused", m.wait("READY=1") is None and m.code == 1, m.code)
    check("for the limit", "its weights need about" in m.log())


shutil.copy(source, model)
try:
    logits = taken_up()
    forged(logits)
    killed(logits)
    switched(logits)
    beside_a_socket(logits)
    beside_an_image(logits)
    counted_once()
finally:
    if m.pid is not None:
        m.stop(signal.SIGKILL)
    shutil.rmtree(tmp)
print(f"{checks} checks")
