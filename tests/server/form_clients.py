"""Answers whose form is asked for, for test_serve_forms.sh: form_clients.py POWERINFER2 FOLDER SCHEMAS
MEMORY."""
import http.client
import json
import os
import ssl
import sys

from serve_support import QUESTION, Server, check, failures, folder

try:
    import jsonschema
except ImportError:
    jsonschema = None
    print("no jsonschema: answers are read as JSON, not held against their schemas")

CHAT = "/v1/chat/completions"


def satisfies(schema, value):
    if jsonschema is None or (isinstance(schema, dict) and schema.get("format") == "time"):
        return True  # of which every version has its own idea
    is_old = isinstance(schema, dict) and "additionalItems" in schema
    kind = jsonschema.Draft7Validator if is_old else jsonschema.Draft202012Validator
    return not list(kind(schema, format_checker=jsonschema.FormatChecker()).iter_errors(value))


def check_schemas(server, path):
    """A model with random weights writes what the schema wants, or is cut off by the limit."""
    whole = 0
    for index, example in enumerate(json.load(open(path, encoding="utf-8"))):
        body = {"prompt": "JSON:", "temperature": 1.5, "seed": index, "max_tokens": 400, "top_k": 0,
                "json_schema": example["schema"]}
        choice = server.post("/v1/completions", body)["choices"][0]
        if choice["finish_reason"] == "length":
            continue
        try:
            value = json.loads(choice["text"], strict=True)
            is_good = example.get("openapi") or satisfies(example["schema"], value)
        except ValueError:
            is_good = False
        check(is_good, f"{json.dumps(example['schema'])}: {choice['text']}")
        whole += 1
    check(whole >= 50, f"only {whole} answers came to their ends")


def check_names(server):
    """Every API's own names for it."""
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}}, "required": ["a", "b"]}
    common = {"messages": QUESTION, "seed": 3, "max_tokens": 100, "temperature": 1}
    wrapped = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    plain = {"type": "json_schema", "schema": schema}
    texts = []
    for fields in ({"response_format": wrapped}, {"response_format": plain}, {"json_schema": schema},
                   {"response_format": {"type": "json_object", "schema": schema}}):
        texts.append(server.post(CHAT, {**common, **fields})["choices"][0]["message"]["content"])
    chunks = server.events(CHAT, {**common, "response_format": wrapped})
    texts.append("".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]))
    for fields in ({"output_format": plain}, {"output_config": {"format": plain}}):
        texts.append(server.post("/v1/messages", {**common, **fields})["content"][0]["text"])
    ollama = {"options": {"seed": 3, "num_predict": 100, "temperature": 1}, "stream": False, "format": schema}
    texts.append(server.post("/api/chat", {"messages": QUESTION, **ollama})["message"]["content"])
    texts.append(server.post("/api/generate", {"prompt": QUESTION[0]["content"], **ollama})["response"])
    check(len(set(texts)) == 1 and satisfies(schema, json.loads(texts[0])), f"answers differ: {texts}")
    server.post("/api/chat", {"messages": QUESTION, **ollama, "format": ""})
    for fields in ({"response_format": {"type": "json_object"}}, {"json_schema": {"type": "object"}}):
        text = server.post(CHAT, {**common, **fields, "max_tokens": 3})["choices"][0]["message"]["content"]
        check(text.startswith("{"), f"no object: {text}")
    ollama["options"]["num_predict"] = 3
    text = server.post("/api/chat", {"messages": QUESTION, **ollama, "format": "json"})["message"]["content"]
    check(text.startswith("{"), f"no object: {text}")


def check_grammar(server):
    body = {"prompt": "x", "n_predict": 50, "seed": 5, "temperature": 1,
            "grammar": 'root ::= "a" [b-d]{3} "\\u00e9"'}
    whole = server.post("/completion", body)
    text = whole["content"]
    check(len(text) == 5 and text[0] == "a" and text[4] == "\u00e9" and whole["stop_type"] == "eos", f"{whole}")
    check(server.post("/completion", dict(body, n_probs=2, top_k=1))["content"][0] == "a", "with chances")
    thought = server.post(CHAT, {"messages": QUESTION, "seed": 5, "max_tokens": 300, "temperature": 1,
                                 "chat_template_kwargs": {"thinks": True}, "grammar": 'root ::= "ab"'})
    message = thought["choices"][0]["message"]
    check(message["content"] in ("ab", "") and message.get("reasoning_content"), f"behind a thought: {message}")


