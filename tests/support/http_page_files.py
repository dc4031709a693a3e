"""http_page_files.py URL - the files of the page, without a browser: what they may do, and that they ask nobody else."""
import re
import sys

from http_client import Server, check, done

s = Server(sys.argv[1])
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "html": "text/html"}


def get(path, **headers):
    st, h, body = s.ask("GET", path, headers=headers)
    check(path, st == 200, st)
    return h, body.decode() if isinstance(body, bytes) else body


_, line = get("/")
check("programs get a line", line.startswith("gist-http is running"), line)
h, html = get("/", Accept="text/html,application/xhtml+xml")
csp = h["Content-Security-Policy"]
check("nothing but our own", csp.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in csp
      and "data:" not in csp and "frame-ancestors 'none'" in csp and "trusted-types 'none'" in csp, csp)
seen, left = {"/": html}, sorted(set(re.findall(r'(?:src|href)="(/[^"]*)"', html)))
check("it has files", any(p.endswith(".js") for p in left) and any(p.endswith(".css") for p in left), left)
while left:
    path = left.pop()
    if path in seen:
        continue
    h, seen[path] = get(path)
    check(f"{path}: its type", h["Content-Type"].startswith(TYPES[path.rsplit(".")[-1]]), h["Content-Type"])
    check(f"{path}: is what it says", h["X-Content-Type-Options"] == "nosniff")
    left += ["/page/" + p for p in re.findall(r'from "\./([^"]*)"', seen[path])]
for path, text in seen.items():
    foreign = [u for u in re.findall(r"https?://[^\"'` )]+|//[a-z]+\.[a-z]+", text) if u != "http://www.w3.org/2000/svg"]
    check(f"{path} names nobody else", not foreign, foreign)
    check(f"{path} makes no HTML of texts", not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|\sstyle=|\son\w+=\"", text))
check("no other files", s.ask("GET", "/page/../http/page.c")[0] == 404 and s.ask("GET", "/page/")[0] == 404)
check("nothing is sent to it", s.ask("POST", "/page/page.js", "{}")[0] == 404)
st, h, body = s.ask("HEAD", "/", headers={"Accept": "text/html"})
check("its head", st == 200 and body == b"" and int(h["Content-Length"]) == len(html.encode()), (st, body))
done()
