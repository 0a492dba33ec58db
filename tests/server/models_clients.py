"""Clients of servers with a folder of models, for test_serve_models.sh: models_clients.py POWERINFER2 FOLDER [sanitized]."""
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time

from serve_support import Server, check, failures, folder, program

LIMIT = 12
LATE = 4 if "sanitized" in sys.argv else 1 # seconds that a request may take, where it has to be late
MEMORY = "1G" if "sanitized" in sys.argv else "128M" # a sanitizer keeps what was freed for a while
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/completion", "/tokenize", "/v1/messages",
          "/v1/messages/count_tokens", "/api/chat", "/api/generate", "/api/show")


def alone(model, text):
    """What run answers."""
    made = subprocess.run([program, "run", "-m", os.path.join(folder, "models", model + ".gguf"), "--raw", "-p", text,
                           "--temp", "0", "-n", str(LIMIT), "-c", "512", "--ignore-eos", "-q"], capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=120)
    check(made.returncode == 0, f"run: {made.stderr}")
    return made.stdout.decode()[:-1]


def body(model, text, **fields):
    named = {"model": model} if model else {}
    return {"prompt": text, "temperature": 0, "max_tokens": LIMIT, "ignore_eos": True, **named, **fields}


def get(server, path):
    status, _, data = server.ask("GET", path)
    return status, json.loads(data)


def states(server):
    return {m["id"]: m["status"]["value"] for m in get(server, "/v1/models")[1]["data"]}


def tells_none(server):
    """Nothing is loaded, and every route that tells of a model says so."""
    check(states(server) == {"a": "unloaded", "b": "unloaded", "damaged": "unloaded"}, f"models: {states(server)}")
    tags = get(server, "/api/tags")[1]["models"]
    check([(t["name"], t["state"]) for t in tags] == [(n, "unloaded") for n in ("a", "b", "damaged")], f"tags: {tags}")
    check(get(server, "/health") == (200, {"status": "ok", "model": None}), f"/health: {get(server, '/health')}")
    props = get(server, "/props")
    check(props[0] == 200 and props[1]["is_loaded"] is False and props[1]["model_alias"] is None, f"/props: {props}")
    check(get(server, "/slots") == (200, []), f"/slots: {get(server, '/slots')}")
    check(server.metric("powerinfer2:models_loaded") == 0, "a model is loaded")
    check(b"llamacpp:" not in server.ask("GET", "/metrics")[2], "metrics of no model")


def check_names(server):
    """What is no model of the folder gets 404 in each API's form, and so does a name that leads out of it."""
    for name in ("c", "a.gguf", "lost", "d", "pipe", "notes", ".hidden", "split-00002-of-00002", "../b", "models/a",
                 "..", ".", "/", "a/../a", "a\n", "n" * 5000, ":latest", "\u00e9"):
        server.error(404, "/v1/completions", body(name, "x"), "there is no model '")
    for route in ROUTES:
        error = server.error(404, route, {"model": "c"}, "there is no model 'c'")
        is_ollama, is_anthropic = route.startswith("/api"), "messages" in route
        check(isinstance(error, str) if is_ollama else error["type"] == "not_found_error", f"{route}: {error}")
        check(is_ollama or ("code" in error) != is_anthropic, f"{route}: {error}")
    server.error(400, "/v1/completions", body(None, "x"), "'model' is missing")
    server.error(400, "/v1/completions", dict(body(None, "x"), model=7), "'model' must be")
    server.error(400, "/v1/completions", "{", "no JSON")
    tells_none(server)


def check_damaged(server):
    """A model that does not load is told, without where it lies; others are there as before."""
    error = server.error(503, "/v1/completions", body("damaged", "x"), "the model does not load: damaged: ")
    health = get(server, "/health")
    check(health[0] == 503 and health[1]["error"]["message"] == error["message"], f"/health: {health}, not {error}")
    check(folder not in error["message"] and "damaged.gguf" in error["message"], f"the reason: {error}")
    check(server.metric("powerinfer2:models_loaded") == 0, "a damaged model is loaded")


def check_switching(server, wanted):
    """Four clients that want different models have the answers of run, whole and streamed; none waits for ever."""
    def ask(client):
        for turn in range(3):
            model, text = list(wanted)[(client + turn) % len(wanted)]
            if (client + turn) % 2:
                reply = server.post("/v1/completions", body(model, text))
                check(reply["model"] == model, f"{reply['model']} answers for {model}")
                got = reply["choices"][0]["text"]
            else:
                chunks = server.events("/v1/completions", body(model, text))[:-1]
                got = "".join(c["choices"][0]["text"] for c in chunks)
            check(got == wanted[model, text], f"{model}: {got!r}, not {wanted[model, text]!r}")
    clients = [threading.Thread(target=ask, args=(client,)) for client in range(4)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients): # whoever looks meanwhile holds none
        for path in ("/metrics", "/slots", "/props", "/v1/models", "/api/tags"):
            check(server.ask("GET", path)[0] == 200, f"{path} while models change")
    check(server.metric("powerinfer2:model_loads_total") > 2, "the models did not change")


