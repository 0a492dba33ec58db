"""held_against_torch.py EXAMPLE FOLDER: the answer with guesses is that without, and as many of its guesses were right
as the layer in torch has right where it guesses in the same places, but for a few where tokens are about as likely."""
import json
import os
import sys

sys.path.insert(0, sys.argv[1])
import torch  # noqa: E402

from draft_head import load_layer  # noqa: E402
from draft_layer import normed  # noqa: E402
from llama_model import Llama  # noqa: E402
from model_file import ModelFile  # noqa: E402

folder = sys.argv[2]
with open(os.path.join(folder, "alone"), encoding="utf-8") as file:
    alone = json.load(file)
with open(os.path.join(folder, "out"), encoding="utf-8") as file:
    guessed = json.load(file)
assert guessed["tokens"] == alone["tokens"], "the answer is another one with guesses"
of_engine = next(drafter for drafter in guessed["drafters"] if drafter["name"] == "eagle3")

tokens = torch.tensor(alone["prompt_tokens"] + alone["tokens"])
llama = Llama(ModelFile(os.path.join(folder, "m.gguf")))
layer, ids = load_layer(os.path.join(folder, "layer"))
given, _ = llama.given(tokens, 16)
with torch.no_grad():
    made = layer(llama.embedding[tokens[1:]], given[:-1].float(), [len(tokens) - 1], 1)[0]
    named = ids[((normed(made) * layer.output_norm) @ llama.head[ids].T).argmax(-1)]
place, asked, right = len(alone["prompt_tokens"]), 0, 0
while place + 2 < len(tokens):
    is_right = bool(named[place - 1] == tokens[place + 1])
    asked, right, place = asked + 1, right + is_right, place + 1 + is_right
print(f"{right} of {asked} right in torch, {of_engine['right']} of {of_engine['guessed']} in the engine")
assert right > 5, "nothing is seen where so few are right"
assert abs(right - of_engine["right"]) <= 3 and abs(asked - of_engine["guessed"]) <= 3, "the engine guesses otherwise"
