"""Tokenize a folder of clips with `tokgen tokenize`, compared with a loop over its files.

    python recipes/benchmarks/bench_tokenizing.py                     # speech-16k, a few minutes
    python recipes/benchmarks/bench_tokenizing.py --codec dac-16k     # a DAC of 16k size
    python recipes/benchmarks/bench_tokenizing.py --growth            # 1, 4 and 16 times the clips

The clips are speech of the embedded corpus: 1 to 15 s long, as FLAC, at five sample rates. Both
contenders read the same files and store the codes of each. The peer is a simple loop: read,
resample, encode, save. For `dac-16k`, which has random weights in descript/dac_16khz's
configuration, the loop calls transformers' `DacModel.encode`. All codes of our own loop must be
equal, and 99.5 % of the others: oneDNN rounds convolutions differently with two threads than with
one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ceilings import count_flops, measure_ceilings, roofline
from harness import Contender, alternate, measure, write_report
from tokgen.audio.files import read_audio, write_audio
from tokgen.audio.resampling import resample
from tokgen.codec.base import Codec
from tokgen.corpus.listed import open_corpus
from tokgen.nn.dense import Dense, without_onednn
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.lookup import load_codec

PLAIN = "file by file, torch's own linear layers"
MATCH = 0.995  # share of equal codes if rounding differs: GPU, other kernels, two threads
RATES = (16000, 22050, 24000, 44100, 48000)  # Hz
SECONDS = (1.0, 15.0)
SPEECH = Path(__file__).parents[1] / "data" / "allison"


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    work = Path(tempfile.mkdtemp(prefix="bench-tokenizing-"))
    try:
        clips = make_clips(work / "clips", args.clips)
        seconds = sum(len(c) / rate for c, rate in clips)
        print(f"{args.clips} clips, {seconds:.0f} s of audio; codec {args.codec}")
        codec = load_codec(make_dac(work / "dac") if args.codec == "dac-16k" else args.codec)
        codec.to(args.device)
        times, extra = [], {"clips": args.clips, "audio_seconds": seconds}
        for name, encode in loops(codec):
            ours = Contender("tokgen", lambda: tokenize(codec, work / "clips", work, args.workers))
            peer = Contender(name, lambda encode=encode: loop(codec, encode, work / "clips", work))
            exact = args.device == "cpu" and name.startswith(codec.spec.name)
            least = 1.0 if exact else MATCH
            found = alternate(
                ours, peer, rounds=args.rounds, check=partial(check, least), device=args.device
            )
            print("\n" + found.table())
            times.append(found)
        best = min(times[0].seconds["tokgen"])
        print(f"tokgen: {seconds / best:.0f} times real time at best")
        extra["roofline"] = compare_with_machine(codec, seconds, args.clips, best, args.device)
        if args.growth:
            extra["growth"] = growth(codec, work, args)
        write_report(args.out, f"tokenizing with {args.codec}", times, extra)
    finally:
        shutil.rmtree(work)
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default="speech-16k", help="name, folder, hub id, or dac-16k")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="our processes; one per core by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--growth", action="store_true", help="also run tokgen on 1, 4 and 16 times the clips"
    )
    parser.add_argument("--out", type=Path, help=".json file for the results")
    return parser.parse_args(argv)


def make_clips(folder: Path, n: int) -> list[tuple[Tensor, int]]:
    """Write n clips of random lengths, and return each as a waveform [N] and its rate in Hz."""
    rejected: list = []
    utterances = open_corpus(SPEECH).utterances(16000, rejected=rejected)
    speech = torch.cat([u.waveform[0] for u in utterances])
    rng = np.random.default_rng(0)
    clips = []
    for i in range(n):
        length = int(rng.uniform(*SECONDS) * 16000)
        start = int(rng.integers(0, len(speech) - length))
        rate = RATES[i % len(RATES)]
        clip = resample(speech[start : start + length], 16000, rate)
        write_audio(folder / f"{i:05d}.flac", clip, rate)
        clips.append((clip, rate))
    return clips


def make_dac(folder: Path) -> Path:
    """Save a DAC with the configuration of descript/dac_16khz and random weights."""
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    config = DacConfig(
        sampling_rate=16000,
        n_codebooks=12,
        downsampling_ratios=[2, 4, 5, 8],
        upsampling_ratios=[8, 5, 4, 2],
    )
    DacModel(config).save_pretrained(folder)
    return folder


def loops(codec: Codec) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Yield the name and encoder, waveform [1, 1, N] to codes [K, T], of each loop to time."""
    if type(codec.model).__name__ == "DacModel":
        from transformers import DacModel

        plain = DacModel(codec.model.config).eval().to(codec.device)
        plain.load_state_dict(codec.model.state_dict())
        hop = codec.spec.hop_length

        @torch.no_grad()
        def encode(waveform: Tensor) -> Tensor:
            whole = nn.functional.pad(waveform, (0, -waveform.shape[-1] % hop))
            return plain.encode(whole.to(codec.device)).audio_codes[0]

        yield "transformers, file by file", encode
        return
    yield f"{codec.spec.name}, file by file", lambda waveform: codec.encode(waveform)[0]
    if any(type(module) is Dense for module in codec.model.modules()):

        def encode_plainly(waveform: Tensor) -> Tensor:
            with without_onednn():
                return codec.encode(waveform)[0]

        yield PLAIN, encode_plainly


