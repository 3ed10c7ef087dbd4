"""The cells of `offline_quantizers`, and the fits and decoders that they need, each made once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.codec.continuous import ContinuousCodec, ContinuousSpec
from tokgen.codec.identity import audio_key
from tokgen.codec.spec import MAX_BEAM, CodecSpec
from tokgen.codec_training.offline_settings import OfflineSettings, decoder_settings
from tokgen.codec_training.train import train_codec
from tokgen.corpus.listed import open_corpus
from tokgen.nn.cards import ModelCardFacts
from tokgen.quantizers.offline.registry import QUANTIZERS, make_quantizer
from tokgen.runs.accelerator import make_accelerator
from tokgen.runs.folder import write_json
from tokgen.runs.store import plan_name
from tokgen.tokens.cache import cached_latents
from tokgen.tokens.latents import LatentDataset, draw_frames
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.offline import OfflineCodec
from tokgen.zoo.offline_fitting import FITTED, fit_codec, levels_for

DONE = "done.json"  # in the folder of a trained decoder


@dataclass(frozen=True)
class Cell:
    """A quantizer, or a peer, at a bitrate.

    Attributes:
        quantizer: name in `QUANTIZERS`, or that of a peer.
        kbps: bitrate as it was asked for.
        levels: levels of this bitrate.
        beam: paths of the search; 1 is greedy.
        fit_levels: levels of the fit that it shares with others.
        settings: more settings of the quantizer.
    """

    quantizer: str
    kbps: float
    levels: int
    beam: int = 1
    fit_levels: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The quantizer and beam, as they are asked for."""
        return self.quantizer if self.beam == 1 else f"{self.quantizer}:{self.beam}"

    @property
    def label(self) -> str:
        """The name of its line in plots."""
        return self.quantizer if self.beam == 1 else f"{self.quantizer}, beam {self.beam}"


def make_cells(
    names: Sequence[str],
    kbps: Sequence[float],
    settings: Mapping[str, Mapping[str, Any]],
    spec: ContinuousSpec,
    codebook_size: int,
) -> list[Cell]:
    """Return the cells of quantizers such as "kmeans:16" at some bitrates.

    Raises:
        ValueError: an unknown quantizer or setting, one given twice, a beam without a search, or a
            bitrate that is not a whole number of levels.
    """
    levels = {rate: levels_for(rate, spec.frame_rate, codebook_size) for rate in sorted(kbps)}
    cells: list[Cell] = []
    for name in names:
        plain, colon, beam = name.partition(":")
        if colon and not (beam.isdecimal() and 1 <= int(beam) <= MAX_BEAM):
            raise ValueError(f"--quantizers {name}: the beam must be 1 to {MAX_BEAM}")
        more = settings.get(plain, {})
        for rate, k in levels.items():
            shape = {"dim": spec.latent_dim, "n_codebooks": k, "codebook_size": codebook_size}
            made = make_quantizer(plain, **{**shape, **more})
            if colon and int(beam) > 1 and not made.searches:
                raise ValueError(f"--quantizers {name}: {plain} has no beam search")
            if (made.n_codebooks, made.codebook_size) != (k, codebook_size):
                raise ValueError(f"--settings of {plain}: they must leave levels and codebook_size")
            most = max(levels.values()) if made.nested else k
            cells.append(Cell(plain, rate, k, int(beam or 1), most, more))
    if len({(c.label, c.kbps) for c in cells}) < len(cells):
        raise ValueError(f"--quantizers {' '.join(names)}: give each once")
    if unused := set(settings) - {cell.quantizer for cell in cells}:
        raise ValueError(f"--settings of {', '.join(unused)}: not one of --quantizers")
    return cells


def peer_cells(spec: CodecSpec, kbps: Sequence[float]) -> list[Cell]:
    """Return the cells of a peer, at the bitrates that its levels reach."""
    found = []
    for rate in sorted(kbps):
        try:
            levels = levels_for(rate, spec.frame_rate, spec.codebook_size)
        except ValueError:  # between two levels
            continue
        if levels <= spec.n_codebooks:
            found.append(Cell(spec.name, rate, levels))
    return found


