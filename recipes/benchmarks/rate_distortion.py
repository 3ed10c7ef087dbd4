"""Measure quality against kbps: a variable bitrate, constant bitrates, and a rule of energy.

    python recipes/benchmarks/rate_distortion.py --corpus en.parquet,es.parquet --clips 120

The systems are:

- variable: `--codec`, whose importance network gives each frame its levels, at `--bitrates`;
- energy: the same codec, where the level of the audio takes the place of the importance. The
  importance of a frame is its power in dB over that of the quietest frame, at most `RANGE_DB` below
  the loudest. The scale is solved for the bitrate as for the variable codec, so the levels past the
  first grow in proportion to these dB;
- constant: the same codec with 1 to K levels in all frames;
- `--constant`: another codec with 1 to K levels in all frames.

Every kbps counts the codes, log2(codebook_size) bits each, and for variable and energy the bits of
the depth, coded adaptively as in .tgc files. Each clip is encoded once by each codec.

The table compares the systems at `--kbps`. Variable and energy spend at most these kbps in every
clip. The scores of constant bitrates are interpolated linearly for each clip between the numbers of
levels on both sides. "Bits saved at equal PESQ" is what variable saves against the kbps at which
the line through a clip's points of the other system first reaches the PESQ of variable. A clip that
exceeds this PESQ at the lowest point, or does not reach it, counts with the kbps of the lowest or
highest point; a note has their numbers. Another note compares variable and constant for three
groups of clips, by their share of frames that are `QUIET_DB` below the loudest.

Clips are spread evenly over the split, all corpora together. Results are in `--runs`/`--name`:
table.json, .csv, .md and .tex, curves.json and rate_distortion.png. The same command continues
after an interruption. `tokgen report` makes a page of the folder.

    python recipes/benchmarks/rate_distortion.py --picture speech.wav --levels 0.5 1 2 4

draws the levels of each frame of a file under its spectrogram, for several levels of the scale.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from bench_stable import Clip, read_clips, spread
from harness import check_own
from rate_distortion_tables import Record, make_curves, make_table, plot_rates
from tokgen.audio.files import read_audio
from tokgen.codec.base import Codec
from tokgen.codec.depth import depth_bits, mean_kbps, stream_bits
from tokgen.codec.identity import audio_key
from tokgen.codec.spec import DEPTH, IMPORTANCE, CodecSpec, Encoded
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.metrics.mos import MosPredictor, make_mos
from tokgen.metrics.pesq import BACKEND as PESQ_BACKEND
from tokgen.metrics.pesq import measure_pesq
from tokgen.metrics.si_sdr import BACKEND as SI_SDR_BACKEND
from tokgen.metrics.si_sdr import si_sdr
from tokgen.metrics.table_files import write_table
from tokgen.nn.spectral_losses import MultiScaleMel
from tokgen.plotting import plot_depths
from tokgen.runs.folder import versions, write_json
from tokgen.runs.interrupts import plain_errors, run_recipe
from tokgen.runs.locks import lock_folder
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import RecordStore, hash_audio
from tokgen.zoo.lookup import load_codec

Point = dict[str, Any]
NAME = "rate_distortion"
KBPS = (1.5, 2.0, 3.0, 4.0)
RANGE_DB = 60.0  # between the loudest and the quietest frame that the energy rule tells apart
LEAST = 1e-3  # importance of the quietest frame
QUIET_DB = 35.0  # below the loudest frame of a clip, a frame counts as a pause


def main(argv: Sequence[str] | None = None) -> int:
    a = parse(argv)
    torch.set_num_threads(a.threads)
    run = a.runs / a.name
    with plain_errors():
        codec = load_codec(a.codec)
        if not codec.variable or codec.rate is not None:
            raise ValueError(
                f"--codec {a.codec}: must be a codec of variable bitrate, without a suffix of kbps"
            )
        if a.picture is not None:
            draw_picture(codec, a.picture, a.levels, a.seconds, run)
            return 0
        check_own(run, NAME)
        with lock_folder(run):
            print(measure(a, codec, run))
    print(f"outputs: {run} (table.json, .csv, .md, .tex; curves.json; rate_distortion.png)")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default="speech-16k-vbr", help="of variable bitrate")
    parser.add_argument("--constant", default="speech-16k", help="another codec, or none")
    parser.add_argument("--corpus", default="recipes/data/allison", help="joined by commas")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=120, help="spread over the split")
    parser.add_argument("--min_seconds", type=float, default=1.0, help="leave out shorter clips")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of each clip or the picture; 0 for all"
    )
    parser.add_argument("--kbps", nargs="+", type=float, help="of the table; 1.5 2 3 4 in reach")
    parser.add_argument(
        "--bitrates", nargs="+", type=float, help="of the curves; those of 2 to K levels"
    )
    parser.add_argument("--mos", choices=("distillmos", "none"), default="distillmos")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--name", default="rate_distortion", help="folder in --runs")
    parser.add_argument("--picture", type=Path, help="only draw the depth of this audio file")
    parser.add_argument("--levels", nargs="+", type=float, default=[0.5, 1, 2, 4], help="to draw")
    return parser.parse_args(argv)


def measure(a: argparse.Namespace, codec: Codec, run: Path) -> str:
    """Measure the systems on all clips, write the results, and return the table as text."""
    mos = load_mos(a.mos)
    kbps, bitrates = choose_rates(codec.spec, a.kbps, a.bitrates)
    corpus = spread(open_corpus(a.corpus, split=a.split).select(min_seconds=a.min_seconds), a.clips)
    benches = [ClipBench(codec, mos, bitrates)]
    if a.constant != "none":
        benches.append(ClipBench(load_codec(a.constant), mos))
    settings = {k: v for k, v in vars(a).items() if k not in ("runs", "name", "picture", "levels")}
    settings |= {"kbps": kbps, "bitrates": bitrates, "corpus_fingerprint": corpus.fingerprint}
    specs = [bench.codec.spec.as_dict() for bench in benches]
    about = {"benchmark": NAME, "settings": settings, "codecs": specs, "versions": versions()}
    write_json(run / "settings.json", about)
    found = [collect(bench, corpus, a.seconds, run / "clips") for bench in benches]
    names = {"variable": codec.spec.name, "energy": codec.spec.name, "constant": codec.spec.name}
    if a.constant != "none":
        names["other"] = benches[1].codec.spec.name
    records = join(found)
    backends = {"mos": "" if mos is None else mos.backend}
    table = make_table(records, names, kbps, f"{len(records)} clips of {a.corpus}", backends)
    curves = make_curves(records, names)
    write_table(table, run)
    write_json(run / "curves.json", curves)
    plot_rates(curves, run / "rate_distortion.png")
    return str(table)


def load_mos(name: str) -> MosPredictor | None:
    """Return a predictor of MOS; None if its package is missing, which is said."""
    if name == "none":
        return None
    try:
        return make_mos(name)
    except ModuleNotFoundError as error:
        print(f"without MOS: {error}")
        return None


def choose_rates(
    spec: CodecSpec, kbps: Sequence[float] | None, bitrates: Sequence[float] | None
) -> tuple[list[float], list[float]]:
    """Return the kbps of the table and the bitrates of the curves, which have the first among them.

    Raises:
        ValueError: a bitrate that the codec does not reach.
    """
    one, most = spec.bitrate / 1000 / spec.n_codebooks, spec.bitrate / 1000
    for name, values in (("kbps", kbps), ("bitrates", bitrates)):
        for value in values or ():
            if not one < value <= most:
                raise ValueError(
                    f"--{name} {value:g}: {spec.name} reaches more than {one:.4g} and at most "
                    f"{most:.4g} kbps"
                )
    chosen = kbps or [value for value in KBPS if one < value <= most]
    if not chosen:
        known = " ".join(f"{value:g}" for value in KBPS)
        raise ValueError(
            f"--kbps {known}: {spec.name} reaches more than {one:.4g} and at most {most:.4g} kbps; "
            "choose some of these"
        )
    curve = bitrates or [one * k for k in range(2, spec.n_codebooks + 1)]
    every = sorted({round(value, 6) for value in (*chosen, *curve)})
    return sorted(chosen), every


def collect(bench: ClipBench, corpus: Corpus, seconds: float, folder: Path) -> dict[str, Record]:
    """Measure the clips that have no record yet; return all by id."""
    spec = bench.codec.spec
    plan = [audio_key(bench.codec), seconds, bench.plan()]
    store = RecordStore(folder, spec.name, plan)
    done = {(record["id"], record.get("audio")): record for record in store.records}
    clips = read_clips(bench.codec, corpus, seconds, ())
    found = {}
    for clip in progress_bar(spec.name, clips, total=len(corpus), unit="clip"):
        key = clip.id, hash_audio([clip.waveform])  # corpora may have equal ids
        if key not in done:
            done[key] = {"id": clip.id, "audio": key[1], **bench.measure(clip)}
            store.append(done[key])
        found[clip.id] = done[key] | {"quiet": quiet_share(clip.waveform, spec)}
    return found


def join(found: Sequence[dict[str, Record]]) -> list[Record]:
    """Join the records of all codecs, of the clips that all have."""
    records = []
    for id, first in found[0].items():
        rest = [records_of[id] for records_of in found[1:] if id in records_of]
        if len(rest) == len(found) - 1:
            every = [first, *rest]
            points = {system: p for r in every for system, p in r["points"].items()}
            failures = [f for r in every for f in r["failures"]]
            about = {"id": id, "quiet": first["quiet"]}
            records.append(about | {"points": points, "failures": failures})
    return records


class ClipBench:
    """Sends a clip through the systems of one codec, and scores each result.

    Args:
        mos: predictor of MOS; None for none.
        bitrates: of a codec of variable bitrate; empty for the constant rates of another codec.
    """

    def __init__(
        self, codec: Codec, mos: MosPredictor | None, bitrates: Sequence[float] = ()
    ) -> None:
        self.codec, self.mos, self.bitrates = codec, mos, bitrates
        self.mel = MultiScaleMel(codec.spec.sample_rate).eval()

    def plan(self) -> list[Any]:
        """Return what records depend on besides the codec."""
        backends = [PESQ_BACKEND, SI_SDR_BACKEND, None if self.mos is None else self.mos.backend]
        return [backends, [*self.bitrates], RANGE_DB, LEAST]

    def measure(self, clip: Clip) -> Record:
        """Return the "points" of each system, and the "failures" of metrics."""
        audio, points = clip.waveform, {}
        failures: list[list[str]] = []
        if not self.bitrates:
            encoded = self.codec.encode_with_side(audio)
            points["other"] = self.at_levels(encoded)
        else:
            encoded = self.codec.encode_with_importance(audio)
            energy = energy_importance(audio, self.codec.spec)
            ruled = Encoded(encoded.codes, {**encoded.side, IMPORTANCE: energy})
            points["variable"] = self.at_bitrates(encoded)
            points["energy"] = self.at_bitrates(ruled)
            points["constant"] = self.at_levels(encoded)
        scored = {
            system: list(self.score(system, found, audio, failures))
            for system, found in points.items()
        }
        return {"points": scored, "failures": failures}

    def at_bitrates(self, encoded: Encoded) -> Iterator[tuple[Point, Encoded | None]]:
        """Yield a point for each bitrate; None if the clip does not reach it."""
        spec = self.codec.spec
        for bitrate in self.bitrates:
            point: Point = {"asked": bitrate}
            try:
                found = self.codec.allocate(encoded, bitrate=bitrate)
            except ValueError as error:
                yield point | {"reason": str(error)}, None
                continue
            depth = found.side[DEPTH][0].long()
            per_frame = spec.frame_rate / len(depth) / 1000
            point["depth"] = depth_bits(depth, spec.n_codebooks) * per_frame
            yield point | {"kbps": mean_kbps(depth, spec)}, found

    def at_levels(self, encoded: Encoded) -> Iterator[tuple[Point, Encoded]]:
        """Yield a point for each number of levels in all frames."""
        spec, side = self.codec.spec, {k: v for k, v in encoded.side.items() if k != IMPORTANCE}
        n_frames = encoded.codes.shape[-1]
        for k in range(1, spec.n_codebooks + 1):
            bits = stream_bits(n_frames, k, spec, None)
            kbps = bits * spec.frame_rate / n_frames / 1000
            point = {"levels": k, "kbps": kbps, "depth": 0.0}
            yield point, Encoded(encoded.codes[:, :k], side)

    def score(
        self,
        system: str,
        found: Iterable[tuple[Point, Encoded | None]],
        audio: Tensor,
        failures: list[list[str]],
    ) -> Iterator[Point]:
        """Decode points and yield them with their scores."""
        rate = self.codec.spec.sample_rate
        for point, encoded in found:
            asked = f"{point['asked']:g} kbps" if "asked" in point else f"{point['levels']} levels"
            at = f"{system} at {asked}"
            if encoded is None:
                failures.append([at, "kbps", point["reason"]])
                yield point | {"kbps": math.nan}
                continue
            heard = self.codec.decode(encoded.codes, audio.shape[-1], encoded.side).cpu()
            pesq = measure_pesq(audio[0], heard[0], rate)
            scores = {"pesq": pesq.value, "si_sdr": si_sdr(audio[0], heard[0])}
            with torch.inference_mode():
                scores["mel"] = self.mel(heard, audio).item()
            if self.mos is not None:
                scores["mos"] = self.mos.score(heard[0], rate)
            for metric, value in scores.items():
                if not math.isfinite(value):
                    reason = pesq.reason if metric == "pesq" else "the output is silent"
                    failures.append([at, metric, reason])
            yield point | scores


def frame_decibels(audio: Tensor, spec: CodecSpec) -> Tensor:
    """Return the power of the frames of audio [1, 1, N] in dB, [1, T].

    The power of a frame is that of its samples and half a frame on each side.
    """
    hop, n_frames = spec.hop_length, spec.n_frames(audio.shape[-1])
    left = hop // 2
    padded = pad(audio.double().square(), (left, n_frames * hop - audio.shape[-1] + hop - left))
    power = padded.unfold(-1, 2 * hop, hop).mean(-1)[:, 0, :n_frames]
    return 10 * power.clamp(min=1e-12).log10()


def quiet_share(audio: Tensor, spec: CodecSpec) -> float:
    """Return the share of frames of audio [1, 1, N] that are `QUIET_DB` below the loudest."""
    decibels = frame_decibels(audio, spec)
    return (decibels < decibels.max() - QUIET_DB).float().mean().item()


def energy_importance(audio: Tensor, spec: CodecSpec) -> Tensor:
    """Return the importance [1, T] of frames of audio [1, 1, N] by the rule of energy.

    It lies in (0, 1].
    """
    level = frame_decibels(audio, spec)
    floor = level.min().clamp(min=level.max() - RANGE_DB)
    spread_db = (level.max() - floor).clamp(min=1e-6)
    return ((level - floor) / spread_db).clamp(LEAST, 1).float()


def draw_picture(
    codec: Codec, path: Path, levels: Sequence[float], seconds: float, run: Path
) -> None:
    """Draw the depth of the frames of an audio file at several levels, under its spectrogram."""
    rate = codec.spec.sample_rate
    waveform = read_audio(path, sample_rate=rate)[0].mean(0, keepdim=True)
    waveform = waveform[:, : round(seconds * rate) or None]
    encoded = codec.encode_with_importance(waveform[None])
    depths = {}
    for level in levels:
        depth = codec.allocate(encoded, level=level).side[DEPTH][0].long()
        depths[f"level {level:g}, {mean_kbps(depth, codec.spec):.2f} kbps"] = depth
    out = run / f"{path.stem}.png"
    plot_depths(waveform, rate, depths, codec.spec.n_codebooks, codec.spec.hop_length, out)
    print(f"wrote {out}")


if __name__ == "__main__":
    run_recipe(main)
