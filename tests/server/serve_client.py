"""Clients of a server, for test_serve.sh: serve_client.py POWERINFER2 FOLDER. The folder has m.gguf, answer, sampled."""
import json
import os
import re
import socket
import sys
import threading
import time

from serve_support import QUESTION, Server, check, expected, failures, folder


def check_answers(server):
    greedy = {"messages": QUESTION, "temperature": 0, "max_tokens": 24}
    answer = expected("answer")
    first = server.post("/v1/chat/completions", greedy)
    check(first["choices"][0]["message"]["content"] == answer, "the chat's answer is not run's")
    check(first["usage"]["completion_tokens"] == 24 and first["timings"]["predicted_n"] == 24, f"usage {first}")
    check(first["choices"][0]["finish_reason"] == "length", f"finish_reason {first}")
    times = first["timings"]
    check(abs(times["predicted_per_token_ms"] * 23 - times["predicted_ms"]) < 1e-6 and
          times["prompt_per_token_ms"] > 0 and first["system_fingerprint"].startswith("powerinfer2-"), f"{first}")
    again = server.post("/v1/chat/completions", greedy)
    check(again["choices"] == first["choices"], "the same request has another answer")
    kept = again["usage"]["prompt_tokens"] - 1
    check(again["usage"]["prompt_tokens_details"]["cached_tokens"] == kept, f"the prompt is computed again: {again}")
    seeded = server.post("/v1/chat/completions", dict(greedy, temperature=1, seed=7))
    check(seeded["choices"][0]["message"]["content"] == expected("sampled"), "seed 7 is not run's")

    chunks = server.events("/v1/chat/completions", dict(greedy, stream_options={"include_usage": True}))
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-2])
    check(text == answer, "the stream's text is not run's")
    check(chunks[-1] == "[DONE]" and chunks[-2]["usage"] == again["usage"], f"the stream's end: {chunks[-2:]}")
    check(chunks[-3]["choices"][0]["finish_reason"] == "length", f"the last chunk: {chunks[-3]}")

    prompt = server.post("/apply-template", {"messages": QUESTION})["prompt"]
    ids = server.post("/tokenize", {"content": prompt})["tokens"]
    check(server.post("/detokenize", {"tokens": ids})["content"] == prompt, "detokenize is not the way back")
    for body in ({"prompt": prompt}, {"prompt": ids}, {"prompt": [ids]}, {"prompt": [prompt]}):
        plain = server.post("/v1/completions", dict(body, temperature=0, max_tokens=24))
        check(plain["choices"][0]["text"] == answer, f"/v1/completions {plain}")
    native = server.post("/completion", {"prompt": ids, "temperature": 0, "n_predict": 24})
    check(native["content"] == answer and native["stop_type"] == "limit", f"/completion {native}")

    claude = dict(greedy, messages=QUESTION)
    check(server.post("/v1/messages", claude)["content"] == [{"type": "text", "text": answer}], "/v1/messages")
    events = server.events("/v1/messages", claude)
    text = "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")
    kinds = [e["type"] for e in events if e["type"] != "content_block_delta"]
    check(text == answer and kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta",
                                       "message_stop"], f"/v1/messages, streamed: {kinds}")
    counted = server.post("/v1/messages/count_tokens", {"messages": QUESTION})
    check(counted["input_tokens"] == len(ids), f"count_tokens {counted}")

    options = {"temperature": 0, "num_predict": 24}
    for path, body, get in (("/api/chat", {"messages": QUESTION}, lambda v: v["message"]["content"]),
                            ("/api/generate", {"prompt": "Why is it so?"}, lambda v: v["response"])):
        body["options"] = options
        lines = [json.loads(line) for line in server.ask("POST", path, body)[2].decode().splitlines()]
        check("".join(map(get, lines)) == answer, f"{path}: {lines}")
        check([line["done"] for line in lines] == [False] * (len(lines) - 1) + [True], f"{path}: done")
        check(get(server.post(path, dict(body, stream=False))) == answer, f"{path}, whole")


    for path, body in (("/api/chat", {}), ("/api/chat", {"messages": []}), ("/api/generate", {"prompt": ""})):
        for stream in (False, True):
            loaded = server.post(path, dict(body, model="m", stream=stream))
            check(loaded["done"] and loaded["done_reason"] == "load" and loaded["eval_count"] == 0, f"{path}: {loaded}")


