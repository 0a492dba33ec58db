"""Mutated requests to every route, for test_serve_many.sh: fuzz_requests.py POWERINFER2 FOLDER [REQUESTS [CLIENTS]]. The
folder has m.gguf. By hand, a million of them:

    python3 tests/server/fuzz_requests.py build/powerinfer2 FOLDER 1000000 8

Each request begins as a good one of its route; then values, keys, bytes, headers, the path or the method are changed. Every
reply must be HTTP with a status that a client expects, its body what its headers say, an error in its API's form; afterwards
the server answers as before, holds no slot, stays within --memory and has not grown."""
import json
import multiprocessing
import random
import re
import socket
import sys
import time

from serve_support import Server, check, failures

total = int(sys.argv[3]) if len(sys.argv) > 3 else 600
clients = int(sys.argv[4]) if len(sys.argv) > 4 else 4
BUDGET = 1000000000 if "sanitized" in sys.argv else 48000000

CHAT = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]}
TOOL = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The weather.", "parameters": TOOL}
SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "seed": 7, "repeat_penalty": 1.1, "stop": ["x"]}
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Rome\"}"}}]}
GOOD = {
    "/v1/chat/completions": [
        dict(CHAT, max_tokens=3, **SAMPLING), dict(CHAT, max_tokens=2, stream=True, stream_options={"include_usage": True}),
        dict(CHAT, max_tokens=2, logprobs=True, top_logprobs=3, n=2, chat_template_kwargs={"a": 1}),
        dict(CHAT, max_tokens=3, tools=[{"type": "function", "function": FUNCTION}], tool_choice="auto"),
        dict(CHAT, max_tokens=4, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": TOOL}}),
        {"messages": CHAT["messages"] + [CALL, {"role": "tool", "tool_call_id": "c1", "content": "12"}], "max_tokens": 1},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 1, "grammar": "root ::= [a-z]+"}],
    "/v1/completions": [{"prompt": "a b", "max_tokens": 2, "logprobs": 1}, {"prompt": [1, 2, 3], "max_tokens": 1, "stream": True},
                        {"prompt": ["a", [1, 2], ["b", 3]], "n": 2, "max_tokens": 2, "logprobs": 1}],
    "/v1/responses": [{"input": "Why?", "max_output_tokens": 2, "instructions": "Be brief."}, {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}], "stream": True, "max_output_tokens": 1,
        "tools": [dict(FUNCTION, type="function")]}],
    "/v1/messages": [{"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "Why?"}], "system": "a"}, {
        "model": "m", "max_tokens": 2, "stream": True, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "tools": [{"name": "weather", "input_schema": TOOL}], "tool_choice": {"type": "auto"}, "stop_sequences": ["x"]}],
    "/v1/messages/count_tokens": [{"model": "m", "messages": [{"role": "user", "content": "Why?"}]}],
    "/api/chat": [{"model": "m", "messages": CHAT["messages"], "stream": False, "options": {"num_predict": 2, "seed": 1}}, {
        "model": "m", "messages": CHAT["messages"], "format": TOOL, "options": {"num_predict": 3}, "think": False}],
    "/api/generate": [{"model": "m", "prompt": "a", "options": {"num_predict": 2}, "keep_alive": "5m", "raw": True}],
    "/api/show": [{"model": "m"}],
    "/completion": [{"prompt": "a b", "n_predict": 2, "n_probs": 2, "cache_prompt": True}, {
        "prompt": "a", "n_predict": 2, "json_schema": TOOL, "stream": True, "return_progress": True, "t_max_predict_ms": 50}],
    "/tokenize": [{"content": "Hello there", "add_special": True, "with_pieces": True}],
    "/detokenize": [{"tokens": [5, 6, 7]}],
    "/apply-template": [{"messages": CHAT["messages"]}],
}
LOOKED_AT = ("/", "/health", "/metrics", "/slots", "/slots?fail_on_no_slot=1", "/props", "/v1/models", "/api/tags",
             "/api/version", "/api/ps", "/v1/models/m", "/v1/models/", "/v1/models/%ff%00", "/v1/models/a" + "%C3%A9" * 150,
             "/none", "/v1/../health", "/%2e%2e/%2e%2e/etc/passwd", "//", "/?" + "a=b&" * 40)
ODD = (None, True, False, 0, -1, 1, 2**31, 2**63, -2**63, 2**64, 1e308, -1e308, 1e-320, 0.1, "", "\x00", "a" * 300, "😀\ud83d",
       "\u2028", "%s%n", "../../x", [], {}, [[]], [None], {"": None}, [[[[[[]]]]]], "null", "<|im_end|>", "-0", "user", "text")
