"""Make the token dataset of a corpus.

    report = tokenize_corpus("speech/", "speech-16k", "tokens")
    load_tokens("tokens").splits["train"][0]["codes"]  # [T, K]

Rows are in the corpus' order, for any batch size and any number of workers. The same command
resumes a killed run and makes the same dataset.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import tokgen
from tokgen.audio.files import AudioError
from tokgen.codec.base import Codec
from tokgen.codec.depth import check_reach
from tokgen.codec.spec import DEPTH
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import open_corpus
from tokgen.corpus.reading import Readable, Unit
from tokgen.results import Grid, Result, finite
from tokgen.runs.checks import check_folder
from tokgen.runs.device import pick_device
from tokgen.storage import Storage
from tokgen.tokens.conditioning import ConditioningSettings, check_kind
from tokgen.tokens.engines.job import Job
from tokgen.tokens.engines.progress import Progress
from tokgen.tokens.engines.run import ENGINES, Place, run_units
from tokgen.tokens.existing import (
    NO_TOKENS,
    check_same,
    explain,
    is_there,
    read_corpus,
    write_corpus,
)
from tokgen.tokens.output import FORMATS, clear_work, hold_work, partial_folder, publish
from tokgen.tokens.precision import PRECISIONS, PrecisionChoice, choose_precision, needs_audio
from tokgen.tokens.provenance import PROVENANCE, Provenance
from tokgen.tokens.rates import DepthTotals, depths_in
from tokgen.tokens.saved import REJECTIONS, lengths_in
from tokgen.tokens.settings import TokenizeSettings, check_codes
from tokgen.tokens.shards import ShardStore
from tokgen.zoo.lookup import as_codec

__all__ = ["BATCH_SECONDS", "MEASURED_CLIPS", "POLL_SECONDS", "TokenizeReport", "tokenize_corpus"]

BATCH_SECONDS = (10.0, 240.0)  # padded audio per batch, on a CPU and on other devices
MEASURED_CLIPS = 16  # utterances on which a faster precision is measured
POLL_SECONDS = 5.0  # between checks for the units of other processes


@dataclass(frozen=True)
class TokenizeReport(Result):
    """Result of a run.

    Attributes:
        out: folder or URL of the dataset.
        n_rows: utterances in the dataset.
        rejections: what was left out while listing and reading the corpus.
        audio_seconds: duration of the dataset's audio.
        wall_seconds: time of this run.
        resumed_rows: number of rows from an earlier run.
        precision: the precision of encoding, and the measurements behind it.
        kbps: mean bitrate of the tokens with that of the depth, if it is variable.
    """

    out: str
    n_rows: int
    rejections: list[Rejection]
    audio_seconds: float
    wall_seconds: float
    resumed_rows: int
    precision: PrecisionChoice
    kbps: float | None = None

    @property
    def n_rejected(self) -> int:
        return len(self.rejections)

    def parts(self) -> list[Grid | str]:
        resumed = f" ({self.resumed_rows} of them from before)" if self.resumed_rows else ""
        rate = "" if self.kbps is None else f" at {self.kbps:.2f} kbps"
        line = (
            f"{self.out}: {self.n_rows} rows{resumed}, "
            f"{self.audio_seconds / 3600:.2f} h of audio{rate}, {self.n_rejected} rejected, "
            f"{self.wall_seconds:.1f} s"
        )
        return [*([str(self.precision)] if self.precision.measured else []), line]

    def records(self) -> list[dict[str, Any]]:
        precision = {"precision": self.precision.precision, "n_rejected": self.n_rejected}
        return [{k: v for k, v in vars(self).items() if k != "rejections"} | precision]

    def to_dict(self) -> dict[str, Any]:
        return finite(asdict(self))


def tokenize_corpus(
    corpus: str | Path | Readable,
    codec: str | Path | Codec,
    out: str | Path,
    *,
    split: str | None = None,
    where: str | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    language: str | None = None,
    follow_links: bool = False,
    require_text: bool = False,
    streaming: bool = False,
    n_codebooks: int | None = None,
    beam: int = 1,
    level: float | None = None,
    bitrate: float | None = None,
    conditioning: str | None = "mfcc",
    batch_seconds: float | None = None,
    shard_rows: int = 64,
    shard_seconds: float = 120.0,
    engine: str = "local",
    workers: int | None = None,
    precision: str = "auto",
    device: str | None = None,
    format: str = "parquet",
    codes: str = "lists",
    progress: bool = True,
) -> TokenizeReport:
    """Write the token dataset of a corpus, or resume an unfinished one.

    Args:
        corpus: the corpus, or its source as in `open_corpus`.
        codec: the codec, which encodes on its own device, or its name as in `load_codec`.
        out: path or fsspec URL of the dataset's folder. If it already holds this dataset, it is
            left as it is.
        split, where, min_seconds, max_seconds, language, follow_links, require_text, streaming: how
            to open a corpus that is given by its source, as in `open_corpus`.
        n_codebooks: levels to keep; None keeps all.
        beam: paths of a beam search, as in `Codec.with_beam`. 1 leaves the codec as it is, which is
            greedy unless `with_beam` made it.
        level, bitrate: how a codec of variable bitrate chooses the levels of each frame, as in
            `Codec.with_rate`. Without them the codec stays as it is, which is all levels unless
            `with_rate` or its name gave it a rate.
        conditioning: column to add, "mfcc" or "log_mel", at the codec's frame rate; None or
            "none" for none.
        batch_seconds: padded audio per batch; a longer utterance is a batch of its own. None is
            10 on a CPU and 240 on a GPU.
        shard_rows: largest number of entries in a unit of work.
        shard_seconds: a unit ends when its known durations reach this. Shards depend only on the
            corpus and on these two settings.
        engine: one of `tokgen.tokens.engines.run.ENGINES`.
        workers: processes, or Ray actors; None is one per core, or with Ray one per CPU or GPU.
        precision: "auto", or one of `tokgen.tokens.precision.PRECISIONS`; see `choose_precision`.
        device: device to load a codec on that is given by name (None is "auto"; with the engine
            "accelerate", each process has its own), or "cpu" or "cuda" for Ray actors (None is
            the codec's device). "auto" precision can only be measured on the codec's own device;
            elsewhere it means float32.
        format: "parquet", which `datasets.load_dataset` opens, with a dataset card; or "arrow" in a
            local folder, which is memory-mapped without a copy.
        codes: "lists" of 16-bit numbers; or "packed", bytes with ceil(log2(codebook_size)) bits a
            code. `load_tokens` gives equal rows for both.
    Returns:
        the report. With the engine "accelerate", the report of the first process counts
        everything.
    Raises:
        ValueError: a setting is out of range, `out` holds something else, there is no usable
            audio, or another process works on `out`.
        OSError: the disk is full, or `out` cannot be written. Complete shards are kept.
        ChildProcessError: workers died repeatedly. Complete shards are kept.
    """
    started = time.monotonic()
    storage = Storage(out)
    TokenizeSettings(
        n_codebooks=n_codebooks,
        beam=beam,
        level=level,
        bitrate=bitrate,
        workers=workers,
        batch_seconds=batch_seconds,
        shard_rows=shard_rows,
        shard_seconds=shard_seconds,
    )
    check_codes(codes, format)
    _check_settings(storage, engine, format, conditioning, precision)
    place = Place.of(engine)
    corpus = _open(
        corpus,
        split=split,
        where=where,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        language=language,
        follow_links=follow_links,
        require_text=require_text,
        streaming=streaming,
    )
    if not isinstance(codec, Codec):
        wanted = str(pick_device(place.device or device or "auto"))
        on_cluster = engine == "ray"  # its machines may have devices that this one lacks
        codec = as_codec(codec, device="cpu" if on_cluster else wanted)
        device = (device if device not in (None, "auto") else wanted) if on_cluster else None
    codec = codec if beam == 1 else codec.with_beam(beam)
    if level is not None or bitrate is not None:
        codec = codec.with_rate(level=level, bitrate=bitrate)
    if conditioning == "none":
        conditioning = None
    if device not in (None, codec.device.type):
        if engine != "ray":
            raise ValueError(
                f"device {device!r} is only for engine 'ray', not {engine!r}: load the codec there"
            )
        precision = "float32" if precision == "auto" else precision
    settings = ConditioningSettings.for_codec(codec.spec, conditioning) if conditioning else None
    units = corpus.units(rows=shard_rows, seconds=shard_seconds)
    clips = _some_clips(corpus, codec, units) if needs_audio(codec, precision) else []
    chosen = place.agree(lambda: choose_precision(codec, clips, precision))
    provenance = _provenance(corpus, codec, n_codebooks, settings, chosen.precision)
    if is_there(storage):
        report = _report_existing(storage, str(out), provenance, corpus, started)
        clear_work(storage)
        return report
    layout: dict[str, Any] = {"rows": shard_rows, "seconds": shard_seconds, "units": len(units)}
    if codes == "packed":
        layout["codes"] = codes
    work = storage if storage.path is None else Storage(partial_folder(storage.path))
    store = ShardStore(work, provenance, layout)
    if batch_seconds is None:
        batch_seconds = BATCH_SECONDS[codec.device.type != "cpu"]
    job = Job(
        corpus,
        codec,
        store,
        settings=settings,
        n_codebooks=provenance.n_codebooks,
        batch_seconds=batch_seconds,
        precision=chosen.precision,
        device=device,
    )
    with ExitStack() as stack:
        if place.is_first:
            stack.enter_context(hold_work(storage, alone=place.n_processes == 1))
            if place.n_processes == 1 and is_there(storage):  # made while this run prepared
                report = _report_existing(storage, str(out), provenance, corpus, started)
                clear_work(storage)
                return report
            before = read_corpus(work)
            if changed := store.recover():
                warnings.warn(
                    f"the unfinished work in {store.storage.url} was deleted, because these "
                    f"changed (old → new): {'; '.join(explain(changed, before, corpus))}",
                    stacklevel=2,
                )
            write_corpus(work, corpus)
        place.wait()  # for the first process' `recover`
        done = store.done()
        resumed = sum(shard.n_rows for shard in done.values())
        mine = units[place.rank :: place.n_processes]  # fixed, whatever is complete already
        left = [unit for unit in mine if unit.index not in done]
        n_done = sum(shard.n_entries for shard in done.values())
        show = progress and place.is_first
        bar = stack.enter_context(closing(Progress(corpus.name, corpus.n_entries, n_done, show)))
        shards = list(run_units(engine, job, left, workers, bar))
        if place.is_first:
            while place.n_processes > 1:
                missing = len(units) - len(store.storage.names("done/"))
                if missing <= 0:
                    break
                bar.show(f"waiting for {missing} units of other processes")
                time.sleep(POLL_SECONDS)
            shards = list(store.done().values())
        rejections = [*corpus.rejections, *(r for shard in shards for r in shard.rejections)]
        if place.is_first:
            is_stream = corpus.n_entries is None
            publish(store, storage, format, shards, rejections, check_ids=is_stream)
    return TokenizeReport(
        out=str(out),
        n_rows=sum(shard.n_rows for shard in shards),
        rejections=rejections,
        audio_seconds=sum(shard.audio_seconds for shard in shards),
        wall_seconds=time.monotonic() - started,
        resumed_rows=resumed if place.is_first else 0,
        precision=chosen,
        kbps=_kbps((shard.depth for shard in shards if shard.depth), provenance),
    )


def _open(corpus: str | Path | Readable, **settings: Any) -> Readable:
    """Open a corpus that is given by its source; check that an open one has no settings."""
    if not isinstance(corpus, Readable):
        return open_corpus(corpus, **settings)
    if given := [name for name, value in settings.items() if value]:
        raise ValueError(
            f"{' and '.join(given)}: only for a corpus that is given by its source; give it to "
            f"open_corpus when you open {corpus.name}"
        )
    return corpus


def _check_settings(
    storage: Storage, engine: str, format: str, conditioning: str | None, precision: str
) -> None:
    if conditioning not in (None, "none"):
        check_kind(conditioning)
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"precision {precision!r} is unknown; use auto, {', '.join(PRECISIONS)}")
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r} is unknown; use {', '.join(ENGINES)}")
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is unknown; use {', '.join(FORMATS)}")
    if format == "arrow" and not storage.is_local:
        raise ValueError(
            f"format 'arrow' at {storage.url}: only local folders can be memory-mapped; use parquet"
        )
    if storage.path is not None:
        if not is_there(storage):
            check_folder(storage.path.parent)
        elif not storage.exists(PROVENANCE):
            raise ValueError(f"{storage.url} {NO_TOKENS}")


def _provenance(
    corpus: Readable,
    codec: Codec,
    n_codebooks: int | None,
    settings: ConditioningSettings | None,
    precision: str,
) -> Provenance:
    spec = codec.spec
    keep = spec.n_codebooks if n_codebooks is None else n_codebooks
    if not 1 <= keep <= spec.n_codebooks:
        raise ValueError(f"n_codebooks = {keep}: {spec.name} has levels 1..{spec.n_codebooks}")
    check_reach(codec.rate, spec, keep)
    if spec.codebook_size > 1 << 16:
        raise ValueError(
            f"{spec.name} has {spec.codebook_size} entries per level, but a token dataset holds "
            "codes up to 65535"
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
        side_names=[name for name in codec.side_names if name != DEPTH],
        precision=precision,
        beam=1 if codec.search is None else codec.search.beam,
        distance="" if codec.search is None else codec.search.distance,
        channels=codec.spec.channels,
        level=None if codec.rate is None else codec.rate.level,
        bitrate=None if codec.rate is None else codec.rate.bitrate,
    )


def _some_clips(corpus: Readable, codec: Codec, units: Sequence[Unit]) -> list[Tensor]:
    """Return the first readable utterances of a corpus, to measure a precision on."""
    clips: list[Tensor] = []
    for unit in units[:MEASURED_CLIPS]:
        for entry in corpus.read_unit(unit):
            try:
                clips.append(corpus.load(entry, codec.spec.sample_rate).waveform)
            except AudioError:
                continue
            if len(clips) == MEASURED_CLIPS:
                return clips
    return clips


def _report_existing(
    storage: Storage, out: str, provenance: Provenance, corpus: Readable, started: float
) -> TokenizeReport:
    """Report on the dataset at `out`, or raise ValueError if it is not this run's result."""
    theirs = check_same(storage, provenance, corpus)
    lines = storage.read(REJECTIONS).splitlines()
    lengths = list(lengths_in(storage))
    return TokenizeReport(
        out=out,
        n_rows=len(lengths),
        rejections=[Rejection(**json.loads(line)) for line in lines],
        audio_seconds=sum(lengths) / provenance.sample_rate,
        wall_seconds=time.monotonic() - started,
        resumed_rows=len(lengths),
        precision=PrecisionChoice(theirs.precision),
        kbps=_kbps([DepthTotals.of(depths_in(storage, theirs), theirs.spec)], theirs),
    )


def _kbps(depth: Iterable[DepthTotals], provenance: Provenance) -> float | None:
    if provenance.rate is None:
        return None
    return DepthTotals.sum(depth).kbps(provenance.spec)