def check_stops_and_chances(server):
    body = {"messages": QUESTION, "temperature": 1, "seed": 7, "max_tokens": 24}
    text = expected("sampled")
    word = text[5:8]
    stopped = server.post("/v1/chat/completions", dict(body, stop=[word, "never there"]))["choices"][0]
    check(stopped["message"]["content"] == text[:text.index(word)] and stopped["finish_reason"] == "stop",
          f"stop {word!r}: {stopped}")
    events = server.events("/v1/messages", dict(body, stop_sequences=[word]))
    check(events[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": word}, f"stop: {events[-2]}")
    chances = server.post("/v1/chat/completions", {"messages": QUESTION, "temperature": 0, "max_tokens": 4,
                                                   "logprobs": True, "top_logprobs": 3})
    content = chances["choices"][0]["logprobs"]["content"]
    check(len(content) == 4, f"logprobs {content}")
    for entry in content:
        top = [t["logprob"] for t in entry["top_logprobs"]]
        check(top == sorted(top, reverse=True) and entry["logprob"] == top[0] <= 0, f"logprobs {entry}")
    streamed = server.events("/v1/chat/completions", {"messages": QUESTION, "temperature": 0, "max_tokens": 4,
                                                      "logprobs": True, "top_logprobs": 3})
    parts = [p for c in streamed[:-1] for p in c["choices"][0]["logprobs"]["content"]]
    check(parts == content, "logprobs of a stream are others")
    none = server.post("/v1/chat/completions", {"messages": QUESTION, "max_tokens": 0})
    check(none["choices"][0]["message"]["content"] == "", f"max_tokens 0: {none}")


def check_biases(server):
    """A bias goes with its request alone, in both forms, and for every choice of it."""
    body = {"prompt": "a b", "n_predict": 3, "temperature": 0, "ignore_eos": True}
    plain = server.post("/completion", body)["content"]
    token = server.post("/tokenize", {"content": "XYZ"})["tokens"][-1]
    want = server.post("/detokenize", {"tokens": [token] * 3})["content"]
    for biases in ({str(token): 1e6}, [[token, 1e6]]):
        text = server.post("/completion", dict(body, logit_bias=biases))["content"]
        check(text == want != plain, f"biased: {text!r}, not {want!r}")
    check(server.post("/completion", body)["content"] == plain, "a bias outlives its request")
    chances = server.post("/completion", dict(body, logit_bias={str(token): 1e6}, n_probs=2))
    check(chances["content"] == want, f"with chances: {chances}")
    several = server.post("/v1/completions", {"prompt": "a b", "n": 2, "max_tokens": 3, "logit_bias": {str(token): 1e6}})
    check([choice["text"] for choice in several["choices"]] == [want] * 2, f"two choices: {several}")


def check_refusals(server):
    chat = "/v1/chat/completions"
    server.error(400, chat, "{", "no JSON")
    server.error(400, chat, "[]", "JSON object")
    server.error(400, chat, b"\xff\xfe", "no JSON")
    server.error(400, chat, "", "no JSON")
    server.error(400, chat, '{"a":1,"a":2}', "duplicate")
    server.error(400, chat, '{"a":' + "[" * 5000, "nested")
    server.error(400, chat, {"messages": "hello"}, "'messages'")
    server.error(400, chat, {"messages": QUESTION, "temperature": -1}, "'temperature'")
    server.error(400, chat, {"messages": QUESTION, "n": 18}, "'n' is 18, it must be from 1 to 17")
    server.error(400, "/completion", {"prompt": "a", "n": 2}, "'n' is 2, it must be from 1 to 1")
    server.error(400, chat, {"messages": QUESTION, "stream": "yes"}, "'stream'")
    server.error(400, chat, {"messages": QUESTION, "response_format": {"type": "xml"}}, "'response_format'")
    server.error(400, "/v1/completions", {"prompt": ""}, "empty")
    server.error(400, "/v1/completions", {"prompt": [5, -1]}, "token -1")
    server.error(400, "/completion", {"prompt": ["a", "b"]}, "2 prompts")
    server.error(400, "/v1/completions", {"prompt": ["a", "b"], "n": 9}, "2 prompts with 9 answers each")
    server.error(400, "/v1/completions", {"prompt": ["a", "b " * 9000]}, "18000 tokens")
    server.error(400, "/v1/completions", {"prompt": ["a", [5, "x"], []]}, "the prompt is empty")
    server.error(400, "/v1/completions", {"prompt": 5}, "'prompt' must be")
    server.error(400, "/v1/completions", {"max_tokens": 5}, "'prompt' must be")
    server.error(400, "/v1/completions", {"prompt": [[5], [-6]]}, "token -6")
    server.error(400, "/v1/completions", {"prompt": [999999999999]}, "outside the vocabulary")
    server.error(400, "/detokenize", {"tokens": ["a"]}, "token 0")
    server.error(404, "/v1/no-such-route", {}, "nothing is at this path")
    server.error(405, chat, None, "other methods", method="GET")
    shown = [json.loads(server.ask("GET", "/v1/models/" + name)[2]) for name in ("m.gguf", "other")]
    check(shown[0].get("id") == "m.gguf" and shown[1]["error"]["code"] == 404, f"one model: {shown}")
    running = json.loads(server.ask("GET", "/api/ps")[2])["models"]
    check([model["name"] for model in running] == ["m.gguf"] and "expires_at" in running[0], f"/api/ps: {running}")
    check(server.post("/api/show", {"model": "m"})["model_info"]["llama.context_length"] > 0, "/api/show: the context")
    for path, form in (("/api/chat", str), ("/api/nothing", str), ("/v1/messages", dict), ("/v1/messages/batches", dict)):
        status, headers, data = server.ask("PUT", path)
        is_known = path in ("/api/chat", "/v1/messages")
        check(status == (405 if is_known else 404) and headers.get("Allow") == ("POST, OPTIONS" if is_known else None) and
              isinstance(json.loads(data)["error"], form), f"PUT {path}: {status} {headers} {data}")
        check(form is str or json.loads(data)["type"] == "error", f"PUT {path}: {data}")
    error = server.error(400, "/v1/completions", {"prompt": [5] * 2048}, "2048 tokens")
    check((error["n_prompt_tokens"], error["n_ctx"], error["type"]) == (2048, 2048, "exceed_context_size_error"),
          f"too long: {error}")
    server.error(400, chat, {"messages": [{"role": "user", "content": "word " * 100000}]}, "context")
    server.error(413, chat, "{" + " " * (17 << 20), "16777216 bytes at most")
    server.error(413, chat, "[" + "{}," * 1000000 + "1]", "memory")
    for path, body in (("/tokenize", {"content": "a " * 20000}), ("/tokenize", {"content": ["a" * 20000] * 2}),
                       ("/completion", {"prompt": "a " * 20000})):
        error = server.error(400, path, body, "more than 36864 bytes")
        check(error["type"] == "exceed_context_size_error", f"{path}: {error}")
    many = server.post("/tokenize", {"content": "a b"})["tokens"] * 20000
    server.error(400, "/tokenize", {"content": many, "with_pieces": True}, "ask for less")
    check(len(server.post("/tokenize", {"content": many})["tokens"]) == len(many), "many tokens without pieces")
    for path, body in ((chat, {"messages": QUESTION, "logprobs": True, "top_logprobs": 20}),
                       ("/v1/completions", {"prompt": "a", "logprobs": 20}), ("/completion", {"prompt": "a", "n_probs": 20})):
        server.error(400, path, body, "the chances of")
    error = server.error(400, "/v1/messages", {"messages": QUESTION}, "'max_tokens'")
    check(error["type"] == "invalid_request_error", f"Anthropic's form: {error}")
    check(isinstance(server.error(400, "/api/chat", {"messages": 5}, "'messages'"), str), "Ollama's form")
    server.error(403, "/health", None, "origin", "GET", {"Origin": "http://evil.example"})
    for name in ("evil.example", "127.0.0.1.evil.example", "127.evil.example", "127.0.0.1.", "localhost.evil.example"):
        server.error(403, "/health", None, "name", "GET", {"Host": name})
    for name in ("127.0.0.1:80", "127.9.9.9", "LocalHost", "[::1]:80"):
        check(server.ask("GET", "/health", None, {"Host": name})[0] == 200, f"Host: {name}")
    status, headers, _ = server.ask("GET", "/health", None, {"Origin": f"http://127.0.0.1:{server.port}"})
    check(status == 200 and "Access-Control-Allow-Origin" not in headers, f"own origin: {status} {headers}")
    check(server.ask("HEAD", "/health")[::2] == (200, b""), "HEAD")
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    raw.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 100000 + b"\r\n\r\n")
    check(b" 431 " in raw.recv(4096).split(b"\r\n")[0], "headers without an end")
    raw.close()


def check_page(server):
    """The page is there without a key, and whatever it loads is too."""
    status, headers, page = server.ask("GET", "/")
    check(status == 200 and "default-src 'none'" in headers["Content-Security-Policy"], f"/: {status} {headers}")
    named = re.findall(rb'(?:src|href)="([^"]+)"', page)
    check(sorted(named) == [b"data:,", b"page.css", b"page.js"], f"/ loads {named}")
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        status, headers, data = server.ask("GET", "/" + name)
        check(status == 200 and headers["Content-Type"].startswith(kind) and data, f"/{name}: {status} {headers}")
    ids = set(re.findall(r'\bid="([^"]+)"', page.decode()))
    script = server.ask("GET", "/page.js")[2].decode()
    check("innerHTML" not in script, "the page takes text for HTML")
    check(set(re.findall(r'\$\("([a-z-]+)"\)', script)) <= ids, "the script looks for what the page has not")


def check_idle():
    """Who begins a request and sends no more does not keep the connection."""
    with Server("--timeout", "1") as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(3)]
        for connection, begun in zip(idle, (b"", b"GET /hea", b"POST /completion HTTP/1.1\r\nHost: localhost\r\n"
                                            b"Content-Length: 5\r\n\r\n{")):
            connection.sendall(begun)
        for connection in idle:
            data = connection.recv(100)
            check(not data or b" 408 " in data, f"an idle connection gets {data}")
            connection.close()


