"""Phases of a codec's training, and the learning rate within a phase."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A phase of the training.

    Attributes:
        start, end: first step, and the step after the last.
        quantize: the quantizer is in use.
        decoder_only: encoder and quantizer are frozen.
        adversarial: the discriminators train.
    """

    start: int
    end: int
    quantize: bool
    decoder_only: bool
    adversarial: bool


@dataclass(frozen=True)
class Phases:
    """The phases in order: without quantizer, decoder only, everything.

    Args:
        steps: all steps of the training.
        continuous_steps: steps without quantizer.
        decoder_steps: steps with encoder and quantizer frozen.
        adversarial_start: step at which the discriminators begin to train.
    Raises:
        ValueError: the phases have more than `steps` steps.
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
        """The phase of a step."""
        decoder_end = self.continuous_steps + self.decoder_steps
        adversarial = step >= self.adversarial_start
        if step < self.continuous_steps:
            return Phase(0, self.continuous_steps, False, False, adversarial)
        if step < decoder_end:
            return Phase(self.continuous_steps, decoder_end, True, True, adversarial)
        return Phase(decoder_end, self.steps, True, False, adversarial)


def cooled(step: int, phase: Phase, warmup: int, cooldown: float, floor: float = 0.05) -> float:
    """Factor of the learning rate at a step, in (0, 1].

    Args:
        step: step of the training.
        phase: the step's phase.
        warmup: steps of the linear rise from the phase's start.
        cooldown: share of the phase, at its end, in which the factor falls linearly to `floor`.
        floor: lowest factor of the fall.
    """
    rise = min(1.0, (step - phase.start + 1) / warmup) if warmup else 1.0
    falling = cooldown * (phase.end - phase.start)
    fall = min(1.0, (phase.end - step) / falling) if falling else 1.0
    return rise * max(floor, fall)
