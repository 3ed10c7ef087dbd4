"""The STFT codec's settings as a configuration of transformers."""

from __future__ import annotations

from transformers.configuration_utils import PretrainedConfig

__all__ = ["StftCodecConfig"]


class StftCodecConfig(PretrainedConfig):
    """Settings of `StftCodecModel`, by the same names, as in its config.json."""

    model_type = "tokgen_stft_codec"
    attribute_map = {  # noqa: RUF012, transformers' own form
        "sampling_rate": "sample_rate",
        "num_codebooks": "n_codebooks",
    }
