"""Exported codecs give the codes of the codec in onnxruntime and torch.export, for any length."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from transformers import DacConfig, DacModel

from makers.codecs import make_dac, make_encodec, make_stft_codec
from tokgen.cli import main as cli
from tokgen.zoo.adapters.dac import DacCodec
from tokgen.zoo.export import files
from tokgen.zoo.export.files import check_files, export_codec
from tokgen.zoo.export.networks import networks_of
from tokgen.zoo.export.settings import names_of


def make_small_dac() -> DacCodec:
    """2 levels of 16 entries; hop 5, an odd stride."""
    config = DacConfig(
        encoder_hidden_size=4, decoder_hidden_size=8, downsampling_ratios=[5], n_codebooks=2,
        codebook_size=16, codebook_dim=4, sampling_rate=8000,
    )  # fmt: skip
    torch.manual_seed(1)
    return DacCodec.from_model(DacModel(config), "small")


MAKERS = {
    "stft": make_stft_codec,
    "causal": lambda: make_stft_codec(causal=True, lookahead=2),
    "dac": make_small_dac,
    "dac-even": lambda: make_dac("dac-even"),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("causal", "dac-even")]


@pytest.mark.parametrize("name", MAKERS)
def test_the_networks_equal_the_codec(name):
    codec = MAKERS[name]()
    encoder, decoder = networks_of(codec)
    for n in (1, 2, codec.spec.hop_length, 4001):
        audio = 0.1 * torch.randn(min(n, 2), 1, n)
        codes = codec.encode(audio)
        with torch.no_grad():
            assert torch.equal(encoder(audio), codes)
            torch.testing.assert_close(decoder(codes), codec.decode(codes), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["stft", "dac", *SLOW])
def test_exported_files_give_the_same_codes(name, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    codec = MAKERS[name]()
    exported = export_codec(codec, tmp_path / "out")
    assert exported.match == 1 and exported.difference < 1e-5 and exported.n_codes > 90
    found = json.loads((tmp_path / "out" / "codec.json").read_text())
    assert found["hop_length"] == codec.spec.hop_length
    assert found["weight_hash"] == codec.spec.weight_hash
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "encoder.onnx"))
    quiet = torch.zeros(3, 1, 777)  # digital silence, in another batch
    (codes,) = session.run(None, {"waveform": quiet.numpy()})
    assert torch.equal(torch.from_numpy(codes), codec.encode(quiet))
    with pytest.raises(FileExistsError, match=r"encoder\.onnx already exists"):
        export_codec(codec, tmp_path / "out")

    other = make_stft_codec(seed=5) if name == "stft" else None
    if other is not None:  # files of another codec are noticed
        assert check_files(other, tmp_path / "out")[1] < 0.9


@pytest.mark.parametrize("name", ["stft", "dac", *SLOW])
def test_loaded_programs_give_equal_codes(name, tmp_path):
    codec = MAKERS[name]()
    hop = codec.spec.hop_length
    exported = export_codec(codec, tmp_path, format="pt2")
    assert exported.match == 1 and exported.difference < 1e-5 and exported.n_codes > 90
    assert "torch.export.load: 100.00 %" in str(exported)
    assert set(exported.sizes) == {"encoder.pt2", "decoder.pt2", "codec.json"}
    encode, decode = (
        torch.export.load(tmp_path / f"{part}.pt2").module() for part in ("encoder", "decoder")
    )
    networks = networks_of(codec)
    generator = torch.Generator().manual_seed(3)
    for batch, n in ((1, hop + 1), (1, 3 * hop), (3, 4001), (2, 16 * hop - 1)):
        audio = 0.1 * torch.randn(batch, 1, n, generator=generator)
        codes = codec.encode(audio)
        assert encode(audio).equal(codes)
        torch.testing.assert_close(decode(codes), codec.decode(codes), atol=1e-5, rtol=0)
        with torch.no_grad():
            assert encode(audio).equal(networks[0](audio))
    with pytest.raises((AssertionError, RuntimeError), match=r"Guard failed|>="):
        encode(torch.zeros(1, 1, hop))  # one frame: the documented limit
    one = codec.encode(torch.zeros(1, 1, hop))
    torch.testing.assert_close(decode(one), codec.decode(one), atol=1e-5, rtol=0)


def test_formats_share_a_folder_of_one_codec(tmp_path, monkeypatch):
    def write(format, network, example, given, found, path):
        path.write_bytes(format.encode())

    monkeypatch.setattr(files, "write_program", write)
    monkeypatch.setattr(files, "require_format", lambda _: None)
    monkeypatch.setattr(files, "check_files", lambda *_: (100, 1.0, 0.0))
    codec = make_stft_codec()
    export_codec(codec, tmp_path)
    export_codec(codec, tmp_path, format="pt2")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "codec.json", "decoder.onnx", "decoder.pt2", "encoder.onnx", "encoder.pt2",
    ]  # fmt: skip
    with pytest.raises(FileExistsError, match=r"encoder\.pt2 already exists"):
        export_codec(codec, tmp_path, format="pt2")
    for name in ("encoder.pt2", "decoder.pt2"):
        (tmp_path / name).unlink()
    other = make_stft_codec(5, "other")
    with pytest.raises(ValueError, match="does not have the numbers of other: give another folder"):
        export_codec(other, tmp_path, format="pt2")
    with pytest.raises(ValueError, match=r"or delete encoder\.onnx and decoder\.onnx first"):
        export_codec(other, tmp_path, format="pt2", overwrite=True)
    for name in ("encoder.onnx", "decoder.onnx"):
        (tmp_path / name).unlink()
    export_codec(other, tmp_path, format="pt2", overwrite=True)
    with pytest.raises(ValueError, match="format 'tflite': known are onnx, pt2"):
        export_codec(codec, tmp_path, format="tflite")


def test_a_wrong_export_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "require_format", lambda _: None)
    monkeypatch.setattr(files, "write_program", lambda *_: _[-1].write_bytes(b""))
    monkeypatch.setattr(files, "check_files", lambda *_: (100, 0.5, 0.0))
    with pytest.raises(ValueError, match=r"only 50\.0 % of the codes are those of tiny"):
        export_codec(make_stft_codec(), tmp_path)


def test_other_codecs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="only tokgen's STFT codecs and transformers' DAC"):
        export_codec(make_encodec("encodec-24k"), tmp_path / "out", format="pt2")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_check(tiny_codec_folder, tmp_path, monkeypatch, capsys):
    def export(codec, out, *, format, overwrite):
        spec = replace(make_stft_codec().spec, name=codec)
        return files.Exported(out, spec, {"encoder.onnx": 2_000_000}, 100, 0.99, 1e-6, format)

    monkeypatch.setattr(files, "export_codec", export)
    words = ["export", str(tiny_codec_folder), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert "onnxruntime: 99.00 % of 100 codes equal" in capsys.readouterr().out
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / names_of("onnx")[1]).touch()
    assert cli.main(words) == 2
    assert "decoder.onnx already exists" in capsys.readouterr().err
    assert cli.main([*words, "--format", "pt2"]) == 0
    assert "torch.export.load: 99.00 %" in capsys.readouterr().out
