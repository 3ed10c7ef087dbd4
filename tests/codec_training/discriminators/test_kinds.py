"""Discriminators by kind: made, saved and loaded."""

from __future__ import annotations

import pytest

from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.codec_training.discriminators.kinds import (
    check_fits,
    load_discriminator,
    make_discriminator,
)
from tokgen.codec_training.discriminators.msstft import MultiScaleStftDiscriminator
from tokgen.codec_training.settings import CodecTrainingSettings

SMALL = {"periods": [2], "period_channels": [4, 8], "windows": [128], "channels": 2}


@pytest.mark.parametrize(
    ("settings", "cls"),
    [
        (SMALL, Discriminator),
        ({"kind": "ensemble", **SMALL}, Discriminator),
        ({"kind": "msstft", "windows": [128], "width": 2}, MultiScaleStftDiscriminator),
        ("msstft", MultiScaleStftDiscriminator),
    ],
)
def test_a_kind_is_made_saved_and_loaded(settings, cls, tmp_path):
    critic = make_discriminator(settings)
    assert type(critic) is cls
    critic.save_pretrained(tmp_path)
    again = load_discriminator(tmp_path)
    assert type(again) is cls and again.config == critic.config


def test_unknown_kinds_and_arguments_are_refused():
    with pytest.raises(ValueError, match="'wave': known are ensemble, msstft"):
        make_discriminator("wave")
    with pytest.raises(ValueError, match="msstft has no 'periods': it has windows, width, chan"):
        make_discriminator({"kind": "msstft", "periods": [2]})
    for settings in ("wave", {"kind": "wave"}):
        with pytest.raises(ValueError, match="'wave': known are ensemble, msstft"):
            CodecTrainingSettings(discriminator=settings)


def test_channels_and_bandwidths_must_be_those_of_the_codec():
    mono, stereo = make_discriminator(SMALL), {"kind": "msstft", "channels": 2, "width": 2}
    check_fits(mono, 1, 4)
    check_fits(make_discriminator(stereo), 2, 4)
    check_fits(make_discriminator(stereo | {"bandwidths": 4}), 2, 4)
    with pytest.raises(ValueError, match=r"of 1 channels, but the codec has 2: .* channels: 2"):
        check_fits(mono, 2, 4)
    with pytest.raises(ValueError, match=r"3 bandwidths, but the codec 4: .* to 1 or 4"):
        check_fits(make_discriminator(stereo | {"bandwidths": 3}), 2, 4)
