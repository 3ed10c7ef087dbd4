"""When each part of a codec trains, and how the rate and the averaged weights follow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """What a step does. `start` and `end` bound the steps of the same rate schedule."""

    start: int
    end: int
    quantize: bool
    decoder_only: bool
    adversarial: bool


@dataclass(frozen=True)
class Phases:
    """continuous -> decoder on frozen codes -> all together, the adversary from its own step.

    Raises:
        ValueError: the phases do not fit in `steps`.
    """

    steps: int
    continuous_steps: int
    decoder_steps: int
    adversarial_start: int

    def __post_init__(self) -> None:
        before = self.continuous_steps + self.decoder_steps
        if before > self.steps:
            raise ValueError(
                f"continuous_steps + decoder_steps = {before} exceed steps = {self.steps}: "
                "raise steps or shorten the phases"
            )

    def at(self, step: int) -> Phase:
        """The phase that `step` belongs to."""
        decoder_end = self.continuous_steps + self.decoder_steps
        adversarial = step >= self.adversarial_start
        if step < self.continuous_steps:
            return Phase(0, self.continuous_steps, False, False, adversarial)
        if step < decoder_end:
            return Phase(self.continuous_steps, decoder_end, True, True, adversarial)
        return Phase(decoder_end, self.steps, True, False, adversarial)


def cooled(step: int, phase: Phase, warmup: int, cooldown: float, floor: float = 0.05) -> float:
    """Rate factor in (0, 1]: linear warm-up from the phase's start, linear fall at its end.

    Args:
        cooldown: share of the phase in which the factor falls to `floor`.
    """
    rise = min(1.0, (step - phase.start + 1) / warmup) if warmup else 1.0
    falling = cooldown * (phase.end - phase.start)
    fall = min(1.0, (phase.end - step) / falling) if falling else 1.0
    return rise * max(floor, fall)
