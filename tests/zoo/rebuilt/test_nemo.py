"""NeMo's codecs load from .nemo files, and give the codes and audio of NeMo's modules."""

from __future__ import annotations

import copy
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from makers.audio import make_tone
from makers.rebuilt import NEMO, make_nemo, nemo_weights, write_nemo
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.zoo.lookup import load_codec, read_card
from tokgen.zoo.rebuilt.nemo import NemoCodec


@pytest.fixture(params=list(NEMO))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 11025, 0, 11025)[None][..., :n_samples]


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [8, 31])
def test_equals_nemo(name: str, n_frames: int) -> None:
    import_torchaudio()  # NeMo imports it
    place = "nemo.collections.tts.modules.audio_codec_modules"
    modules = pytest.importorskip(place, exc_type=ImportError)

    def instance(part: dict[str, Any]) -> nn.Module:
        kind = part["_target_"].rsplit(".", 1)[1]
        rest = {k: v for k, v in part.items() if k != "_target_"}
        inner = {k: instance(v) for k, v in rest.items() if isinstance(v, dict)}
        return getattr(modules, kind)(**rest | inner)

    theirs = nn.Module()
    for part in ("audio_encoder", "vector_quantizer", "audio_decoder"):
        setattr(theirs, part, instance(NEMO[name][part]))
    weights = {k: v for k, v in nemo_weights(name).items() if "discriminator" not in k}
    theirs.eval().load_state_dict(weights)
    codec = make_nemo(name)
    hop = codec.spec.hop_length
    waveform = tone(n_frames * hop)
    # NeMo 2.5 and later count a frame less of a spectrogram, and mask the last one
    length = torch.tensor([waveform.shape[-1] + (hop if name == "nemo-mel" else 0)])
    encoded, _ = theirs.audio_encoder(audio=waveform[:, 0], audio_len=length)
    frames = torch.tensor([n_frames])
    indices = theirs.vector_quantizer.encode(inputs=encoded, input_len=frames)
    codes = codec.encode(waveform)
    assert torch.equal(codes, indices.permute(1, 0, 2).long())
    quantized = theirs.vector_quantizer.decode(indices=indices, input_len=frames)
    audio, _ = theirs.audio_decoder(inputs=quantized, input_len=frames)
    torch.testing.assert_close(codec.decode(codes)[0], audio, atol=1e-4, rtol=0)
    assert audio.std() > 0.001


def test_indices_and_values_of_the_quantizer() -> None:
    """The first dimension is the least significant digit; the middle of a range is 0."""
    codec = make_nemo("nemo-mel")
    codes = torch.tensor([[[0, 1, 8, 999, 4 + 8 * (2 + 5 * (2 + 5 * 2))]]])
    found = codec.model.dequantize(codes)[0, :4].T.tolist()
    lowest = [[-1, -1, -1, -1], [-0.75, -1, -1, -1], [-1, -0.5, -1, -1]]
    assert found == [*lowest, [0.75, 1, 1, 1], [0, 0, 0, 0]]
    assert codec.model.dequantize(codes).shape == (1, 8, 5)
    every = torch.arange(1000)[None, None].expand(1, 2, -1)
    latents = _inverse(codec.model.dequantize(every))
    assert torch.equal(codec.model.quantize(latents), every)


