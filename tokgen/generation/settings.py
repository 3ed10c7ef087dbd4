"""Settings of generation. Imports no torch, so that settings are read fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "GUIDANCE_OFF",
    "MARGIN_SECONDS",
    "TASKS",
    "SamplingSettings",
    "TaskSettings",
    "WindowSettings",
    "check_seed",
]

TASKS = ("vocode", "continue", "infill")
GUIDANCE_OFF = {"scale": 1, "weight": 0}  # the value that turns guidance off, by form
MARGIN_SECONDS = 0.25  # utterances are at least this much longer than their prompt or gap


def check_seed(seed: int) -> None:
    """Raise ValueError if a seed is negative."""
    if seed < 0:
        raise ValueError(f"seed = {seed}: must be at least 0")


@dataclass(frozen=True)
class SamplingSettings:
    """Settings of `sample`.

    Attributes:
        steps: steps per level, coarse first; the last number counts for all further levels.
        temperature: divisor of the logits.
        top_p: probability mass of the nucleus; 1 keeps the whole distribution.
        mask_temperature: scale of the Gumbel noise on confidences at the start of a level; it falls
            linearly to 0.
        guidance_scale: strength of classifier-free guidance; guidance_form says what it means.
        guidance_form: "scale" s means u + s (c - u), with c predicted from the conditioning and u
            without it; 1 turns guidance off. "weight" w means (1 + w) c - w u, as Ho and Salimans
            (2021) write it, which is the scale 1 + w; 0 turns guidance off.
        compile: run the model through `torch.compile`. Rounding may then change the order of codes
            that are almost equally likely.
    """

    steps: tuple[int, ...] = (16, 1)
    temperature: float = 1.0
    top_p: float = 0.85
    mask_temperature: float = 10.5
    guidance_scale: float = 2.0
    guidance_form: Literal["scale", "weight"] = "scale"
    compile: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.steps, int):
            raise ValueError(f"steps = {self.steps}: give steps per level, such as ({self.steps},)")
        if not self.steps or not all(step >= 1 for step in self.steps):
            raise ValueError(f"steps = {self.steps}: give at least one level, each at least 1")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature = {self.temperature}: must be above 0 and finite; 1 keeps the "
                "model's probabilities"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p = {self.top_p}: must be above 0 and at most 1, which keeps all codes"
            )
        if not 0 <= self.mask_temperature < math.inf:
            raise ValueError(
                f"mask_temperature = {self.mask_temperature}: must be finite and at least 0, "
                "which adds no noise"
            )
        if self.guidance_form not in GUIDANCE_OFF:
            raise ValueError(
                f"guidance_form {self.guidance_form!r}: must be one of {', '.join(GUIDANCE_OFF)}"
            )
        if not math.isfinite(self.guidance_scale):
            raise ValueError(
                f"guidance_scale = {self.guidance_scale}: must be finite; "
                f"{GUIDANCE_OFF[self.guidance_form]} turns guidance off"
            )

    @property
    def scale(self) -> float:
        """The guidance as s in u + s (c - u), in either form; 1 is no guidance."""
        return self.guidance_scale + (self.guidance_form == "weight")

    def at(self, level: int) -> int:
        """Return the number of steps of `level`."""
        return self.steps[min(level, len(self.steps) - 1)]


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Windows in which long audio is generated.

    Attributes:
        window_seconds: longest audio that is generated as a whole; longer audio is generated in
            windows of this length.
        overlap_seconds: how much of the audio before its first new code a window sees.
    """

    window_seconds: float = 20.0
    overlap_seconds: float = 5.0

    def __post_init__(self) -> None:
        window, overlap = self.window_seconds, self.overlap_seconds
        if not 0 < window < math.inf:
            raise ValueError(f"window_seconds = {window}: must be above 0 and finite")
        if not 0 <= overlap < window:
            raise ValueError(
                f"overlap_seconds = {overlap}: must be at least 0 and less than window_seconds = "
                f"{window}"
            )


@dataclass(frozen=True)
class TaskSettings:
    """Settings of the task: which part of an utterance is generated.

    Attributes:
        name: "vocode" generates everything from the conditioning, "continue" keeps the first
            `prompt_seconds`, "infill" generates a gap of `gap_seconds` at a random position.
        prompt_seconds: duration of the kept beginning in "continue".
        gap_seconds: duration of the gap in "infill".
        period: "infill" keeps every `period`-th frame in the gap; 0 keeps none.
        levels: number of coarse levels that "infill" keeps in the gap.
        conditioned: use the conditioning in "continue" and "infill" too, if the model has one.
    """

    name: Literal["vocode", "continue", "infill"] = "vocode"
    prompt_seconds: float = 1.0
    gap_seconds: float = 1.0
    period: int = 0
    levels: int = 0
    conditioned: bool = False

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            raise ValueError(f"task {self.name!r}: must be one of {', '.join(TASKS)}")
        for name in ("prompt_seconds", "gap_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: must be above 0 and finite")
        for name in ("period", "levels"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 0")

    @property
    def shortest_seconds(self) -> float:
        """Duration in seconds that an utterance needs, so that some codes are kept and some not."""
        of_task = {"continue": self.prompt_seconds, "infill": self.gap_seconds}
        return of_task[self.name] + MARGIN_SECONDS if self.name in of_task else 0.0
