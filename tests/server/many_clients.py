"""Many clients of one server at once, for test_serve_many.sh: many_clients.py POWERINFER2 FOLDER."""
import json
import os
import subprocess
import sys
import threading
import time

from serve_support import QUESTION, Server, check, failures, folder, program

SLOTS = 4
CASES = [("Why is it so?", 0, 40), ("a", 0, 9), ("Count the words of this sentence, please.", 0, 33),
         ("x y x y x y x y", 0, 48), ("Why is it so?", 1, 40), ("Why is it not so?", 0.7, 21), ("b " * 150, 0, 17),
         ("b " * 150 + "c", 1.3, 25)]


def alone(model, text, temperature, limit, context="2048"):
    """What run answers."""
    made = subprocess.run([program, "run", "-m", os.path.join(folder, model), "--raw", "-p", text, "--temp",
                           str(temperature), "-s", "7", "-n", str(limit), "-c", context, "--ignore-eos", "-q"],
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    check(made.returncode == 0, f"run: {made.stderr}")
    return made.stdout.decode()[:-1]


def at_once(functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def check_same(server, wanted, label):
    """Every case at once, each whole and streamed: all are the answers of run."""
    def ask(case, streams):
        text, temperature, limit = case
        body = {"prompt": text, "temperature": temperature, "seed": 7, "max_tokens": limit, "ignore_eos": True}
        if streams:
            got = "".join(c["choices"][0]["text"] for c in server.events("/v1/completions", body)[:-1])
        else:
            got = server.post("/v1/completions", body)["choices"][0]["text"]
        check(got == wanted[case], f"{label}: {case[1:]} {text[:20]!r}: {got!r}, not {wanted[case]!r}")
    at_once([lambda case=case, streams=streams: ask(case, streams) for case in wanted for streams in (False, True)])


def wait_for_idle(server):
    while server.metric("llamacpp:requests_processing") + server.metric("llamacpp:requests_deferred"):
        time.sleep(0.01)


def slots(server):
    return json.loads(server.ask("GET", "/slots")[2])


def check_slots(server):
    """What slots tell, busy and idle, is what there is."""
    wait_for_idle(server)
    idle = slots(server)
    check([s["id"] for s in idle] == list(range(SLOTS)), f"/slots: {idle}")
    check(all(s["state"] == "idle" and not s["is_processing"] for s in idle), f"idle slots: {idle}")
    check(server.ask("GET", "/slots?fail_on_no_slot=1")[0] == 200, "a slot is free")
    check(json.loads(server.ask("GET", "/props")[2])["total_slots"] == SLOTS, "/props: total_slots")
    streams = [server.open_stream(1900, temperature=0) for _ in range(SLOTS)]
    while server.metric("llamacpp:requests_processing") < SLOTS:
        time.sleep(0.01)
    busy = slots(server)
    check(sum(s["is_processing"] for s in busy) == SLOTS, f"busy slots: {busy}")
    check(server.ask("GET", "/slots?fail_on_no_slot=1")[0] == 503, "no slot is free")
    for stream in streams:
        stream.close()
    wait_for_idle(server)
    check(all(s["n_past"] > 0 for s in slots(server)), f"slots forget what they hold: {slots(server)}")


def check_prompts_do_not_stop_answers(server):
    """While a long prompt is read an answer goes on with each of its slices."""
    wait_for_idle(server)
    stream = server.open_stream(1900, temperature=0)
    while not any(s["state"] == "decoding" for s in slots(server)):
        time.sleep(0.01)
    before = server.metric("llamacpp:tokens_predicted_total")
    long = server.post("/v1/completions", {"prompt": "long prompt " * 140, "max_tokens": 1, "temperature": 0})
    made = server.metric("llamacpp:tokens_predicted_total") - before
    read = long["usage"]["prompt_tokens"] - long["usage"]["prompt_tokens_details"]["cached_tokens"]
    check(read > 1000 and made >= 3, f"while {read} tokens were read, {made} were made")
    stream.close()


def check_leaving(server):
    """Some leave in the middle: the others' answers stay what they are, and every slot becomes free."""
    wait_for_idle(server)
    case = CASES[0]
    body = {"messages": QUESTION, "temperature": 0, "max_tokens": 300, "ignore_eos": True}
    wanted = server.post("/v1/chat/completions", body)["choices"]
    def leave(bytes_read):
        stream = server.open_stream(1900, messages=[{"role": "user", "content": case[0] * 20}])
        if bytes_read:
            stream.recv(bytes_read)
        stream.close()
    def stay():
        check(server.post("/v1/chat/completions", body)["choices"] == wanted, "others left, and the answer is another")
    at_once([stay] + [lambda count=count: leave(count) for count in (0, 1, 400, 0, 1, 2000)] + [stay])
    wait_for_idle(server)


def check_shared_prompts(server):
    """A prompt that several send at the same time is read once; one that a slot holds is not read again."""
    wait_for_idle(server)
    body = {"prompt": "What many ask at once. " * 30, "temperature": 1, "max_tokens": 5}
    before = server.metric("llamacpp:prompt_tokens_total")
    replies = []
    at_once([lambda seed=seed: replies.append(server.post("/v1/completions", dict(body, seed=seed)))
             for seed in range(SLOTS)])
    length = replies[0]["usage"]["prompt_tokens"]
    computed = server.metric("llamacpp:prompt_tokens_total") - before
    check(length <= computed + 30 and computed < length + SLOTS, f"{SLOTS} prompts of {length} tokens took {computed}")
    cached = sorted(r["usage"]["prompt_tokens_details"]["cached_tokens"] for r in replies)
    check(cached[1] >= length - 1, f"cached of {length}: {cached}")
    other = server.post("/v1/completions", dict(body, prompt=body["prompt"] + "And more."))
    check(other["usage"]["prompt_tokens_details"]["cached_tokens"] >= length - 2, f"a longer prompt: {other['usage']}")
    again = server.post("/v1/completions", body)
    check(again["usage"]["prompt_tokens_details"]["cached_tokens"] == length - 1, f"the same again: {again['usage']}")
    rows = [line for line in server.ask("GET", "/metrics")[2].decode().splitlines() if "slot_cached_tokens_total{" in line]
    total = sum(float(row.split()[1]) for row in rows)
    check(len(rows) == SLOTS and total == server.metric("powerinfer2:cached_tokens_total"), f"metrics of slots: {rows}")


def check_choices(server):
    """Several answers to one request are those to as many seeds, also when more are asked for than there are slots."""
    wait_for_idle(server)
    text, limit = "Several answers to one request", 20
    body = {"prompt": text, "temperature": 1.5, "seed": 7, "max_tokens": limit, "ignore_eos": True, "n": 6}
    ones = [server.post("/v1/completions", dict(body, seed=7 + i, n=1)) for i in range(6)]
    wanted = [one["choices"][0]["text"] for one in ones]
    check(len(set(wanted)) > 1, f"all seeds give the same: {wanted}")
    whole = server.post("/v1/completions", body)
    check([(c["index"], c["text"]) for c in whole["choices"]] == list(enumerate(wanted)), f"choices: {whole['choices']}")
    check(whole["usage"]["completion_tokens"] == 6 * limit and
          whole["usage"]["prompt_tokens"] == ones[0]["usage"]["prompt_tokens"], f"usage of choices: {whole['usage']}")
    chunks = server.events("/v1/completions", dict(body, stream_options={"include_usage": True}))
    got = [""] * 6
    for chunk in chunks[:-2]:
        got[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    ended = [c["choices"][0]["index"] for c in chunks[:-2] if c["choices"][0]["finish_reason"]]
    check(got == wanted and sorted(ended) == list(range(6)), f"streamed choices: {got}, not {wanted}")
    check(chunks[-1] == "[DONE]" and chunks[-2]["usage"]["completion_tokens"] == 6 * limit, f"end: {chunks[-2:]}")
    chat = {"messages": QUESTION, "temperature": 1.5, "seed": 3, "max_tokens": 9, "n": 3, "stop": ["never"],
            "logprobs": True, "top_logprobs": 2}
    wanted = [server.post("/v1/chat/completions", dict(chat, seed=3 + i, n=1))["choices"][0] for i in range(3)]
    got = server.post("/v1/chat/completions", chat)["choices"]
    check([dict(c, index=0) for c in got] == wanted, f"choices of a chat: {got}, not {wanted}")
    chunks = server.events("/v1/chat/completions", chat)
    roles = [c["choices"][0]["index"] for c in chunks[:-1] if c["choices"][0]["delta"].get("role")]
    check(roles == [0, 1, 2] and len([c for c in chunks if c == "[DONE]"]) == 1, f"streamed choices of a chat: {roles}")
    for index in range(3):
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1] if c["choices"][0]["index"] == index)
        check(text == wanted[index]["message"]["content"], f"streamed choice {index} of a chat: {text!r}")


def check_prompts(server):
    """Several prompts in one request have each the answers that they get by themselves, whole and streamed."""
    prompts, body = ["a", "Tell me more of it.", [5, 6, 7], ["b ", 9]], {"temperature": 1.5, "seed": 5, "max_tokens": 11}
    ones = [server.post("/v1/completions", dict(body, prompt=p, n=2)) for p in prompts]
    wanted = [choice["text"] for one in ones for choice in one["choices"]]
    asked = dict(body, prompt=prompts, n=2)
    whole = server.post("/v1/completions", asked)
    check([(c["index"], c["text"]) for c in whole["choices"]] == list(enumerate(wanted)), f"prompts: {whole['choices']}")
    for name in ("prompt_tokens", "completion_tokens"):
        check(whole["usage"][name] == sum(one["usage"][name] for one in ones), f"{name} of prompts: {whole['usage']}")
    got = [""] * len(wanted)
    for chunk in server.events("/v1/completions", asked)[:-1]:
        for choice in chunk["choices"]:
            got[choice["index"]] += choice["text"]
    check(got == wanted, f"streamed prompts: {got}, not {wanted}")


def check_full_context(server):
    """One that fills its context ends by that, and no other with it; forms of answers are each one's own."""
    wait_for_idle(server)
    body = {"prompt": "beside a long one", "temperature": 1.5, "seed": 4, "max_tokens": 200, "ignore_eos": True}
    form = dict(body, ignore_eos=False, grammar='root ::= "a"+ "b"')
    wanted, formed = [server.post("/v1/completions", b)["choices"][0]["text"] for b in (body, form)]
    def ask(asked, text):
        got = server.post("/v1/completions", asked)
        check(got["choices"][0]["text"] == text, f"beside one that fills its context: {got['choices']}")
    def fill():
        got = server.post("/v1/completions", {"prompt": "b " * 900, "temperature": 0, "ignore_eos": True})
        check(got["choices"][0]["finish_reason"] == "length" and got["usage"]["total_tokens"] == 2049, f"full: {got['usage']}")
    at_once([fill, lambda: ask(body, wanted), lambda: ask(form, formed), lambda: ask(dict(body, n=2), wanted)])


def serve_many():
    wanted = {case: alone("m.gguf", *case) for case in CASES}
    with Server("-np", str(SLOTS), "--queue", "32") as server:
        check_same(server, wanted, "in memory")
        check_slots(server)
        check_prompts_do_not_stop_answers(server)
        check_leaving(server)
        check_shared_prompts(server)
        check_choices(server)
        check_prompts(server)
        check_full_context(server)
        open_at_the_end = [server.open_stream(1900, n=2) for _ in range(SLOTS)]
    for stream in open_at_the_end:
        stream.close()
    few = dict(list(wanted.items())[3:6])
    with Server("-np", "3", "--queue", "32", "--draft-max", "0") as server:
        check_same(server, few, "without guesses")
    if os.path.exists(os.path.join(folder, "budget")):
        large = {case: alone("large.gguf", *case, "512") for case in CASES[4:7]}
        with Server("-np", "3", "--memory", open(os.path.join(folder, "budget")).read().strip(), model="large.gguf",
                    context="512") as server:
            check_same(server, large, "streamed")
            check(server.metric("powerinfer2:bytes_read_total") > 0, "nothing was streamed")
    recurrent = {case: alone("recurrent.gguf", *case) for case in CASES[4:7]}
    with Server("-np", "3", model="recurrent.gguf") as server:
        check_same(server, recurrent, "recurrent")


serve_many()
print(f"{len(failures)} failures")
sys.exit(bool(failures))
