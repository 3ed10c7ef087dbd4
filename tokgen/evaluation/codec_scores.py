"""Score codecs on a corpus: every clip is encoded and decoded once."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.audio.files import read_audio
from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.continuous import ContinuousCodec
from tokgen.codec.depth import OutOfReach, stream_bits
from tokgen.codec.spec import Encoded
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import Corpus, as_corpus
from tokgen.corpus.reading import Utterance
from tokgen.drift.clips import find_audio_rate
from tokgen.drift.compare import AnyCodec
from tokgen.evaluation.metric import METRICS, OF_RATE, check_backends, parse_metrics
from tokgen.evaluation.pool import check_workers
from tokgen.evaluation.rows import AudioRow, Scores, make_scorer, score_rows
from tokgen.evaluation.settings import DEFAULT_METRICS, check_cap, check_mos, check_once
from tokgen.metrics.codebook import codebook_use, live_codes, perplexity
from tokgen.metrics.ngrams import NgramEntropy, ngram_entropies
from tokgen.results import Grid, Result, finite
from tokgen.runs.progress import progress_bar
from tokgen.zoo.lookup import as_roundtrip, load_roundtrip
from tokgen.zoo.names import waveform_kind

__all__ = ["ORIGINAL", "CodecMeasures", "CodecScores", "score_codec"]

ORIGINAL = "original"  # name of the row of originals


@dataclass(frozen=True)
class CodecMeasures:
    """Codebook use and speed of a codec.

    Attributes:
        row: name of the codec's row.
        codec: `as_dict()` of the codec's spec.
        codebook_use: percent per level, pooled over `n_frames` frames. With a variable bitrate, it
            counts the codes up to the depth; NaN for a level that no frame has. Empty for a codec
            without codes.
        n_frames: frames behind `codebook_use`. Entropy is biased low if there are few.
        speed: seconds of audio encoded and decoded, clip by clip, per second of computing.
        kbps: mean over the audio, without entropy coding of codes, with the bits of the depth. Of
            MP3 and Opus, the requested bitrate; of a continuous codec, that of float16 latents.
        kbps_of: what `kbps` counts, if it is not codes.
        perplexity: of the codes of each level: 2 ** entropy, the entries in use if all were
            equally frequent. Empty for a codec without codes.
        ngrams: entropy of runs of 1, 2 and 3 codes of each level.
        n_lost: clips that the codec could not code. They are not part of the other measures.
    """

    row: str
    codec: dict[str, Any]
    codebook_use: list[float]
    n_frames: int
    speed: float
    kbps: float
    kbps_of: str = ""
    perplexity: list[float] = field(default_factory=list)
    ngrams: list[list[NgramEntropy]] = field(default_factory=list)
    n_lost: int = 0


@dataclass(frozen=True)
class CodecScores(Result):
    """Scores of codecs on a corpus.

    Attributes:
        corpus: name of the corpus.
        scores: row "original", and a row "NAME decoded" for each codec.
        codecs: what else is measured of each codec, in the order of the rows.
        seconds: seconds of audio.
        rejections: clips that could not be read.
    """

    corpus: str
    scores: Scores
    codecs: list[CodecMeasures]
    seconds: float
    rejections: list[Rejection]

    def parts(self) -> list[Grid | str]:
        lines = []
        for found in self.codecs:
            use = " ".join(f"{u:.1f}" for u in found.codebook_use)
            what = f", {found.kbps_of}" if found.kbps_of else ""
            lines.append(f"{found.codec['name']}: {found.kbps:.3f} kbps{what}")
            if found.codebook_use:
                lines.append(
                    f"{found.codec['name']}: codebook use, % of log2(size), {found.n_frames} "
                    f"frames: {use}"
                )
                lines += _code_lines(found)
            lines += [
                f"{found.codec['name']}: encode + decode, clip by clip: {found.speed:.0f} x real "
                f"time ({self.seconds:.0f} s)",
            ]
        return [
            *self.scores.parts(),
            *lines,
            *(f"left out {r.source}: {r.reason}" for r in self.rejections),
        ]

    def clip_values(self) -> list[dict[str, Any]]:
        """Return one record for each clip, row and metric, as `write_clips` writes them."""
        return self.scores.clip_values()

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each row and metric."""
        return self.scores.records()

    def to_dict(self) -> dict[str, Any]:
        """Return all but the records of clips, with the scores as in metrics.json."""
        table = self.scores.means
        return finite(
            {
                "corpus": self.corpus,
                "scores": table.rows_as_dict(),
                "differences": table.to_dict()["differences"],
                "codecs": [asdict(found) for found in self.codecs],
                "notes": table.notes,
                "failures": table.failures_as_dict(),
                "seconds": self.seconds,
                "rejections": [asdict(rejection) for rejection in self.rejections],
            }
        )


