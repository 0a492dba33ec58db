"""A server of models that misbehaves as its paths say, for test_cli_download.sh: download_server.py MODEL LOG.

Prints its port. LOG gets a line for each request: METHOD PATH, Range and whether a token came. The repository's name
says what happens: u/good, u/breaks, ... each has the model as m-Q4_K_M.gguf."""
import hashlib
import http.server
import json
import sys
import threading

MODEL = open(sys.argv[1], "rb").read()
SUM = hashlib.sha256(MODEL).hexdigest()
OTHER = MODEL[:4] + bytes(len(MODEL) - 4)  # begins as one, and is another
HALF = len(MODEL) // 2
count = {}
slow = threading.Event()
log = open(sys.argv[2], "w", buffering=1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass
        self.close_connection = True

    def content(self, data, etag, breaks_at=None, **headers):
        """With ranges, as a good server; breaks_at: the connection ends there."""
        asked, start, status = self.headers.get("Range"), 0, 200
        if asked and self.headers.get("If-Range") in (None, etag):
            start, status = int(asked[6:].split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if start >= len(data):
            return self.reply(416, Content_Range=f"bytes */{len(data)}")
        body = data[start:] if breaks_at is None else data[start:breaks_at]
        self.reply(status, body, len(data) - start, ETag=etag, **headers)

    def do_GET(self):
        path = self.path.split("?")[0]
        log.write(f"{self.path} range={self.headers.get('Range')} token={self.headers.get('Authorization')}\n")
        host = self.headers["Host"]
        kind = path.split("/")[4 if path.startswith("/api/") else 2]
        number = count[path] = count.get(path, 0) + 1
        if path.startswith("/api/"):
            return self.list_files(kind)
        if path.startswith("/cdn/"):
            return self.content(MODEL, '"one"')
        send = getattr(self, "do_" + kind.replace("-", "_"), None)
        return send(number, path, host) if send else self.content(MODEL, '"one"', X_Linked_Etag=f'"{SUM}"')

    def list_files(self, kind):
        size, digest = len(MODEL), SUM
        names = ["README.md", "mmproj-Q4_K_M.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-IQ4_XS.gguf"]
        if kind == "hostile":
            names = ["../../evil-Q4_K_M.gguf"]
        if kind == "split":
            names = [f"sub/p-Q4_0-0000{i}-of-00003.gguf" for i in (3, 1, 2)]
        if kind == "nolist":
            return self.reply(200, b"<html>", Content_Type="text/html")
        if kind == "private" and self.headers.get("Authorization") != "Bearer hf_secret":
            return self.reply(401)
        if kind == "wrong-size":
            size += 1
        files = [{"type": "file", "path": name, "size": size, "lfs": {"oid": digest}} for name in names]
        if kind in ("html", "short", "changes", "changes-rudely", "chunked", "huge", "empty", "other"):
            files = [{"type": "file", "path": name} for name in names]
        return self.reply(200, json.dumps(files).encode())

    def do_redirects(self, _number, _path, host):  # to another origin, with a secret of its own
        self.reply(302, Location=f"http://localhost:{host.split(':')[1]}/cdn/m?Signature=hidden",
                   X_Linked_Etag=f'"{SUM}"')

    do_private = do_redirects

    def do_circle(self, _number, path, _host):
        self.reply(302, Location=path)

    def do_breaks(self, number, _path, _host):
        self.content(MODEL, '"one"', breaks_at={1: HALF, 2: HALF + 1000}.get(number))

    def do_dies(self, _number, _path, _host):
        self.content(MODEL, '"one"', breaks_at=HALF)

    def do_changes(self, number, _path, _host):
        if number == 1:
            return self.content(OTHER, '"one"', breaks_at=HALF)
        return self.content(MODEL, '"two"')

    def do_changes_rudely(self, number, _path, _host):  # takes no notice of If-Range
        if number == 1:
            return self.content(OTHER, '"one"', breaks_at=HALF)
        del self.headers["If-Range"]
        return self.content(MODEL, '"two"')

    def do_chunked(self, _number, _path, _host):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(MODEL), MODEL))
        self.close_connection = True

    def do_short(self, _number, _path, _host):
        self.reply(200, MODEL[:HALF], ETag='"one"', X_Linked_Etag=f'"{SUM}"')

    def do_other(self, _number, _path, _host):
        self.reply(200, OTHER, X_Linked_Etag=f'"{SUM}"')

    def do_huge(self, _number, _path, _host):
        self.reply(200, MODEL, 10 ** 17)

    def do_empty(self, _number, _path, _host):
        self.reply(200)

    def do_html(self, _number, _path, _host):
        self.reply(200, b"<html>Please log in</html>", Content_Type="text/html")

    def do_busy(self, number, _path, _host):
        self.reply(429, Retry_After="0") if number == 1 else self.content(MODEL, '"one"')

    def do_busy_for_long(self, _number, _path, _host):
        self.reply(429, Retry_After="4000")

    def do_broken(self, number, _path, _host):
        self.reply(500) if number < 3 else self.content(MODEL, '"one"')

    def do_slow(self, number, _path, _host):  # the first answer stops in the middle
        self.content(MODEL, '"one"', breaks_at=HALF if number == 1 else None)
        if number == 1:
            slow.wait(20)

    def do_goon(self, _number, _path, _host):
        slow.set()
        self.reply(404)

    def do_gone(self, _number, _path, _host):
        self.reply(404)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()  # until whoever started it has gone
