"""Settings of `recipes/quantize_offline.py`. Imports no torch, so that settings are read fast."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tokgen.codec_training.discriminators.saved import find_discriminator
from tokgen.codec_training.settings import CodecTrainingSettings
from tokgen.corpus.settings import check_corpus
from tokgen.quantizers.offline.settings import KINDS, QincoTraining
from tokgen.runs.checks import check_least, check_positive
from tokgen.zoo.names import check_name, find_in_zoo

__all__ = ["OfflineSettings", "check_sources", "decoder_settings"]


@dataclass(frozen=True, kw_only=True)
class OfflineSettings:
    """Make a codec of a continuous one.

    Attributes:
        name: the run's folder is runs/<name>.
        codec: continuous codec: a name in the zoo, a folder or a hub id.
        corpora: corpora with train splits to fit to.
        validation: corpus whose validation split is scored; None means the first of `corpora`.
        quantizer: kmeans, lsq, pq, opq, fsq, rfsq or qinco2.
        quantizer_settings: more settings of the quantizer, such as {preset: M} of qinco2.
        bitrate: kbps; it must be a whole number of levels.
        codebook_size: entries per level.
        beam: paths of the search at encoding time, for quantizers that have one; 1 is greedy.
        frames: most frames to fit to, drawn at random.
        training: how qinco2 trains.
        finetune_decoder: steps in which the decoder trains; 0 for none.
        finetune: how it trains; corpora, validation, steps and names are those of this recipe, and
            `start_discriminator: auto` is the discriminator beside `codec`, if it has one.
        seed: of the draw of frames and of the quantizer.
        runs: parent folder of the runs.
    """

    name: str = "quantize_offline"
    codec: str = "speech-16k-continuous"
    corpora: list[str] = field(default_factory=lambda: ["recipes/data/allison"])
    validation: str | None = None
    quantizer: str = "qinco2"
    quantizer_settings: dict[str, Any] = field(default_factory=dict)
    bitrate: float = 4.0
    codebook_size: int = 1024
    beam: int = 16
    frames: int = 300000
    training: QincoTraining = field(default_factory=QincoTraining)
    finetune_decoder: int = 0
    finetune: CodecTrainingSettings = field(default_factory=CodecTrainingSettings)
    seed: int = 0
    runs: str = "runs"

    def __post_init__(self) -> None:
        check_least(self, codebook_size=2, beam=1, frames=1, finetune_decoder=0, seed=0)
        check_positive(self, "bitrate")
        if self.quantizer not in KINDS:
            raise ValueError(f"quantizer {self.quantizer!r}: known are {', '.join(KINDS)}")
        if not self.corpora:
            raise ValueError("corpora is empty: give at least one corpus to fit to")


def check_sources(s: OfflineSettings) -> None:
    """Check what takes effect after the fit too: the training of the decoder.

    Raises:
        FileNotFoundError: the codec, a corpus or the discriminator does not exist.
        ValueError: the settings of the decoder's training do not go together.
    """
    check_name(s.codec)
    for corpus in (*s.corpora, s.validation or s.corpora[0]):
        check_corpus(corpus)
    if s.finetune_decoder:
        decoder_settings(s, s.codec, name="finetuned", runs=s.runs)
        find_discriminator(s.finetune.start_discriminator, s.codec)


def decoder_settings(
    s: OfflineSettings, codec: str, *, name: str, runs: str, beam: int | None = None
) -> CodecTrainingSettings:
    """Return the settings of the training of a decoder on what the quantizer makes.

    Args:
        codec: codec with an offline quantizer; its encoder and quantizer stay.
        name: the run's folder is `runs`/`name`.
        runs: see above.
        beam: paths of the search in training; None means those of the codec.
    """
    start = s.finetune.start_discriminator
    if start == "auto":
        found = find_discriminator("auto", s.codec)
        start = None if found is None else s.codec if find_in_zoo(s.codec) else str(found)
    return replace(
        s.finetune,
        name=name,
        architecture="offline",
        model={"codec": codec} | ({} if beam is None else {"beam": beam}),
        steps=s.finetune_decoder,
        corpora=s.corpora,
        validation=s.validation,
        runs=runs,
        seed=s.seed,
        start_discriminator=start,
    )
