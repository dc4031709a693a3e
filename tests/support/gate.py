"""gate.py - for tests: stands between a client and a server of TCP, and can cut what goes through."""
import socket
import threading


class Gate:
    def __init__(self, port):
        self.to, self.open = ("127.0.0.1", port), set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.instead = None  # (what a connection's bytes begin with, what it is sent in place of an answer)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client = self.listener.accept()[0]
            try:
                server = socket.create_connection(self.to)
            except OSError:
                client.close()
                continue
            self.open |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one, other):
        held = False
        try:
            while data := one.recv(65536):
                if self.instead and data.startswith(self.instead[0]):
                    one.sendall(self.instead[1])
                    held, self.instead = True, None
                if not held:
                    other.sendall(data)
        except OSError:
            pass
        for s in (one, other):
            self.close(s)

    def close(self, s):
        self.open.discard(s)
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def cut(self):
        """All that is open; new connections are let through."""
        for s in list(self.open):
            self.close(s)
