"""Compare offline quantizers of a continuous codec at several bitrates.

    python recipes/benchmarks/offline_quantizers.py --corpora '[en.parquet, es.parquet]' \\
        --corpus en.parquet,es.parquet --clips 120 --finetune_decoder 2000

Each quantizer is fitted to the latents of the train splits of `--corpora`, as
`recipes/quantize_offline.py` does. A nested quantizer is fitted once, at the highest bitrate, and
searches its codes anew for each bitrate. The others are fitted once per bitrate. "kmeans:16" is
k-means with a beam search of 16 paths. With `--finetune_decoder N`, the decoder also trains N steps
on the codes of each row and makes a second row of it; `--finetune_kbps` and `--finetune_quantizers`
choose among the rows.

A row has the share of the variance of the test clips' latents that is left, PESQ, SI-SDR, MOS, CER,
the perplexity 2 ** entropy of the codes, their codebook use, the CPU seconds of the fit, and the
speed of encoding, audio to codes, as a multiple of real time in CPU seconds. Each clip is encoded
by greedy k-means too, right before or after, for the ratio of the speeds. Paired differences
compare each row with the peers at its bitrate, beam with greedy search, and the trained decoder
with the one before.

Clips are spread evenly over the split, all corpora together. Results are in `--runs`/`--name`:
table.json, .csv, .md and .tex, quality.png and perplexity.png. The same command continues after an
interruption, and makes no fit twice. All other flags are those of `recipes/quantize_offline.py`,
such as `--codebook_size`, `--frames`, `--training.steps` and `--finetune.seconds`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from bench_stable import Clip, read_clips, spread
from harness import check_own
from offline_quantizers_fits import Cell, Fits, make_cells, peer_cells
from offline_quantizers_tables import (
    TRAINED,
    Measured,
    columns,
    make_table,
    plot_perplexity,
    plot_quality,
)
from tokgen.codec.base import Codec
from tokgen.codec.continuous import ContinuousSpec
from tokgen.codec.identity import audio_key, codes_key
from tokgen.codec_training.offline_settings import OfflineSettings, check_sources
from tokgen.corpus.listed import open_corpus
from tokgen.corpus.settings import check_corpus, split_sources
from tokgen.evaluation.metric import parse_metrics
from tokgen.evaluation.reasons import join
from tokgen.evaluation.scorer import Scorer
from tokgen.metrics.table_files import write_table
from tokgen.metrics.tables import Table
from tokgen.runs.folder import versions, write_json
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.progress import progress_bar
from tokgen.runs.settings import parse_settings
from tokgen.runs.store import ClipStore, RecordStore
from tokgen.zoo.continuous import load_continuous
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.offline import OfflineCodec

NAME = "offline_quantizers"
QUANTIZERS = ("kmeans", "kmeans:16", "pq", "opq", "fsq", "rfsq", "qinco2:16")
METRICS = ("pesq", "si_sdr", "mos", "cer")
KBPS = (1.0, 2.0, 4.0, 6.0, 8.0)
OWN = ("--quantizer", "--quantizer_settings", "--bitrate", "--beam")  # of the recipe, not of this
NO_CER = "cut, without a transcript, or in a language that the recogniser does not know"
RECIPE = Path(__file__).parents[1] / "quantize_offline.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    with plain_errors():
        a, s = parse(argv)
        torch.set_num_threads(a.threads)
        run = Path(s.runs) / s.name
        check_sources(s)
        for source in split_sources(a.corpus):
            check_corpus(source)
        check_own(run, NAME)
        with lock_folder(run):
            table = measure(a, s, run)
    if table is None:
        return 130
    print(table)
    print(f"outputs: {run} (table.json, .csv, .md, .tex; quality.png; perplexity.png)")
    return 0


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, OfflineSettings]:
    """Return the flags of this benchmark, and the settings of the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="All other flags are those of recipes/quantize_offline.py.",
        allow_abbrev=False,
    )
    parser.add_argument("--quantizers", nargs="+", default=QUANTIZERS, metavar="NAME[:BEAM]")
    parser.add_argument("--kbps", nargs="+", type=float, default=KBPS)
    parser.add_argument("--peer", nargs="*", default=["speech-16k"], help="codecs to compare with")
    parser.add_argument("--corpus", default="recipes/data/allison", help="test, joined by commas")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=120, help="spread over the split")
    parser.add_argument("--min_seconds", type=float, default=1.0, help="leave out shorter clips")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip; 0 for all")
    parser.add_argument("--metrics", nargs="+", default=METRICS, help="some of these")
    parser.add_argument("--mos", default="distillmos")
    parser.add_argument("--asr", default="moonshine", help="recogniser of the CER")
    parser.add_argument(
        "--settings", nargs="+", default=[], metavar="QUANTIZER.NAME=VALUE", help="qinco2.preset=M"
    )
    parser.add_argument(
        "--finetune_kbps", nargs="+", type=float, help="where --finetune_decoder trains; all"
    )
    parser.add_argument(
        "--finetune_quantizers", nargs="+", metavar="NAME[:BEAM]", help="of which it trains; all"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default=NAME, help="folder in --runs")
    a, rest = parser.parse_known_args(argv)
    for flag in rest:
        if flag.partition("=")[0] in OWN:
            raise ValueError(f"{flag}: give --quantizers, --settings and --kbps in its place")
    a.metrics = parse_metrics(a.metrics)
    if unknown := set(a.metrics) - set(METRICS):
        raise ValueError(f"--metrics {' '.join(unknown)}: known here are {' '.join(METRICS)}")
    a.finetune_kbps = a.finetune_kbps or a.kbps
    if wrong := set(a.finetune_kbps) - set(a.kbps):
        raise ValueError(f"--finetune_kbps {min(wrong):g}: must be one of --kbps")
    a.quantizers = [name.removesuffix(":1") for name in a.quantizers]
    a.finetune_quantizers = a.finetune_quantizers or a.quantizers
    for name in a.finetune_quantizers:
        if name not in a.quantizers:
            raise ValueError(f"--finetune_quantizers {name}: must be one of --quantizers")
    a.settings = read_settings(a.settings)
    return a, replace(parse_settings(OfflineSettings, RECIPE, rest), name=a.name)


