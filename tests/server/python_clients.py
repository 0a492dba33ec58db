"""The official Python clients against a server: python_clients.py POWERINFER2 MODEL. For test_python_clients.sh; with
a real model by hand:  python3 tests/server/python_clients.py build/powerinfer2 model.gguf

Answers are compared with each other, not with a text, so any model will do. Exits with 77 where a client is absent."""
import json
import re
import signal
import subprocess
import sys
import tempfile
import time

try:
    import anthropic
    import ollama
    import openai
except ImportError as error:
    print(f"{error}: pip install openai anthropic ollama")
    sys.exit(77)

program, model = sys.argv[1:3]
QUESTION = [{"role": "user", "content": "Why is it so?"}]
WEATHER = {"name": "weather", "description": "Tells the weather.",
           "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
failures = []


def check(is_true, what):
    if not is_true:
        failures.append(what)
        print("FAILED:", what)


def raises(kind, call):
    """The call fails with this exception of the client's."""
    try:
        call()
    except kind as error:
        return error
    check(False, f"no {kind.__name__}")
    return None


def use_openai(base):
    client = openai.OpenAI(base_url=base + "/v1", api_key="key", max_retries=0)
    name = client.models.list().data[0].id
    greedy = {"model": name, "messages": QUESTION, "temperature": 0, "max_tokens": 16}
    whole = client.chat.completions.create(**greedy)
    text = whole.choices[0].message.content
    check(text and whole.usage.completion_tokens <= 16, f"openai: {whole}")
    chunks = list(client.chat.completions.create(**greedy, stream=True, stream_options={"include_usage": True}))
    check("".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text, "openai: stream")
    check(chunks[-1].usage.total_tokens == whole.usage.total_tokens, f"openai: usage {chunks[-1]}")
    with client.chat.completions.stream(**greedy) as stream:
        for _ in stream:
            pass
        snapshot = stream.current_completion_snapshot # the helper's last word is an error where max_tokens ended it
        check(snapshot.choices[0].message.content == text, "openai: stream helper")
    offered = client.chat.completions.create(**greedy, tools=[{"type": "function", "function": WEATHER}])
    check(offered.choices[0].finish_reason in ("stop", "length", "tool_calls"), f"openai: tools {offered}")
    called = QUESTION + [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18, clear"}]
    check(client.chat.completions.create(**dict(greedy, messages=called)).choices, "openai: a tool's result")
    chances = client.chat.completions.create(**greedy, logprobs=True, top_logprobs=2).choices[0].logprobs
    check(all(len(t.top_logprobs) == 2 and t.logprob <= 0 for t in chances.content), "openai: logprobs")
    plain = client.completions.create(model=name, prompt="Once", max_tokens=8, temperature=0, logprobs=1)
    check(len(plain.choices[0].logprobs.tokens) == len(plain.choices[0].logprobs.token_logprobs), f"openai: {plain}")
    error = raises(openai.BadRequestError, lambda: client.chat.completions.create(**dict(greedy, temperature=-1)))
    check("'temperature'" in str(error), f"openai: {error}")
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    formed = client.chat.completions.create(**dict(greedy, max_tokens=100), response_format=form)
    check(json.loads(formed.choices[0].message.content)["a"] in (1, 2), f"openai: a schema: {formed}")
    forced = client.chat.completions.create(**dict(greedy, max_tokens=200), tools=[
        {"type": "function", "function": dict(WEATHER, parameters=schema)}], tool_choice="required")
    check(json.loads(forced.choices[0].message.tool_calls[0].function.arguments)["a"] in (1, 2), f"openai: {forced}")
    use_responses(client, dict(model=name, input=QUESTION, temperature=0, max_output_tokens=16), text, schema)
    raises(openai.NotFoundError, lambda: client.embeddings.create(model=name, input="a"))
    raises(openai.AuthenticationError, lambda: client.with_options(api_key="other").chat.completions.create(**greedy))
    stream = client.chat.completions.create(**dict(greedy, max_tokens=1000), stream=True)
    next(iter(stream))
    stream.close()
    check(client.chat.completions.create(**greedy).choices[0].message.content == text, "openai: after a cancel")
    return text


def use_responses(client, greedy, text, schema):
    whole = client.responses.create(**greedy)
    check(whole.output_text == text and whole.usage.output_tokens <= 16, f"responses: {whole}")
    with client.responses.stream(**greedy) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    check(deltas == text, "responses: stream")
    events = list(client.responses.create(**greedy, stream=True))
    check(events[-1].type in ("response.completed", "response.incomplete") and events[-1].response.output_text == text,
          f"responses: events {events[-1]}")
    tool = {"type": "function", "name": "weather", "parameters": schema, "strict": True}
    longer = dict(greedy, max_output_tokens=200)
    call = client.responses.create(**longer, tools=[tool], tool_choice="required").output[0]
    check(call.type == "function_call" and json.loads(call.arguments)["a"] in (1, 2), f"responses: {call}")
    result = client.responses.create(**dict(greedy, input=QUESTION + [
        call.model_dump(), {"type": "function_call_output", "call_id": call.call_id, "output": "18, clear"}]))
    check(result.output_text is not None, f"responses: a tool's result {result}")
    raises(openai.BadRequestError, lambda: client.responses.create(**greedy, previous_response_id="resp_1"))


def use_anthropic(base, text):
    client = anthropic.Anthropic(base_url=base, api_key="key", max_retries=0)
    greedy = {"model": "any", "messages": QUESTION, "max_tokens": 16, "extra_body": {"temperature": 0}}
    whole = client.messages.create(**greedy)
    check(whole.content[0].text == text, f"anthropic: {whole}")
    with client.messages.stream(**greedy) as stream:
        check("".join(stream.text_stream) == text, "anthropic: stream")
        final = stream.get_final_message()
        check(final.stop_reason == whole.stop_reason and final.usage.output_tokens == whole.usage.output_tokens,
              f"anthropic: {final}")
    counted = client.messages.count_tokens(model="any", messages=QUESTION)
    usage = whole.usage
    check(counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens, f"anthropic: {counted} {usage}")
    tool = {"name": "weather", "description": "Tells.", "input_schema": WEATHER["parameters"]}
    called = QUESTION + [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather",
                                           "input": {"city": "Paris"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "18, clear"}]}]
    check(client.messages.create(**dict(greedy, messages=called), tools=[tool], system="Be brief.").content,
          "anthropic: a tool's result")
    raises(anthropic.BadRequestError, lambda: client.messages.create(**dict(greedy, extra_body={"temperature": -1})))
    raises(anthropic.AuthenticationError,
           lambda: anthropic.Anthropic(base_url=base, api_key="x", max_retries=0).messages.create(**greedy))


