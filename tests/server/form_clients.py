"""Answers whose form is asked for, for test_serve_forms.sh: form_clients.py POWERINFER2 FOLDER SCHEMAS."""
import json
import sys

from serve_support import QUESTION, Server, check, failures

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
        (CHAT, {"grammar": "root ::= \"" + "a" * 60000 + "\""}, "bytes"),
        ("/v1/messages", {"max_tokens": 5, "output_format": {"type": "x"}}, "'x' is not supported"),
    ]
    for path, fields, part in refused:
        server.error(400, path, {**ask, **fields}, part)
    server.error(400, "/api/chat", {**ask, "format": "xml"}, "'format' must be")
    server.error(400, "/completion", {"prompt": "x", "json_schema": {"enum": []}}, "at #/enum")


def texts(*options):
    """The same whatever the budget and the guesses."""
    with Server(*options) as server:
        body = {"prompt": "JSON:", "temperature": 0, "max_tokens": 120, "repeat_penalty": 1.3,
                "json_schema": {"type": "array", "items": {"type": "integer"}}}
        return server.post("/v1/completions", body)["choices"][0]["text"]


with Server("--memory", "64M", "-np", "2") as running:
    check_schemas(running, sys.argv[3])
    check_names(running)
    check_grammar(running)
    check_demanded_calls(running)
    check_refusals(running)
first = texts("--draft-max", "0")
check(first.startswith("[") and texts("-t", "1") == first, "guesses or threads change a form's text")
sys.exit(1 if failures else 0)
