"""Entropy models in whole numbers: exact sums, equal counts however they are computed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makers.causal import LEVELS, SIZE, make_depth_network
from tokgen.modelling.integer import (
    LARGEST,
    TOTAL_BITS,
    Layer,
    clip,
    counts_of,
    power_table,
    quantize_layer,
)
from tokgen.modelling.integer_depth import IntegerDepthNetwork


def make_codes(n: int = 2, levels: int = LEVELS, frames: int = 15, seed: int = 0):
    return torch.randint(
        0, SIZE, (n, levels, frames), generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture(scope="module")
def quantized() -> IntegerDepthNetwork:
    return IntegerDepthNetwork.from_float(make_depth_network(), make_codes(4, seed=3))


def stepwise(model, codes, shape=()) -> np.ndarray:
    """Counts [..., n, T, V] of codes [..., n, T], one code after another."""
    stream, n_levels = model.stream(), codes.shape[-2]
    state, found = stream.start(n_levels, shape), []
    for frame in np.moveaxis(codes, -1, 0):
        found.append([stream.counts(state, k, frame[..., :k]) for k in range(n_levels)])
        state = stream.update(state, frame)
    return np.moveaxis(np.array(found), [1, 0], [-3, -2])


def in_python(model: IntegerDepthNetwork, codes: np.ndarray) -> list[list[list[int]]]:
    """Counts [T][K][V] by docs/entropy_model.md, with Python's integers and loops only."""
    w = {k: v.tolist() for k, v in model.state_dict().items()}
    size, limit = model.config, 2**15 - 1

    def layer(name, x, index=None, columns=None):
        parts = [w[f"{name}_{kind}"] for kind in ("weight", "bias", "shift")]
        if index is not None:
            parts = [part[index] for part in parts]
        return [
            (sum(a * b for a, b in zip(row[:columns], x, strict=True)) + b + 2 ** (s - 1)) >> s
            for row, b, s in zip(*parts, strict=True)
        ]

    def limited(x, low=-limit):
        return [min(max(value, low), limit) for value in x]

    def added(x, y):
        return limited([a + b for a, b in zip(x, y, strict=True)])

    frames, n_levels = codes.T.tolist(), len(codes)
    inputs = [[] for _ in size["dilations"]]  # of each block, over time
    counts = []
    for t in range(len(frames)):
        rows = [w["codes"][k][c] for k, c in enumerate(frames[t - 1])] if t else []
        vector = [v for row in rows for v in row]
        x = limited(layer("to_time", vector, columns=len(vector))) if t else w["first"]
        for i, dilation in enumerate(size["dilations"]):
            inputs[i].append(x)
            taps = []
            for tap in range(size["taps"]):
                at = t - tap * dilation
                taps += inputs[i][at] if at >= 0 else [0] * size["dim"]
            hidden = limited(layer("widen", taps, i), 0)
            x = added(x, layer("narrow", hidden, i))
        counts.append([])
        for k in range(n_levels):
            below = [v for j in range(k) for v in w["codes"][j][frames[t][j]]]
            y = added(x, limited(layer("to_depth", below, columns=len(below)))) if k else x
            y = limited(layer("level_in", y, k), 0)
            scores = layer("head", limited(layer("level_out", y, k)), k)
            below_top = [max(scores) - s for s in scores]
            powers = [w["table"][d % 256] >> min(d // 256, 62) for d in below_top]
            total, spare = sum(powers), 2**22 - len(scores)
            counts[-1].append([p * spare // total + 1 for p in powers])
    return counts


def test_whole_stepwise_and_the_specification_give_the_same_counts(quantized):
    codes = make_codes()
    whole = quantized(codes)
    assert whole.dtype == torch.int64 and whole.shape == (2, LEVELS, 15, SIZE)
    for clip_codes, counts in zip(codes.numpy(), whole.numpy(), strict=True):
        assert np.array_equal(stepwise(quantized, clip_codes), counts)
        assert np.array_equal(np.array(in_python(quantized, clip_codes)).swapaxes(0, 1), counts)
    assert len(np.unique(whole.numpy())) > 100  # the counts are not flat


def test_several_blocks_at_once_have_the_counts_of_each(quantized):
    codes = make_codes(3)
    assert np.array_equal(stepwise(quantized, codes.numpy(), (3,)), quantized(codes).numpy())


def test_counts_depend_on_earlier_frames_and_lower_levels_only(quantized):
    codes = make_codes(1)
    cut = quantized(codes[..., :7])
    assert cut.equal(quantized(codes)[:, :, :7])
    assert quantized(codes[:, :2])[:, :, 0].equal(quantized(codes)[:, :2, 0])


def test_counts_are_positive_and_within_the_total(quantized):
    counts = quantized(make_codes())
    assert counts.min() >= 1 and counts.sum(-1).max() <= 2**TOTAL_BITS


def test_a_stream_of_fewer_levels_is_coded_stepwise_too(quantized):
    codes = make_codes(1, levels=2)
    assert np.array_equal(stepwise(quantized, codes[0].numpy()), quantized(codes)[0].numpy())
    with pytest.raises(ValueError, match=r"n_levels is 4, but must be 1\.\.3"):
        quantized.stream().start(4)


def test_a_codec_of_one_level_and_clips_without_frames():
    model = make_depth_network(n_codebooks=1)
    codes = make_codes(2, levels=1)
    quantized = IntegerDepthNetwork.from_float(model, [codes[0, :, :0], *codes])
    assert np.array_equal(stepwise(quantized, codes[0].numpy()), quantized(codes)[0].numpy())
    assert (quantized.bits(codes) - model.bits(codes)).abs().max() < 0.5


def test_bits_are_close_to_those_of_the_float_model(quantized):
    codes = make_codes(8, seed=5)
    difference = quantized.bits(codes) - make_depth_network().bits(codes)
    assert difference.mean().abs() < 0.02 and difference.abs().max() < 0.5


def test_a_saved_model_has_the_same_counts_and_hash(quantized, tmp_path):
    quantized.save_pretrained(tmp_path)
    loaded = IntegerDepthNetwork.from_pretrained(tmp_path)
    assert loaded(make_codes()).equal(quantized(make_codes()))
    assert loaded.stream().model_hash == quantized.hash() and len(quantized.hash()) == 64
    assert loaded.head_weight.dtype == torch.int8
    n_integers = sum(t.numel() for t in loaded.state_dict().values())
    assert f"| parameters | {n_integers:,} |" in (tmp_path / "README.md").read_text()
    loaded.table[3] += 1
    assert loaded.hash() != quantized.hash()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head_shift", 0, "head_shift reaches from 0 to"),
        ("widen_shift", 77, r"to 77, but must stay within 1\.\.24"),
        ("table", -1, "table reaches from -1 to"),
    ],
)
def test_damaged_weights_are_refused(quantized, name, value, message, tmp_path):
    quantized.save_pretrained(tmp_path)
    loaded = IntegerDepthNetwork.from_pretrained(tmp_path)
    getattr(loaded, name).view(-1)[1] = value
    with pytest.raises(ValueError, match=message):
        loaded.stream()
    with pytest.raises(ValueError, match=message):
        loaded(make_codes())


COUNTS = """
import hashlib, sys, torch
from tokgen.modelling.integer_depth import IntegerDepthNetwork
torch.set_num_threads(int(sys.argv[2]))
codes = torch.randint(0, 11, (4, 3, 200), generator=torch.Generator().manual_seed(7))
counts = IntegerDepthNetwork.from_pretrained(sys.argv[1])(codes)
print(hashlib.sha256(counts.numpy().tobytes()).hexdigest())
"""


def test_threads_and_instruction_sets_change_nothing(quantized, tmp_path):
    quantized.save_pretrained(tmp_path)
    plain = {"ATEN_CPU_CAPABILITY": "default", "OPENBLAS_CORETYPE": "Haswell"}
    plain["MKL_ENABLE_INSTRUCTIONS"] = "SSE4_2"
    found = {
        subprocess.run(
            [sys.executable, "-c", COUNTS, tmp_path, threads],
            env={**environment, "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": threads},
            capture_output=True, text=True, check=True,
        ).stdout
        for threads, environment in (("1", {}), ("2", {}), ("1", plain))
    }  # fmt: skip
    assert len(found) == 1


@given(st.integers(1, 400), st.integers(1, 8), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_sums_are_exact(n_in, n_out, seed, full):
    draw = np.random.default_rng(seed)
    weight = draw.integers(-127, 128, (n_out, n_in))
    x = draw.integers(-LARGEST, LARGEST + 1, (2, n_in))
    if full:
        weight, x = np.full_like(weight, 127), np.full_like(x, LARGEST)
    bias, shift = draw.integers(-(2**20), 2**20, n_out), draw.integers(1, 24, n_out)
    exact = (x @ weight.T + bias) >> shift  # NumPy multiplies integers without BLAS
    assert np.array_equal(Layer(weight.astype(np.float64), bias, shift)(x), exact)
    layer = Layer(*(torch.from_numpy(v) for v in (weight.astype(np.float64), bias, shift)))
    assert np.array_equal(layer(torch.from_numpy(x)).numpy(), exact)


@given(st.lists(st.integers(-(2**40), 2**40), min_size=2, max_size=50))
@settings(max_examples=100, deadline=None)
def test_any_scores_give_positive_counts(scores):
    row = np.array(scores, dtype=np.int64)
    counts = counts_of(row, power_table())
    assert counts.min() >= 1 and counts.sum() <= 2**TOTAL_BITS
    assert (
        counts.argmax() in np.flatnonzero(row == row.max()) or counts.max() == counts[row.argmax()]
    )
    again = counts_of(torch.from_numpy(row), torch.from_numpy(power_table()))
    assert np.array_equal(again.numpy(), counts)


def test_scores_are_logarithms_to_base_2():
    counts = counts_of(np.array([0, -256, -512, -768]), power_table())
    np.testing.assert_allclose(counts / counts[0], [1, 1 / 2, 1 / 4, 1 / 8], rtol=1e-4)


def test_a_quantized_layer_is_close_to_the_real_one():
    draw = np.random.default_rng(0)
    weight, bias, x = draw.normal(size=(5, 40)), draw.normal(size=5), draw.normal(size=(7, 40))
    parts = quantize_layer(weight, bias, 10, 9)
    assert parts["weight"].dtype == np.int8 and np.abs(parts["weight"]).max() > 63
    whole = {k: v.astype(np.int64) for k, v in parts.items()}
    half = 1 << (whole["shift"] - 1)
    layer = Layer(parts["weight"].astype(np.float64), whole["bias"] + half, whole["shift"])
    found = layer(np.rint(x * 2**10).astype(np.int64)) / 2**9
    np.testing.assert_allclose(found, x @ weight.T + bias, atol=0.3)


@pytest.mark.parametrize("weight", [100.0, np.nan])
def test_a_weight_that_eight_bits_cannot_hold_is_refused(weight):
    with pytest.raises(ValueError, match=r"largest weight is (100|nan), but must be at most 63\.5"):
        quantize_layer(np.array([[1.0, weight]]), None, 8, 8)


def test_a_layer_whose_sums_overflow_is_refused():
    with pytest.raises(ValueError, match=r"sums reach .*, but must stay within 2147483647"):
        quantize_layer(np.ones((1, 2000)), None, 8, 8)


def test_activations_are_limited():
    x = np.array([-40000, -5, 5, 40000])
    assert clip(x).tolist() == [-32767, -5, 5, 32767] and clip(x, 0).tolist() == [0, 0, 5, 32767]
