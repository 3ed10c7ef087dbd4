"""Published codecs, from the table in published.toml: rates, licences, and what tokgen runs.

    print(list_published())                # as `tokgen codecs` shows them
    print(list_published(paper_only=True)) # the rows of Table I of Code Drift

`tokgen.zoo.trials` runs published codecs, and keeps the results for the column "run".
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokgen.results import Grid, Result
from tokgen.zoo.cards import CodecList
from tokgen.zoo.registry import ADAPTERS, CONTINUOUS
from tokgen.zoo.trials import Trial, read_trials

__all__ = [
    "FFMPEG",
    "TABLE",
    "Catalogue",
    "PublishedCodec",
    "PublishedList",
    "list_published",
    "read_published",
]

TABLE = Path(__file__).with_name("published.toml")
FFMPEG = "ffmpeg"  # adapter of the waveform codecs


@dataclass(frozen=True)
class PublishedCodec:
    """A published checkpoint.

    Attributes:
        id: name for `load_codec`, or of a checkpoint that is on no hub.
        family: kind of network, as its authors name it.
        adapter: `model_type` in `tokgen.zoo.registry`, or "ffmpeg".
        library: library that runs it here; "" without an adapter.
        installed: the library is installed, and has this network.
        sample_rate: Hz, of decoded audio.
        hop_length: samples per frame of codes, as the codec of `load_codec` makes them.
        codebooks: levels x entries at the highest bitrate; "" for MP3 and Opus.
        kbps: highest bitrate.
        licence: of the weights; "" if it was not found.
        paper: name of its row in Table I of Code Drift; "" for none.
        folder: `load_codec` takes a folder with the published files, and not the id.
        converted: `load_codec` takes a folder that was converted from them, and not the id.
        trials: where it was run, the newest last.
    """

    id: str
    family: str
    adapter: str
    library: str
    installed: bool
    sample_rate: int
    hop_length: int
    codebooks: str
    kbps: float
    licence: str = ""
    paper: str = ""
    folder: bool = False
    converted: bool = False
    trials: tuple[Trial, ...] = ()

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def runs_with(self) -> str:
        """Library that runs it, as the table shows it."""
        if not self.library:
            return "no adapter"
        if not self.installed:
            return f"{self.library}, not installed"
        form = ", converted" if self.converted else ", from a folder" if self.folder else ""
        return self.library + form

    @property
    def run(self) -> str:
        """Place of the run, as the table shows it."""
        return "; ".join(trial.brief for trial in self.trials) or "not run"


class PublishedList(list[PublishedCodec], Result):
    """Published codecs: a list, and a result."""

    def __init__(self, codecs: Iterable[PublishedCodec] = ()) -> None:
        super().__init__(codecs)

    def parts(self) -> list[Grid | str]:
        titles = ("published", "family", "rate", "hop", "frames/s", "codebooks", "kbps", "licence")
        rows = [(*titles, "runs with", "run", "Table I")]
        for c in self:
            rates = (f"{c.sample_rate}", f"{c.hop_length}", f"{c.frame_rate:.4g}")
            numbers = (*rates, c.codebooks, f"{c.kbps:.2f}", c.licence or "see its card")
            rows.append((c.id, c.family, *numbers, c.runs_with, c.run, c.paper))
        notes = [
            "Licences are as the authors state them; read a model's card before you use it.",
            "`from a folder`: load_codec takes a folder with the published files, not the name.",
            "`converted`: load_codec takes a folder that was converted from the published files.",
            "`pytest -m network tests/zoo/test_trials.py` in a checkout fills the column run.",
        ]
        return [Grid(rows), *notes]

    def records(self) -> list[dict[str, Any]]:
        return [
            {
                **{k: v for k, v in vars(codec).items() if k != "trials"},
                "frame_rate": codec.frame_rate,
                "run": codec.run,
            }
            for codec in self
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return {"published": records}, with each trial in full."""
        trials = [[vars(trial) for trial in codec.trials] for codec in self]
        pairs = zip(self.records(), trials, strict=True)
        return {"published": [record | {"trials": found} for record, found in pairs]}


@dataclass(frozen=True)
class Catalogue(Result):
    """The codecs of the zoos and the published ones, as `tokgen codecs` prints them.

    Attributes:
        zoo: codecs of the zoos.
        published: published codecs.
    """

    zoo: CodecList
    published: PublishedList

    def parts(self) -> list[Grid | str]:
        return [*self.zoo.parts(), "", *self.published.parts()]

    def records(self) -> list[dict[str, Any]]:
        return [*self.zoo.records(), *self.published.records()]

    def to_dict(self) -> dict[str, Any]:
        """Return {"codecs": records of the zoo, "published": records}."""
        return self.zoo.to_dict() | self.published.to_dict()


def list_published(*, paper_only: bool = False) -> PublishedList:
    """Return the published codecs with what is installed and where each was run.

    Args:
        paper_only: only the codecs of Table I of Code Drift (O'Reilly et al. 2025).
    """
    trials = read_trials()
    return PublishedList(
        replace(codec, trials=tuple(trials.get(codec.id, ())))
        for codec in read_published()
        if codec.paper or not paper_only
    )


def read_published(path: Path = TABLE) -> list[PublishedCodec]:
    """Read the table of published codecs, without trials.

    Raises:
        ValueError: a row lacks a value or has an unknown one; the message names it.
    """
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["family"]
    return [_codec(family, model) for family in rows for model in family["models"]]


def _codec(family: dict[str, Any], model: dict[str, Any]) -> PublishedCodec:
    about = {k: family[k] for k in ("adapter", "licence", "paper") if k in family}
    library = _library(about["adapter"])
    installed = bool(library) and _installed(library, about["adapter"])
    values: dict[str, Any] = {"family": family["name"], "library": library, "installed": installed}
    try:
        return PublishedCodec(**(about | values | model))
    except TypeError as error:
        raise ValueError(f"{TABLE.name}: {model.get('id', family['name'])}: {error}") from error


def _library(adapter: str) -> str:
    """Return the library that runs a kind of codec; "" without an adapter."""
    known: dict[str, str] = {a.model_type: a.library for a in ADAPTERS + CONTINUOUS}
    return "FFmpeg" if adapter == FFMPEG else known.get(adapter, "")


@cache
def _installed(library: str, adapter: str) -> bool:
    """Return whether a library is there and, for transformers, whether it has the network."""
    if library in ("tokgen", "FFmpeg"):  # PyAV is always there
        return True
    spec = find_spec(library)
    if spec is None or library != "transformers":
        return spec is not None
    classes = {a.model_type: a.class_name for a in ADAPTERS + CONTINUOUS}
    wanted = classes.get(adapter, adapter).removesuffix("Model").lower()
    places = [Path(place) / "models" for place in spec.submodule_search_locations or ()]
    folders = (folder.name for place in places for folder in place.iterdir())
    return any(name.replace("_", "") == wanted for name in folders)