STATUSES = {200, 204, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 422, 431, 500, 501, 503, 505}


def places(value, path=()):
    """Every place within a JSON value, the value itself first."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, path + (key,))


def odd_value(chosen):
    return json.loads(json.dumps(chosen.choice(ODD))) # a value of its own, which changes later


def at(value, path):
    for key in path:
        value = value[key]
    return value


def change_value(chosen, body):
    """One place of the body gets another value, another name, or a neighbour, or is gone."""
    path = chosen.choice(list(places(body)))
    if not path:
        return odd_value(chosen) if chosen.random() < 0.1 else body
    parent, key = at(body, path[:-1]), path[-1]
    kind = chosen.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[chosen.choice((key + "s", key.upper(), "", key[:-1]))] = parent.pop(key)
    elif kind == 2 and isinstance(parent, list):
        parent.extend([parent[key]] * chosen.choice((1, 3, 40)))
    elif kind == 3:
        parent[key] = json.loads(json.dumps(at(body, chosen.choice(list(places(body)))))) # another part of the body
    else:
        parent[key] = odd_value(chosen)
    return body


def change_bytes(chosen, data):
    data = bytearray(data)
    for _ in range(chosen.choice((1, 1, 2, 8))):
        where = chosen.randrange(len(data) + 1)
        kind = chosen.randrange(4)
        if kind == 0:
            del data[where:where + chosen.choice((1, 3, 50))]
        elif kind == 1:
            data[where:where] = chosen.choice((b"\x00", b"{", b"[" * 60, b'"', b"\\u0000", b"\xff\xfe", b"1e999", b"\\ud800"))
        else:
            data[where:where + 1] = bytes([chosen.randrange(256)])
    return bytes(data)


def make_request(chosen):
    """The route, the request's bytes, and whether the connection must be closed after it."""
    if chosen.random() < 0.12:
        path, method, body = chosen.choice(LOOKED_AT), chosen.choice(("GET", "GET", "HEAD", "POST", "DELETE", "OPTIONS")), b""
    else:
        path, method = chosen.choice(list(GOOD)), "POST"
        value = json.loads(json.dumps(chosen.choice(GOOD[path])))
        for _ in range(chosen.choice((0, 1, 1, 1, 2, 5))):
            value = change_value(chosen, value) if isinstance(value, (dict, list)) else value
        body = json.dumps(value).encode()
        if chosen.random() < 0.3:
            body = change_bytes(chosen, body)
        if chosen.random() < 0.02:
            method = chosen.choice(("GET", "PUT", "PATCH", "DELETE", "post"))
    length, extra, ends = str(len(body)), "", False
    if chosen.random() < 0.03:
        length, ends = chosen.choice(("0", "-1", "x", str(len(body) + 9), "99999999999999999999", " 5")), True
    if chosen.random() < 0.05:
        extra = chosen.choice(("Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n", "Origin: http://evil\r\n",
                               "Content-Type: text/plain\r\n", "Authorization: Bearer x\r\n", "X: " + "y" * 5000 + "\r\n",
                               "Range: bytes=0-1\r\n", "Content-Encoding: gzip\r\n", "\x00: a\r\n", "Host: b\r\n"))
        ends = True
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{extra}\r\n".encode("latin-1")
    return path, method, head + body, ends


class Wire:
    """A connection that is kept while both sides want it."""

    def __init__(self, port):
        self.port, self.socket, self.data = port, None, b""

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket, self.data = None, b""

    def more(self):
        piece = self.socket.recv(65536)
        self.data += piece
        return bool(piece)

    def take(self, length):
        while len(self.data) < length and self.more():
            pass
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def line(self):
        while b"\n" not in self.data and self.more():
            pass
        return self.take(self.data.index(b"\n") + 1 if b"\n" in self.data else len(self.data)).rstrip(b"\r\n")

    def ask(self, data, method, ends):
        """Sends the request; returns status, headers and body of the reply, None where the server closed without one."""
        if not self.socket:
            self.data = b""
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        try:
            self.socket.sendall(data)
            if ends:
                self.socket.shutdown(socket.SHUT_WR)
            head = self.line()
            while head.startswith(b"HTTP/1.1 100"):
                self.line()
                head = self.line()
            if not head:
                self.close()
                return None
            status, headers = int(re.fullmatch(rb"HTTP/1\.[01] (\d{3})( .*)?", head).group(1)), {}
            while header := self.line():
                name, _, value = header.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            body = b""
            if method == "HEAD" or status in (204, 304):
                pass
            elif headers.get("transfer-encoding") == "chunked":
                while size := int(self.line() or b"0", 16):
                    body += self.take(size)
                    self.line()
                self.line()
            else:
                body = self.take(int(headers["content-length"])) if "content-length" in headers else self.take(1 << 30)
        except OSError as error: # it was closed before the request, or within it
            self.close()
            if isinstance(error, TimeoutError):
                raise
            return None
        if ends or headers.get("connection", "").lower() == "close":
            self.close()
        return status, headers, body


