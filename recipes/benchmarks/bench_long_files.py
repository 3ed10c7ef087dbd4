"""Encode long files block by block in constant memory, compared with the network on the whole file.

    python recipes/benchmarks/bench_long_files.py                   # some minutes
    python recipes/benchmarks/bench_long_files.py --minutes 2 20 180 --dac-minutes 2

The files repeat the speech of recipes/data/allison. `tokgen` reads, encodes and writes block by
block (`encode_audio_file`, `decode_audio_file`). The peers read the whole file and pass it to the
network at once: `speech-16k` without windows, and transformers' `DacModel.encode` for a DAC with
the configuration of descript/dac_16khz and random weights. All codes must be equal.

Each length of the growth table runs in a new process. Its peak is the largest resident set size of
that process, which includes imports, weights, codes, conditioning and audio.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ceilings import count_flops, measure_ceilings, roofline
from harness import Contender, PairedTimes, alternate, write_report
from tokgen.audio.files import AudioWriter, open_blocks, read_audio
from tokgen.codec.base import Codec
from tokgen.codec.long_audio import decode_audio_file, encode_audio_file
from tokgen.corpus.listed import open_corpus
from tokgen.runs.progress import progress_bar
from tokgen.tokens.conditioning import Conditioning, ConditioningSettings
from tokgen.zoo.adapters.dac import DacCodec
from tokgen.zoo.lookup import load_codec

SPEECH = Path(__file__).parents[1] / "data" / "allison"
RATE = 16000
LIMIT_BYTES = 1.5e9  # memory that a file of any length may take


def main(argv: Sequence[str] | None = None) -> int:
    a = parse(argv)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        lengths = sorted({*a.minutes, *([a.dac_minutes] if a.dac_minutes else [])})
        files = make_files(work, lengths)
        growth = [row for m in a.minutes for row in grow(a, a.codec, files[m], m)]
        shortest, codec = files[a.minutes[0]], load_codec(a.codec, device=a.device)
        times = {
            f"{codec.spec.name}, {a.minutes[0]:g} min": compare(
                codec, "whole file at once", without_windows(codec), shortest, a
            )
        }
        if a.dac_minutes:
            dac, plain = make_dac(a.dac_width, a.device)
            dac.save_pretrained(work / "dac-16k")
            a.whole_minutes = 0
            growth += grow(a, str(work / "dac-16k"), files[a.dac_minutes], a.dac_minutes)
            title = f"DAC of {dac_size(dac):.1f}M parameters, {a.dac_minutes:g} min"
            file = files[a.dac_minutes]
            times[title] = compare(dac, "transformers, whole file", plain, file, a)
    took = times[next(iter(times))].medians["tokgen, in blocks"]
    extra = {
        "growth": Lines(growth),
        "memory": verdict(growth),
        "roofline": roofline_of(codec, a.minutes[0], took),
    }
    write_report(a.out, "long files", times, extra)
    equal = all(pair.checked.endswith("(100.0000 %)") for pair in times.values())
    return 0 if equal else 1


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[2, 20], help="lengths of the files"
    )
    parser.add_argument(
        "--whole-minutes", type=float, default=20, help="longest file that is also run whole"
    )
    parser.add_argument("--codec", default="speech-16k")
    parser.add_argument("--dac-minutes", type=float, default=1, help="0 leaves the DAC out")
    parser.add_argument("--dac-width", type=int, default=64, help="channels of its first layer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(argv)


def make_files(folder: Path, minutes: Sequence[float]) -> dict[float, Path]:
    """Write a FLAC file of each length."""
    speech = [u.waveform for u in open_corpus(SPEECH).utterances(RATE, rejected=[])]
    files = {}
    for length in minutes:
        files[length] = folder / f"{length:g}.flac"
        missing = round(60 * length * RATE)
        with AudioWriter(files[length], RATE) as writer:
            while missing:
                for waveform in speech:
                    part = waveform[:, :missing]
                    missing -= part.shape[-1]
                    if part.shape[-1]:
                        writer.write(part)
    return files


def without_windows(codec: Codec) -> Callable[[Tensor], Tensor]:
    """Return an encoder of whole waveforms, [1, 1, N] to codes [1, K, T]."""
    whole = copy.copy(codec)
    whole.window_frames = sys.maxsize  # type: ignore[attr-defined]
    return whole.encode


def make_dac(width: int, device: str) -> tuple[DacCodec, Callable[[Tensor], Tensor]]:
    """Make a DAC with random weights, and transformers' own encoder for it."""
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    config = DacConfig(
        sampling_rate=RATE,
        n_codebooks=12,
        encoder_hidden_size=width,
        decoder_hidden_size=24 * width,
        downsampling_ratios=[2, 4, 5, 8],
    )
    model = DacModel(config).eval()
    codec = DacCodec.from_model(copy.deepcopy(model), "dac-16k")
    codec.to(device)
    model.to(device)

    @torch.no_grad()
    def encode(waveform: Tensor) -> Tensor:
        frames = pad(waveform, (0, -waveform.shape[-1] % codec.spec.hop_length))
        return model.encode(frames.to(device)).audio_codes

    return codec, encode


def dac_size(codec: Codec) -> float:
    return sum(p.numel() for p in codec.model.parameters()) / 1e6


