"""Phases of a codec's training, and the learning rate within a phase."""

from __future__ import annotations

from dataclasses import dataclass

from tokgen.codec_training.settings import CodecTrainingSettings

__all__ = ["FLOOR", "Phase", "phase_at", "rate_factor"]

FLOOR = 0.05  # lowest factor of the learning rate in a cooldown


@dataclass(frozen=True)
class Phase:
    """A phase of the training.

    Attributes:
        start, end: first step, and the step after the last.
        quantize: the quantizer is in use.
        decoder_only: encoder and quantizer are frozen.
    """

    start: int
    end: int
    quantize: bool = True
    decoder_only: bool = False


def phase_at(step: int, settings: CodecTrainingSettings) -> Phase:
    """The phase of a step: without quantizer, then decoder only, then everything."""
    decoder_start = settings.continuous_steps
    decoder_end = decoder_start + settings.decoder_steps
    if step < decoder_start:
        return Phase(0, decoder_start, quantize=False)
    quantize = settings.quantizer != "none"
    if step < decoder_end:
        return Phase(decoder_start, decoder_end, quantize=quantize, decoder_only=True)
    return Phase(decoder_end, settings.steps, quantize=quantize)


def rate_factor(step: int, phase: Phase, warmup: int, cooldown: float) -> float:
    """Factor of the learning rate at a step, in (0, 1].

    Args:
        step: step of the training.
        phase: the step's phase.
        warmup: steps of the linear rise from the phase's start.
        cooldown: share of the phase, at its end, in which the factor falls linearly to `FLOOR`.
    """
    rise = min(1.0, (step - phase.start + 1) / warmup) if warmup else 1.0
    falling = cooldown * (phase.end - phase.start)
    fall = min(1.0, (phase.end - step) / falling) if falling else 1.0
    return rise * max(FLOOR, fall)