def wrong_of(path, reply):
    """What is wrong with a reply; None of a right one."""
    status, headers, body = reply
    kind = headers.get("content-type", "")
    if status not in STATUSES or status == 500:
        return f"status {status}"
    try:
        if kind.startswith("text/event-stream"):
            for line in body.decode().split("\n"):
                if line.startswith("data: ") and line != "data: [DONE]":
                    json.loads(line[6:])
        elif kind.startswith("application/x-ndjson"):
            [json.loads(line) for line in body.decode().split("\n") if line]
        elif kind.startswith("application/json"):
            value = json.loads(body) if body else {}
            error = value.get("error") if isinstance(value, dict) else None
            if status >= 400 and body:
                is_right = isinstance(error, str) if path.startswith("/api/") else isinstance(error, dict) and error["message"]
                if not is_right or path.startswith("/v1/messages") and value.get("type") != "error":
                    return "an error in another form"
    except (ValueError, KeyError) as fault:
        return f"a body that is no {kind}: {fault!r}"
    return None


def work(port, seed, count, results):
    chosen, wire, counts, wrong = random.Random(seed), Wire(port), {}, []
    for number in range(count):
        path, method, data, ends = make_request(chosen)
        try:
            is_kept = wire.socket is not None
            reply = wire.ask(data, method, ends)
            if not reply and is_kept: # closed between two requests
                reply = wire.ask(data, method, ends)
            fault = wrong_of(path, reply) if reply else None if ends else "no reply"
            counts[reply[0] if reply else "closed"] = counts.get(reply[0] if reply else "closed", 0) + 1
        except (OSError, ValueError, KeyError, AttributeError) as error:
            fault, reply = f"no HTTP: {error!r}", None
            wire.close()
        if fault and len(wrong) < 20:
            wrong.append(f"seed {seed}, request {number}: {fault}: {data[:600]!r} gets {reply!r:.600}")
    results.put((counts, wrong))


def resident(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def fuzz(server, first_seed, count):
    """The statuses of so many requests, by `clients` at once."""
    results, counts = multiprocessing.Queue(), {}
    workers = [multiprocessing.Process(target=work, args=(server.port, first_seed + i, count // clients, results))
               for i in range(clients)]
    for worker in workers:
        worker.start()
    for _ in workers:
        some, wrong = results.get()
        for status, number in some.items():
            counts[status] = counts.get(status, 0) + number
        for fault in wrong:
            check(False, fault)
    for worker in workers:
        worker.join()
    return counts


PROBE = {"prompt": "Why is it so?", "max_tokens": 30, "temperature": 0, "ignore_eos": True}
with Server("-np", "4", "--queue", "12", "--memory", str(BUDGET), context="512") as main_server:
    alone = main_server.post("/v1/completions", PROBE)["choices"][0]["text"]
    first = fuzz(main_server, 0, total // 2)
    half = resident(main_server)
    second = fuzz(main_server, clients, total // 2)
    deadline = time.monotonic() + 60
    while main_server.metric("llamacpp:requests_processing") + main_server.metric("llamacpp:requests_deferred"):
        check(time.monotonic() < deadline, "requests are still computed a minute later")
        if failures:
            break
        time.sleep(0.01)
    after = resident(main_server)
    check(main_server.post("/v1/completions", PROBE)["choices"][0]["text"] == alone, "another answer than before")
    if "sanitized" not in sys.argv:
        peak = main_server.metric("powerinfer2:peak_memory_bytes")
        check(peak <= BUDGET, f"peak memory {peak} of {BUDGET}")
        check(total < 10000 or after <= half + 2000000, f"memory grows: {half} bytes at half, {after} at the end")
both = {str(status): first.get(status, 0) + second.get(status, 0) for status in first.keys() | second.keys()}
print(f"{sum(both.values())} requests: {dict(sorted(both.items()))}, {half} and {after} bytes resident, {len(failures)} failures")
sys.exit(bool(failures))