def check_advice(server):
    """How tokens are drawn is as the file of the model in memory advises; of another that advises nothing, as always."""
    for model, top_k in (("b", 17), ("a", 40), ("b", 17)):
        server.post("/v1/completions", body(model, "x"))
        params = get(server, "/props")[1]["default_generation_settings"]["params"]
        check(params["top_k"] == top_k, f"/props of {model}: {params}")


def post_bytes(path, fields):
    data = json.dumps(fields)
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode()


def slow_reader(server):
    """A connection through which little goes that is not read: a long stream does not end."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", server.port))
    return connection


def check_turns(server, wanted):
    """Who wants the model in memory does not pass one who waits for another; who leaves the queue does not hold it."""
    stream = slow_reader(server)
    def send(connection, model, limit):
        connection.sendall(post_bytes("/v1/completions", body(model, "long", max_tokens=limit, stream=True, logprobs=20)))
    def wait_for(count, when):
        until = time.monotonic() + 30
        while server.metric("powerinfer2:model_requests_waiting") != count and time.monotonic() < until:
            time.sleep(0.01)
        now = server.metric("powerinfer2:model_requests_waiting")
        check(now == count, f"{now} wait, not {count}, when {when}")
    server.post("/v1/completions", body("a", "x"))
    send(stream, "a", 8000)
    check(b"200" in stream.recv(100), "the stream does not begin")
    order = []
    def ask(model):
        (_, text), answer = next((key, value) for key, value in wanted.items() if key[0] == model)
        got = server.post("/v1/completions", body(model, text))["choices"][0]["text"]
        order.append(model)
        check(got == answer, f"{model} in turn: {got!r}")
    leaving = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    send(leaving, "damaged", 1)
    wait_for(1, "one has come")
    clients = []
    for count, model in enumerate(("b", "a")):
        clients.append(threading.Thread(target=ask, args=(model,)))
        clients[-1].start()
        wait_for(2 + count, "others come")
    check(order == [] and states(server)["a"] == "loaded", f"a passed b, or the stream's model has gone: {order}")
    leaving.close()
    wait_for(2, "the first has left")
    fillers = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(2)]
    for filler in fillers:
        send(filler, "b", 1)
    wait_for(4, "the queue is full")
    server.error(503, "/v1/completions", body("a", "x"), "the queue is full")
    for filler in fillers:
        filler.close()
    wait_for(2, "the last have left")
    stream.close()
    for client in clients:
        client.join()
    check(order == ["b", "a"] and states(server)["a"] == "loaded", f"turns: {order}, {states(server)}")
    check(get(server, "/health") == (200, {"status": "ok", "model": "a"}), f"/health: {get(server, '/health')}")
    shown = [server.post("/api/show", {"model": name})["model_info"] for name in ("a", "b:latest")]
    check("general.architecture" in shown[0] and shown[1] == {}, f"/api/show: {shown}")
    check(server.post("/v1/completions", body(None, "x"))["model"] == "a", "no name is not the loaded model")
    check(server.post("/v1/completions", body("a:latest", "x"))["model"] == "a", "a:latest is not a")


def resident_bytes(server):
    with open(f"/proc/{server.process.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def check_idle():
    """A model that nobody asks for leaves memory, also while somebody looks, and comes back with the same answer."""
    with Server("--idle-unload", "1", "-np", "2", models="models", context="512") as server:
        first = server.post("/v1/completions", body("b", "x"))["choices"]
        loaded = resident_bytes(server)
        while server.metric("powerinfer2:models_loaded"):
            server.ask("GET", "/props")
        tells_none(server)
        check("sanitized" in sys.argv or not os.path.exists("/proc/self/statm") or
              resident_bytes(server) < loaded - 8000000, f"memory: {loaded}, then {resident_bytes(server)}")
        check(server.post("/v1/completions", body("b", "x"))["choices"] == first, "another answer than before")
        loads = [server.metric(f"powerinfer2:model_{what}_total") for what in ("loads", "unloads")]
        check(loads == [2, 1], f"loads, unloads: {loads}")


def read_reply(connection):
    """Status, headers, and the body's lines that are not empty."""
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    lines = [line for line in reply.read().decode().split("\n") if line]
    connection.close()
    return reply.status, reply.headers, lines


def check_late(reply, status, streamed, part, what):
    """The reply ends with an error that has the status, and the part in its message."""
    got, headers, lines = reply
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    check(got == (200 if streamed else status), f"{what}: {got}")
    if isinstance(error, str): # Ollama's
        check(part in error, f"{what}: {error}")
        return
    kind = "timeout_error" if status == 504 else "unavailable_error"
    check(error.get("code", status) == status and error["type"] == kind and part in error["message"], f"{what}: {error}")
    check(streamed or (headers["Retry-After"] == "1") == (status == 503) and
          (headers["X-Should-Retry"] == "false") == (status == 504), f"{what}: {headers}")


