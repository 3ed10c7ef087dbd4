"""Metrics of clips that one library each computes: one table from names to what measures them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from torch import Tensor

from tokgen.extras import require
from tokgen.metrics import spectral, stoi
from tokgen.metrics.measured import Measured
from tokgen.metrics.opinion import dnsmos, nisqa, plcmos, visqol

__all__ = ["Measure", "Measures"]

_Found = dict[str, Measured]


class Measure(NamedTuple):
    """Measures some metrics of a clip.

    Attributes:
        backends: metric to library and weights.
        of: takes the reference, the clip and the sample rate in Hz.
    """

    backends: dict[str, str]
    of: Callable[[Tensor, Tensor, int], _Found]


class Measures:
    """STOI, spectral distances, ViSQOL, DNSMOS, PLCMOS and NISQA, those that are chosen.

    Args:
        metrics: names of metrics; others are ignored.
    Attributes:
        backends: metric to backend.
    Raises:
        ModuleNotFoundError: the package of a metric is missing; the error names the extra.
        FileNotFoundError: the weights of a metric are missing.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self._measures = [made for make in _MAKERS for made in make(metrics)]
        self.backends: dict[str, str] = {}
        for measure in self._measures:
            self.backends |= measure.backends

    def measure(
        self, clip: Tensor, reference: Tensor, sample_rate: int, wanted: Collection[str]
    ) -> _Found:
        """Measure the wanted metrics of a clip.

        Args:
            clip, reference: [N] or [C, N] of equal length.
        """
        found: _Found = {}
        for measure in self._measures:
            if mine := [name for name in measure.backends if name in wanted]:
                values = measure.of(reference, clip, sample_rate)
                found |= {name: values[name] for name in mine}
        return found


def _make_stoi(metrics: Sequence[str]) -> list[Measure]:
    def of(extended: bool) -> Callable[[Tensor, Tensor, int], _Found]:
        name = "estoi" if extended else "stoi"
        return lambda a, b, rate: {name: stoi.measure_stoi(a, b, rate, extended=extended)}

    names = {"stoi": False, "estoi": True}
    if {*names} & {*metrics}:
        require("pystoi")
    return [Measure({n: stoi.BACKEND}, of(ext)) for n, ext in names.items() if n in metrics]


def _make_spectral(metrics: Sequence[str]) -> list[Measure]:
    backends = {n: backend for n, backend in spectral.BACKENDS.items() if n in metrics}
    return [Measure(backends, spectral.measure_spectra)] if backends else []


def _make_visqol(metrics: Sequence[str]) -> list[Measure]:
    made = []
    for name in visqol.MODES:
        if name in metrics:
            judge = visqol.Visqol(name)

            def of(a: Tensor, b: Tensor, rate: int, judge=judge, name=name) -> _Found:
                return {name: judge.measure(a, b, rate)}

            made.append(Measure({name: judge.backend}, of))
    return made


def _make_dnsmos(metrics: Sequence[str]) -> list[Measure]:
    names = tuple(n for n in metrics if n.startswith("dnsmos"))
    if not names:
        return []
    judge = dnsmos.Dnsmos(names)
    return [Measure(dict.fromkeys(names, judge.backend), lambda _, b, r: judge.measure(b, r))]


def _make_plcmos(metrics: Sequence[str]) -> list[Measure]:
    if "plcmos" not in metrics:
        return []
    judge = plcmos.Plcmos()
    return [Measure({"plcmos": judge.backend}, lambda _, b, r: {"plcmos": judge.measure(b, r)})]


def _make_nisqa(metrics: Sequence[str]) -> list[Measure]:
    if "nisqa" not in metrics:
        return []
    judge = nisqa.Nisqa()
    return [Measure({"nisqa": judge.backend}, lambda _, b, r: {"nisqa": judge.measure(b, r)})]


_MAKERS = (_make_stoi, _make_spectral, _make_visqol, _make_dnsmos, _make_plcmos, _make_nisqa)
