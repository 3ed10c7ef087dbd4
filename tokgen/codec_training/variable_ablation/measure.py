"""Scores of a codec of variable bitrate at some bitrates, with a variable rate and a constant one.

All levels are encoded once. At a variable rate, the importance chooses the levels, and the bits of
the depth count. At a constant rate, every frame keeps the same levels and there is no depth; a
score between two numbers of levels is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokgen.audio.files import AudioError
from tokgen.codec.base import Codec
from tokgen.codec.depth import mean_kbps
from tokgen.codec.spec import DEPTH, IMPORTANCE, CodecSpec, Encoded
from tokgen.drift.clips import DriftClips
from tokgen.metrics.pesq import pesq_wb
from tokgen.metrics.si_sdr import si_sdr
from tokgen.runs.progress import progress_bar

__all__ = ["QUANTILES", "SCORES", "Measured", "check_bitrates", "measure"]

QUANTILES = (0.1, 0.5, 0.9)  # of the importance of a clip's frames
SCORES = ("pesq", "si_sdr")


@dataclass
class Measured:
    """Values of one codec, each a list over clips; NaN where a clip failed.

    Attributes:
        ids: of the clips.
        importance: by quantile, as text.
        variable, constant: scores by name, such as "pesq_2" at 2 kbps. `variable` also has the
            bitrate that was reached, "kbps_2".
    """

    ids: list[str] = field(default_factory=list)
    importance: dict[str, list[float]] = field(default_factory=dict)
    variable: dict[str, list[float]] = field(default_factory=dict)
    constant: dict[str, list[float]] = field(default_factory=dict)


def check_bitrates(bitrates: Sequence[float], spec: CodecSpec) -> None:
    """Check that frames of one level and frames of all levels lie on either side of the bitrates.

    Raises:
        ValueError: a bitrate is out of reach.
    """
    per_level = spec.bitrate / spec.n_codebooks / 1000
    for kbps in bitrates:
        if not 1.1 * per_level <= kbps <= spec.bitrate / 1000:
            raise ValueError(
                f"bitrates: {kbps:g} kbps, but {spec.name} has {spec.n_codebooks} levels of "
                f"{per_level:.3g} kbps; give {1.1 * per_level:.3g} to {spec.bitrate / 1000:.3g}"
            )


@torch.inference_mode()
def measure(codec: Codec, clips: DriftClips, bitrates: Sequence[float]) -> Measured:
    """Score a codec with all levels, see above.

    Args:
        codec: has an importance network.
        clips: mono audio.
        bitrates: kbps.
    """
    found = Measured()
    entries = clips.corpus.entries
    for index in progress_bar("scores", range(len(clips)), unit="clip", delay=5):
        try:
            row = _scores(codec, clips.load(index, codec.spec.sample_rate), bitrates)
        except AudioError:
            row = None
        found.ids.append(entries[index].id)
        for part, names in _names(bitrates).items():
            values = getattr(found, part)
            for name in names:
                value = math.nan if row is None else row[part][name]
                values.setdefault(name, []).append(value)
    return found


def _names(bitrates: Sequence[float]) -> dict[str, list[str]]:
    scores = [f"{score}_{kbps:g}" for kbps in bitrates for score in SCORES]
    return {
        "importance": [f"{q:g}" for q in QUANTILES],
        "variable": [*scores, *(f"kbps_{kbps:g}" for kbps in bitrates)],
        "constant": scores,
    }


def _scores(
    codec: Codec, original: Tensor, bitrates: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Score one clip [1, N]."""
    spec = codec.spec
    encoded = codec.encode_with_importance(original[None])
    importance = encoded.side[IMPORTANCE][0].double()
    rest = {name: v for name, v in encoded.side.items() if name != IMPORTANCE}
    quantiles = torch.quantile(importance, importance.new_tensor(QUANTILES)).tolist()
    variable: dict[str, float] = {}
    constant: dict[str, float] = {}
    by_levels: dict[int, dict[str, float]] = {}
    for kbps in bitrates:
        try:
            chosen = codec.allocate(encoded, bitrate=kbps)
            reached = mean_kbps(chosen.side[DEPTH][0], spec)
            scores = _compare(codec, original, chosen)
        except ValueError:  # this clip does not reach the bitrate
            reached, scores = math.nan, dict.fromkeys(SCORES, math.nan)
        variable[f"kbps_{kbps:g}"] = reached
        levels = kbps * 1000 * spec.n_codebooks / spec.bitrate
        low = min(math.floor(levels + 1e-9), spec.n_codebooks)
        high = min(low + 1, spec.n_codebooks) if levels - low > 1e-9 else low
        for n in {low, high} - set(by_levels):
            by_levels[n] = _compare(codec, original, Encoded(encoded.codes[:, :n], rest))
        share = levels - low if high > low else 0.0
        for name in SCORES:
            variable[f"{name}_{kbps:g}"] = scores[name]
            between = (1 - share) * by_levels[low][name] + share * by_levels[high][name]
            constant[f"{name}_{kbps:g}"] = between
    names = [f"{q:g}" for q in QUANTILES]
    return {
        "importance": dict(zip(names, quantiles, strict=True)),
        "variable": variable,
        "constant": constant,
    }


def _compare(codec: Codec, original: Tensor, encoded: Encoded) -> dict[str, float]:
    heard = codec.decode(encoded.codes, original.shape[-1], encoded.side)[0].cpu()
    pesq = pesq_wb(original, heard, codec.spec.sample_rate)
    return {"pesq": float(pesq), "si_sdr": float(si_sdr(original, heard))}