def read_settings(pairs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return settings by quantizer, of texts such as "qinco2.preset=M"."""
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        quantizer, dot, key = name.partition(".")
        if not (equals and dot and key):
            raise ValueError(f"--settings {pair}: must be QUANTIZER.NAME=VALUE")
        found.setdefault(quantizer, {})[key] = yaml.safe_load(value)
    return found


def measure(a: argparse.Namespace, s: OfflineSettings, run: Path) -> Table | None:
    """Fit, encode, score and write the results; None if it was interrupted."""
    continuous = load_continuous(s.codec)
    cells = make_cells(a.quantizers, a.kbps, a.settings, continuous.spec, s.codebook_size)
    peers = [open_peer(name, continuous.spec) for name in a.peer]
    scorer = Scorer(a.metrics, asr=a.asr, mos=a.mos, device="cpu")
    corpus = spread(open_corpus(a.corpus, split=a.split).select(min_seconds=a.min_seconds), a.clips)
    save_settings(a, s, run, [continuous.spec.as_dict(), *(p.spec.as_dict() for p in peers)])
    clips = list(read_clips(continuous, corpus, a.seconds, scorer.languages))
    latents = [continuous.encode(clip.waveform)[0].mT for clip in clips]  # [T, D]
    bench = Bench(clips, [corpus.fingerprint, a.seconds, a.threads], scorer, run)

    fits, rows = Fits(continuous, s, run), []
    greedy = {cell.kbps: cell for cell in cells if cell.label == "kmeans"}
    for cell in cells:
        codec = fits.codec(cell)
        if codec is None:
            return None
        row = bench.row(cell, codec, beside_of(fits, greedy, cell))
        errors = latent_errors(latents, codec, row.codes)
        rows.append(replace(row, errors=errors, fit_seconds=fits.seconds(cell)))
        chosen = cell.kbps in a.finetune_kbps and cell.name in a.finetune_quantizers
        if s.finetune_decoder and chosen:
            trained = fits.trained(cell)
            if trained is None:
                return None
            scores = bench.scored(f"{cell.label}{TRAINED}", cell, trained, row.codes)
            rows.append(replace(rows[-1], scores=scores, trained=True))
    notes = [f"{len(clips)} clips of {a.corpus}, {a.split}"]
    for peer in peers:
        reached = peer_cells(peer.spec, a.kbps)
        rows += [bench.row(cell, peer, beside_of(fits, greedy, cell)) for cell in reached]
        if left := sorted(set(a.kbps) - {cell.kbps for cell in reached}):
            rates = ", ".join(f"{rate:g}" for rate in left)
            notes.append(f"{peer.spec.name} has no constant bitrate of {rates} kbps")

    metrics = columns(a.metrics, scorer.backends)
    durations = [clip.waveform.shape[-1] / continuous.spec.sample_rate for clip in clips]
    table = make_table(rows, metrics, durations, variances_of(latents), notes)
    write_table(table, run)
    plot_quality(rows, table, metrics, run / "quality.png")
    plot_perplexity(rows, run / "perplexity.png")
    return table


def save_settings(
    a: argparse.Namespace, s: OfflineSettings, run: Path, specs: list[dict[str, Any]]
) -> None:
    """Write settings.json, which says whose folder it is."""
    about = {"settings": {**asdict(s), **vars(a)}, "codecs": specs, "versions": versions()}
    write_json(run / "settings.json", {"benchmark": NAME, **about})


def open_peer(name: str, spec: ContinuousSpec) -> Codec:
    """Load a codec to compare with.

    Raises:
        ValueError: it has another sample rate, or needs side information besides its codes.
    """
    peer = load_codec(name)
    if peer.spec.sample_rate != spec.sample_rate:
        raise ValueError(
            f"--peer {name}: it has {peer.spec.sample_rate} Hz, but {spec.name} has "
            f"{spec.sample_rate}"
        )
    if peer.side_names:
        raise ValueError(f"--peer {name}: it needs {', '.join(peer.side_names)} besides its codes")
    return peer


def beside_of(fits: Fits, greedy: dict[float, Cell], cell: Cell) -> OfflineCodec | None:
    """Return the codec of greedy k-means at the bitrate of a cell; None for itself or without."""
    base = None if cell.label == "kmeans" else greedy.get(cell.kbps)
    return None if base is None else fits.codec(base)


def latent_errors(
    latents: Sequence[Tensor], codec: OfflineCodec, codes: Sequence[np.ndarray]
) -> list[float]:
    """Return the squared error of the quantized latents [T, D] of each clip."""
    found = []
    for frames, code in zip(latents, codes, strict=True):
        decoded = codec.model.quantizer.decode(torch.from_numpy(code.astype(np.int64)).T)
        found.append(float((frames.double() - decoded.double()).square().sum()))
    return found


def variances_of(latents: Sequence[Tensor]) -> list[float]:
    """Return the squared distance of the latents of each clip from the mean of all frames."""
    mean = torch.cat([*latents]).double().mean(0)
    return [float((frames.double() - mean).square().sum()) for frames in latents]


class Bench:
    """Encodes the clips by one codec after the other and scores them; keeps what is done.

    Args:
        clips: with their waveforms [1, 1, N].
        plan: what they depend on.
        scorer: of the decoded audio.
        run: folder for `codes` and `scores`.
    """

    def __init__(self, clips: list[Clip], plan: list[Any], scorer: Scorer, run: Path) -> None:
        self.clips, self.plan, self.scorer, self.run = clips, plan, scorer, run

    def row(self, cell: Cell, codec: Codec, beside: Codec | None) -> Measured:
        """Encode the clips and score the result.

        Args:
            codec: of the cell.
            beside: greedy k-means, which encodes each clip too, to compare times.
        """
        name, kept = f"{cell.label}-{cell.levels}", [codes_key(codec), cell.levels, cell.beam]
        other = None if beside is None else codes_key(beside)
        store = ClipStore(self.run / "codes", name, [*kept, other, *self.plan])
        found, warm = [], False
        for i, clip in enumerate(progress_bar(name, self.clips, unit="clip")):
            arrays = store.read(i)
            if arrays is None:
                if not warm:  # the first call is slow
                    self._encode(clip, cell, codec, beside, i)
                    warm = True
                arrays = self._encode(clip, cell, codec, beside, i)
                store.write(i, arrays)
            found.append(arrays)
        codes = [arrays["codes"] for arrays in found]
        seconds, base = ([float(x[key][0]) for x in found] for key in ("seconds", "beside"))
        scores = self.scored(cell.label, cell, codec, codes)
        return Measured(cell, codec.spec, codes, seconds, base, scores, [])

    def _encode(
        self, clip: Clip, cell: Cell, codec: Codec, beside: Codec | None, i: int
    ) -> dict[str, np.ndarray]:
        """Return the codes [k, T] of a clip, and the CPU seconds of both codecs."""
        took = {"seconds": np.nan, "beside": np.nan}
        codes = {}
        both = [("seconds", codec), ("beside", beside)]
        for name, coder in both if i % 2 == 0 else both[::-1]:
            if coder is not None:
                began = time.process_time()
                codes[name] = coder.encode(clip.waveform, cell.levels if coder is codec else None)
                took[name] = time.process_time() - began
        arrays = {name: np.array([value]) for name, value in took.items()}
        return arrays | {"codes": codes["seconds"][0].cpu().numpy().astype(np.uint16)}

    def scored(
        self, label: str, cell: Cell, codec: Codec, codes: Sequence[np.ndarray]
    ) -> list[dict[str, Any]]:
        """Decode the codes [k, T] of all clips, and return the scores of the audio."""
        kept = [audio_key(codec), cell.levels, cell.beam, self.scorer.backends, *self.plan]
        name, rate = f"{label}-{cell.levels}", codec.spec.sample_rate
        store = RecordStore(self.run / "scores", name, kept)
        records = list(store.records[: len(self.clips)])
        left = range(len(records), len(self.clips))
        for i in progress_bar(f"{name}, scores", left, unit="clip"):
            clip, code = self.clips[i], torch.from_numpy(codes[i].astype(np.int64))
            heard = codec.decode(code[None], clip.waveform.shape[-1])
            found = self.scorer.score(heard[0].cpu(), clip.waveform[0], clip.text, rate)
            if "cer" in self.scorer.metrics and clip.text is None:
                found = join(found, {"not_applicable": {"cer": NO_CER}})
            records.append({"id": clip.id, **found})
            store.append(records[-1])
        return records


if __name__ == "__main__":
    run_recipe(main)
