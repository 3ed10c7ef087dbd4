"""Speech from text alone.

speaker = Speaker.from_pretrained("runs/tts_masked/model")
[made] = speaker.speak(codec, ["Press two to call back."])
made.waveform                      # [1, N]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, Unpack

import torch

from tokgen.codec.base import Codec
from tokgen.generation.clips import Generated, generate_clips
from tokgen.generation.generators import TEXT
from tokgen.generation.settings import SamplingSettings
from tokgen.hub import HubArguments
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.text.model import TextModel

__all__ = ["Speaker"]


@dataclass(frozen=True)
class Speaker:
    """A masked transformer that speaks, with the text model of its conditioning.

    Attributes:
        model: the masked transformer, in eval mode.
        text: the text model, in eval mode.
    Raises:
        ValueError: they do not belong together.
    """

    model: MaskedTransformer
    text: TextModel

    def __post_init__(self) -> None:
        wanted, found = self.model.conditioning_dim, self.text.conditioning_dim
        if wanted != found:
            raise ValueError(
                f"the transformer has a conditioning of {wanted} values per frame, the text model "
                f"makes {found}: use the two of one training"
            )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        revision: str | None = None,
        *,
        device: str | torch.device = "cpu",
        **hub: Unpack[HubArguments],
    ) -> Self:
        """Load both from what `save_pretrained` or `recipes/tts_masked.py` wrote.

        Args:
            name, revision, hub: as in `Pretrained.from_pretrained`.
            device: device of both.
        Raises:
            FileNotFoundError: one of them is missing, and no such hub model is in reach.
            ValueError: see `Pretrained.from_pretrained`.
        """
        model = MaskedTransformer.from_pretrained(name, revision, **hub)
        below = "/".join(part for part in (hub.get("subfolder"), TEXT) if part)
        inner: HubArguments = {**hub, "subfolder": below}
        text = TextModel.from_pretrained(name, revision, **inner)
        return cls(model.to(device).eval(), text.to(device).eval())

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the transformer to `folder` and the text model to the folder text in it."""
        self.text.save_pretrained(Path(folder) / TEXT)
        return self.model.save_pretrained(folder)

    def speak(
        self,
        codec: Codec,
        texts: Sequence[str],
        settings: SamplingSettings | None = None,
        *,
        speed: float = 1.0,
        **options: Any,
    ) -> list[Generated]:
        """Generate speech from texts.

        Args:
            codec: codec of the model.
            texts: what to say, each at least a word.
            settings: settings of the sampler; None uses the defaults.
            speed: above 1 is faster than the training speech; 0.25 to 4.
            options: seed, item_ids, batch_size, store, stable and progress of `generate_clips`.
        Raises:
            ValueError: a text has nothing to say, the speed is out of range, or as in
                `generate_clips`.
        """
        frames = self.text.frames(list(texts), speed=speed)
        n_samples = [len(each) * codec.spec.hop_length for each in frames]
        return generate_clips(
            self.model,
            codec,
            n_samples,
            settings or SamplingSettings(),
            conditioning=frames,
            **options,
        )
