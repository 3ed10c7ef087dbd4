"""Utterances -> token dataset: units of the corpus, workers, shards, resume.

    report = tokenize_corpus(open_corpus("speech/"), load_codec("speech-16k"), Path("tokens"))
    load_tokens("tokens").splits["train"][0]["codes"]  # [T, K]

Rows stand in the corpus' order whatever the batches and workers were. A run that was killed goes
on with the units it lacks: same command, same dataset.
"""

from __future__ import annotations

import itertools
import re
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import Tensor

import tokgen
from tokgen.audio.files import AudioError
from tokgen.codec.base import Codec
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import Corpus
from tokgen.corpus.reading import Readable, Unit
from tokgen.storage import Storage
from tokgen.tokens.conditioning import ConditioningSettings
from tokgen.tokens.dataset import (
    PROVENANCE,
    Provenance,
    TokenDataset,
    lengths_in,
    load_tokens,
)
from tokgen.tokens.engines.job import Job
from tokgen.tokens.engines.progress import Progress
from tokgen.tokens.engines.run import ENGINES, Place, run_units
from tokgen.tokens.output import (
    FORMATS,
    clear_work,
    hold_work,
    publish,
    read_rejections,
    work_storage,
)
from tokgen.tokens.precision import PrecisionChoice, choose_precision, needs_audio
from tokgen.tokens.shards import PLAN, Shard, ShardStore

