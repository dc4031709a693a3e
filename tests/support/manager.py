"""manager.py - as much of a service manager as a daemon that leaves descriptors with it needs, without systemd as
PID 1: NOTIFY_SOCKET with FDSTORE=, FDSTOREREMOVE=, FDNAME= and BARRIER=, and LISTEN_FDS, LISTEN_FDNAMES and
LISTEN_PID at the next start.

    m = Manager(folder, [gistd, "--model", ...])
    m.start(); m.wait("READY=1"); m.stop(); m.start() ...

store: name -> list of descriptors, as the manager holds them between two processes. heard: all messages.
"""
import os
import signal
import socket
import time

FIRST_FD = 3
PATIENCE_S = 120


class Manager:
    def __init__(self, folder, argv, fdstore=2, says_so=True, before_exec=None):
        self.folder, self.argv, self.fdstore, self.says_so = folder, argv, fdstore, says_so
        self.before_exec = before_exec
        self.store, self.heard, self.pid, self.on_message = {}, [], None, None
        self.sockets = []                         # (name, descriptor) of socket units
        self.path = os.path.join(folder, "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)

    def start(self, *args):
        """The stored descriptors are handed over; they stay in the store, as systemd's do."""
        self.heard, fds = [], self.sockets + [(n, fd) for n, l in self.store.items() for fd in l]
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.become(fds, args)
            finally:
                os._exit(127)

    def become(self, fds, args):
        log = os.open(self.log_path(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        high = [os.dup(fd) for _, fd in fds]     # first out of the way of where they go
        while high and min(high) < FIRST_FD + len(fds):
            high = [os.dup(fd) for fd in high]
        for i, fd in enumerate(high):
            os.dup2(fd, FIRST_FD + i, inheritable=True)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LISTEN_", "GISTD_"))}
        env.update(NOTIFY_SOCKET=self.path, GISTD_STORE="none", GISTD_WEIGHT_CACHE="none")
        if self.says_so:
            env["FDSTORE"] = str(self.fdstore)
        if fds:
            env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)),
                       LISTEN_FDNAMES=":".join(n for n, _ in fds))
        if self.before_exec:
            self.before_exec()
        os.execve(self.argv[0], self.argv + list(args), env)

    def log_path(self):
        return os.path.join(self.folder, "log")

    def log(self):
        with open(self.log_path(), encoding="utf-8", errors="replace") as f:
            return f.read()

    def count(self):
        return sum(len(l) for l in self.store.values())

    def take(self, message, fds):
        lines = dict(l.split("=", 1) for l in message.splitlines() if "=" in l)
        name = lines.get("FDNAME", "stored")
        if lines.get("FDSTOREREMOVE") == "1":
            for fd in self.store.pop(name, []):
                os.close(fd)
        if lines.get("FDSTORE") == "1":
            for fd in fds:
                if self.count() < self.fdstore:
                    self.store.setdefault(name, []).append(fd)
                else:
                    os.close(fd)
            return
        for fd in fds:                            # BARRIER=1 waits for just that
            os.close(fd)

    def pump(self, timeout):
        """One message; False: none came."""
        self.sock.settimeout(timeout)
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, 8192, 16)
        except (TimeoutError, BlockingIOError):
            return False
        message = data.decode()
        self.heard.append(message)
        self.take(message, fds)
        if self.on_message:
            self.on_message(message)
        return True

    def ended(self):
        if self.pid is None:
            return True
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.pid, self.code = None, os.waitstatus_to_exitcode(status)
        return self.pid is None

    def wait(self, text):
        """Until a message holds text: seconds since the start; None: the process ended before."""
        end = time.monotonic() + PATIENCE_S
        while not any(text in m for m in self.heard):
            if not self.pump(0.05) and self.ended():
                return None
            if time.monotonic() > end:
                raise SystemExit(f"no {text} within {PATIENCE_S} s; the log:\n{self.log()}")
        return time.monotonic() - self.started

    def stop(self, sig=signal.SIGTERM):
        """Its exit code. What it said last is heard, too."""
        if self.pid is not None:
            os.kill(self.pid, sig)
        while not self.ended():
            self.pump(0.01)
        while self.pump(0):
            pass
        return self.code
