"""Prepare a tokenizing run: check its settings, open its corpus, and describe its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

import tokgen
from tokgen.audio.files import AudioError
from tokgen.codec.base import Codec
from tokgen.codec.continuous import ContinuousCodec
from tokgen.codec.depth import check_reach
from tokgen.codec.spec import DEPTH
from tokgen.corpus.listed import open_corpus
from tokgen.corpus.reading import Readable, Unit
from tokgen.runs.checks import check_folder
from tokgen.storage import Storage
from tokgen.tokens.conditioning import ConditioningSettings, check_kind
from tokgen.tokens.engines.run import ENGINES
from tokgen.tokens.existing import NO_TOKENS, is_there
from tokgen.tokens.output import FORMATS
from tokgen.tokens.precision import PRECISIONS
from tokgen.tokens.provenance import PROVENANCE, Provenance
from tokgen.zoo import lookup

__all__ = ["MEASURED_CLIPS", "check_run", "codec_for", "opened", "provenance_for", "some_clips"]

MEASURED_CLIPS = 16  # utterances on which a faster precision is measured


def codec_for(codec: str | Path | Codec | ContinuousCodec, device: str) -> Codec | ContinuousCodec:
    """Return a codec of either kind that is given as an object or by name.

    Args:
        codec: see above.
        device: device to load a named codec on.
    """
    if isinstance(codec, Codec | ContinuousCodec):
        return codec
    if codec is None:
        raise TypeError("codec is None: give a name, folder, hub id or a codec")
    return lookup.load_network(codec, device=device)


def opened(corpus: str | Path | Readable, **settings: Any) -> Readable:
    """Open a corpus that is given by its source; check that an open one has no settings."""
    if not isinstance(corpus, Readable):
        return open_corpus(corpus, **settings)
    if given := [name for name, value in settings.items() if value]:
        raise ValueError(
            f"{' and '.join(given)}: only for a corpus that is given by its source; give it to "
            f"open_corpus when you open {corpus.name}"
        )
    return corpus


def check_run(
    storage: Storage, engine: str, format: str, conditioning: str | None, precision: str
) -> None:
    """Raise ValueError for a setting or a place that no run can have."""
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


def provenance_for(
    corpus: Readable,
    codec: Codec | ContinuousCodec,
    n_codebooks: int | None,
    settings: ConditioningSettings | None,
    precision: str,
) -> Provenance:
    """Return the provenance of the rows that a run makes.

    Raises:
        ValueError: a number of levels or a rate that the codec does not have, or a codebook that
            is too large for the column.
    """
    shared: dict[str, Any] = {
        "codec": codec.spec.as_dict(),
        "sample_rate": codec.spec.sample_rate,
        "hop_length": codec.spec.hop_length,
        "conditioning": None if settings is None else asdict(settings),
        "tokgen_version": tokgen.__version__,
        "corpus": corpus.name,
        "corpus_fingerprint": corpus.fingerprint,
        "precision": precision,
    }
    if isinstance(codec, ContinuousCodec):
        return Provenance(
            **shared, n_codebooks=0, codebook_size=0, latent_dim=codec.spec.latent_dim
        )
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
        **shared,
        n_codebooks=keep,
        codebook_size=spec.codebook_size,
        side_names=[name for name in codec.side_names if name != DEPTH],
        beam=1 if codec.search is None else codec.search.beam,
        distance="" if codec.search is None else codec.search.distance,
        channels=codec.spec.channels,
        level=None if codec.rate is None else codec.rate.level,
        bitrate=None if codec.rate is None else codec.rate.bitrate,
    )


def some_clips(corpus: Readable, sample_rate: int, units: Sequence[Unit]) -> list[Tensor]:
    """Return the first readable utterances of a corpus, to measure a precision on."""
    clips: list[Tensor] = []
    for unit in units[:MEASURED_CLIPS]:
        for entry in corpus.read_unit(unit):
            try:
                clips.append(corpus.load(entry, sample_rate).waveform)
            except AudioError:
                continue
            if len(clips) == MEASURED_CLIPS:
                return clips
    return clips
