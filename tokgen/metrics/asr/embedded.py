"""A small English recogniser with weights in its wheel."""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.asr.base import ENGLISH, RecognitionError, prepare
from tokgen.metrics.signals import RATE

__all__ = ["MoonshineRecogniser"]


class MoonshineRecogniser:
    """The tiny English model of moonshine-voice 0.1.0 (MIT). Deterministic, on the CPU only.

    Its voice activity detector is off: it remembers earlier clips, so transcripts would depend on
    the order of scoring.

    Raises:
        FileNotFoundError: the installed moonshine-voice is a later one, without weights.
    """

    languages = ENGLISH

    def __init__(self) -> None:
        package = require("moonshine_voice")
        self._failure = require("moonshine_voice.errors").MoonshineError
        weights = Path(require("moonshine_voice.utils").get_model_path("tiny-en"))
        found = version("moonshine-voice")
        if not weights.is_dir():
            raise FileNotFoundError(
                f"moonshine-voice {found} has no weights, 0.1.0 has: pip install 'tokgen[eval]'"
            )
        self.backend = f"moonshine (tiny-en, moonshine-voice {found}, whole clips)"
        self._make = partial(
            package.Transcriber,
            model_path=str(weights),
            model_arch=package.ModelArch.TINY,
            options={"vad_threshold": "0.0"},
        )
        self._by_process = {os.getpid(): self._make()}

    @property
    def _transcriber(self) -> Any:
        """The transcriber of this process: a fork does not inherit the threads of its parent."""
        if os.getpid() not in self._by_process:
            self._by_process[os.getpid()] = self._make()
        return self._by_process[os.getpid()]

    def transcribe(self, waveform: Tensor, sample_rate: int, language: str | None = None) -> str:
        audio = prepare(waveform, sample_rate)
        try:
            transcript = self._transcriber.transcribe_without_streaming(audio.tolist(), RATE)
        except self._failure as error:
            raise RecognitionError(f"moonshine: {error}") from error
        return " ".join(line.text for line in transcript.lines)
