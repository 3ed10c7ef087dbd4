"""Utterances -> token dataset: buckets of like length, shards, resume.

    report = tokenize_corpus(open_corpus("speech/"), load_codec("speech-16k"), Path("tokens"))
    load_tokens("tokens").splits["train"][0]["codes"]  # [T, K]

Rows stand in the corpus' order whatever the batches were. A run that was killed goes on where
its last shard ended: same command, same dataset.
"""

from __future__ import annotations

import re
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import tokgen
from tokgen.audio import AudioError
from tokgen.codec import Codec, Encoded
from tokgen.conditioning import Conditioning, ConditioningSettings
from tokgen.corpus import Corpus, Rejection, Utterance
from tokgen.interrupts import held_interrupts
from tokgen.token_dataset import (
    PROVENANCE,
    REJECTIONS,
    Provenance,
    TokenDataset,
    check_codec,
    load_tokens,
    provenance_of,
)
from tokgen.token_shards import Row, ShardStore, open_store, partial_folder, read_rejections

__all__ = [
    "Provenance",
    "TokenDataset",
    "TokenizeReport",
    "cached_tokens",
    "check_codec",
    "load_tokens",
    "provenance_of",
    "tokenize_corpus",
]

SHARD_SECONDS = 300.0  # a shard ends after so much audio too: little is lost to a kill
WINDOW_BATCHES = 8  # utterances are sorted by length within so many batches' audio


@dataclass(frozen=True)
class TokenizeReport:
    """What a run did.

    Attributes:
        n_rows: utterances in the dataset.
        n_rejected: of the corpus, when listing and when reading.
        rejections: each by source and reason.
        audio_seconds: in the dataset.
        wall_seconds: of this run.
        resumed_rows: rows that an earlier run had made.
    """

    n_rows: int
    n_rejected: int
    rejections: list[Rejection]
    audio_seconds: float
    wall_seconds: float
    resumed_rows: int


def tokenize_corpus(
    corpus: Corpus,
    codec: Codec,
    out: Path,
    *,
    n_codebooks: int | None = None,
    conditioning: str | None = "mfcc",
    batch_seconds: float = 60.0,
    shard_rows: int = 256,
    progress: bool = True,
) -> TokenizeReport:
    """Write the token dataset of a corpus.

    Args:
        corpus: what to encode.
        codec: on the device where it shall run.
        out: the dataset's folder. If it holds this very dataset, nothing is done.
        n_codebooks: levels to keep; None keeps all.
        conditioning: "mfcc" or "log_mel" adds that column at the codec's frame rate; None none.
        batch_seconds: padded audio per batch; a longer utterance goes alone.
        shard_rows: entries of the corpus after which work is saved, at the latest.
        progress: show a bar.
    Raises:
        ValueError: a setting out of range, `out` holds something else, no usable audio at all,
            or another process works on `out`.
    """
    started = time.monotonic()
    out = Path(out)
    if batch_seconds <= 0 or shard_rows < 1:
        raise ValueError(
            f"batch_seconds = {batch_seconds}, shard_rows = {shard_rows}: "
            "must be above 0 and at least 1"
        )
    settings = ConditioningSettings.for_codec(codec.spec, conditioning) if conditioning else None
    provenance = _provenance(corpus, codec, n_codebooks, settings)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        report = _report_existing(out, provenance, started)
        shutil.rmtree(partial_folder(out), ignore_errors=True)
        return report
    with open_store(out, provenance) as store:
        if not store.recover():
            warnings.warn(
                f"the unfinished work in {store.folder} was for other audio, another codec or "
                "other settings: starting anew",
                stacklevel=2,
            )
        resumed = sum(shard.n_rows for shard in store.shards)
        encoder = _Encoder(codec, settings, provenance.n_codebooks, batch_seconds)
        _fill(store, corpus, encoder, shard_rows, progress)
        rejections = [*corpus.rejections, *(r for s in store.shards for r in s.rejections)]
        n_rows = sum(shard.n_rows for shard in store.shards)
        seconds = sum(shard.audio_seconds for shard in store.shards)
        if n_rows == 0:
            first = "; ".join(f"{r.source}: {r.reason}" for r in rejections[:3])
            raise ValueError(
                f"{corpus.name} has no usable audio: {len(rejections)} rejected ({first})"
            )
        store.publish(out, rejections)
    wall = time.monotonic() - started
    return TokenizeReport(n_rows, len(rejections), rejections, seconds, wall, resumed)