def check_connections():
    """More clients than there may be connections are not turned away: they wait until others have gone."""
    with Server("--queue", "0") as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(17)]
        waiting = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(20)]
        for connection in waiting:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        for connection in idle:
            connection.close()
        for connection in waiting:
            data = connection.recv(100)
            check(data.startswith(b"HTTP/1.1 200 "), f"a connection beyond the limit gets {data}")
            connection.close()


def check_other_loopback():
    """However this machine is named when the server listens on it alone, other names open nothing."""
    with Server("--host", "127.1") as server:
        server.error(403, "/health", None, "name", "GET", {"Host": "evil.example"})
        for name in ("127.1", "localhost"):
            check(server.ask("GET", "/health", None, {"Host": name})[0] == 200, f"Host: {name}")


def check_endless():
    """A body that comes byte by byte for ever, and one that is refused and does not end, lose their connection."""
    head = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for path, timeout, piece, pieces, pause in ((b"completion", "1", b" ", 200, 0.1), (b"no", "600", b" " * 2**20, 80, 0)):
        with Server("--timeout", timeout) as server:
            endless = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            endless.sendall(head % path)
            try:
                for _ in range(pieces):
                    endless.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                    time.sleep(pause)
                endless.sendall(b"0\r\n\r\n")
                data = endless.recv(100)
            except OSError:
                data = b""
            check(not data, f"an endless body gets {data}")
            endless.close()