def compare(
    codec: Codec, name: str, whole: Callable[[Tensor], Tensor], file: Path, a: argparse.Namespace
) -> PairedTimes:
    """Time both ways of encoding one file."""

    def peer() -> Tensor:
        waveform, _ = read_audio(file, sample_rate=codec.spec.sample_rate)
        return whole(waveform[None])

    def ours() -> Tensor:
        return encode_audio_file(codec, file, progress=False).encoded.codes

    return alternate(
        Contender("tokgen, in blocks", ours),
        Contender(name, peer),
        rounds=a.rounds,
        warmup=0,
        check=same,
        device=a.device,
    )


def same(ours: Tensor, peer: Tensor) -> str:
    if ours.shape != peer.shape:
        raise SystemExit(f"codes of shape {tuple(ours.shape)} and {tuple(peer.shape)}")
    equal, n = int((ours == peer).sum()), ours.numel()
    return f"{equal} of {n} codes are equal ({100 * equal / n:.4f} %)"


# -- growth with length --------------------------------------------------------


def grow(a: argparse.Namespace, codec: str, file: Path, minutes: float) -> list[dict[str, Any]]:
    """Measure seconds and memory for one length, each way in a new process."""
    ways = ["blocks", *(["whole"] if minutes <= a.whole_minutes else [])]
    rows = []
    for way in progress_bar(f"{minutes:g} minutes", ways, unit="run"):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(run_alone, way, file, codec, a.device).result()
        rows.append({"codec": Path(codec).name, "way": way, "minutes": minutes, **found})
    return rows


def run_alone(way: str, file: Path, name: str, device: str) -> dict[str, float]:
    """Encode a file, compute its conditioning, and decode it, in this process."""
    codec = load_codec(name, device=device)
    conditioning = Conditioning(ConditioningSettings.for_codec(codec.spec)).to(device)
    rate, out = codec.spec.sample_rate, file.with_suffix(f".{way}.flac")
    start = time.perf_counter()
    if way == "blocks":
        encoded, n_samples, _ = encode_audio_file(codec, file, progress=False)
        coefficients = bytearray()  # many small tensors would fragment the memory
        with open_blocks(file, sample_rate=rate) as blocks:
            for part in conditioning.blocks(block.to(device) for block in blocks):
                coefficients.extend(part.half().cpu().numpy().tobytes())
        frames = len(coefficients) // (2 * conditioning.settings.n_features)
        codes = encoded.codes
    else:
        waveform, _ = read_audio(file, sample_rate=rate)
        codes, n_samples = without_windows(codec)(waveform[None]), waveform.shape[-1]
        frames = conditioning(waveform[None].to(device)).half().shape[-1]
    middle = time.perf_counter()
    if way == "blocks":
        decode_audio_file(codec, codes, n_samples, out, encoded.side, progress=False)
    else:
        codec.window_frames = sys.maxsize  # type: ignore[attr-defined]
        with AudioWriter(out, rate) as writer:
            writer.write(codec.decode(codes, n_samples)[0])
    end = time.perf_counter()
    assert frames == codes.shape[-1] == codec.spec.n_frames(n_samples)
    return {"encode_s": middle - start, "decode_s": end - middle, "peak_mb": high_water() / 1e6}


def high_water() -> int:
    """Return the largest resident set size of this process so far, in bytes.

    `getrusage` would include the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("/proc/self/status names no VmHWM: the growth table needs Linux")


class Lines(list[dict[str, Any]]):
    """Rows that are printed as one line each."""

    def __str__(self) -> str:
        lines = [
            f"  {row['codec']}, {row['way']}, {row['minutes']:g} min: encode "
            f"{row['encode_s']:.1f} s, decode {row['decode_s']:.1f} s, peak {row['peak_mb']:.0f} MB"
            for row in self
        ]
        return "\n".join(["", *lines])


def verdict(growth: list[dict[str, Any]]) -> str:
    peaks: dict[str, list[float]] = {}
    for row in growth:
        if row["way"] == "blocks":
            peaks.setdefault(row["codec"], []).append(row["peak_mb"])
    most = [
        f"{name} {max(found):.0f} MB at most ({max(found) * 1e6 / LIMIT_BYTES:.0%} of 1500 MB)"
        for name, found in peaks.items()
    ]
    return "in blocks, " + ", ".join(most)


def roofline_of(codec: Codec, minutes: float, seconds: float) -> str:
    """Compare the encoder with the roofline: its FLOPs; its weights, audio and codes moved once."""
    probe = 10 * codec.spec.sample_rate
    waveform = torch.zeros(1, 1, probe, device=codec.device, requires_grad=True)
    flops = count_flops(lambda: codec.quantize(codec.encode_latents(waveform)))  # plain layers
    n_samples = math.ceil(60 * minutes * codec.spec.sample_rate)
    encoder: Any = codec.model.encoder
    weights = sum(p.numel() for p in encoder.parameters())
    moved = 4 * (weights + n_samples) + 2 * codec.spec.n_frames(n_samples) * codec.spec.n_codebooks
    return roofline(measure_ceilings(codec.device), flops * n_samples / probe, moved, seconds)


if __name__ == "__main__":
    sys.exit(main())