def cached_tokens(
    corpus: Corpus,
    codec: Codec,
    cache: Path,
    *,
    conditioning: str | None = "mfcc",
    progress: bool = True,
) -> TokenDataset:
    """The token dataset of a corpus, made once per content of corpus and codec.

    Args:
        cache: folder that holds such datasets, each named by codec, weights and corpus content.
        conditioning: as in `tokenize_corpus`.
    Raises:
        ValueError: as `tokenize_corpus`.
    """
    spec = codec.spec
    safe = re.sub(r"[^\w.-]", "_", spec.name)
    kind = "" if conditioning == "mfcc" else f"-{conditioning or 'plain'}"
    out = Path(cache) / f"{safe}-{spec.weight_hash[:12]}-{corpus.fingerprint[:12]}{kind}"
    report = tokenize_corpus(corpus, codec, out, conditioning=conditioning, progress=progress)
    for rejection in report.rejections:
        warnings.warn(f"left out {rejection.source}: {rejection.reason}", stacklevel=2)
    return load_tokens(out)


def _provenance(
    corpus: Corpus, codec: Codec, n_codebooks: int | None, settings: ConditioningSettings | None
) -> Provenance:
    spec = codec.spec
    keep = spec.n_codebooks if n_codebooks is None else n_codebooks
    if not 1 <= keep <= spec.n_codebooks:
        raise ValueError(f"n_codebooks = {keep}: {spec.name} has levels 1..{spec.n_codebooks}")
    if spec.codebook_size > 1 << 16:
        raise ValueError(
            f"{spec.name} has {spec.codebook_size} entries per level: "
            "a token dataset holds 65536 at most"
        )
    return Provenance(
        codec=spec.as_dict(),
        sample_rate=spec.sample_rate,
        hop_length=spec.hop_length,
        n_codebooks=keep,
        codebook_size=spec.codebook_size,
        conditioning=None if settings is None else asdict(settings),
        tokgen_version=tokgen.__version__,
        corpus=corpus.name,
        corpus_fingerprint=corpus.fingerprint,
        side_names=list(codec.side_names),
    )


def _report_existing(out: Path, provenance: Provenance, started: float) -> TokenizeReport:
    """What `out` holds, if it is what a run would make."""
    if not (out / PROVENANCE).is_file():
        raise ValueError(f"{out} is there and is not a token dataset: choose another folder")
    tokens = load_tokens(out)
    if not tokens.provenance.makes_equal_rows(provenance):
        raise ValueError(
            f"{out} holds tokens of codec {tokens.provenance.codec['name']!r} and corpus "
            f"{tokens.provenance.corpus!r}, made of other weights, audio or settings: delete it "
            "or choose another folder"
        )
    rejections = read_rejections(out / REJECTIONS)
    n_rows = sum(len(split) for split in tokens.splits.values())
    n_samples = sum(int(np.sum(split["n_samples"])) for split in tokens.splits.values())
    seconds = n_samples / provenance.sample_rate
    wall = time.monotonic() - started
    return TokenizeReport(n_rows, len(rejections), rejections, seconds, wall, n_rows)