def loop(
    codec: Codec, encode: Callable[[Tensor], Tensor], clips: Path, work: Path
) -> dict[str, np.ndarray]:
    """Read, resample, encode and save one file after another; return the saved codes."""
    out = Path(tempfile.mkdtemp(dir=work))
    for path in sorted(clips.iterdir()):
        waveform, _ = read_audio(path, sample_rate=codec.spec.sample_rate)
        codes = encode(waveform[None])
        np.save(out / f"{path.stem}.npy", codes.cpu().numpy().astype(np.uint16))
    found = {path.stem: np.load(path) for path in out.iterdir()}
    shutil.rmtree(out)
    return found


def tokenize(codec: Codec, clips: Path, work: Path, workers: int | None) -> Path:
    out = Path(tempfile.mkdtemp(dir=work)) / "tokens"
    corpus = open_corpus(clips)
    tokenize_corpus(
        corpus,
        codec,
        out,
        conditioning=None,
        workers=workers,
        precision="float32",
        progress=False,
    )
    return out


def check(least: float, ours: Path, peer: dict[str, np.ndarray]) -> str:
    """Compare all codes of all clips, and stop if fewer than the share `least` are equal."""
    splits = load_tokens(ours).splits.with_format("numpy")
    rows = {row["id"]: row["codes"].T for split in splits.values() for row in split}
    if rows.keys() != peer.keys():
        raise SystemExit(f"{len(rows)} clips, but the loop has {len(peer)}")
    same = sum(int((rows[name] == codes).sum()) for name, codes in peer.items())
    total = sum(codes.size for codes in peer.values())
    said = f"{same} of {total} codes are equal ({100 * same / total:.4f} %)"
    if same < least * total:
        raise SystemExit(f"{said}, less than {100 * least:g} %")
    return said


def compare_with_machine(
    codec: Codec, seconds: float, n_clips: int, took: float, device: str
) -> str:
    """Compare encoding with the roofline: its FLOPs; weights per clip, and audio, moved once."""
    rate = codec.spec.sample_rate
    four_seconds = torch.randn(1, codec.spec.channels, 4 * rate, device=codec.device) * 0.1
    with torch.no_grad():
        flops = count_flops(lambda: codec.quantize(codec.encode_latents(four_seconds)))
    flops *= seconds / 4
    weights = sum(p.numel() * p.element_size() for p in codec.model.parameters())
    moved = n_clips * weights + seconds * rate * 4
    line = roofline(measure_ceilings(device), flops, moved, took)
    print(line)
    return line


def growth(codec: Codec, work: Path, args: argparse.Namespace) -> list[dict[str, float]]:
    """Measure seconds and memory for 1, 4 and 16 times the clips."""
    lines = []
    for times in (1, 4, 16):
        folder = work / f"clips{times}"
        for path in sorted((work / "clips").iterdir()):
            for copy_number in range(times):
                target = folder / f"{path.stem}-{copy_number:02d}.flac"
                target.parent.mkdir(exist_ok=True)
                target.hardlink_to(path)
        run = partial(tokenize, codec, folder, work, args.workers)
        took, _, _ = measure(run, args.device, watched=False)
        _, peak, _ = measure(run, args.device)
        line = {"clips": args.clips * times, "seconds": took, "peak_mb": peak.resident / 1e6}
        line["ms_per_clip"] = 1000 * took / line["clips"]
        print("{clips} clips: {seconds:.2f} s, {ms_per_clip:.2f} ms each, {peak_mb:.0f} MB"
              .format(**line))  # fmt: skip
        lines.append(line)
    return lines


if __name__ == "__main__":
    sys.exit(main())
