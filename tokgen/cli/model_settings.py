"""Settings of `tokgen generate` and `tokgen export-tokens`.

A name that is a word of Python ends in "_": `continue_` is the flag --continue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokgen.generation.settings import SamplingSettings, WindowSettings
from tokgen.modelling.text.settings import check_speed
from tokgen.runs.checks import check_least, check_shares
from tokgen.runs.device import DeviceSettings
from tokgen.tokens.export.settings import ExportSettings

__all__ = ["ExportTokens", "Generate", "request_of", "sampling_of"]

_SOURCES = {"text": "text", "continue": "continue_", "infill": "infill", "vary": "vary"}
_NEEDS = {
    "seconds": "continue", "from": "infill", "to": "infill", "keep": "vary", "speed": "text"
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExportTokens(ExportSettings):
    """Export a token dataset as sequences for the training of language models.

    Attributes:
        tokens: folder, URL or hub id of a token dataset.
        out: folder to write.
        overwrite: replace an earlier export.
    """

    tokens: str
    out: Path
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Generate(WindowSettings, DeviceSettings):
    """Generate speech from a text, like other audio, after a prompt, in a gap, or as a variation.

    Attributes:
        model: folder of a model or of the run that trained it, hub id of a model, or a codec that
            has a generator beside it, as speech-16k has.
        text: what to say, with a model that recipes/tts_masked.py trained.
        speed: speed of the speech of text, 0.25 to 4; 1 by default.
        like: audio that the result sounds like: a model with conditioning generates from its
            features. Alone, or with one of the following, as long as the result.
        continue_: audio to continue.
        seconds: length of the continuation; by default 3, or what like leaves.
        infill: audio with a gap to fill.
        from_: start of the gap, in seconds.
        to: end of the gap, in seconds.
        vary: audio to make a variation of.
        keep: share of the codes of vary that stay, 0 to 1; 0.3 by default.
        out: audio file to write (.wav, .flac, .mp3, .opus or .m4a). With --n 4, out.wav becomes
            out-1.wav to out-4.wav.
        codec: codec of the model; by default the one that the model was made for.
        n: number of results. Each has a seed of its own, counted from seed.
        seed: seed of the first result.
        stable: decode so that encoding the audio gives more of the generated codes again; the
            printed line tells the share.
        steps: steps of each level, coarse first, separated by commas; the last number counts for
            all further levels.
        temperature: divisor of the logits; lower keeps to what is likely.
        top_p: probability mass of the codes that are drawn from; 1 keeps all.
        mask_temperature: randomness of the order in which codes are drawn.
        guidance_scale: strength of the conditioning; 1 turns guidance off.
        overwrite: replace existing files.
    """

    model: str = "speech-16k"
    text: str | None = None
    speed: float | None = None
    like: str | None = None
    continue_: str | None = None
    seconds: float | None = None
    infill: str | None = None
    from_: float | None = None
    to: float | None = None
    vary: str | None = None
    keep: float | None = None
    out: Path
    codec: str | None = None
    n: int = 1
    seed: int = 0
    stable: bool = False
    steps: list[str] = field(default_factory=lambda: [str(n) for n in SamplingSettings.steps])
    temperature: float = SamplingSettings.temperature
    top_p: float = SamplingSettings.top_p
    mask_temperature: float = SamplingSettings.mask_temperature
    guidance_scale: float = SamplingSettings.guidance_scale
    overwrite: bool = False

    def __post_init__(self) -> None:
        WindowSettings.__post_init__(self)
        check_least(self, n=1, seed=0)
        given = [name for name, at in _SOURCES.items() if getattr(self, at) is not None]
        if len(given) > 1:
            raise ValueError(f"--{given[0]} and --{given[1]} are both given: give one")
        if not given and self.like is None:
            raise ValueError("give one of --text, --like, --continue, --infill and --vary")
        if self.text is not None:
            if self.like is not None:
                raise ValueError("--text and --like are both given: give one")
            if not self.text.strip():
                raise ValueError(f"text is {self.text!r}: there is nothing to say")
        for flag, needed in _NEEDS.items():
            at = "from_" if flag == "from" else flag
            if getattr(self, at) is not None and needed not in given:
                raise ValueError(f"--{flag} is given without --{needed}, and does nothing")
        if self.infill is not None and (self.from_ is None or self.to is None):
            raise ValueError("--infill needs --from and --to, the limits of the gap in seconds")
        if self.from_ is not None and self.to is not None and not 0 <= self.from_ < self.to:
            raise ValueError(
                f"--from {self.from_:g} --to {self.to:g}: the gap must start at 0 s or later, and "
                "end after its start"
            )
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds is {self.seconds:g}, but must be above 0 and finite")
        if self.keep is not None:
            check_shares(self, "keep")
        if self.speed is not None:
            check_speed(self.speed)
        sampling_of(self)


def sampling_of(s: Generate) -> SamplingSettings:
    """Return the settings of the sampler."""
    words = [word for text in s.steps for word in text.split(",")]
    if not all(word.strip().isdecimal() for word in words):
        raise ValueError(f"--steps {','.join(words)}: give whole numbers, such as 16,1")
    return SamplingSettings(
        steps=tuple(int(word) for word in words),
        temperature=s.temperature,
        top_p=s.top_p,
        mask_temperature=s.mask_temperature,
        guidance_scale=s.guidance_scale,
    )


def request_of(s: Generate) -> dict[str, Any]:
    """Return the text, or the audio and what to do with it, as arguments of `tokgen.generate`."""
    found = {
        "like": s.like, "prompt": s.continue_, "seconds": s.seconds, "infill": s.infill,
        "start": s.from_, "end": s.to, "vary": s.vary, "keep": s.keep, "text": s.text,
        "speed": s.speed,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}
