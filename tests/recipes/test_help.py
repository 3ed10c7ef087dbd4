"""The help of every recipe describes every setting."""

from __future__ import annotations

import re

import pytest

import vocode_mfcc
from tokgen.cli.parsing import texts_of
from tokgen.codec_training.settings import CodecTrainingSettings, TuningSettings
from tokgen.comparison.settings import ComparisonSettings

SETTINGS = [vocode_mfcc.Settings, ComparisonSettings, CodecTrainingSettings, TuningSettings]


@pytest.mark.parametrize("cls", SETTINGS, ids=lambda cls: cls.__name__)
def test_every_setting_has_a_text(cls: type) -> None:
    texts = texts_of(cls)
    missing = [name for name in cls.__dataclass_fields__ if not texts.get(name)]
    assert not missing
    constants = {name: re.findall(r"`[A-Z_]{4,}`", text) for name, text in texts.items()}
    assert not any(constants.values())
