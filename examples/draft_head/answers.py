"""Texts of a model's own: a conversation of each prompt, with the answer that the engine gives, as tokens."""
import json
import os
import subprocess
import tempfile


def call(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{program} {arguments[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def answer_all(options, prompts):
    """Every other one greedy, the others drawn at 0.8. Begun again it goes on where it was stopped."""
    lines = options.out + ".prompts"
    with open(lines, "w", encoding="utf-8") as file:
        for i, prompt in enumerate(prompts):
            print(json.dumps({"prompt": prompt, "temperature": 0.8 * (i % 2), "seed": i + 1}), file=file)
    call(options.program, "batch", "-m", options.model, "-f", lines, "-o", options.out + ".answers", "-np", "16", "-n",
         str(options.tokens), "-c", "512", "--memory", options.memory)
    with open(options.out + ".answers", encoding="utf-8") as file:
        return [json.loads(line).get("text", "") for line in file]


def write_texts(options):
    """A line for each prompt: the ids of its conversation's tokens, as `features` reads them."""
    with open(options.prompts, encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file if line.strip()]
    answers = answer_all(options, prompts)
    with tempfile.TemporaryDirectory() as folder, open(options.out, "w", encoding="utf-8") as file:
        messages, text = os.path.join(folder, "messages"), os.path.join(folder, "text")
        for prompt, answer in zip(prompts, answers):
            with open(messages, "w", encoding="utf-8") as out:
                json.dump([{"role": "user", "content": prompt}], out)
            begun = call(options.program, "apply-template", "-m", options.model, "--messages", messages)
            with open(text, "w", encoding="utf-8") as out:
                out.write(begun + answer)
            file.write(call(options.program, "tokenize", "-m", options.model, "-f", text, "--parse-special"))
    print(f"{options.out}: {len(prompts)} texts")
