"""Wrong types, ranges and layouts of audio and codes are refused with a fix that works."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from makers.audio import codec_tone, make_tone
from makers.codecs import make_encodec
from tokgen.codec.base import Codec
from tokgen.codec.long_audio import decode_blocks, encode_blocks
from tokgen.codec.streaming import StreamDecoder, StreamEncoder
from tokgen.zoo.stft import StftCodec

TONE = make_tone(0.3, 0)[0]  # [4800]


def fix_of(error: pytest.ExceptionInfo, name: str, value: object) -> Tensor:
    """Evaluate the expression that an error suggests for `value`."""
    text = str(error.value)
    assert "\n" not in text
    expression = text.rpartition("pass ")[2].partition(" for ")[0].partition(", or ")[0]
    return eval(expression, {"torch": torch, name: value})


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.uint8, torch.int8, torch.int64])
def test_integers_are_refused(tiny_codec: Codec, dtype: torch.dtype) -> None:
    scale = {torch.int32: 2**31 - 1, torch.uint8: 127, torch.int8: 127}.get(dtype, 32767)
    offset = 128 if dtype == torch.uint8 else 0
    samples = (TONE.double() * scale + offset).round().to(dtype)
    with pytest.raises(TypeError, match=rf"of {dtype}: expected floats in \[-1, 1\]") as error:
        tiny_codec.encode(samples[None, None])
    found = fix_of(error, "x", samples)
    torch.testing.assert_close(found.float(), TONE, atol=0.02, rtol=0)
    with pytest.raises(TypeError, match="expected floats"):
        tiny_codec.encode_batch([samples])
    with pytest.raises(TypeError, match="expected floats"):
        encode_blocks(tiny_codec, [samples[None]])


def test_floats_of_any_width_are_converted(tiny_codec: Codec) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        given = TONE[None, None].to(dtype)
        expected = tiny_codec.encode(given.float())
        assert torch.equal(tiny_codec.encode(given), expected)
        assert torch.equal(tiny_codec.encode_batch([given[0]])[0], expected[0])
    with pytest.raises(TypeError, match="complex64: expected floats"):
        tiny_codec.encode(TONE[None, None].to(torch.complex64))


def test_the_range_is_checked(tiny_codec: Codec) -> None:
    """Clipping overshoots pass, × 100 warns, × 32768 is refused."""
    full_scale = TONE / TONE.abs().max()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for peak in (1.0, 1.2, 4.0, 10.0):
            tiny_codec.encode_batch([peak * full_scale])
    with pytest.warns(UserWarning, match=r"peaks near 100, far outside \[-1, 1\] \(above 10\)"):
        tiny_codec.encode_batch([100 * full_scale])
    with pytest.raises(ValueError, match=r"peaks at 32768: .* at most 1000; .* x / 32768"):
        tiny_codec.encode_batch([-32768 * full_scale])
    with pytest.raises(ValueError, match="peaks at 32768"):
        encode_blocks(tiny_codec, [32768 * full_scale[None]])
    with pytest.raises(ValueError, match="peaks at 32768"):
        StreamEncoder(tiny_codec).push(32768 * full_scale[None, None])


def test_arrays_and_lists_are_refused(tiny_codec: Codec) -> None:
    for given, kind in ((TONE.numpy(), "ndarray of float32"), (TONE.tolist(), "list")):
        with pytest.raises(TypeError, match=f"is a {kind}, not a tensor") as error:
            tiny_codec.encode(given)  # type: ignore[arg-type]
        assert torch.equal(fix_of(error, "x", given), TONE)
        with pytest.raises(TypeError, match="not a tensor"):
            tiny_codec.encode_batch([given])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="not a tensor"):
            encode_blocks(tiny_codec, [given])  # type: ignore[list-item]
    integers = (32768 * TONE).numpy().astype(np.int16)
    with pytest.raises(TypeError, match="ndarray of int16") as error:
        tiny_codec.encode(integers)  # type: ignore[arg-type]
    torch.testing.assert_close(fix_of(error, "x", integers), TONE, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "given",
    [
        TONE,
        TONE[None],
        TONE[:, None],
        TONE[:, None, None],
        TONE[None, :, None],
        torch.stack([TONE, TONE], dim=1),
        torch.stack([TONE, TONE], dim=1)[None],
        torch.stack([TONE, TONE])[None],
    ],
    ids=lambda x: str(list(x.shape)),
)
def test_layouts_of_audio_are_refused(tiny_codec: StftCodec, given: Tensor) -> None:
    with pytest.raises(ValueError, match=r"waveform x of shape \(") as error:
        tiny_codec.encode(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(fix_of(error, "x", given), TONE[None, None])
    if given.ndim < 3 or given.shape[1] != 1:
        with pytest.raises(ValueError, match="of shape"):
            tiny_codec.encode_latents(given)


def test_a_batch_without_a_channel_axis_is_refused(tiny_codec: Codec) -> None:
    batch = torch.stack([TONE] * 3)
    with pytest.raises(ValueError, match=r"shape \(3, 4800\)") as error:
        tiny_codec.encode(batch)
    assert tiny_codec.encode(fix_of(error, "x", batch)).shape == (3, 4, 15)


def test_layouts_of_stereo_audio() -> None:
    codec = make_encodec("encodec-48k")
    stereo = codec_tone(codec, 2000).expand(1, 2, -1)
    for given in (stereo[0], stereo[0].T, stereo.mT):
        with pytest.raises(ValueError, match=r"mono \[B, 1, N\] or \[B, 2, N\]") as error:
            codec.encode(given)
        assert torch.equal(fix_of(error, "x", given), stereo)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (TONE[:, None], r"shape \(4800, 1\): .* x.mean\(1\)"),
        (torch.stack([TONE, TONE]), r"shape \(2, 4800\): .* x.mean\(0\)"),
        (TONE[None, None], r"shape \(1, 1, 4800\): .* list\(x\)"),
        (TONE[0], "a list of waveforms"),
        (TONE[:0], "0 samples"),
    ],
)
def test_layouts_in_batches_are_refused(tiny_codec: Codec, given: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_codec.encode_batch([TONE, given])


def test_batches_of_nothing_and_of_single_samples(tiny_codec: Codec) -> None:
    assert tiny_codec.encode_batch([]) == []
    assert [c.shape for c in tiny_codec.encode_batch([TONE[:1]] * 3)] == [(4, 1)] * 3


@pytest.mark.parametrize("axes", ["kt", "tk", "btk"])
def test_layouts_of_codes_are_refused(tiny_codec: StftCodec, axes: str) -> None:
    codes = tiny_codec.encode(TONE[None, None])  # [1, 4, 15]
    given = {"kt": codes[0], "tk": codes[0].T, "btk": codes.mT}[axes]
    for use in (
        tiny_codec.decode,
        tiny_codec.dequantize,
        tiny_codec.codebook_rows,
        lambda c: list(decode_blocks(tiny_codec, c)),
    ):
        with pytest.raises(ValueError, match=r"takes \[B, K, T\] of 1\.\.4 levels") as error:
            use(given)
        assert torch.equal(fix_of(error, "codes", given), codes)
    if axes != "kt":
        with pytest.raises(ValueError, match=r"of 1\.\.4 levels"):
            tiny_codec.decode_batch([given], [4800])


def test_few_frames_name_both_layouts(tiny_codec: Codec) -> None:
    message = r"pass codes\[None\] for \[K, T\], or pass codes\.T\[None\] for rows \[T, K\]"
    with pytest.raises(ValueError, match=message):
        tiny_codec.decode(torch.zeros(4, 3, dtype=torch.long))


def test_items_of_a_batch_of_codes_are_checked(tiny_codec: Codec) -> None:
    codes = tiny_codec.encode(TONE[None, None])
    with pytest.raises(ValueError, match=r"expected \[K, T\] .* pass codes\[0\]"):
        tiny_codec.decode_batch([codes], [4800])
    with pytest.raises(ValueError, match=r"shape \(15, 4\): .* pass codes\.T for rows \[T, K\]"):
        tiny_codec.decode_batch([codes[0].T], [4800])
    with pytest.raises(ValueError, match="n_samples = 4801"):
        tiny_codec.decode_batch([codes[0]], [4801])


def test_codes_that_are_no_tensor_of_integers_are_refused(tiny_codec: Codec) -> None:
    codes = tiny_codec.encode(TONE[None, None])
    with pytest.raises(TypeError, match="ndarray") as error:
        tiny_codec.decode(codes.numpy())  # type: ignore[arg-type]
    assert torch.equal(fix_of(error, "codes", codes.numpy()), codes)
    for dtype in (torch.bool, torch.complex64, torch.float32):
        with pytest.raises(ValueError, match="expected integers"):
            tiny_codec.decode(codes.to(dtype))
    with pytest.raises(TypeError, match=r"a Tensor, .* pass Encoded\(codes\)"):
        StreamDecoder(tiny_codec).push(codes)  # type: ignore[arg-type]