def check_demanded_calls(server):
    """A call that is demanded comes, in the template's own form, whose marks are parted from it."""
    parameters = {"type": "object", "properties": {"place": {"$ref": "#/$defs/p"}, "days": {"type": "integer",
                  "minimum": 1, "maximum": 9}}, "required": ["place", "days"],
                  "$defs": {"p": {"type": "string", "maxLength": 4}}}
    tools = [{"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}
             for name in ("weather", "news")]
    common = {"messages": QUESTION, "seed": 3, "max_tokens": 400, "temperature": 1, "parallel_tool_calls": False}
    names = set()
    for form in ("hermes", "mistral", "mistral-new", "deepseek", "deepseek-r1", "harmony", "gemma", "llama"):
        for choice in ("required", {"type": "function", "function": {"name": "news"}}):
            body = {**common, "tools": tools, "tool_choice": choice, "chat_template_kwargs": {"form": form}}
            for seed in range(3, 40):  # gpt-oss may think first, of which this model finds no end
                body.update({"seed": seed, "temperature": 20, "top_p": 1, "min_p": 0} if form == "harmony" else {})
                answer = server.post(CHAT, body)["choices"][0]
                if answer["finish_reason"] != "length":
                    break
            calls = answer["message"].get("tool_calls", [])
            is_good = answer["finish_reason"] == "tool_calls" and len(calls) == 1 and not answer["message"]["content"]
            check(is_good and satisfies(parameters, json.loads(calls[0]["function"]["arguments"])), f"{form}: {answer}")
            names |= {calls[0]["function"]["name"]} if is_good and choice != "required" else set()
            chunks = server.events(CHAT, body)
            delta = [c["choices"][0]["delta"]["tool_calls"][0]["function"] for c in chunks[:-1]
                     if c["choices"][0]["delta"].get("tool_calls")]
            check(is_good and delta == [calls[0]["function"]], f"{form}, streamed: {delta} {calls}")
    check(names == {"news"}, f"another tool than was demanded: {names}")
    anthropic = [{"name": "news", "input_schema": parameters}]
    for choice in ({"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "news"}):
        answer = server.post("/v1/messages", {**common, "tools": anthropic, "tool_choice": choice})
        blocks = [block for block in answer["content"] if block["type"] == "tool_use"]
        check(blocks and satisfies(parameters, blocks[0]["input"]) and answer["stop_reason"] == "tool_use", f"{answer}")
    refused = [({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "no tool of its name"),
               ({"tool_choice": "required"}, "no 'tools'"),
               ({"tools": tools, "tool_choice": "required", "json_schema": {}}, "exclude each other"),
               ({"tools": [{"function": {"name": "a", "parameters": {"not": {}}}}], "tool_choice": "required"}, "#/not"),
               ({"tools": [{"function": {"name": "a b"}}], "tool_choice": "required"}, "a name that a call")]
    for fields, part in refused:
        server.error(400, CHAT, {**common, **fields}, part)


def check_responses(server):
    """/v1/responses: the same answer as of /v1/chat/completions, whole and in events, with calls and forms."""
    path, greedy = "/v1/responses", {"temperature": 0, "input": QUESTION[0]["content"], "max_output_tokens": 12}
    chat = server.post(CHAT, {"messages": QUESTION, "temperature": 0, "max_tokens": 12})
    whole = server.post(path, greedy)
    text = whole["output"][0]["content"][0]["text"]
    check(text == chat["choices"][0]["message"]["content"], f"another answer than the chat's: {whole}")
    check(whole["status"] == "incomplete" and whole["incomplete_details"] == {"reason": "max_output_tokens"} and
          whole["usage"]["output_tokens"] == 12 and whole["store"] is False, f"{whole}")
    items = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION[0]["content"]}]}]
    check(server.post(path, {**greedy, "input": items})["output"][0]["content"][0]["text"] == text, "items")
    events = server.events(path, greedy)
    check([event["sequence_number"] for event in events] == list(range(len(events))), "events are not numbered")
    types = [event["type"] for event in events]
    check(types[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                        "response.content_part.added"] and types[-4:] == ["response.output_text.done",
          "response.content_part.done", "response.output_item.done", "response.incomplete"], f"events: {types}")
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    check(deltas == text and events[-1]["response"]["output"][0]["content"][0]["text"] == text, "the stream's text")
    tool = {"type": "function", "name": "news", "parameters": {"type": "object", "properties": {"n": {"enum": [1, 2]}},
                                                               "required": ["n"]}}
    body = {"input": "x", "seed": 3, "temperature": 1, "tools": [tool], "parallel_tool_calls": False,
            "tool_choice": {"type": "function", "name": "news"}}
    call = server.post(path, body)["output"]
    check(len(call) == 1 and call[0]["type"] == "function_call", f"{call}")
    check(json.loads(call[0]["arguments"])["n"] in (1, 2), f"{call}")
    streamed = [event for event in server.events(path, body) if "function_call_arguments" in event["type"]]
    check(len(streamed) == 2 and streamed[1]["arguments"] == call[0]["arguments"], f"{streamed}")
    history = [{"role": "developer", "content": "s"}, {"role": "user", "content": "q"},
               {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
               {"type": "function_call", "call_id": "1", "name": "news", "arguments": "{\"n\": 1}"},
               {"type": "function_call_output", "call_id": "1", "output": "r"},
               {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
               {"role": "user", "content": "q2"}]
    server.post(path, {**greedy, "instructions": "i", "input": history})
    form = {"format": {"type": "json_schema", "name": "x", "schema": tool["parameters"]}}
    answer = server.post(path, {"input": "x", "seed": 1, "temperature": 1, "text": form})["output"][0]
    check(json.loads(answer["content"][0]["text"])["n"] in (1, 2), f"no form: {answer}")
    for fields, part in [({"previous_response_id": "resp_1"}, "no answer is kept"), ({"input": []}, "'input' must be"),
                         ({"input": [{"type": "item_reference", "id": "a"}]}, "'item_reference'"),
                         ({"tools": [{"type": "web_search"}]}, "none of its own"),
                         ({"background": True}, "'background'"), ({"truncation": "auto"}, "'truncation'"),
                         ({"n": 2}, "'n'"), ({"instructions": 5}, "must be a text"),
                         ({"input": [{"type": "function_call", "name": "a"}]}, "'arguments'"),
                         ({"input": [{"content": "a"}]}, "'role'"),
                         ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "'input_image'")]:
        server.error(400, path, {**greedy, **fields}, part)


def check_refusals(server):
    ask = {"messages": QUESTION}
    refused = [
        (CHAT, {"grammar": "root ::= x"}, "no rule 'x'"), (CHAT, {"grammar": 5}, "'grammar' must be a text"),
        (CHAT, {"grammar": "root ::= root \"a\" | \"b\""}, "left recursion"),
        (CHAT, {"json_schema": {"not": {}}}, "at #/not"),
        (CHAT, {"response_format": {"type": "json_schema"}}, "no 'schema'"),
        (CHAT, {"response_format": {"type": "xml"}}, "'xml' is not supported"),
        (CHAT, {"response_format": "json"}, "must be an object with a 'type'"),
        (CHAT, {"response_format": {"type": "json_object"}, "grammar": "root ::= \"a\""}, "one form"),
        (CHAT, {"json_schema": {}, "ignore_eos": True}, "exclude each other"),
        ("/v1/messages", {"max_tokens": 5, "output_format": {"type": "x"}}, "'x' is not supported"),
    ]
    if sys.argv[4] == "64M":  # more memory has room for it
        refused.append((CHAT, {"grammar": "root ::= \"" + "a" * 60000 + "\""}, "bytes"))
    for path, fields, part in refused:
        server.error(400, path, {**ask, **fields}, part)
    server.error(400, "/api/chat", {**ask, "format": "xml"}, "'format' must be")
    server.error(400, "/completion", {"prompt": "x", "json_schema": {"enum": []}}, "at #/enum")


def check_https():
    """The same over TLS, whole and streamed; who speaks none gets nothing; a client that leaves is noticed."""
    certificate, key = (os.path.join(folder, name) for name in ("cert.pem", "key.pem"))
    if not os.path.exists(certificate):
        return
    with Server("--ssl-cert-file", certificate, "--ssl-key-file", key) as server:
        context = ssl.create_default_context(cafile=certificate)
        body = {"messages": QUESTION, "temperature": 0, "max_tokens": 8}
        texts_there = []
        for streams in (False, True):
            connection = http.client.HTTPSConnection("localhost", server.port, timeout=60, context=context)
            connection.request("POST", CHAT, json.dumps({**body, "stream": streams}))
            data = connection.getresponse().read().decode()
            if streams:
                chunks = [json.loads(line[6:]) for line in data.split("\n") if line.startswith("data: {")]
                texts_there.append("".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]))
            else:
                texts_there.append(json.loads(data)["choices"][0]["message"]["content"])
            connection.close()
        check(texts_there[0] and texts_there[0] == texts_there[1], f"answers over TLS: {texts_there}")
        try:
            server.ask("GET", "/health")
            check(False, "a server of HTTPS speaks HTTP")
        except (OSError, http.client.HTTPException):
            pass


def texts(*options):
    """The same whatever the budget and the guesses."""
    with Server(*options) as server:
        body = {"prompt": "JSON:", "temperature": 0, "max_tokens": 120, "repeat_penalty": 1.3,
                "json_schema": {"type": "array", "items": {"type": "integer"}}}
        return server.post("/v1/completions", body)["choices"][0]["text"]


with Server("--memory", sys.argv[4], "-np", "2") as running:
    check_schemas(running, sys.argv[3])
    check_names(running)
    check_grammar(running)
    check_demanded_calls(running)
    check_responses(running)
    check_refusals(running)
check_https()
first = texts("--draft-max", "0")
check(first.startswith("[") and texts("-t", "1") == first, "guesses or threads change a form's text")
sys.exit(1 if failures else 0)