def score_codec(
    codec: AnyCodec | Sequence[AnyCodec],
    corpus: str | Path | Corpus,
    *,
    split: str | None = None,
    where: str | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    language: str | None = None,
    follow_links: bool = False,
    clips: int | None = None,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    asr: str = "auto",
    cer_cap: float | None = None,
    mos: str = "auto",
    mos_reference: str | Path | Tensor | None = None,
    speaker: str = "auto",
    utmos: str = "auto",
    fad: str = "clap",
    workers: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> CodecScores:
    """Encode and decode every clip once with each codec and score it against the original.

    Each codec gets the clips at its own rate. The row "original" is scored at the highest rate.
    Stereo clips stay stereo for codecs with two channels, and their decoded audio is compared with
    them; other codecs get the mean. See `Clip` for metrics of stereo.

    Args:
        codec: one or several codecs, or their names as in `load_roundtrip`, each once. Folders of
            equal names, such as "runs/a/codec" and "runs/b/codec", are named by their paths. Those
            without codes, such as continuous ones and "opus:12", have no codebook use. MP3 runs at
            the rate of the corpus' first clip, if it has the bitrate there.
        corpus: the corpus, or its source as in `open_corpus`. All clips are held in memory.
        split, where, min_seconds, max_seconds: part of the corpus to score, as in `open_corpus`.
        language, follow_links: as in `open_corpus`. CER does not apply to clips in a language that
            the recogniser does not know.
        clips: number of clips to score, from the first on; None for all.
        metrics, asr, cer_cap, mos, speaker, utmos, fad, workers: as in `score_audio`.
        mos_reference: clean speech for SQUIM, not a clip of the corpus: an audio file, or [1, N] at
            the first codec's rate.
        device: device to load codecs on that are given by name.
    Raises:
        ValueError: no clip of the corpus can be read, a codec is given twice, or an unknown metric,
            backend or device.
        FileNotFoundError: no such codec, corpus or file.
    """
    metrics = parse_metrics(metrics)
    check_backends(asr=asr, mos=mos, speaker=speaker, fad=fad)
    if clips is not None and clips < 1:
        raise ValueError(f"clips = {clips}: must be at least 1, or None for all")
    check_cap(cer_cap)
    check_mos(metrics, mos, mos_reference)
    check_workers(workers)
    given = [codec] if isinstance(codec, AnyCodec) or codec is None else codec
    check_once([str(one) for one in given if isinstance(one, str | Path)])
    if not given:
        raise ValueError("no codec: give at least one")
    codecs = [as_roundtrip(one, device=device) for one in given]
    _name_apart(codecs, given)
    check_once([one.spec.name for one in codecs])
    corpus = as_corpus(
        corpus,
        split=split,
        where=where,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        language=language,
        follow_links=follow_links,
    )
    if clips is not None:
        corpus = corpus.select(n=clips)
    for i, one in enumerate(given):
        if isinstance(one, str | Path) and waveform_kind(one):
            codecs[i] = load_roundtrip(one, audio_rate=find_audio_rate(corpus))
    rates = [one.spec.sample_rate for one in codecs]
    forms = [(one.spec.sample_rate, one.spec.channels) for one in codecs]
    if isinstance(mos_reference, str | Path):
        mos_reference, _ = read_audio(mos_reference, sample_rate=rates[0])
    rejected = list(corpus.rejections)
    by_form = _read(corpus, forms, rejected)
    heard = by_form[forms[0]]
    texts = [clip.text for clip in heard]
    languages = [clip.language for clip in heard]
    ids = [clip.id for clip in heard]
    scorer = make_scorer(
        metrics, texts, languages, asr, mos, speaker, cer_cap=cer_cap, utmos=utmos, fad=fad,
        mos_reference=mos_reference, sample_rate=rates[0],
        channels=max(len(clip.waveform) for found in by_form.values() for clip in found),
    )  # fmt: skip
    best = [clip.waveform for clip in by_form[max(forms)]]
    rows = [AudioRow(ORIGINAL, "original", None, best, best, max(rates))]
    found = []
    for one in codecs:
        originals = [clip.waveform for clip in by_form[one.spec.sample_rate, one.spec.channels]]
        row, measures = _decode(one, originals, progress)
        rows.append(row)
        found.append(measures)
    scores = score_rows(
        scorer, rows, texts, languages, [clip.speaker for clip in heard], reference=ORIGINAL,
        than=rows[1].name, ids=ids, workers=workers, progress=progress,
    )  # fmt: skip
    if len(set(rates)) > 1:
        of_rate = [METRICS[name].label for name in OF_RATE if name in metrics]
        scores.means.notes.extend(f"{label} at the rate of each codec" for label in of_rate)
    seconds = sum(w.shape[-1] for w in best) / max(rates)
    return CodecScores(corpus.name, scores, found, seconds, rejected)


def _read(
    corpus: Corpus, forms: Sequence[tuple[int, int]], rejected: list[Rejection]
) -> dict[tuple[int, int], list[Utterance]]:
    """Read the corpus in each form, with the same utterances in the same order.

    Args:
        forms: sample rates in Hz, and channels of codecs.
    Raises:
        ValueError: no utterance can be read.
    """
    by_form: dict[tuple[int, int], list[Utterance]] = {}
    for rate, channels in dict.fromkeys(forms):
        again: list[Rejection] = []
        read = corpus.utterances(rate, rejected=again, channels=channels)
        by_form[rate, channels] = list(read)
        rejected += [r for r in again if r not in rejected]
    common = set.intersection(*({clip.id for clip in clips} for clips in by_form.values()))
    if not common:
        reasons = "; ".join(map(str, rejected[:3])) or "it is empty"
        raise ValueError(f"no usable clip in {corpus.name}: {reasons}")
    return {form: [c for c in clips if c.id in common] for form, clips in by_form.items()}


def _name_apart(codecs: Sequence[Codec | WaveformCodec], given: Sequence[AnyCodec]) -> None:
    """Name the codecs of folders with equal names by their paths, such as "runs/mine/codec"."""
    names = [codec.spec.name for codec in codecs]
    pairs = list(zip(names, given, strict=True))
    objects = {name for name, one in pairs if not isinstance(one, str | Path)}
    for codec, (name, one) in zip(codecs, pairs, strict=True):
        if names.count(name) > 1 and name not in objects:
            spec: Any = replace(codec.spec, name=str(one))
            codec.spec = spec


def _decode(
    codec: Codec | WaveformCodec, originals: Sequence[Tensor], progress: bool
) -> tuple[AudioRow, CodecMeasures]:
    """Encode and decode clips [1, N] or [C, N] one by one. Those out of reach are lost."""
    rate, name = codec.spec.sample_rate, codec.spec.name
    decoded, took = list[Tensor](), 0.0
    lost: dict[int, str] = {}
    found: list[tuple[Tensor, Tensor | None]] = []  # codes [K, T] and depth [T] of each clip
    bar = progress_bar(f"decoding {name}", originals, unit="clip", delay=2.0, show=progress)
    for i, waveform in enumerate(bar):
        began = time.perf_counter()
        try:
            audio, encoded = _roundtrip(codec, waveform)
        except OutOfReach as error:
            lost[i] = str(error)
            decoded.append(waveform[:, :0])
            continue
        decoded.append(audio.cpu())
        took += time.perf_counter() - began
        if encoded is not None:
            depth = None if encoded.depth is None else encoded.depth[0].cpu()
            found.append((encoded.codes[0].cpu(), depth))
    row = AudioRow(f"{name} decoded", "resynthesis", name, decoded, originals, rate, lost)
    speed = sum(w.shape[-1] for w in decoded) / rate / took if took else math.nan
    about = row.name, codec.spec.as_dict()
    if not isinstance(codec, Codec):
        kbps_of = "float16 latents" if isinstance(codec, ContinuousCodec) else "as requested"
        return row, CodecMeasures(
            *about, [], 0, speed, codec.spec.bitrate / 1000, kbps_of, n_lost=len(lost)
        )
    if not found:
        return row, CodecMeasures(*about, [], 0, speed, math.nan, n_lost=len(lost))
    live, size = [live_codes(*clip) for clip in found], codec.spec.codebook_size
    n_frames = sum(codes.shape[-1] for codes, _ in found)
    bits = sum(stream_bits(codes.shape[-1], len(codes), codec.spec, d) for codes, d in found)
    kbps = bits * codec.spec.frame_rate / n_frames / 1000
    return row, CodecMeasures(
        *about, codebook_use(live, codec.spec.sizes).tolist(), n_frames, speed, kbps,
        perplexity=perplexity(live, size).tolist(), ngrams=ngram_entropies(live, size),
        n_lost=len(lost),
    )  # fmt: skip


def _code_lines(found: CodecMeasures) -> list[str]:
    """Describe perplexity and n-gram entropy, level by level."""
    name = found.codec["name"]
    lines = [f"{name}: perplexity of the codes: {' '.join(f'{p:.0f}' for p in found.perplexity)}"]
    if all(level[0].n_runs for level in found.ngrams):
        pairs = [(level[1].bits - level[0].bits, level[1]) for level in found.ngrams]
        bits = " ".join(f"{after:.2f}" for after, _ in pairs)
        shares = [run.n_different / max(1, run.n_runs) for _, run in pairs]
        few = ", biased low: most pairs occur once" if max(shares) > 0.5 else ""
        lines.append(f"{name}: entropy of a code after the one before, bits{few}: {bits}")
    return lines


def _roundtrip(codec: Codec | WaveformCodec, waveform: Tensor) -> tuple[Tensor, Encoded | None]:
    """Encode and decode a clip [C, N]; return the audio, and the codes if there are some."""
    if not isinstance(codec, Codec):
        return codec.roundtrip(waveform[None])[0], None
    encoded = codec.encode_with_side(waveform[None])
    n, mono = waveform.shape[-1], len(waveform) == 1
    return codec.decode(encoded.codes, n, encoded.side, mono=mono)[0], encoded