def check_names():
    """A name that is no UTF-8 is told with replacement characters; where the model lies is not told."""
    with Server("-a", os.fsdecode(b"n\xff"), model="plain.gguf") as server:
        answered = server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})
        check(answered["model"] == "n\ufffd", f"the model's name: {answered}")
        for path in ("/v1/chat/completions", "/apply-template"):
            error = server.error(400, path, {"messages": QUESTION}, "no chat template")
            check("plain.gguf" not in error["message"], f"{path} tells the model's path: {error}")


def check_cancel(server):
    """Clients that leave end their answers: the next one need not wait for 2000 tokens."""
    before = server.metric("llamacpp:tokens_predicted_total")
    streams = [server.open_stream(1900) for _ in range(3)]
    streams[0].recv(1)
    for stream in streams:
        stream.close()
    answer = server.post("/v1/chat/completions", {"messages": QUESTION, "temperature": 0, "max_tokens": 24})
    check(answer["choices"][0]["message"]["content"] == expected("answer"), "after a cancel the answer is another")
    while server.metric("llamacpp:requests_processing") + server.metric("llamacpp:requests_deferred"):
        time.sleep(0.01)
    made = server.metric("llamacpp:tokens_predicted_total") - before - 24
    check(made < 3 * 1900, f"three clients that left were answered with {made} tokens")