class _Encoder:
    """Utterances -> rows, in batches of like length."""

    def __init__(
        self,
        codec: Codec,
        settings: ConditioningSettings | None,
        n_codebooks: int,
        batch_seconds: float,
    ) -> None:
        self.codec, self.n_codebooks, self.batch_seconds = codec, n_codebooks, batch_seconds
        self.conditioning = None if settings is None else Conditioning(settings)

    def rows(self, utterances: Sequence[Utterance]) -> list[Row]:
        """Rows in the order given."""
        order = sorted(range(len(utterances)), key=lambda i: -utterances[i].waveform.shape[-1])
        rows: dict[int, Row] = {}
        while order:
            longest = utterances[order[0]].waveform.shape[-1] / self.codec.spec.sample_rate
            size = max(1, int(self.batch_seconds / longest))
            batch, order = order[:size], order[size:]
            found = self.codec.encode_batch_with_side([utterances[i].waveform for i in batch])
            rows |= {i: self._row(utterances[i], e) for i, e in zip(batch, found, strict=True)}
        return [rows[i] for i in range(len(utterances))]

    def _row(self, utterance: Utterance, encoded: Encoded) -> Row:
        return Row(
            id=utterance.id,
            split=split_name(utterance.split),
            codes=encoded.codes[: self.n_codebooks].T.cpu().numpy().astype(np.uint16),
            n_samples=utterance.waveform.shape[-1],
            text=utterance.text,
            speaker=utterance.speaker,
            conditioning=self._conditioning(utterance.waveform),
            side={name: values.cpu().numpy() for name, values in encoded.side.items()},
        )

    @torch.inference_mode()
    def _conditioning(self, waveform: Tensor) -> np.ndarray | None:
        """One by one, so that rounding does not depend on the batch."""
        if self.conditioning is None:
            return None
        return self.conditioning(waveform[None])[0].T.numpy().astype(np.float16)


def split_name(name: str | None) -> str:
    """A split's name as `datasets` takes it: letters, digits and _; "train" where there is none."""
    return re.sub(r"\W+", "_", name or "train")


def _fill(
    store: ShardStore, corpus: Corpus, encoder: _Encoder, shard_rows: int, progress: bool
) -> None:
    """Encode what the store lacks, shard after shard."""
    with _Bar(corpus, store.n_done, progress) as bar:
        while store.n_done < len(corpus.entries):
            stop = min(store.n_done + shard_rows, len(corpus.entries))
            store.append(*_encode_shard(corpus, encoder, range(store.n_done, stop), bar))


def _encode_shard(
    corpus: Corpus, encoder: _Encoder, positions: range, bar: _Bar
) -> tuple[int, list[Row], list[Rejection], float]:
    """Entries from the first position on, to the last or until `SHARD_SECONDS` are full.

    Returns:
        position after the last entry done, rows, rejections, seconds of audio.
    """
    rate = encoder.codec.spec.sample_rate
    rows: list[Row] = []
    rejections: list[Rejection] = []
    window: list[Utterance] = []
    total = in_window = 0.0
    stop = positions.start
    while stop < positions.stop and total < SHARD_SECONDS:
        try:
            with held_interrupts():
                utterance = corpus.load(corpus.entries[stop], rate)
        except AudioError as error:
            rejections.append(Rejection(error.source, error.reason))
        else:
            window.append(utterance)
            seconds = utterance.waveform.shape[-1] / rate
            total, in_window = total + seconds, in_window + seconds
        stop += 1
        if in_window >= WINDOW_BATCHES * encoder.batch_seconds:
            rows += encoder.rows(window)
            bar.advance(stop, in_window)
            window, in_window = [], 0.0
    rows += encoder.rows(window)
    bar.advance(stop, in_window)
    return stop, rows, rejections, total


class _Bar(tqdm):
    """Rows, hours of audio and real-time factor: seconds of work per second of audio."""

    def __init__(self, corpus: Corpus, n_done: int, progress: bool) -> None:
        super().__init__(
            desc=f"tokenizing {corpus.name}",
            total=len(corpus.entries),
            initial=n_done,
            unit="row",
            disable=not progress,
        )
        self.audio_seconds, self.since = 0.0, time.monotonic()

    def advance(self, position: int, audio_seconds: float) -> None:
        self.audio_seconds += audio_seconds
        factor = (time.monotonic() - self.since) / max(self.audio_seconds, 1e-9)
        hours = self.audio_seconds / 3600
        self.set_postfix_str(f"{hours:.2f} h of audio, RTF {factor:.3f}", refresh=False)
        self.update(position - self.n)
