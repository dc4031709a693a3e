"""cut_index.py PORTFILE CUTS WHEEL... - a package index of these wheels, whose first CUTS downloads break off.

Speaks just enough HTTP for pip: the list of a package's files, and the file, whole or from an offset.
Writes its port to PORTFILE; prints a line for each download.
"""
import http.server
import os
import re
import sys

portfile, cuts = sys.argv[1], int(sys.argv[2])
wheels = {os.path.basename(w): w for w in sys.argv[3:]}
projects = {name.split("-")[0].replace("_", "-"): name for name in wheels}


class Index(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, code, body, **headers):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_wheel(self, wheel):
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
        last = self.path.rstrip("/").split("/")[-1]
        if last in wheels:
            self.send_wheel(wheels[last])
        elif last in projects:
            name = projects[last]
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
