"""Time a training step of our masked transformer, compared with soundstorm-pytorch's of equal size.

    python recipes/benchmarks/bench_training_step.py --batch-size 4 --steps 2
    python recipes/benchmarks/bench_training_step.py --device cuda --precision bf16 --compile

Both get the same excerpts (5 s at 50 frames/s, 8 levels of 1024 codes), the same precision and a
fused AdamW. The time includes masking, forward, backward, clipping and the optimiser's step. Ours
runs in its training loop, with all that the loop does around a step, and reads its excerpts from
memory-mapped Arrow. The peer's excerpts are on the device already. The peer has the nearest size
that Conformers with 8 heads allow.

The peer needs `pip install --no-deps soundstorm-pytorch` and the extra `peers`, because its
dependency audiolm-pytorch requires fairseq, which no longer builds. It imports classes of
audiolm-pytorch and spear-tts-pytorch that this step never uses. If those packages are missing,
empty classes replace them.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset, DatasetDict, load_from_disk
from torch import Tensor, nn

from ceilings import count_flops, measure_ceilings, roofline
from harness import Contender, alternate, write_report
from tokgen.codec.spec import CodecSpec
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.settings import PRESETS
from tokgen.runs.accelerator import pick_precision
from tokgen.tokens.columns import token_features
from tokgen.tokens.dataset import TokenDataset
from tokgen.tokens.provenance import Provenance
from tokgen.training.flops import peak_flops
from tokgen.training.masked import MaskedTraining
from tokgen.training.settings import TrainingSettings

LEVELS, SIZE, RATE, SECONDS, COEFFICIENTS = 8, 1024, 50, 5.0, 30
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NAMES = {  # imported by soundstorm-pytorch, but not needed by the step
    "audiolm_pytorch": ("SoundStream", "HubertWithKmeans", "FairseqVQWav2Vec"),
    "audiolm_pytorch.data": ("get_dataloader",),
    "audiolm_pytorch.optimizer": ("get_optimizer",),
    "spear_tts_pytorch": ("TextToSemantic",),
}


def main(argv: Sequence[str] | None = None) -> int:
    a = parse(argv)
    if a.precision == "auto":
        a.precision = {"no": "fp32"}.get(pick_precision("auto"), "bf16")
    torch.manual_seed(0)
    device = torch.device(a.device)
    with tempfile.TemporaryDirectory() as folder:
        training = make_training(a, Path(folder))
        size = sum(p.numel() for p in training.model.parameters())
        peer, about = make_peer(size, PRESETS[a.preset]["dim"], a.peer_streams)
        print(f"tokgen: {size / 1e6:.1f}M parameters ({a.preset}); {about}")
        needed = [training.data[j].counts for j in range(a.steps * (a.rounds + 1))]
        batches = [training.data[j].codes.mT.contiguous().to(device) for j in range(a.steps)]
        counted = count_peer_flops(peer, batches[0])
        ours, close = our_steps(training, a.steps)
        theirs = peer_steps(peer, batches, a)
        times = alternate(
            Contender("tokgen", ours),
            Contender("soundstorm-pytorch", theirs),
            rounds=a.rounds,
            check=check_losses,
            device=device,
        )
        close()
        flops = training.flops / max(training.step, 1) * a.steps
        took = times.medians["tokgen"]
        ceilings = measure_ceilings(device, DTYPES[a.precision])
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        peak = peak_flops(name, a.precision)
        extra = {
            "settings": vars(a) | {"out": str(a.out)},
            "parameters": {"tokgen": size, "soundstorm-pytorch": count(peer)},
            "frames per step": sum(c.frames for c in needed) / len(needed),
            "steps per second": {n: a.steps / s for n, s in times.medians.items()},
            "model FLOPs per step": {"tokgen": flops / a.steps, "soundstorm-pytorch": counted},
            "share of the measured matrix product": flops / took / ceilings.flops,
            "MFU": flops / took / peak if peak else None,
            "roofline": roofline(ceilings, flops, 16 * size * a.steps, took),
            "waiting for data": training.waiting / training.seconds if training.seconds else None,
        }
        write_report(a.out, "training step", [times], extra)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps per round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper")
    parser.add_argument(
        "--precision",
        choices=["auto", *DTYPES],
        default="auto",
        help="auto is what the recipes use",
    )
    parser.add_argument("--compile", action="store_true", help="compile both models")
    parser.add_argument(
        "--workers", type=int, default=0, help="worker processes of our data loader"
    )
    parser.add_argument("--peer-streams", type=int, default=4, help="residual streams of the peer")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(argv)


def make_training(a: argparse.Namespace, folder: Path) -> MaskedTraining:
    """Prepare a training on 64 random utterances of 6 to 12 s, stored as by `tokgen tokenize`."""
    draw = np.random.default_rng(0)
    rows = []
    for i in range(64):
        n = int(draw.integers(6 * RATE, 12 * RATE))
        codes = draw.integers(0, SIZE, (n, LEVELS)).astype(np.uint16)
        mfcc = draw.normal(size=(n, COEFFICIENTS)).astype(np.float16)
        about = {"id": str(i), "n_samples": 320 * n, "text": None, "speaker": None}
        rows.append({**about, "codes": codes, "mfcc": mfcc})
    features = token_features(LEVELS, {"mfcc": COEFFICIENTS})
    DatasetDict(train=Dataset.from_list(rows, features=features)).save_to_disk(folder / "tokens")
    spec = CodecSpec("random", 16000, 16000 // RATE, LEVELS, SIZE, "0" * 64)
    numbers = (spec.as_dict(), 16000, 16000 // RATE, LEVELS, SIZE)
    tokens = TokenDataset(
        load_from_disk(str(folder / "tokens")),
        Provenance(*numbers, None, "0", "random", "0" * 64),
    )
    never = 10**9
    settings = TrainingSettings(
        steps=10**5,
        batch_size=a.batch_size,
        crop_seconds=SECONDS,
        compile=a.compile,
        workers=a.workers,
        **dict.fromkeys(("log_every", "validate_every", "checkpoint_every"), never),
    )
    model = MaskedTransformer(
        n_codebooks=LEVELS,
        codebook_size=SIZE,
        conditioning_dim=COEFFICIENTS,
        code_dim=8,
        **PRESETS[a.preset],
    )
    assert model.code_vectors is not None
    model.code_vectors.normal_()
    precision = "no" if a.precision == "fp32" else a.precision
    accelerator = Accelerator(mixed_precision=precision, cpu=a.device == "cpu")
    return MaskedTraining(accelerator, model, tokens, settings, folder)


def our_steps(
    training: MaskedTraining, steps: int
) -> tuple[Callable[[], float], Callable[[], None]]:
    """Make a job of `steps` training steps that returns the last loss.

    Also returns a function that ends the training loop.
    """
    batches = training.batches()

    def run() -> float:
        for _ in range(steps):
            loss = training.loss(next(batches))
            training.descend(loss)
        return loss.item()

    return run, batches.close  # type: ignore[attr-defined]


def peer_steps(peer: nn.Module, batches: Sequence[Tensor], a: argparse.Namespace) -> Any:
    """Return a job of one step per batch [B, T, K] that returns the last loss."""
    device = torch.device(a.device)
    peer.to(device).train()
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    network = torch.compile(peer) if a.compile else peer
    half = a.precision != "fp32"

    def run() -> float:
        for codes in batches:
            with torch.autocast(device.type, DTYPES[a.precision], enabled=half):
                loss, _ = network(codes.clone())
            loss.backward()
            nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    return run


def make_peer(size: int, width: int, streams: int) -> tuple[nn.Module, str]:
    """Make soundstorm-pytorch's SoundStorm with about `size` parameters, and describe it.

    Its blocks hold two feed-forward layers and a convolution, so it has fewer blocks than ours.

    Args:
        size: number of parameters to come close to.
        width: width of our model. The peer's width differs by at most 64.
        streams: number of residual streams (hyper-connections).
    Raises:
        ModuleNotFoundError: soundstorm-pytorch is not installed.
    """
    stand_in()
    try:
        soundstorm = importlib.import_module("soundstorm_pytorch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}: install the extra `peers` and `pip install --no-deps soundstorm-pytorch`"
        ) from error

    def make(dim: int, depth: int) -> nn.Module:
        conformer = {"dim": dim, "depth": depth, "num_residual_streams": streams}
        net = soundstorm.ConformerWrapper(
            codebook_size=SIZE, num_quantizers=LEVELS, conformer=conformer
        )
        return soundstorm.SoundStorm(net, schedule="cosine")

    found = []
    for dim in range(width - 64, width + 65, 32):
        with torch.device("meta"):
            one, two = count(make(dim, 1)), count(make(dim, 2))
        depth = max(2, round((size - one) / (two - one)) + 1)
        found.append((abs(one + (depth - 1) * (two - one) - size), dim, depth))
    _, dim, depth = min(found)
    peer = make(dim, depth)
    return peer, (
        f"soundstorm-pytorch: {count(peer) / 1e6:.1f}M parameters (dim {dim}, depth {depth}, "
        f"{streams} residual streams)"
    )


def stand_in() -> None:
    """Put empty classes in place of those packages in `NAMES` that cannot be imported."""
    for package, names in NAMES.items():
        try:
            importlib.import_module(package)
        except (ImportError, OSError):
            module = ModuleType(package)
            for name in names:
                setattr(module, name, type(name, (nn.Module,), {}))
            sys.modules[package] = module


def count_peer_flops(peer: nn.Module, codes: Tensor) -> int:
    """Return three times the FLOPs of its forward pass, including hyper-connections."""
    one = codes[:1].to(next(peer.parameters()).device)
    with torch.no_grad():
        return 3 * count_flops(lambda: peer(one.clone())) * len(codes)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def check_losses(ours: float, theirs: float) -> str:
    """Check that neither model has learned or diverged: both losses are near that of a guess."""
    guess = math.log(SIZE)
    for name, loss in {"tokgen": ours, "soundstorm-pytorch": theirs}.items():
        if not 0.5 * guess < loss < 1.5 * guess:
            raise SystemExit(
                f"error: the loss of {name} is {loss}, but that of a guess is {guess:.2f}"
            )
    return f"losses {ours:.3f} and {theirs:.3f}; {guess:.3f} for a guess"


if __name__ == "__main__":
    sys.exit(main())
