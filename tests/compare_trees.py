"""Check that this tree computes what an earlier commit computed, to the last digit.

    python tests/compare_trees.py 2505374

The same commands run in both trees, each as its own process, and their outputs are compared. The
earlier tree writes the codecs that both load, so it must have this file too. Compared are
codes and audio of every kind of codec, a token dataset, the weights of four short trainings, drift,
scores and a comparison of two codecs. Wall times and speeds are left out. Takes about ten minutes
on two cores. Run it by hand after a change that should change nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import load_file

from makers.audio import make_tone
from makers.codecs import MAKERS, make_stft_codec, save_codec
from makers.paths import ALLISON, ROOT
from tokgen.audio.files import write_audio

TINY_CODEC = {
    "n_fft": 640, "width": 24, "encoder_depth": 1, "decoder_depth": 1, "expansion": 2,
    "latent_dim": 16, "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
}  # fmt: skip
TINY_MODEL = {"model.dim": 32, "model.depth": 1, "model.heads": 2}
TINY_DISCRIMINATOR = {"periods": [2], "period_channels": [4, 8], "windows": [512], "channels": 4}
SHORT = {"batch_size": 2, "checkpoint_every": 4, "tracker": "none", "mixed_precision": "no"}
TIMES = (
    "seconds", "minutes", "speed", "steps_per_second", "sampling_speed", "training_speed",
    "versions", "wall_seconds", "times_real_time", "timestamp", "created", "tokgen_version",
    "notes", "backend",  # words
    "architectures", "model_type", "library_version", "features", "description",  # metadata
)  # fmt: skip

PREPARE = """
import sys
from pathlib import Path
from compare_trees import prepare
prepare(Path(sys.argv[1]))
"""

# Encodes and decodes a clip with every codec folder; runs in either tree.
CODE = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
try:
    from tokgen.zoo.lookup import load_codec
    from tokgen.audio.files import read_audio
except ImportError:
    from tokgen.zoo import load_codec
    from tokgen.audio import read_audio
torch.set_num_threads(1)
zoo, clip, out = map(Path, sys.argv[1:])
found = {}
for folder in [*sorted(p for p in zoo.iterdir() if p.is_dir()), "speech-16k", "speech-16k-code"]:
    codec = load_codec(folder)
    waveform, _ = read_audio(clip, sample_rate=codec.spec.sample_rate)
    encoded = codec.encode_with_side(waveform[None])
    name = Path(folder).name
    found[f"{name} codes"] = encoded.codes
    found[f"{name} audio"] = codec.decode(encoded.codes, waveform.shape[-1], encoded.side)
    for key, value in encoded.side.items():
        found[f"{name} {key}"] = value.contiguous()
out.mkdir(parents=True)
save_file({k: v.contiguous() for k, v in found.items()}, out / "codes.safetensors")
"""