def answers(server, model):
    """The server answers, also on a machine so slow that it does not at once."""
    replies = []
    while len(replies) < 20 and (not replies or replies[-1][0] in (503, 504)):
        replies.append(server.ask("POST", "/v1/completions", body(model, "x", max_tokens=1)))
    check(replies[-1][0] == 200, f"{model} does not answer: {replies[-1]}")


def check_late_requests(server):
    """Those that are computed end, also one that nobody reads; who waits for a slot or a model learns why it got none."""
    def slots_are_idle():
        return all(slot["state"] == "idle" for slot in get(server, "/slots")[1])
    def wait_until(is_so, seconds=LATE): # so much later all deadlines have passed, and there is no more to see
        until = time.monotonic() + seconds
        while not is_so() and time.monotonic() < until:
            time.sleep(0.01)
    def begin(path, fields):
        """A request whose time has begun, before its body is there."""
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(post_bytes(path, fields).partition(b"\r\n\r\n")[0] + b"\r\nExpect: 100-continue\r\n\r\n")
        got = connection.recv(100)
        check(got.startswith(b"HTTP/1.1 100 "), f"a body that is to come: {got}")
        return connection, json.dumps(fields).encode()
    def end(begun):
        begun[0].sendall(begun[1])
    answers(server, "b")
    choices, stream, other = [begin("/v1/completions", fields) for fields in
                              (body("b", "early", n=2), body("b", "early", stream=True), body("a", "early"))]
    asked = {"/v1/messages": {"model": "b", "messages": [{"role": "user", "content": "x"}], "max_tokens": 8000,
                              "ignore_eos": True},
             "/api/generate": {"model": "b", "prompt": "x", "options": {"num_predict": 8000, "ignore_eos": True}},
             "/v1/completions": body("b", "long", max_tokens=8000, stream=True, logprobs=20)}
    long = [slow_reader(server) for _ in asked]
    for connection, (path, fields) in zip(long, asked.items()):
        connection.sendall(post_bytes(path, fields))
    wait_until(lambda: server.metric("llamacpp:requests_processing") == 3)
    end(choices)
    end(stream)
    wait_until(lambda: server.metric("llamacpp:requests_deferred") == 3)
    end(other)
    for begun, streamed, what in ((choices, False, "in the queue"), (stream, True, "in the queue"),
                                  (other, False, "for its model")):
        check_late(read_reply(begun[0]), 503, streamed, f"waited {what}", f"waits {what}")
    wait_until(slots_are_idle, 60)
    check(slots_are_idle(), f"a reader holds its slot: {get(server, '/slots')[1]}")
    answers(server, "b")
    for connection, path in zip(long, asked):
        check_late(read_reply(connection), 504, path != "/v1/messages", f"was not complete within the {LATE} s", path)


def check_time_of_answer(server):
    """t_max_predict_ms ends an answer that has a line, as its limit does; one within its first line goes on."""
    for grammar, limit in ((r'root ::= "a\n" [ab]{900,2000}', 800), ("root ::= [ab]{900,2000}", 60)):
        got = server.post("/completion", body("a", "x", max_tokens=limit, grammar=grammar, ignore_eos=False,
                                              t_max_predict_ms=1))
        made = got["timings"]["predicted_n"]
        check(got["stop_type"] == "limit" and (made < limit) == (limit == 800), f"{made} of {limit}: {got['stop_type']}")
    server.error(400, "/completion", body("a", "x", t_max_predict_ms="1"), "'t_max_predict_ms' must be")


def check_deadlines():
    with Server("--request-timeout", str(LATE), "-np", "3", "--queue", "4", "--memory", MEMORY, models="models",
                context="8192") as server:
        check_late_requests(server)


def check_prompt_cache(wanted):
    """Pages of one model are none of the other's."""
    text = "What is kept of one is not taken for the other. " * 9
    with Server("--prompt-cache", os.path.join(folder, "kept"), models="models", context="512") as server:
        replies = [server.post("/v1/completions", body(model, text)) for model in ("a", "b", "a", "b")]
        cached = [r["usage"]["prompt_tokens_details"]["cached_tokens"] for r in replies]
        texts = [r["choices"][0]["text"] for r in replies]
        check(texts[:2] == texts[2:] and cached[:2] == [0, 0] and min(cached[2:]) >= 256, f"kept: {cached} {texts}")
        check(wanted == texts[:2], f"with kept prompts: {texts}, not {wanted}")


def serve_models():
    wanted = {(model, text): alone(model, text) for text in ("Why is it so?", "x y x") for model in ("a", "b")}
    with Server("-np", "2", "--queue", "2", "--memory", MEMORY, models="models", context="8192") as server:
        check_names(server)
        check_damaged(server)
        check_switching(server, wanted)
        check_advice(server)
        check_turns(server, wanted)
        check_time_of_answer(server)
    check_idle()
    check_deadlines()
    with Server(models="empty") as server:
        check(get(server, "/v1/models")[1]["data"] == [], "an empty folder")
        server.error(400, "/v1/completions", body(None, "x"), "no model is loaded")


serve_models()
long = "What is kept of one is not taken for the other. " * 9
check_prompt_cache([alone("a", long), alone("b", long)])
print(f"{len(failures)} failures")
sys.exit(bool(failures))
