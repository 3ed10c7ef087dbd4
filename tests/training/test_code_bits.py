"""Bits of entropy models on held-out codes."""

from __future__ import annotations

import numpy as np
import pytest

from makers.causal import SIZES
from makers.codecs import make_variable
from makers.training import LEVELS, SIZE, make_causal_settings, make_tokens
from tokgen.modelling.causal_depth import CausalDepthNetwork
from tokgen.training.causal import make_causal_model
from tokgen.training.code_bits import measure_code_bits


@pytest.mark.parametrize(("seconds", "frames"), [(0.2, 10), (1e-6, 1)])
def test_models_start_anew_after_blocks_of_one_frame_at_least(seconds, frames):
    tokens = make_tokens()
    model = CausalDepthNetwork(n_codebooks=LEVELS, codebook_size=SIZE, **SIZES)
    found = measure_code_bits(tokens, {"model": model}, split="validation", block_seconds=seconds)
    parts = tokens.codes("validation", 0).split(frames, -1)
    expected = sum(model.bits(part)[0].double().sum(1).numpy() for part in parts)
    np.testing.assert_allclose(found.bits["model"][0], expected)
    assert found.notes == [f"models start anew after {frames} frames"]


def test_a_variable_bitrate_is_refused_with_the_fix() -> None:
    tokens = make_tokens(variable=True)
    wanted = "'made-up' have a variable bitrate .level 1.* tokenize with 'made-up', without a bitr"
    with pytest.raises(ValueError, match=wanted):
        measure_code_bits(tokens, {})
    codec = make_variable(None)
    codec.spec = tokens.provenance.spec
    for kind in ("depth", "transformer"):
        with pytest.raises(ValueError, match=wanted):
            make_causal_model(codec, tokens, make_causal_settings(kind=kind))
