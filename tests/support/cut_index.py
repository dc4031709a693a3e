"""cut_index.py PORTFILE WHEEL CUTS - a package index with one package, whose first CUTS downloads break off.

Speaks just enough HTTP for pip: the list of the package's files, and the file, whole or from an offset.
Writes its port to PORTFILE; prints a line for each download.
"""
import http.server
import os
import re
import sys

portfile, wheel, cuts = sys.argv[1], sys.argv[2], int(sys.argv[3])
name = os.path.basename(wheel)
project = name.split("-")[0].replace("_", "-")


class Index(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, code, body, **headers):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_wheel(self):
        global cuts
        size = os.path.getsize(wheel)
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        print("download from", start, "cut" if cuts > 0 else "whole", flush=True)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("ETag", '"1"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        left = (size - start) // 3 if cuts > 0 else size - start
        with open(wheel, "rb") as f:
            f.seek(start)
            while left > 0:
                block = f.read(min(left, 1 << 20))
                self.wfile.write(block)
                left -= len(block)
        self.close_connection = cuts > 0
        cuts -= 1

    def do_GET(self):
        if self.path.endswith(".whl"):
            self.send_wheel()
        elif project in self.path:
            self.reply(200, f'<a href="/{name}">{name}</a>'.encode(), Content_Type="text/html")
        else:
            self.reply(404, b"")

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
with open(portfile + ".part", "w") as f:
    f.write(str(server.server_port))
os.rename(portfile + ".part", portfile)
server.serve_forever()
