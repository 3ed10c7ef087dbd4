"""Measure how much of the variance of a codec's latents offline quantizers leave.

    python recipes/benchmarks/bench_latents.py --codec speech-16k \\
        --corpora en.parquet es.parquet fr.parquet it.parquet --corpus en.parquet

The codec has a quantizer of its own, which is not used. Each quantizer is fitted to the latents of
the train splits of `--corpora` and codes those of the test clips of `--corpus`. "qinco2:16" is
QINCo2 with a beam search of 16 paths, and shares the fit of "qinco2". Nothing is decoded: the
decoder of such a codec was trained on its own codes. `offline_quantizers.py` measures whole codecs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

from bench_beam import read_clips
from ceilings import machine
from tokgen.codec.stages import StagedCodec, check_stages
from tokgen.metrics.statistics import Estimate, bootstrap_ratio, format_estimate
from tokgen.quantizers.offline.base import OfflineQuantizer
from tokgen.quantizers.offline.qinco2 import Qinco2
from tokgen.quantizers.offline.qinco2_training import train_qinco2
from tokgen.quantizers.offline.registry import make_quantizer
from tokgen.quantizers.offline.settings import QincoTraining
from tokgen.runs.folder import write_json
from tokgen.runs.interrupts import plain_errors
from tokgen.runs.progress import progress_bar
from tokgen.zoo.lookup import load_codec

QUANTIZERS = ("kmeans", "kmeans:16", "pq", "opq", "qinco2", "qinco2:16")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default="speech-16k")
    parser.add_argument("--corpora", nargs="+", default=["recipes/data/allison"], help="to fit to")
    parser.add_argument("--corpus", default="recipes/data/allison", help="to measure on")
    parser.add_argument("--split", default="test")
    parser.add_argument("--quantizers", nargs="+", default=QUANTIZERS, metavar="NAME[:BEAM]")
    parser.add_argument("--levels", type=int, default=8)
    parser.add_argument("--codebook-size", type=int, default=256)
    parser.add_argument("--preset", default="S", help="of QINCo2")
    parser.add_argument("--steps", type=int, default=1500, help="of QINCo2")
    parser.add_argument("--batch-size", type=int, default=512, help="of QINCo2, in frames")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="of QINCo2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help=".json file to write")
    a = parser.parse_args(argv)
    torch.set_num_threads(a.threads)
    with plain_errors():
        codec = check_stages(load_codec(a.codec))
        training = QincoTraining(
            steps=a.steps, batch_size=a.batch_size, weight_decay=a.weight_decay, seed=a.seed
        )
        train = torch.cat([clip for name in a.corpora for clip in latents_of(codec, name, "train")])
        test = latents_of(codec, a.corpus, a.split)
    mean = torch.cat(test).double().mean(0)
    variances = [float((clip.double() - mean).square().sum()) for clip in test]

    fitted: dict[str, tuple[OfflineQuantizer, float]] = {}
    rows = []
    for label in a.quantizers:
        name, _, beam = label.partition(":")
        with plain_errors():
            if name not in fitted:
                fitted[name] = fit(name, train, a, training)
            quantizer, seconds = fitted[name]
            errors = [error_of(quantizer, clip, int(beam or 1)) for clip in test]
        share = bootstrap_ratio(errors, variances, limits=(0.0, math.inf))
        rows.append({"quantizer": label, "share_left": share, "fit_seconds": seconds})
    print(table_of(rows))
    print(
        f"latents of {a.codec}, {a.levels} levels of {a.codebook_size}; fitted to {len(train):,} "
        f"frames; {sum(map(len, test)):,} frames of {len(test)} clips of {a.corpus}, {a.split}; "
        "95 % intervals over clips"
    )
    if a.out:
        about = {k: str(v) if isinstance(v, Path) else v for k, v in vars(a).items()}
        found = [{**row, "share_left": asdict(row["share_left"])} for row in rows]
        write_json(a.out, {"settings": about, "machine": machine(), "rows": found})
    return 0


@torch.inference_mode()
def latents_of(codec: StagedCodec, corpus: str, split: str) -> list[Tensor]:
    """Return the latents [T, D] of each clip of a split."""
    found = []
    clips = read_clips(codec, corpus, split)
    for clip in progress_bar(f"latents, {split}", clips, unit="clip", delay=5.0):
        found.append(codec.encode_latents(clip)[0].mT.float())
    return found


def fit(
    name: str, frames: Tensor, a: argparse.Namespace, training: QincoTraining
) -> tuple[OfflineQuantizer, float]:
    """Fit a quantizer, and return it with the CPU seconds of the fit."""
    more = {"preset": a.preset} if name == "qinco2" else {}
    shape = {"dim": frames.shape[1], "n_codebooks": a.levels, "codebook_size": a.codebook_size}
    quantizer = make_quantizer(name, **shape, **more)
    began = time.process_time()
    if isinstance(quantizer, Qinco2):
        train_qinco2(quantizer, frames, training)
    else:
        quantizer.fit(frames, seed=a.seed)
    return quantizer, time.process_time() - began


def error_of(quantizer: OfflineQuantizer, frames: Tensor, beam: int) -> float:
    """Return the squared error of quantized frames [T, D].

    Raises:
        ValueError: a beam, for a quantizer without a search.
    """
    codes = quantizer.encode(frames, beam=beam) if beam > 1 else quantizer.encode(frames)
    return float((frames.double() - quantizer.decode(codes).double()).square().sum())


def table_of(rows: list[dict]) -> str:
    """Return the table of all rows."""

    def shown(share: Estimate) -> str:
        return format_estimate(share, 4)

    cells = [[r["quantizer"], shown(r["share_left"]), f"{r['fit_seconds']:.1f}"] for r in rows]
    return tabulate(cells, ["quantizer", "latent variance left", "fit (CPU s)"])


if __name__ == "__main__":
    raise SystemExit(main())
