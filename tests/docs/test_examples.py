"""The example codec, metric and quantizer of the documentation keep what their pages say."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import pytest
import torch

from makers.audio import make_tone
from makers.paths import ROOT
from tests.codec import test_base as contract
from tokgen.codec.base import Codec
from tokgen.zoo.stft import StftCodec

sys.path.append(str(ROOT / "docs" / "examples"))
from add_codec import DctCodec
from add_metric import log_spectral_distance, lsd_table
from add_quantizer import FiniteScalarQuantizer, make_model

CONTRACT = [
    contract.test_any_length_is_encoded_and_restored,
    contract.test_codes_carry_information,
    contract.test_a_batch_gives_the_same_codes_as_one_by_one,
    contract.test_encoding_twice_gives_the_same_codes,
    contract.test_silence_and_full_scale,
    contract.test_fewer_levels_are_the_first_ones,
    contract.test_a_batch_decodes_as_one_by_one,
    contract.test_unusable_settings_and_codes_are_refused,
]


def small_fsq() -> StftCodec:
    torch.manual_seed(0)
    return StftCodec.from_model(make_model(width=16), "fsq")


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [DctCodec, small_fsq])
def test_the_examples_keep_the_contract(make: Callable[[], Codec], check: Callable) -> None:
    check(make())


def test_the_codec_does_not_drift() -> None:
    codec = DctCodec()
    waveform = make_tone(2.0, seed=0)[None]
    once = codec.roundtrip(waveform)
    twice = codec.roundtrip(once)
    assert torch.equal(codec.encode(once), codec.encode(waveform))
    torch.testing.assert_close(once, twice)
    assert (once - waveform).norm() < 0.3 * waveform.norm()


def test_the_metric_is_zero_for_equal_audio_and_fails_on_silence() -> None:
    voice, other = make_tone(1.0, seed=0), make_tone(1.0, seed=1)
    assert log_spectral_distance(voice, voice) == 0
    assert log_spectral_distance(voice, 0.1 * voice) == pytest.approx(20, abs=0.5)
    assert math.isnan(log_spectral_distance(voice, torch.zeros_like(voice)))
    with pytest.raises(ValueError, match="16000 and 15999 samples"):
        log_spectral_distance(voice, voice[:, 1:])
    silent = torch.zeros_like(voice)
    table = lsd_table({"original": [voice, other, voice], "resynthesis": [other, voice, silent]})
    original, resynthesis = (row.values["lsd"] for row in table.rows)
    assert (original.mean, original.n, original.n_failed) == (0, 3, 0)
    assert (resynthesis.n, resynthesis.n_failed) == (2, 1)
    assert resynthesis.low <= resynthesis.mean <= resynthesis.high


def test_every_code_of_the_quantizer_has_a_row_of_its_own() -> None:
    quantizer = FiniteScalarQuantizer(8, (7, 5, 3))
    rows = quantizer.code_vectors()[0]
    assert len(rows.unique(dim=0)) == quantizer.codebook_size == 105
    assert torch.equal(quantizer._codes(rows), torch.arange(105))
    with pytest.raises(ValueError, match="odd numbers"):
        FiniteScalarQuantizer(8, (8, 5))


def test_the_quantizer_trains() -> None:
    torch.manual_seed(0)
    model = make_model(width=32)
    audio = torch.stack([make_tone(0.5, seed) for seed in range(4)])
    model.spectrum.fit_levels(audio)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        decoded, result = model(audio)
        loss = (decoded - audio).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert result is not None and model.quantizer.in_proj.weight.grad.abs().sum() > 0
    assert losses[-1] < 0.8 * losses[0]
