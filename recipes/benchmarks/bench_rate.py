"""Measure the bytes of .tgc files by entropy mode, beside raw and packed codes and zstd.

    python recipes/benchmarks/bench_rate.py --codec speech-16k --corpus recipes/data/allison

Each clip of the split is a file of its own. Rows are the bytes of 16-bit codes (raw), of the same
after zstd -19, of codes packed to whole bits without a header, and of .tgc files by mode. Columns
are kbps, and percent of the packed codes that are saved; intervals are over clips. `--blocks-only`
leaves out the header and the end, as in a long file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from tabulate import tabulate

from tokgen.bitstream.compressed import compress
from tokgen.bitstream.entropy_models import choose_model
from tokgen.bitstream.tgc.block_codes import encode_block
from tokgen.bitstream.tgc.entropy import MODES
from tokgen.bitstream.tgc.layout import BLOCK, END_BYTES
from tokgen.corpus.listed import open_corpus
from tokgen.metrics.statistics import bootstrap_ratio, format_estimate
from tokgen.runs.folder import write_json
from tokgen.runs.progress import progress_bar
from tokgen.zoo.lookup import load_codec


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default="speech-16k")
    parser.add_argument("--corpus", default="recipes/data/allison")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=20, help="from the start of the split")
    parser.add_argument("--modes", nargs="+", default=list(MODES), help="modes, files or folders")
    parser.add_argument("--block-seconds", type=float, default=10.0)
    parser.add_argument("--blocks-only", action="store_true", help="no header and no end")
    parser.add_argument("--out", type=Path, help=".json file to write")
    a = parser.parse_args(argv)
    codec = load_codec(a.codec, device="cpu")
    size, zstd = codec.spec.codebook_size, pa.Codec("zstd", compression_level=19)
    models = {}
    for mode in a.modes:
        try:
            found, model = choose_model(codec, mode)
        except ValueError as error:
            print(f"without {mode}: {error}")
            continue
        models[f".tgc, {mode if mode in MODES else found}"] = found if model is None else model
    sizes: dict[str, list[int]] = {name: [] for name in ("raw", "zstd -19", "packed", *models)}
    seconds: list[float] = []
    corpus = open_corpus(a.corpus, split=a.split)
    for entry in progress_bar("clips", corpus.entries[: a.clips], unit="clip"):
        waveform = corpus.load(entry, codec.spec.sample_rate).waveform[None]
        codes = codec.encode(waveform)[0].numpy()
        raw = codes.T.astype("<u2").tobytes()
        seconds.append(waveform.shape[-1] / codec.spec.sample_rate)
        sizes["raw"].append(len(raw))
        sizes["zstd -19"].append(len(zstd.compress(raw, asbytes=True)))
        sizes["packed"].append(len(encode_block(codes, size)))
        for name, model in models.items():
            data = compress(waveform, codec, entropy=model, block_seconds=a.block_seconds)
            around = data.index(BLOCK) + END_BYTES if a.blocks_only else 0
            sizes[name].append(len(data) - around)
    rows, record = [], {}
    for name, found in sizes.items():
        kbps = bootstrap_ratio([8 * n / 1000 for n in found], seconds)
        left = bootstrap_ratio([100 * n for n in found], sizes["packed"])
        record[name] = {"kbps": kbps.as_dict(), "percent_of_packed": left.as_dict()}
        rows.append((name, format_estimate(kbps, 3), format_estimate(left, 2)))
    print(tabulate(rows, ("codes", "kbps", "% of packed"), tablefmt="github"))
    print(f"{len(seconds)} clips, {sum(seconds):.0f} s")
    if a.out:
        write_json(a.out, {"clips": len(seconds), "seconds": sum(seconds), "rates": record})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