def commands(work: Path, out: Path) -> dict[str, list[str]]:
    """Commands of one tree by name; each writes below `out`."""
    corpus, zoo = work / "corpus", work / "zoo"
    tiny, other = zoo / "tiny", zoo / "other"
    train = {**SHORT, "runs": out, "batch_size": 2, "steps": 6}
    recipe = lambda name, *flags: [sys.executable, f"recipes/{name}.py", *map(str, flags)]  # noqa: E731
    tokgen = lambda *flags: [sys.executable, "-m", "tokgen", *map(str, flags)]  # noqa: E731
    clips = ["--corpus", corpus]
    return {
        "codes of every codec": [sys.executable, "-c", CODE, str(zoo), str(work / "clip.wav"),
                                 str(out / "codes")],
        "tokgen tokenize": tokgen("tokenize", "--corpus", ALLISON, "--split", "test", "--codec",
                                  "speech-16k", "--out", out / "tokens", "--workers", 2),
        "train_codec": recipe("train_codec", *flags({
            **train, "name": "codec", "corpora": [str(corpus)], "model": TINY_CODEC,
            "discriminator": TINY_DISCRIMINATOR, "continuous_steps": 2, "decoder_steps": 1,
            "adversarial_start": 3, "adversarial_warmup": 1, "warmup": 2, "ema": 0.9,
            "seconds": 0.5, "adversarial_seconds": 0.25, "validate_every": 3,
            "quantizer_init_seconds": 2.0, "validation_min_seconds": 0.5})),
        "tune_idempotence": recipe("tune_idempotence", *flags({
            **train, "name": "tuned", "codec": tiny, "corpora": [str(corpus)], "weight": 1.0,
            "seconds": 0.5, "adversarial_seconds": 0.25, "validate_every": 3, "ema": 0.5,
            "validation_min_seconds": 0.5, "adversarial_share": 0.5, "passes": 2,
            "discriminator_warmup": 2, "discriminator": TINY_DISCRIMINATOR,
            "start_discriminator": "null"})),
        "vocode_mfcc": recipe("vocode_mfcc", *flags({
            **train, **TINY_MODEL, "name": "vocode", "codec": tiny, "corpus": corpus,
            "crop_seconds": 0.5, "validate_every": 3, "ema": 0.9, "sampling.steps": [2, 1],
            "asr": "moonshine", "mos": "distillmos"})),
        "compare_codecs": recipe("compare_codecs", "--codec", tiny, "--codec", other, *flags({
            **train, **TINY_MODEL, "name": "comparison", "corpus": corpus, "crop_seconds": 0.5,
            "validate_every": 3, "sampling.steps": [2, 1],
            "metrics": ["pesq", "cer", "speaker", "f0"], "asr": "moonshine",
            "speaker": "resemblyzer", "seeds": 2, "drift_passes": 2, "telephone.rounds": 2,
            "telephone.n_clips": 2, "telephone.gap_seconds": 0.3, "margins": {"pesq": 0.1}})),
        "tokgen drift": tokgen("drift", "--codec", "speech-16k", "--codec", "mp3:24", "--corpus",
                               ALLISON, "--split", "test", "--clips", 3, "--passes", 3,
                               "--phase", "--out", out / "drift"),
        "tokgen score": tokgen("score", "--codec", "speech-16k", "--min-seconds", 0.5, *clips,
                               "--out", out / "score.json"),
    }  # fmt: skip


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as `--name value`."""
    return [
        word
        for name, value in settings.items()
        for word in (
            f"--{name}",
            json.dumps(value) if isinstance(value, list | dict) else str(value),
        )
    ]


def prepare(work: Path) -> None:
    """Write the corpus and a zoo with one random codec of every kind."""
    texts = ["one two three", "yes please", "hello there", "thank you", "goodbye now", "try again"]
    splits = ["train", "train", "train", "validation", "test", "test"]
    lines = ["file_name,text,speaker,split"]
    for i, (text, split) in enumerate(zip(texts, splits, strict=True)):
        write_audio(work / "corpus" / f"{i}.wav", make_tone(0.9 + 0.2 * i, i), 16000)
        lines.append(f"{i}.wav,{text},ann,{split}")
    (work / "corpus" / "metadata.csv").write_text("\n".join(lines) + "\n")
    write_audio(work / "clip.wav", make_tone(2.3, 9), 16000)
    for seed, name in enumerate(("tiny", "other")):
        save_codec(make_stft_codec(seed, name), work / "zoo" / name)
    for name, make in MAKERS.items():
        if name != "speechtokenizer":  # its library loads a checkpoint of its own form
            make().save_pretrained(work / "zoo" / name)


def run(name: str, command: list[str], tree: Path, log: Path) -> None:
    modules = os.pathsep.join(map(str, (tree, tree / "tests")))
    environment = os.environ | {
        "PYTHONPATH": modules, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    with log.open("w") as file:
        done = subprocess.run(
            command, cwd=tree, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    if done.returncode:
        raise SystemExit(f"error: {name} failed in {tree}:\n{log.read_text()[-3000:]}")


def plain(value: Any, root: str) -> Any:
    """JSON without times, and without the paths of one tree."""
    if isinstance(value, dict):
        return {k: plain(v, root) for k, v in value.items() if k not in TIMES}
    if isinstance(value, list):
        return [plain(v, root) for v in value]
    return value.replace(root, "") if isinstance(value, str) else value


def contents(path: Path, root: str) -> Any:
    """A file as something to compare, or None if it is not compared."""
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".json" and path.name not in ("settings.json", "training.json"):
        return plain(json.loads(path.read_text()), root)
    if path.suffix == ".jsonl":
        return [plain(json.loads(line), root) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        return [line for line in path.read_text().splitlines() if "_speed" not in line]
    if path.suffix == ".arrow":
        with pa.ipc.open_stream(path) as file:
            return file.read_all().to_pydict()
    if path.suffix == ".wav":
        return path.read_bytes()
    return None


def collect(out: Path) -> dict[str, Any]:
    """The comparable files below a folder by path; checkpoints and hashed names are left out."""
    found = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = str(path.relative_to(out))
        if not {"checkpoints", "logs", "cache", "clips", "scores", "generated", "accuracy"} & {
            *path.parts
        }:
            found[name] = contents(path, str(out))
    return {name: value for name, value in found.items() if value is not None}


def difference(a: Any, b: Any, place: str = "") -> str | None:
    """Where two values differ first, with the values; None if they are equal."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        found = (difference(a[k], b[k], f"{place}.{k}") for k in a)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        found = (difference(x, y, f"{place}[{i}]") for i, (x, y) in pairs)
    else:
        return None if same(a, b) else f"{place}: {str(a)[:300]} / {str(b)[:300]}"
    return next((text for text in found if text), None)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return a == b


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("revision", help="commit to compare with")
    parser.add_argument("--only", help="run only the commands whose names contain this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        before = work / "before"
        before.mkdir()
        archive = subprocess.run(
            ["git", "archive", args.revision], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(before)], input=archive.stdout, check=True)
        run("prepare", [sys.executable, "-c", PREPARE, str(work)], before, work / "log.txt")
        trees = {"before": before, "now": ROOT}
        for side, tree in trees.items():
            for name, command in commands(work, work / "out" / side).items():
                if not args.only or args.only in name:
                    print(f"{side}: {name}", flush=True)
                    run(name, command, tree, work / "log.txt")
        found = {side: collect(work / "out" / side) for side in trees}
    differ = []
    for name in sorted(set(found["before"]) | set(found["now"])):
        a, b = (found[side].get(name) for side in trees)
        where = difference(a, b)
        equal = where is None
        count = (
            sum(v.size for v in a.values())
            if isinstance(a, dict) and name.endswith("tensors")
            else ""
        )
        print(f"{'equal  ' if equal else 'DIFFERS'} {name} {where or count}")
        differ += [] if equal else [name]
    print(f"{len(found['now']) - len(differ)} files equal, {len(differ)} differ")
    return bool(differ)


if __name__ == "__main__":
    sys.exit(main())
