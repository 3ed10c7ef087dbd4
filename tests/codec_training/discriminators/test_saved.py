"""Tests of finding saved discriminators."""

import pytest

from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.codec_training.discriminators.saved import find_discriminator
from tokgen.zoo.names import find_in_zoo


def test_a_saved_discriminator_is_found_by_codec_or_folder(tmp_path):
    saved = tmp_path / "run" / "discriminator"
    Discriminator(periods=[2], period_channels=[4, 8], windows=[], channels=2).save_pretrained(
        saved
    )
    assert find_discriminator(str(saved), "anything") == saved
    assert find_discriminator("auto", str(tmp_path / "run" / "codec")) == saved
    assert find_discriminator("speech-16k", "") == find_in_zoo("speech-16k") / "discriminator"
    assert find_discriminator(None, "speech-16k") is find_discriminator("auto", "nowhere") is None
    with pytest.raises(FileNotFoundError, match=r"'nowhere' has no config\.json"):
        find_discriminator("nowhere", "speech-16k")