BATCH_SECONDS = (10.0, 240.0)  # on a CPU, on anything else
MEASURED_CLIPS = 16  # that a faster precision is tried on
POLL_SECONDS = 5.0  # between looks at what other processes have done


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
        precision: what was encoded in, and what was measured to choose it.
    """

    n_rows: int
    n_rejected: int
    rejections: list[Rejection]
    audio_seconds: float
    wall_seconds: float
    resumed_rows: int
    precision: PrecisionChoice = field(default_factory=PrecisionChoice)


def tokenize_corpus(
    corpus: Readable,
    codec: Codec,
    out: str | Path,
    *,
    n_codebooks: int | None = None,
    conditioning: str | None = "mfcc",
    batch_seconds: float | None = None,
    shard_rows: int = 64,
    shard_seconds: float = 120.0,
    engine: str = "local",
    workers: int | None = None,
    precision: str = "auto",
    device: str | None = None,
    format: str | None = None,
    progress: bool = True,
) -> TokenizeReport:
    """Write the token dataset of a corpus.

    Args:
        corpus: what to encode.
        codec: on the device where it shall run.
        out: the dataset's folder, or any fsspec URL. If it holds this very dataset, nothing is
            done.
        n_codebooks: levels to keep; None keeps all.
        conditioning: "mfcc" or "log_mel" adds that column at the codec's frame rate; None none.
        batch_seconds: padded audio per batch; a longer utterance goes alone. None takes 10 on a
            CPU, where more does not fit its caches, and 240 on a GPU.
        shard_rows: entries of the corpus in a unit of work, at most.
        shard_seconds: of audio in a unit, where the corpus knows durations. The shards depend
            on the corpus and these two alone.
        engine: of `tokgen.tokens.engines.run.ENGINES`.
        workers: processes, or Ray's actors; None takes one a core, with Ray one a CPU or GPU.
        precision: "auto" is float32 on a CPU, and on a GPU what gives the same codes (see
            `tokgen.tokens.precision`); other precisions are measured and said.
        device: "cpu" or "cuda", where Ray's actors run; None takes the codec's. On a device that
            is not the codec's, "auto" is float32, for nothing is measured there.
        format: "arrow" (a local folder's default), which training maps into memory, or
            "parquet" (the default of a URL and of Ray), the shards as workers wrote them.
        progress: show a bar.
    Returns:
        the report; with the engine "accelerate", that of the first process counts all.
    Raises:
        ValueError: a setting out of range, `out` holds something else, no usable audio at all,
            or another process works on `out`.
        RuntimeError: workers die again and again; finished shards are kept.
    """
    started = time.monotonic()
    storage = Storage(out)
    format = _check_settings(storage, batch_seconds, engine, format)
    place = Place.of(engine)
    if device not in (None, codec.device.type):
        if engine != "ray":
            raise ValueError(f"device {device!r} with engine {engine!r}: put the codec there")
        precision = "float32" if precision == "auto" else precision
    settings = ConditioningSettings.for_codec(codec.spec, conditioning) if conditioning else None
    units = corpus.units(rows=shard_rows, seconds=shard_seconds)
    clips = _some_clips(corpus, codec, units) if needs_audio(codec, precision) else []
    chosen = place.agree(lambda: choose_precision(codec, clips, precision))
    provenance = _provenance(corpus, codec, n_codebooks, settings, chosen.precision)
    if _is_there(storage):
        report = _report_existing(storage, provenance, started)
        clear_work(storage)
        return report
    layout = {"rows": shard_rows, "seconds": shard_seconds, "units": len(units)}
    store = ShardStore(work_storage(storage), provenance, layout)
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
            stack.enter_context(hold_work(storage))
            if not store.recover():
                warnings.warn(
                    f"the unfinished work in {store.storage.url} was for other audio, another "
                    "codec or other settings: starting anew",
                    stacklevel=2,
                )
        place.wait()  # the others begin when what is left behind is cleared up
        done = store.done()
        resumed = sum(shard.n_rows for shard in done.values())
        left = [u for u in units if u.index not in done and place.does(u.index)]
        n_done = sum(shard.n_entries for shard in done.values())
        bar = stack.enter_context(
            Progress(corpus.name, corpus.n_entries, n_done, progress and place.is_first)
        )
        mine = list(run_units(engine, job, left, workers, bar))
        if not place.is_first:
            return _report(mine, corpus, chosen, started, resumed=0)
        while place.n_processes > 1 and (missing := len(units) - store.n_done()) > 0:
            bar.say(f"waiting for {missing} units of other processes")
            time.sleep(POLL_SECONDS)
        shards = list(store.done().values())
        _check_complete(units, shards, store)
        report = _report(shards, corpus, chosen, started, resumed)
        if report.n_rows == 0:
            first = "; ".join(f"{r.source}: {r.reason}" for r in report.rejections[:3])
            raise ValueError(
                f"{corpus.name} has no usable audio: {report.n_rejected} rejected ({first})"
            )
        if corpus.n_entries is None:
            _warn_of_doubles(store, shards)
        publish(store, storage, format, shards, report.rejections)
    return replace(report, wall_seconds=time.monotonic() - started)


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
    report = tokenize_corpus(
        corpus, codec, out, conditioning=conditioning, precision="float32", progress=progress
    )
    for rejection in report.rejections:
        warnings.warn(f"left out {rejection.source}: {rejection.reason}", stacklevel=2)
    return load_tokens(out)


def _check_settings(
    storage: Storage, batch_seconds: float | None, engine: str, format: str | None
) -> str:
    """The format, once all is in range."""
    if batch_seconds is not None and not batch_seconds > 0:
        raise ValueError(f"batch_seconds = {batch_seconds}: must be above 0")
    if engine not in ENGINES:
        raise ValueError(f"engine {engine!r}: known are {', '.join(ENGINES)}")
    if format is None:
        format = "arrow" if storage.is_local and engine != "ray" else "parquet"
    if format not in FORMATS:
        raise ValueError(f"format {format!r}: known are {', '.join(FORMATS)}")
    if format == "arrow" and not storage.is_local:
        raise ValueError(
            f"format 'arrow' at {storage.url}: it is for folders of this machine, to be mapped "
            "into memory; use parquet"
        )
    return format


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
        precision=precision,
    )


def _some_clips(corpus: Readable, codec: Codec, units: Sequence[Unit]) -> list[Tensor]:
    """The first utterances of a corpus that can be read, to measure a precision on."""
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


def _warn_of_doubles(store: ShardStore, shards: Sequence[Shard]) -> None:
    """A stream is never listed, so that only its rows tell whether ids repeat."""
    ids = Counter(itertools.chain.from_iterable(store.ids(shard) for shard in shards))
    doubles = [id for id, n in ids.items() if n > 1]
    if doubles:
        warnings.warn(
            f"{len(doubles)} ids stand for several utterances of the stream, {doubles[0]!r} for "
            "one: rows are all there, but their ids do not tell them apart",
            stacklevel=3,
        )


def _check_complete(units: Sequence[Unit], shards: Sequence[Shard], store: ShardStore) -> None:
    """
    Raises:
        RuntimeError: a unit has no shard, though somebody said it was done.
    """
    missing = sorted({unit.index for unit in units} - {shard.index for shard in shards})
    if missing:
        raise RuntimeError(
            f"{len(missing)} of {len(units)} units are not in {store.storage.url}, the first of "
            f"them {missing[0]}: workers on other machines need storage that all share, and one "
            "run at a time may write there; run the same command again to make what is missing"
        )


def _is_there(storage: Storage) -> bool:
    """Whether `out` holds something that is not unfinished work."""
    if storage.path is None:
        return storage.exists(PROVENANCE) or (not storage.exists(PLAN) and storage.exists())
    path = storage.path
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _report_existing(storage: Storage, provenance: Provenance, started: float) -> TokenizeReport:
    """What `out` holds, if it is what a run would make."""
    if not storage.exists(PROVENANCE):
        raise ValueError(
            f"{storage.url} is there and is not a token dataset: choose another folder"
        )
    theirs = Provenance.from_json(storage.read(PROVENANCE).decode(), storage.url)
    if not theirs.makes_equal_rows(provenance):
        raise ValueError(
            f"{storage.url} holds tokens of codec {theirs.codec['name']!r} and corpus "
            f"{theirs.corpus!r}, made of other weights, audio or settings: delete it or choose "
            "another folder"
        )
    rejections = read_rejections(storage)
    lengths = list(lengths_in(storage))
    seconds = sum(lengths) / provenance.sample_rate
    wall, n_rows = time.monotonic() - started, len(lengths)
    chosen = PrecisionChoice(theirs.precision)
    return TokenizeReport(n_rows, len(rejections), rejections, seconds, wall, n_rows, chosen)


def _report(
    shards: Sequence[Shard],
    corpus: Readable,
    chosen: PrecisionChoice,
    started: float,
    resumed: int,
) -> TokenizeReport:
    rejections = [*corpus.rejections, *(r for shard in shards for r in shard.rejections)]
    return TokenizeReport(
        sum(shard.n_rows for shard in shards),
        len(rejections),
        rejections,
        sum(shard.audio_seconds for shard in shards),
        time.monotonic() - started,
        resumed,
        chosen,
    )
