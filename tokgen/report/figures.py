"""Figures of the page: one inline SVG per panel, in the colours of the page's theme.

Each panel is a separate picture, so that panels wrap on a narrow screen. Black becomes the text
colour, and line colours become the CSS variables `--series-<i>`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tokgen.comparison.telephone_results import draw_rounds
from tokgen.drift.plots import draw_correlation, draw_drift, draw_shifts, panels_of
from tokgen.metrics.statistics import Estimate
from tokgen.plotting import COLOURS, draw_training, shortened
from tokgen.report.reader import DriftResults, PhaseResults, TelephoneResults

__all__ = [
    "HEIGHT",
    "MAX_POINTS",
    "STYLE",
    "WIDTH",
    "drift_pictures",
    "phase_pictures",
    "telephone_codecs",
    "telephone_pictures",
    "training_pictures",
]

WIDTH, HEIGHT = 3.5, 2.6  # inches, before the page scales the panel
MAX_POINTS = 400  # of a training curve; a panel is about 400 pixels wide
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # keep text as text, in the font of the page
    "text.parse_math": False,  # names may hold "$"
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def drift_pictures(drift: DriftResults, salt: str) -> list[Markup]:
    """Draw metrics against passes, one panel per metric."""
    pictures = []
    for panel in panels_of(drift.summaries):
        ends = [_ends(s.name, s.curve(panel.metric)) for s in drift.summaries]
        if not any(ends):
            continue
        label = f"{panel.title} against passes. {_sentence(ends)}"
        draw = partial(draw_drift, summaries=drift.summaries, panel=panel)
        pictures.append(_picture(draw, label, f"{salt}-{panel.metric}"))
    return pictures


def phase_pictures(phase: PhaseResults, salt: str) -> list[Markup]:
    """Draw the match against shifts, and against PESQ if that is known."""
    found = [f"{p.name} {p.mean_match.mean:.3f}" for p in phase.summaries]
    label = f"Share of equal codes against the shift. Mean over shifts: {', '.join(found)}."
    pictures = [_picture(lambda axes: draw_shifts(axes, phase.summaries), label, f"{salt}-shift")]
    correlation = phase.correlation
    if correlation is not None and correlation.pairs:
        label = f"Mean match under shifts against PESQ. {correlation}"
        pictures.append(
            _picture(lambda axes: draw_correlation(axes, correlation), label, f"{salt}-r")
        )
    return pictures


def telephone_pictures(telephone: TelephoneResults, salt: str) -> list[Markup]:
    """Draw quality against edit rounds, one panel per metric."""
    pictures = []
    codecs = telephone_codecs(telephone)
    for metric in dict.fromkeys(c.metric for c in telephone.curves):
        curves = [c for c in telephone.curves if c.metric == metric]
        title = curves[0].label
        draw = partial(draw_rounds, curves=curves, codecs=codecs, title=shortened(title, 40))
        ends = [_ends(c.codec, c.points) for c in curves]
        label = f"{title} against edit rounds. {_sentence(ends)}"
        pictures.append(_picture(draw, label, f"{salt}-{metric}"))
    return pictures


def telephone_codecs(telephone: TelephoneResults) -> list[str]:
    """Return the codecs in the order of their colours."""
    return list(dict.fromkeys(curve.codec for curve in telephone.curves))


def training_pictures(
    names: Sequence[str], histories: Sequence[list[dict[str, float]]], salt: str
) -> list[Markup]:
    """Draw loss and accuracy of several trainings in two panels."""
    thinned = [_thin(history) for history in histories]
    pictures = []
    for i, what in enumerate(("loss", "accuracy")):

        def draw(axes: Axes, i=i) -> None:
            spare = Figure().subplots()
            panels = (axes, spare) if i == 0 else (spare, axes)
            draw_training(*panels, thinned)

        steps = [f"{n}: {h[-1]['step']:g} steps" for n, h in zip(names, histories, strict=True)]
        label = f"Training {what} against steps. {_sentence(steps)}"
        pictures.append(_picture(draw, label, f"{salt}-{what}"))
    return pictures


def _thin(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Keep every n-th row, and all rows with a validation."""
    step = -(-len(history) // MAX_POINTS)
    return [
        row
        for i, row in enumerate(history)
        if i % step == 0 or any(name.startswith("validation/") for name in row)
    ]


def _ends(name: str, curve: Sequence[tuple[int, Estimate]]) -> str:
    """Say the first and last mean of a curve."""
    if not curve:
        return ""
    return f"{name}: {curve[0][1].mean:.3g} to {curve[-1][1].mean:.3g}"


def _sentence(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part) + "."


def _picture(draw: Callable[[Axes], None], label: str, salt: str) -> Markup:
    """Draw one panel, with a text for screen readers. The salt makes its SVG ids unique."""
    with rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return Markup(_inline(text.getvalue(), label))


def _inline(svg: str, label: str) -> str:
    """Turn an SVG file of matplotlib into an element of the page."""
    svg = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="[-0-9. ]+"', svg)
    start = (
        f'<svg {box[0] if box else ""} role="img" aria-label="{escape(label)}" focusable="false">'
    )
    svg = start + svg[svg.index(">") + 1 :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # these ids are unused and repeat in all panels
    return re.sub(r'(?<= )style="[^"]*"', _themed, svg)


def _themed(style: re.Match[str]) -> str:
    """Replace colours by those of the page's theme."""
    found = re.sub(r"#000000\b", "currentColor", style[0])
    for i, colour in enumerate(COLOURS):
        found = found.replace(colour, f"var(--series-{i})")
    return found
