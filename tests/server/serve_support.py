"""A server of its own for the scripts beside this one: SCRIPT POWERINFER2 FOLDER ..., whose folder has the models."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

program, folder = sys.argv[1:3]
QUESTION = [{"role": "user", "content": "Why is it so?"}]
failures = []


def check(is_true, what):
    if not is_true:
        failures.append(what)
        print("FAILED:", what)


class Server:
    """A server of its own; `with` ends it by SIGTERM and checks that it ends cleanly."""

    def __init__(self, *options, model="m.gguf", context="2048", models=None):
        self.errors = os.path.join(folder, "serve.err")
        of = ["--models", os.path.join(folder, models)] if models else ["-m", os.path.join(folder, model)]
        command = [program, "serve", *of, "--port", "0", "-c", context, *options]
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(command, stderr=errors, stdin=subprocess.DEVNULL)
        self.port = None
        while self.process.poll() is None and self.port is None:
            found = re.search(r"listening on https?://\S+?:(\d+) ", open(self.errors).read())
            self.port = int(found.group(1)) if found else None
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "nothing within a minute"
        check(code == 0, f"SIGTERM ends the server with {code}: {open(self.errors).read()}")

    def ask(self, method, path, body=None, headers=None):
        """Status, headers and the body's bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = json.dumps(body) if isinstance(body, dict) else body
        connection.request(method, path, data, headers or {})
        reply = connection.getresponse()
        result = reply.status, dict(reply.getheaders()), reply.read()
        connection.close()
        return result

    def post(self, path, body):
        status, _, data = self.ask("POST", path, body)
        check(status == 200, f"{path} {body}: {status} {data[:300]}")
        return json.loads(data)

    def error(self, status, path, body, part, method="POST", headers=None):
        """The request is refused with the status, and with a message that has the part."""
        got, _, data = self.ask(method, path, body, headers)
        error = json.loads(data)["error"]
        message = error if isinstance(error, str) else error["message"]
        check(got == status and part in message, f"{path} {str(body)[:100]}: {got} {data[:300]}, not {status} '{part}'")
        return error

    def events(self, path, body):
        """The values of a stream of events; text for [DONE]."""
        status, headers, data = self.ask("POST", path, dict(body, stream=True))
        check(status == 200 and headers["Content-Type"].startswith("text/event-stream"), f"{path}: {status} {headers}")
        lines = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    def metric(self, name):
        found = re.search(rf"^{name} (\S+)$", self.ask("GET", "/metrics")[2].decode(), re.M)
        return float(found.group(1))

    def open_stream(self, limit, **fields):
        """A stream that is begun and not read: its socket."""
        body = json.dumps({"messages": QUESTION, "stream": True, "max_tokens": limit, "ignore_eos": True, **fields})
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        stream.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
                       f"{body}".encode())
        return stream


def expected(name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.read()[:-1]