def _inverse(values: Tensor) -> Tensor:
    """Latents that the quantizer maps to values of its grid."""
    sizes = torch.tensor([8, 5, 5, 5] * 2)[:, None]
    scale = (sizes - 1) / 2 * (1 - 1e-3)
    offset = torch.where(sizes % 2 == 0, 0.5, 0)
    bent = ((values * (sizes // 2) + offset) / scale).clamp(-0.999, 0.999)
    return bent.atanh() - (offset / scale).tan()


def test_few_frames_are_padded(name: str) -> None:
    codec = make_nemo(name)
    hop, least = codec.spec.hop_length, codec.model.min_frames
    assert least > 2
    waveform = tone(2 * hop)
    padded = torch.cat([waveform, torch.zeros(1, 1, (least - 2) * hop)], dim=-1)
    codes = codec.encode(waveform)
    assert torch.equal(codes, codec.encode(padded)[..., :2])
    longer = torch.cat([codes, codes[..., -1:].expand(-1, -1, least - 2)], dim=-1)
    audio = codec.decode(longer)[..., : 2 * hop]
    torch.testing.assert_close(codec.decode(codes), audio)


def test_saves_and_loads(name: str, tmp_path: Path) -> None:
    codec = make_nemo(name)
    assert isinstance(codec, NemoCodec)
    codec.save_pretrained(tmp_path / "mine")
    loaded = load_codec(tmp_path / "mine")
    waveform = tone(5000)
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    assert torch.equal(loaded.encode(waveform), codec.encode(waveform))
    assert torch.equal(loaded.roundtrip(waveform), codec.roundtrip(waveform))


def test_the_card_of_a_folder(tmp_path: Path) -> None:
    write_nemo(tmp_path, NEMO["nemo-nano"], nemo_weights("nemo-nano"))
    spec = read_card(tmp_path).spec
    assert (spec.sample_rate, spec.hop_length) == (11025, 336)
    assert (spec.n_codebooks, spec.codebook_size) == (2, 504)


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return settings in which one value differs."""
    settings = copy.deepcopy(NEMO["nemo-mel"])
    *parts, last = path.split(".")
    inner = settings
    for part in parts:
        inner = inner[part]
    inner[last] = value
    return settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (b"a: [", r"model_config\.yaml cannot be read"),
        (b"- 1", "holds a list, not settings"),
        ({"sample_rate": 1}, "lacks or misspells 'samples_per_frame'"),
        (
            changed("audio_encoder._target_", "nemo.SEANetEncoder"),
            "which tokgen cannot run; it runs",
        ),
        (changed("vector_quantizer._target_", "x.ResidualVectorQuantizer"), "it runs Group"),
        (changed("output_sample_rate", 44100), "tokgen runs codecs whose rates are equal"),
        (changed("semantic_codec", {"a": 1}), "does not run codecs with a semantic codec"),
        (changed("audio_decoder.new", 1), r"settings that tokgen does not know: \['new'\]"),
        (changed("audio_decoder.output_activation", "sine"), "must be tanh or clamp"),
        (changed("audio_decoder.base_channels", 8), "weights do not fit model_config.yaml"),
        (changed("audio_encoder.num_layers", 10**9), "more than"),
        (changed("vector_quantizer.num_levels_per_group", [8, 5, 5]), "num_levels differs in"),
        (changed("sample_rate", "high"), "is not of type int|must be an integer"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: Any, message: str) -> None:
    write_nemo(tmp_path, settings, nemo_weights("nemo-mel"))
    with pytest.raises(ValueError, match=message):
        load_codec(tmp_path)


def test_files_that_are_no_codec_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "codec.nemo"
    path.write_bytes(b"no tar")
    with pytest.raises(ValueError, match=r"codec\.nemo is not a \.nemo file"):
        load_codec(tmp_path)
    with tarfile.open(path, "w:") as archive:
        link = tarfile.TarInfo("model_config.yaml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(ValueError, match="is not a regular file"):
        load_codec(tmp_path)
    with tarfile.open(path, "w:") as archive:
        for i in range(1001):
            archive.addfile(tarfile.TarInfo(f"{i}"), io.BytesIO())
    with pytest.raises(ValueError, match="more than 1000 files"):
        load_codec(tmp_path)
    write_nemo(tmp_path, b"a: 1 #" + b"x" * (1 << 20), {})
    with pytest.raises(ValueError, match="bytes, over"):
        load_codec(tmp_path)
    write_nemo(tmp_path, NEMO["nemo-mel"], {"a": "text"})
    with pytest.raises(ValueError, match=r"model_weights\.ckpt: 'a' is a str, not a tensor"):
        load_codec(tmp_path)
    (tmp_path / "other.nemo").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds several codecs \(codec\.nemo, other\.nemo\)"):
        load_codec(tmp_path)