def check_together(server):
    """Many at once: each has its own answer."""
    wanted = {}
    for limit in range(1, 9):
        wanted[limit] = server.post("/v1/completions", {"prompt": f"case {limit}", "temperature": 0,
                                                        "max_tokens": limit})["choices"]
    def ask(limit):
        body = {"prompt": f"case {limit}", "temperature": 0, "max_tokens": limit}
        check(server.post("/v1/completions", body)["choices"] == wanted[limit], f"case {limit} among others")
    threads = [threading.Thread(target=ask, args=(limit,)) for limit in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check_keys():
    keys = os.path.join(folder, "keys")
    with open(keys, "w") as file:
        file.write("first-key\n\nsecond-key\n")
    with Server("--api-key-file", keys, "--cors-origins", "https://page.example", "-a", "named") as server:
        body = {"prompt": "a", "max_tokens": 1}
        for headers in ({}, {"Authorization": "Bearer first-ke"}, {"Authorization": "Bearer first-keyy"},
                        {"Authorization": "first-key"}, {"X-Api-Key": ""}):
            server.error(401, "/v1/completions", body, "key", headers=headers)
        for headers in ({"Authorization": "Bearer second-key"}, {"X-Api-Key": "first-key"}):
            check(server.ask("POST", "/v1/completions", body, headers)[0] == 200, f"with {headers}")
        check(server.ask("GET", "/health")[0] == 200, "/health wants a key")
        server.error(401, "/props", None, "key", "GET")
        models = json.loads(server.ask("GET", "/v1/models")[2])
        check(models["data"][0]["id"] == "named", f"{models}")
        status, headers, _ = server.ask("OPTIONS", "/v1/completions", None, {"Origin": "https://page.example"})
        check(status == 204 and headers["Access-Control-Allow-Origin"] == "https://page.example", f"{headers}")
        check(server.ask("OPTIONS", "/v1/completions", None, {"Origin": "https://other.example"})[0] == 403, "OPTIONS")


def check_queue():
    """One waits, one more is refused; the end comes while an answer is made."""
    with Server("--queue", "1") as server:
        streams = [server.open_stream(2000)]
        streams[0].recv(1)
        streams.append(server.open_stream(2000))
        while server.metric("llamacpp:requests_deferred") + server.metric("llamacpp:requests_processing") == 2:
            status, headers, data = server.ask("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
            busy = server.metric("llamacpp:requests_deferred") + server.metric("llamacpp:requests_processing") == 2
            check(not busy or (status == 503 and headers["Retry-After"] == "1"), f"a full queue: {status} {data}")
            break
    for stream in streams:
        stream.close()


def check_prompt_cache():
    """A server that comes after another one has what that one computed; a folder that cannot be made stops none."""
    body = {"prompt": " ".join(f"line {i} of {i * i % 17}" for i in range(60)), "temperature": 0, "max_tokens": 8}
    with Server() as server:
        want = server.post("/v1/completions", body)
        check(want["usage"]["prompt_tokens"] > 520, f"a short prompt: {want['usage']}")
    for cached in (0, 512):
        with Server("--prompt-cache", os.path.join(folder, "prompts"), "--prompt-cache-size", "8M", "-np", "2") as server:
            got = server.post("/v1/completions", body)
            check(got["choices"] == want["choices"], "another text with a prompt cache")
            check(got["usage"]["prompt_tokens_details"]["cached_tokens"] == cached, f"not {cached} cached: {got['usage']}")
    with Server("--prompt-cache", os.path.join(folder, "none", "such")) as server:
        check(server.post("/v1/completions", body)["choices"] == want["choices"], "another text without a folder")


with Server("--temp", "0") as main_server:
    check_answers(main_server)
    check_stops_and_chances(main_server)
    check_biases(main_server)
    check_refusals(main_server)
    check_page(main_server)
    check_cancel(main_server)
    check_together(main_server)
check_keys()
check_queue()
check_prompt_cache()
check_idle()
check_connections()
check_endless()
check_other_loopback()
check_names()
print(f"{len(failures)} failures")
sys.exit(bool(failures))
