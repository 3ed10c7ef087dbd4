"""Make the token dataset of a corpus.

    report = tokenize_corpus("speech/", "speech-16k", "tokens")
    load_tokens("tokens").splits["train"][0]["codes"]  # [T, K]

Rows are in the corpus' order, for any batch size and any number of workers. The same command
resumes a killed run and makes the same dataset.
"""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tokgen.codec.base import Codec
from tokgen.codec.continuous import ContinuousCodec
from tokgen.corpus.reading import Readable
from tokgen.runs.device import pick_device
from tokgen.storage import Storage
from tokgen.tokens.conditioning import ConditioningSettings
from tokgen.tokens.engines.job import Job
from tokgen.tokens.engines.progress import Progress
from tokgen.tokens.engines.run import Place, run_units
from tokgen.tokens.existing import explain, is_there, read_corpus, write_corpus
from tokgen.tokens.output import clear_work, hold_work, partial_folder, publish
from tokgen.tokens.precision import choose_precision, needs_audio
from tokgen.tokens.preparing import check_run, codec_for, opened, provenance_for, some_clips
from tokgen.tokens.report import TokenizeReport, mean_kbps, report_existing
from tokgen.tokens.settings import TokenizeSettings, check_codes, check_continuous
from tokgen.tokens.shards import ShardStore

__all__ = ["BATCH_SECONDS", "POLL_SECONDS", "tokenize_corpus"]

BATCH_SECONDS = (10.0, 240.0)  # padded audio per batch, on a CPU and on other devices
POLL_SECONDS = 5.0  # between checks for the units of other processes


def tokenize_corpus(
    corpus: str | Path | Readable,
    codec: str | Path | Codec | ContinuousCodec,
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
    beam: int | None = None,
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

    A continuous codec makes a latent dataset (`tokgen.tokens.latents`).

    Args:
        corpus: the corpus, or its source as in `open_corpus`.
        codec: the codec, which encodes on its own device, or its name as in `load_codec` or
            `load_continuous`.
        out: path or fsspec URL of the dataset's folder. If it already holds this dataset, it is
            left as it is.
        split, where, min_seconds, max_seconds, language, follow_links, require_text, streaming: how
            to open a corpus that is given by its source, as in `open_corpus`.
        n_codebooks: levels to keep; None keeps all.
        beam: paths of a beam search, as in `Codec.with_beam`; 1 is greedy. None leaves the codec as
            it is, which is greedy unless `with_beam` made it or it was saved with a beam.
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
            code. `load_tokens` gives equal rows for both. Latents are always lists.
    Returns:
        the report. With the engine "accelerate", the report of the first process counts
        everything.
    Raises:
        ValueError: a setting is out of range, `out` holds something else, there is no usable
            audio, another process works on `out`, or a continuous codec is given with a setting
            of codes (`n_codebooks`, `beam`, `level`, `bitrate`, packed codes).
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
    check_run(storage, engine, format, conditioning, precision)
    place = Place.of(engine)
    corpus = opened(
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
    if not isinstance(codec, Codec | ContinuousCodec):
        wanted = str(pick_device(place.device or device or "auto"))
        on_cluster = engine == "ray"  # its machines may have devices that this one lacks
        codec = codec_for(codec, "cpu" if on_cluster else wanted)
        device = (device if device not in (None, "auto") else wanted) if on_cluster else None
    if isinstance(codec, ContinuousCodec):
        check_continuous(
            codec.spec.name,
            n_codebooks=n_codebooks,
            beam=beam,
            level=level,
            bitrate=bitrate,
            codes=None if codes == "lists" else codes,
        )
    else:
        codec = codec if beam is None else codec.with_beam(beam)
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
    clips = (
        some_clips(corpus, codec.spec.sample_rate, units) if needs_audio(codec, precision) else []
    )
    chosen = place.agree(lambda: choose_precision(codec, clips, precision))
    provenance = provenance_for(corpus, codec, n_codebooks, settings, chosen.precision)
    if is_there(storage):
        report = report_existing(storage, str(out), provenance, corpus, started)
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
                report = report_existing(storage, str(out), provenance, corpus, started)
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
        kbps=mean_kbps((shard.depth for shard in shards if shard.depth), provenance),
    )