def use_ollama(base, text):
    client = ollama.Client(host=base, headers={"Authorization": "Bearer key"})
    options = {"temperature": 0, "num_predict": 16}
    name = client.list().models[0].model
    check(client.show(name).capabilities, "ollama: show")
    whole = client.chat(model=name, messages=QUESTION, options=options)
    check(whole.message.content == text and whole.done, f"ollama: {whole}")
    parts = list(client.chat(model=name, messages=QUESTION, options=options, stream=True))
    check("".join(p.message.content for p in parts) == text and parts[-1].eval_count == whole.eval_count,
          "ollama: stream")
    made = client.generate(model=name, prompt=QUESTION[0]["content"], options=options)
    check(made.response == text, f"ollama: {made}")
    client.chat(model=name, messages=QUESTION, options=options, tools=[{"type": "function", "function": WEATHER}])
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    formed = client.chat(model=name, messages=QUESTION, format=schema, options=dict(options, num_predict=100))
    check(json.loads(formed.message.content)["a"] in (1, 2), f"ollama: a schema: {formed}")
    raises(ollama.ResponseError, lambda: client.chat(model=name, messages=QUESTION, format={"not": {}}))


with tempfile.NamedTemporaryFile("w+") as log:
    server = subprocess.Popen([program, "serve", "-m", model, "--port", "0", "-c", "1024", "--api-key", "key"],
                              stderr=log, stdin=subprocess.DEVNULL)
    found = None
    while server.poll() is None and not found:
        time.sleep(0.05)
        found = re.search(r"listening on (http://\S+) ", open(log.name, encoding="utf-8").read())
    if found:
        answer = use_openai(found.group(1))
        use_anthropic(found.group(1), answer)
        use_ollama(found.group(1), answer)
        server.send_signal(signal.SIGTERM)
    check(server.wait(60) == 0, "the server's end: " + open(log.name, encoding="utf-8").read())
print(f"{len(failures)} failures")
sys.exit(bool(failures))
