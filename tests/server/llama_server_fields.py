"""The answers of this server beside llama-server's, member by member: which names and types differ. By hand, as root:

    debootstrap --variant=minbase --include=llama.cpp-tools sid FOLDER
    python3 tests/server/llama_server_fields.py build/powerinfer2 model.gguf FOLDER

The two get the same model and requests. Texts are not compared, as arithmetics differ; docs/server.md says what does."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

program, model, root = sys.argv[1:4]
CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0, "max_tokens": 8}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}
REQUESTS = [
    ("GET", "/health", None), ("GET", "/v1/models", None), ("GET", "/props", None), ("GET", "/slots", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", dict(CHAT, stream=True, stream_options={"include_usage": True})),
    ("POST", "/v1/chat/completions", dict(CHAT, logprobs=True, top_logprobs=2)),
    ("POST", "/v1/chat/completions", dict(CHAT, max_tokens=60, tools=[TOOL], tool_choice="required")),
    ("POST", "/v1/chat/completions", dict(CHAT, max_tokens=60, response_format={"type": "json_object"})),
    ("POST", "/v1/completions", {"prompt": "Once", "max_tokens": 4, "temperature": 0}),
    ("POST", "/completion", {"prompt": "Once", "n_predict": 4, "temperature": 0}),
    ("POST", "/completion", {"prompt": "Once", "n_predict": 4, "temperature": 0, "n_probs": 2}),
    ("POST", "/v1/responses", {"input": "Say hello.", "temperature": 0, "max_output_tokens": 8}),
    ("POST", "/v1/messages", CHAT), ("POST", "/v1/messages/count_tokens", CHAT),
    ("POST", "/tokenize", {"content": "hello"}), ("POST", "/detokenize", {"tokens": [1, 2]}),
    ("POST", "/apply-template", CHAT),
    ("POST", "/v1/chat/completions", {}), ("POST", "/v1/chat/completions", dict(CHAT, grammar="root ::= x")),
    ("POST", "/v1/chat/completions", dict(CHAT, response_format={"type": "x"})), ("GET", "/nothing", None),
]


def ask(port, method, path, body):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"},
                                     method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def shape(value):
    """Names and types; of a list its first value."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def parsed(text):
    """A body, or the last values of a stream, as one value."""
    if text.startswith("data: ") or text.startswith("event: "):
        lines = [line[6:] for line in text.split("\n") if line.startswith("data: ") and line != "data: [DONE]"]
        return {"first": json.loads(lines[0]), "last": json.loads(lines[-1])}
    try:
        return json.loads(text)
    except ValueError:
        return text


def differences(ours, theirs, place=""):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(set(ours) | set(theirs)):
            if name not in theirs:
                yield f"{place}.{name}: only here"
            elif name not in ours:
                yield f"{place}.{name}: only llama-server"
            else:
                yield from differences(ours[name], theirs[name], f"{place}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        if ours and theirs:
            yield from differences(ours[0], theirs[0], place + "[]")
    elif ours != theirs:
        yield f"{place}: {ours if isinstance(ours, str) else type(ours).__name__} here, " \
              f"{theirs if isinstance(theirs, str) else type(theirs).__name__} there"


def start(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            if ask(port, "GET", "/health", None)[0] == 200:
                return process
        except OSError:
            pass
        time.sleep(0.1)
    process.kill()
    sys.exit(f"{command[0]} does not answer")


inside = os.path.join(root, "m", os.path.basename(model))
os.makedirs(os.path.dirname(inside), exist_ok=True)
if not os.path.exists(inside):
    shutil.copy(model, inside)
servers = [
    start([program, "serve", "-m", model, "--port", "18081", "-c", "512", "-q"], 18081),
    start(["chroot", root, "llama-server", "-m", "/m/" + os.path.basename(model), "--port", "18082", "-c", "512", "-np",
           "1", "-ngl", "0", "--slots", "--props", "--metrics"], 18082)]
try:
    for method, path, body in REQUESTS:
        ours, theirs = (ask(port, method, path, body) for port in (18081, 18082))
        print(f"{method} {path} {json.dumps(body) if body is not None else ''}")
        if ours[0] != theirs[0]:
            print(f"    status {ours[0]} here, {theirs[0]} there")
        for line in differences(shape(parsed(ours[1])), shape(parsed(theirs[1]))):
            print("    " + line)
finally:
    for process in servers:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