class Fits:
    """Fits quantizers to latents of the train splits, and trains decoders, each once.

    Args:
        continuous: codec of the latents.
        s: of the recipe; what is of one quantizer is not used.
        run: results are in its folder `fits`.
    """

    def __init__(self, continuous: ContinuousCodec, s: OfflineSettings, run: Path) -> None:
        self.continuous, self.s, self.folder = continuous, s, run / "fits"
        corpora = [open_corpus(name) for name in (*s.corpora, s.validation or s.corpora[0])]
        self.plan = [audio_key(continuous), [c.fingerprint for c in corpora], s.frames, s.seed]
        self.found: dict[Path, dict[str, float]] = {}

    @cached_property
    def latents(self) -> list[LatentDataset]:
        """The latents of `corpora`, then of the validation corpus."""
        cache, names = Path(self.s.runs) / "latents", [*self.s.corpora]
        names.append(self.s.validation or names[0])
        return [cached_latents(open_corpus(name), self.continuous, cache) for name in names]

    @cached_property
    def frames(self) -> Tensor:
        """The latents [n, D] that quantizers are fitted to."""
        return draw_frames(self.latents[:-1], self.s.frames, seed=self.s.seed)

    def fit(self, cell: Cell) -> Path | None:
        """Fit the quantizer of a cell, and return the folder; None if it was interrupted."""
        s, name = self.s, f"{cell.quantizer}-{cell.fit_levels}"
        trains = cell.quantizer == "qinco2"
        plan = [*self.plan, s.codebook_size, dict(cell.settings)]
        folder = self.folder / plan_name(name, [*plan, asdict(s.training) if trains else None])
        if folder in self.found:
            return folder
        quantizer = QUANTIZERS[cell.quantizer](
            dim=self.continuous.spec.latent_dim,
            n_codebooks=cell.fit_levels,
            codebook_size=s.codebook_size,
            **cell.settings,
        )
        fitted = (folder / FITTED).is_file()
        found = fit_codec(
            self.continuous,
            quantizer,
            torch.empty(0) if fitted else self.frames,
            folder,
            name=name,
            training=s.training,
            validation=self.latents[-1].frames("validation") if trains and not fitted else None,
            seed=s.seed,
            accelerator=make_accelerator(folder, "no", "none") if trains else None,
            card=ModelCardFacts(", ".join(s.corpora), base=self.continuous.spec.name),
        )
        if found is None:
            return None
        self.found[folder] = found
        return folder

    def seconds(self, cell: Cell) -> float:
        """Return the CPU seconds of the fit of a cell."""
        folder = self.fit(cell)
        return math.nan if folder is None else self.found[folder]["seconds"]

    def codec(self, cell: Cell) -> OfflineCodec | None:
        """Return the codec of a cell, with its levels and beam; None if it was interrupted."""
        folder = self.fit(cell)
        return None if folder is None else self._load(folder / "codec", cell)

    def trained(self, cell: Cell) -> OfflineCodec | None:
        """Return the codec of a cell with its decoder trained; None if it was interrupted."""
        folder = self.fit(cell)
        if folder is None:
            return None
        source = f"{folder / 'codec'}:{self._kbps(cell)}"
        wanted = decoder_settings(self.s, source, name="", runs="", beam=cell.beam)
        plan = {**asdict(wanted), "model": [folder.name, cell.levels, cell.beam]}
        name = plan_name(f"{cell.levels}-beam{cell.beam}", plan)
        runs = folder / "decoders"
        settings = decoder_settings(self.s, source, name=name, runs=str(runs), beam=cell.beam)
        if not (runs / name / DONE).is_file():
            if train_codec(settings, audio=Path(self.s.runs) / "audio") is None:
                return None
            write_json(runs / name / DONE, {"steps": settings.steps})
        return self._load(runs / name / "codec", cell)

    def _kbps(self, cell: Cell) -> float:
        """Return the bitrate of the levels of a cell, as codecs are named by it."""
        per_level = self.continuous.spec.frame_rate * math.log2(self.s.codebook_size) / 1000
        return round(cell.levels * per_level, 4)

    def _load(self, folder: Path, cell: Cell) -> OfflineCodec:
        codec = load_codec(folder, bandwidth=self._kbps(cell))
        assert isinstance(codec, OfflineCodec)
        return codec.with_beam(cell.beam)
