"""Load: clients of mixed behaviour at once, for test_serve_many.sh: load_clients.py POWERINFER2 FOLDER [SECONDS [CLIENTS
[sanitized]]]. The folder has m.gguf. By hand:

    python3 tests/server/load_clients.py build/powerinfer2 FOLDER 1800 32

Some ask and check the answer, some read slowly, leave in the middle, send what is no request, ask for too much, or send
nothing. Every answer must be the one that the same request has alone; memory must stay within --memory and not grow."""
import http.client
import json
import random
import socket
import sys
import threading
import time

from serve_support import Server, check, failures

seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 1.5
clients = int(sys.argv[4]) if len(sys.argv) > 4 else 12
BUDGET = 1000000000 if "sanitized" in sys.argv else 48000000
ANY = "/v1/completions"
requests = [{"prompt": text, "max_tokens": limit, "temperature": heat, "seed": seed, "ignore_eos": True}
            for seed, (text, limit, heat) in enumerate([
                ("Why is it so?", 30, 0), ("Why is it so? And why not?", 12, 1.5), ("a", 60, 2), ("b " * 300, 7, 0),
                ("b " * 300 + "c", 20, 1.2), ("x y x y x y", 90, 0), ("Tell me more of it, please.", 200, 1.8)])]
counts = {}
lock = threading.Lock()


def count(name):
    with lock:
        counts[name] = counts.get(name, 0) + 1


def is_refused(status, headers, data):
    """The queue may be full, or bodies have no room; then the reply says when to come again."""
    if status == 503:
        check(headers.get("Retry-After") == "1", f"503 without Retry-After: {data[:200]}")
        count("refused")
    return status == 503


def ask(server, number):
    status, headers, data = server.ask("POST", ANY, requests[number])
    if not is_refused(status, headers, data):
        text = json.loads(data)["choices"][0]["text"] if status == 200 else data
        check(text == wanted[number], f"whole, request {number}: {status} {text!r}, alone {wanted[number]!r}")
        count("whole")


def read_stream(server, number, pause, most):
    """Reads a stream in pieces of `most` bytes, with pauses."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    body = dict(requests[number], stream=True, logprobs=random.choice((None, 0, 3)))
    connection.request("POST", ANY, json.dumps(body))
    reply = connection.getresponse()
    data = b""
    while piece := reply.read1(most):
        data += piece
        time.sleep(pause)
    if not is_refused(reply.status, dict(reply.getheaders()), data):
        values = [json.loads(line[6:]) for line in data.decode().split("\n") if line.startswith("data: {")]
        text = "".join(value["choices"][0]["text"] for value in values)
        check(text == wanted[number] and data.endswith(b"data: [DONE]\n\n"),
              f"stream, request {number}: {reply.status} {text!r}, alone {wanted[number]!r}")
        count("slow" if pause else "stream")
    connection.close()


def send(server, data, most, pause=0.0):
    """Sends bytes, reads up to `most` bytes of the reply, and leaves. Returns what it read."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        got = b""
        try:
            connection.sendall(data)
            time.sleep(pause)
            while len(got) < most and (piece := connection.recv(most - len(got))):
                got += piece
        except OSError: # the server may close first
            pass
    return got


def post(body):
    return b"POST " + ANY.encode() + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (
        len(body)) + body


def leave(server, number):
    body = json.dumps(dict(requests[number], stream=random.random() < 0.7, max_tokens=1500)).encode()
    send(server, post(body), random.choice((0, 1, 300, 3000)), random.choice((0, 0.01, 0.05)))
    count("left")


def send_nonsense(server, _):
    body = bytes(random.randrange(256) for _ in range(random.randrange(200)))
    whole = json.dumps(requests[0]).encode()
    cut = post(whole)[:random.randrange(20, len(post(whole)))]
    kind = random.randrange(5)
    data = (body, post(body), cut, post(b"[" * 5000), post(whole.replace(b"0", b'"', 1)))[kind]
    if kind in (1, 3):
        reply = send(server, data, 12)
        check(reply == b"" or reply[9:12] in (b"400", b"503"), f"nonsense gets {reply}")
    else:
        send(server, data, 0)
    count("nonsense")


def ask_too_much(server, _):
    status, headers, data = server.ask("POST", ANY, {"prompt": "word " * random.choice((600, 3000, 60000))})
    if not is_refused(status, headers, data):
        check(status in (400, 413), f"too much: {status} {data[:200]}")
        count("huge")


def idle(server, _):
    send(server, b"GET /hea", 0, random.random() / 4)
    for path in ("/health", "/slots", "/metrics"):
        check(server.ask("GET", path)[0] == 200, path)
    count("idle")


def behave(server, seed, end):
    chosen = random.Random(seed)
    kinds = [ask, ask, lambda s, n: read_stream(s, n, 0, 65536), lambda s, n: read_stream(s, n, 0.002, 256), leave, leave,
             send_nonsense, ask_too_much, idle]
    while time.monotonic() < end:
        try:
            chosen.choice(kinds)(server, chosen.randrange(len(requests)))
        except (OSError, http.client.HTTPException, ValueError) as error:
            check(False, f"a client's connection: {error!r}")


def resident(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


with Server("-np", "4", "--queue", "12", "--memory", str(BUDGET), context="1024") as main_server:
    wanted = [json.loads(main_server.ask("POST", ANY, request)[2])["choices"][0]["text"] for request in requests]
    begin = time.monotonic()
    threads = [threading.Thread(target=behave, args=(main_server, seed, begin + seconds)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    half = 0
    while time.monotonic() < begin + seconds:
        time.sleep(min(1.0, seconds / 4))
        if time.monotonic() > begin + seconds / 2 and not half:
            half = resident(main_server)
    for thread in threads:
        thread.join()
    while main_server.metric("llamacpp:requests_processing") + main_server.metric("llamacpp:requests_deferred"):
        time.sleep(0.01)
    check(all(slot["state"] == "idle" for slot in json.loads(main_server.ask("GET", "/slots")[2])), "a slot stays busy")
    after = resident(main_server)
    if "sanitized" not in sys.argv:
        peak = main_server.metric("powerinfer2:peak_memory_bytes")
        check(peak <= BUDGET, f"peak memory {peak} of {BUDGET}")
        check(seconds < 60 or after <= half + 2000000, f"memory grows: {half} bytes at half time, {after} at the end")
    for number in range(len(requests)):
        ask(main_server, number)
print(f"{counts}, {half} and {after} bytes resident, {len(failures)} failures")
sys.exit(bool(failures))
