"""Measure the bytes of .tgc files by entropy mode, beside codes without a model, Opus and MP3.

    python recipes/benchmarks/bench_rate.py --codec speech-16k --corpus recipes/data/allison

Each clip of the split is a file of its own. Rows are the bytes of 16-bit codes (raw), of the same
after zstd -19, of codes packed to whole bits without a header, of .tgc files by mode, and of Opus
and MP3 (`--against`) at the PESQ of the codec. Columns are kbps, and percent of the packed codes;
intervals are over clips, and those of the percentages are paired. `--blocks-only` leaves out the
header and the end, as in a long file.

The rate of Opus or MP3 is where the line between two bitrates of `RATES` first reaches the PESQ of
the clip, without a container. A clip that the lowest bitrate exceeds, or that the highest does not
reach, counts with this bitrate, and the number of such clips is printed.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
from tabulate import tabulate
from torch import Tensor

from tokgen.audio.resampling import resample
from tokgen.bitstream.compressed import compress
from tokgen.bitstream.entropy_models import choose_model
from tokgen.bitstream.tgc.block_codes import encode_block
from tokgen.bitstream.tgc.entropy import MODES
from tokgen.bitstream.tgc.layout import BLOCK, END_BYTES
from tokgen.corpus.listed import open_corpus
from tokgen.metrics.pesq import measure_pesq
from tokgen.metrics.statistics import bootstrap_mean, bootstrap_ratio, format_estimate
from tokgen.runs.folder import write_json
from tokgen.runs.progress import progress_bar
from tokgen.zoo.lookup import load_codec, load_roundtrip

RATES = {  # kbps
    "opus": (6, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64),
    "mp3": (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 128),
}
PLACES = {
    "low": "exceed the codec's PESQ at the lowest bitrate",
    "high": "do not reach the codec's PESQ at the highest bitrate",
    "failed": "have no PESQ, and are left out",
}


def rate_at(
    quality: float, rates: Sequence[float], score: Callable[[float], float]
) -> tuple[float, str]:
    """Return the rate at which a score first reaches a quality, and where it lies.

    Args:
        rates: rates to try, ascending.
        score: returns the score at a rate. Rates after the first that is enough are not tried.
    Returns:
        the rate, interpolated between two rates, and ""; the lowest rate and "low" if it is enough;
        the highest and "high" if none is; or NaN and "failed" without a quality.
    """
    if math.isnan(quality):
        return math.nan, "failed"
    before: tuple[float, float] | None = None
    for rate in rates:
        found = score(rate)
        if found >= quality:
            if before is None:
                return rate, "low"
            share = (quality - before[1]) / (found - before[1])
            return before[0] + share * (rate - before[0]), ""
        if not math.isnan(found):
            before = rate, found
    return rates[-1], "high"


def quality_of(kind: str, kbps: float, waveform: Tensor, rate: int) -> float:
    """Return the PESQ of audio [1, 1, N] that went through a lossy format."""
    lossy = load_roundtrip(f"{kind}:{kbps:g}", audio_rate=rate)
    sent = resample(waveform, rate, lossy.spec.sample_rate)
    heard = resample(lossy.roundtrip(sent), lossy.spec.sample_rate, rate)
    return pesq_of(waveform, heard, rate)


def pesq_of(waveform: Tensor, heard: Tensor, rate: int) -> float:
    n = min(waveform.shape[-1], heard.shape[-1])
    return measure_pesq(waveform[0, :, :n], heard[0, :, :n], rate).value


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default="speech-16k")
    parser.add_argument("--corpus", default="recipes/data/allison")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=20, help="from the start of the split")
    parser.add_argument("--modes", nargs="+", default=list(MODES), help="modes, files or folders")
    parser.add_argument("--block-seconds", type=float, default=10.0)
    parser.add_argument("--against", nargs="*", default=list(RATES), choices=list(RATES))
    parser.add_argument("--blocks-only", action="store_true", help="no header and no end")
    parser.add_argument("--out", type=Path, help=".json file to write")
    a = parser.parse_args(argv)
    codec = load_codec(a.codec, device="cpu")
    rate = codec.spec.sample_rate
    size, zstd = codec.spec.codebook_size, pa.Codec("zstd", compression_level=19)
    models = {}
    for mode in a.modes:
        try:
            found, model = choose_model(codec, mode)
        except ValueError as error:
            print(f"without {mode}: {error}")
            continue
        models[f".tgc, {mode if mode in MODES else found}"] = found if model is None else model
    equal = {kind: f"{kind} at equal PESQ" for kind in a.against}
    names = ("raw", "zstd -19", "packed", *models, *equal.values())
    sizes: dict[str, list[float]] = {name: [] for name in names}
    places: dict[str, Counter[str]] = {name: Counter() for name in equal.values()}
    seconds: list[float] = []
    qualities: list[float] = []
    corpus = open_corpus(a.corpus, split=a.split)
    for entry in progress_bar("clips", corpus.entries[: a.clips], unit="clip"):
        waveform = corpus.load(entry, rate).waveform[None]
        codes = codec.encode(waveform)[0].numpy()
        raw = codes.T.astype("<u2").tobytes()
        seconds.append(waveform.shape[-1] / rate)
        sizes["raw"].append(len(raw))
        sizes["zstd -19"].append(len(zstd.compress(raw, asbytes=True)))
        sizes["packed"].append(len(encode_block(codes, size)))
        for name, model in models.items():
            data = compress(waveform, codec, entropy=model, block_seconds=a.block_seconds)
            around = data.index(BLOCK) + END_BYTES if a.blocks_only else 0
            sizes[name].append(len(data) - around)
        if equal:
            qualities.append(pesq_of(waveform, codec.roundtrip(waveform), rate))
        for kind, name in equal.items():
            score = partial(quality_of, kind, waveform=waveform, rate=rate)
            kbps, place = rate_at(qualities[-1], RATES[kind], score)
            sizes[name].append(1000 / 8 * kbps * seconds[-1])
            places[name][place] += 1
    rows, record = [], {}
    for name, found in sizes.items():
        mean = bootstrap_ratio([8 * n / 1000 for n in found], seconds)
        left = bootstrap_ratio([100 * n for n in found], sizes["packed"])
        record[name] = {"kbps": mean.as_dict(), "percent_of_packed": left.as_dict()}
        rows.append((name, format_estimate(mean, 3), format_estimate(left, 2)))
    print(tabulate(rows, ("codes", "kbps", "% of packed"), tablefmt="github"))
    print(f"{len(seconds)} clips, {sum(seconds):.0f} s")
    about = {"clips": len(seconds), "seconds": sum(seconds), "rates": record}
    if equal:
        pesq = bootstrap_mean(qualities)
        print(f"PESQ of {codec.spec.name}: {format_estimate(pesq, 3)}")
        about["pesq"] = pesq.as_dict()
        for name, found in places.items():
            about["rates"][name] |= {place: found[place] for place in PLACES}
            for place in [p for p in PLACES if found[p]]:
                print(f"{name}: {found[place]} of {len(seconds)} clips {PLACES[place]}")
    if a.out:
        write_json(a.out, about)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
