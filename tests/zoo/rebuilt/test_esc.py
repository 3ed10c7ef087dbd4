"""ESC gives the codes and the audio of its published code, for every length."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from makers.audio import make_tone
from makers.rebuilt import ESC, codec_in, esc_weights, write_esc
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.base import Codec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.rebuilt.esc import CHECKPOINT, SETTINGS, Esc

FULL: dict[str, Any] = {
    "h_dims": [6, 8, 12, 16],
    "max_streams": 4,
    "swin_heads": [2, 4, 4],
    "swin_depth": 3,
    "group_size": 3,
    "codebook_dims": [6, 4, 4, 2],
}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return codec_in(write_esc, "esc")


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 8000, 0, 8000)[None][..., :n_samples]


@torch.inference_mode()
@pytest.mark.parametrize("settings", [{}, FULL, {"l2norm": False, "overlap": 3}], ids=str)
@pytest.mark.parametrize("n_frames", [1, 2, 11])
def test_equals_the_published_code(tmp_path: Path, settings: dict[str, Any], n_frames: int) -> None:
    import_torchaudio()  # the published code imports it
    package = pytest.importorskip("esc.models.codecs", exc_type=ImportError)
    theirs = package.ESC(**ESC | settings).eval()
    weights = esc_weights(**settings)
    index = {k: v for k, v in theirs.state_dict().items() if k.endswith("position_index")}
    theirs.load_state_dict(weights | index)
    write_esc(tmp_path, **settings)
    codec = load_codec(tmp_path)
    hop, groups = codec.spec.hop_length, codec.model.config["group_size"]
    waveform = tone(n_frames * hop)
    for n_streams in range(1, codec.spec.n_codebooks // groups + 1):
        found, shape = theirs.encode(waveform[:, 0], n_streams)
        codes = codec.encode(waveform, n_streams * groups)
        assert torch.equal(codes, found.flatten(1, 2))
        audio = theirs.decode(found, shape)
        assert audio.shape[-1] == n_frames * hop - 40  # of 80 at 16 kHz
        ours = codec.decode(codes)
        torch.testing.assert_close(ours[:, 0, :-40], audio, atol=1e-4, rtol=0)
        assert n_frames < 2 or audio.std() > 0.01


def test_the_last_samples_are_decoded(codec: Codec) -> None:
    audio = codec.roundtrip(tone(1600))
    assert audio[..., -40:].std() > 0.1 * audio.std()


def test_a_bitrate_selects_streams(codec: Codec, tmp_path: Path) -> None:
    write_esc(tmp_path)
    waveform = tone(4000)
    assert (codec.spec.n_codebooks, codec.spec.hop_length, codec.spec.bitrate) == (6, 160, 1500)
    less = load_codec(f"{tmp_path}:1")
    assert (less.spec.n_codebooks, less.spec.bitrate) == (4, 1000)
    codes = less.encode(waveform)
    assert torch.equal(codes, codec.encode(waveform)[:, :4])
    assert torch.equal(less.decode(codes), codec.decode(codes))
    with pytest.raises(ValueError, match=r"the model has 0\.5, 1, 1\.5"):
        load_codec(f"{tmp_path}:2")


@torch.inference_mode()
def test_missing_groups_are_zeros(codec: Codec) -> None:
    codes = codec.encode(tone(1600))
    stream = codec.model.quantizers[1]
    some, whole = stream.decode(codes[:, 2:3], 8), stream.decode(codes[:, 2:4], 8)
    vectors = [x.permute(0, 2, 3, 1).reshape(1, 10, -1) for x in (some, whole)]
    first = stream.sizes[0]
    assert torch.equal(vectors[0][..., :first], vectors[1][..., :first])
    assert not vectors[0][..., first:].any() and vectors[1][..., first:].any()


def test_saves_and_loads(codec: Codec, tmp_path: Path) -> None:
    assert isinstance(codec, Esc)
    codec.save_pretrained(tmp_path / "mine")
    loaded = load_codec(tmp_path / "mine")
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    assert torch.equal(loaded.encode(tone(5000)), codec.encode(tone(5000)))


def test_a_state_dict_alone_loads(codec: Codec, tmp_path: Path) -> None:
    write_esc(tmp_path)
    torch.save(esc_weights(), tmp_path / CHECKPOINT)
    assert load_codec(tmp_path).spec.weight_hash == codec.spec.weight_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "convolution"}, "backbone = 'convolution': tokgen runs 'transformer'"),
        ({"num_rvqs": 6}, r"settings that tokgen does not know: \['num_rvqs'\]"),
        ({"max_streams": 2}, "max_streams = 2: tokgen runs 3"),
        ({"in_freq": 97}, "in_freq = 97: must be a multiple of 12"),
        ({"swin_heads": [2]}, "3 h_dims, 1 swin_heads and 3 codebook_dims"),
        ({"swin_heads": [4, 4]}, "4 heads for 6 channels"),
        ({"win_len": 40}, "windows of 320 samples"),
        ({"hop_len": 11}, "win_length = 160: must be 2 [*] hop_length = 176 to 190"),
        ({"overlap": 1}, "at least in_freq = 96"),
        ({"codebook_size": 33}, "(?s)do not fit|codebook_size"),
        ({"sr": "fast"}, "a setting is wrong"),
        ({"h_dims": 3}, "a setting is wrong"),
        ({"group_size": 10**9}, "group_size = 1000000000"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_esc(tmp_path)
    (tmp_path / SETTINGS).write_text(yaml.safe_dump({"model": ESC | changes}))
    with pytest.raises(ValueError, match=message):
        load_codec(tmp_path)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_esc(tmp_path)
    state = esc_weights()
    name = "decoder.post_nn.swint_blocks.0.norm1.weight"
    for wrong, message in (
        ({k: v for k, v in state.items() if k != name}, f"lacks {name}"),
        (state | {"more": torch.zeros(1)}, "unknown tensors more"),
        (state | {name: state[name] * math.nan}, "holds NaN"),
        ({"model_state_dict": 3}, "holds a int, not a state dict"),
    ):
        torch.save(wrong, tmp_path / CHECKPOINT)
        with pytest.raises(ValueError, match=rf"(?s)model\.pth.*{message}"):
            load_codec(tmp_path)
    for text, message in (("3", "holds a int"), ("a: 1", "it is not ESC's"), ("{", "be read")):
        (tmp_path / SETTINGS).write_text(text)
        with pytest.raises(ValueError, match=rf"config\.yaml.*{message}"):
            load_codec(tmp_path)
