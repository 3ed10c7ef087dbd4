"""Sample with our masked transformer, compared with soundstorm-pytorch's model of equal size.

    python recipes/benchmarks/bench_sampling.py
    python recipes/benchmarks/bench_sampling.py --device cuda --preset paper --utterances 100 \
        --batch-size 100 --compile

Both generate the same number of utterances of 5 s from random weights: 50 frames/s, 8 levels of
1024 codes, 16 steps for the first level and one for each further level. Neither uses guidance,
which the peer does not have. Then tokgen alone goes from conditioning to audio with guidance, as
the recipes do. At the end, the codes of a batch are compared with those of its items one by one.
See `bench_training_step.py` for how to install the peer.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench_training_step import LEVELS, RATE, SIZE, count, make_peer
from ceilings import count_flops, measure_ceilings, roofline
from harness import Contender, alternate, measure, write_report
from tokgen.codec.base import Codec
from tokgen.generation.clips import generate_clips
from tokgen.generation.sampling import sample
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.settings import PRESETS
from tokgen.zoo.lookup import load_codec

COEFFICIENTS = 30
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main(argv: Sequence[str] | None = None) -> int:
    a = parse(argv)
    torch.manual_seed(0)
    codec = load_codec("speech-16k", device=a.device)
    model = MaskedTransformer.for_codec(codec, a.preset, conditioning_dim=COEFFICIENTS)
    model = model.to(a.device).eval()
    peer, about = make_peer(count(model), PRESETS[a.preset]["dim"], a.peer_streams)
    peer.to(a.device).eval()
    print(f"tokgen: {count(model) / 1e6:.1f}M parameters ({a.preset}); {about}")
    half = torch.autocast(
        torch.device(a.device).type, DTYPES[a.precision], enabled=a.precision != "fp32"
    )
    with half:
        ours = our_job(model, a, SamplingSettings(guidance_scale=1.0, compile=a.compile))
        times = alternate(
            Contender("tokgen", ours),
            Contender("soundstorm-pytorch", peer_job(peer, a)),
            rounds=a.rounds,
            check=check_codes,
            device=a.device,
        )
        plain = our_job(model, a, SamplingSettings(guidance_scale=1.0))
        flops = count_flops(plain)
        batches = -(-a.utterances // a.batch_size)
        calls = batches * (16 + LEVELS - 1)
        ceilings = measure_ceilings(a.device, DTYPES[a.precision])
        made: dict[str, str] = {}
        for steps in ((16, 1), (8, 4, 2, 1)):
            made |= conditioning_to_audio(model, codec, a, steps)
        extra = {
            "settings": vars(a) | {"out": str(a.out)},
            "parameters": {"tokgen": count(model), "soundstorm-pytorch": count(peer)},
            "x real time, codes only": {
                name: a.utterances * a.seconds / took for name, took in times.medians.items()
            },
            "FLOPs": flops,
            "roofline": roofline(
                ceilings, flops, 4 * count(model) * calls, times.medians["tokgen"]
            ),
            **made,
            "codes of a batch equal to those one by one": batch_match(model, a),
        }
    write_report(a.out, "sampling", [times], extra)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--utterances", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each utterance")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=sorted(DTYPES), default="fp32")
    parser.add_argument("--compile", action="store_true", help="compile our model")
    parser.add_argument("--peer-streams", type=int, default=4, help="residual streams of the peer")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(argv)


def sizes(a: argparse.Namespace) -> list[int]:
    """Return the number of utterances in each batch."""
    starts = range(0, a.utterances, a.batch_size)
    return [min(a.batch_size, a.utterances - start) for start in starts]


def our_job(
    model: MaskedTransformer, a: argparse.Namespace, settings: SamplingSettings
) -> Callable[[], Tensor]:
    """Return a job that samples the codes of all utterances."""
    n_frames = round(a.seconds * RATE)

    def run() -> Tensor:
        made = []
        for i, size in enumerate(sizes(a)):
            conditioning = torch.randn(
                size, COEFFICIENTS, n_frames, generator=torch.Generator().manual_seed(i)
            )
            lengths = torch.full((size,), n_frames)
            ids = range(i * a.batch_size, i * a.batch_size + size)
            made.append(sample(model, conditioning, lengths, settings, seed=0, item_ids=ids).cpu())
        return torch.cat(made)

    return run


def peer_job(peer: Any, a: argparse.Namespace) -> Callable[[], Tensor]:
    """Return a job that samples them by `SoundStorm.generate`, without conditioning."""
    peer.steps = 16

    def run() -> Tensor:
        made = []
        with contextlib.redirect_stderr(io.StringIO()):  # it shows a bar for every level
            for size in sizes(a):
                codes = peer.generate(num_latents=round(a.seconds * RATE), batch_size=size)
                made.append(codes.cpu())
        return torch.cat(made).unflatten(1, (-1, LEVELS)).mT

    return run


def check_codes(ours: Tensor, theirs: Tensor) -> str:
    """Check that both made equally many codes, all below the codebook size."""
    for name, codes in {"tokgen": ours, "soundstorm-pytorch": theirs}.items():
        if codes.shape != ours.shape or not 0 <= codes.min() <= codes.max() < SIZE:
            raise SystemExit(f"error: {name} made codes {tuple(codes.shape)}, up to {codes.max()}")
    return f"{tuple(ours.shape)} codes under {SIZE} of both"


def conditioning_to_audio(
    model: MaskedTransformer, codec: Codec, a: argparse.Namespace, steps: tuple[int, ...]
) -> dict[str, str]:
    """Time generation with guidance 2, including decoding."""
    settings = SamplingSettings(steps=steps, guidance_scale=2.0, compile=a.compile)
    n_samples = round(a.seconds * codec.spec.sample_rate)
    n_frames = codec.spec.n_frames(n_samples)
    generator = torch.Generator().manual_seed(0)
    conditioning = [
        torch.randn(n_frames, COEFFICIENTS, generator=generator) for _ in range(a.utterances)
    ]

    def run() -> float:
        made = generate_clips(
            model,
            codec,
            [n_samples] * a.utterances,
            settings,
            conditioning=conditioning,
            batch_size=a.batch_size,
        )
        return sum(g.seconds for g in made)

    if a.compile or a.device != "cpu":
        run()  # compile, and warm up
    took, peak, sampling = measure(run, a.device)
    audio = a.utterances * a.seconds
    name = f"conditioning to audio, guidance 2, steps {steps}"
    found = f"{took:.2f} s, {audio / took:.2f} x real time; sampling alone {sampling:.2f} s; "
    memory = peak.device if a.device != "cpu" else peak.resident
    return {name: found + f"peak {memory / 1e6:.0f} MB"}


def batch_match(model: MaskedTransformer, a: argparse.Namespace, items: int = 4) -> str:
    """Count the codes of a batch that equal those of its items sampled alone."""
    settings = SamplingSettings(steps=(4, 1))
    n_frames, items = round(a.seconds * RATE), min(items, a.utterances)
    generator = torch.Generator().manual_seed(0)
    conditioning = torch.randn(items, COEFFICIENTS, n_frames, generator=generator)
    lengths = torch.full((items,), n_frames)
    batch = sample(model, conditioning, lengths, settings, seed=0)
    same = 0
    for i in range(items):
        alone = sample(model, conditioning[i : i + 1], lengths[:1], settings, seed=0, item_ids=[i])
        same += int((alone[0] == batch[i]).sum())
    return f"{same} of {batch.numel()}"


if __name__ == "__main__":
    sys.exit(main())
