"""Streams coded with a trained integer model that lies beside its codec."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import make_variable, with_noise
from tokgen.bitstream.compressed import compress, decompress
from tokgen.bitstream.decompressing import check_header
from tokgen.bitstream.entropy_models import choose_model, load_model, mode_of
from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.layout import header_length, pack_header, parse_header
from tokgen.codec.base import Codec
from tokgen.corpus.listed import open_corpus
from tokgen.modelling.causal_depth import CausalDepthNetwork
from tokgen.modelling.integer_depth import IntegerDepthNetwork
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.stft import StftCodec


@pytest.fixture
def codec(tiny_codec_folder: Path, tmp_path: Path) -> Any:
    """The tiny codec with an untrained model in its folder `entropy`."""
    shutil.copytree(tiny_codec_folder, tmp_path / "tiny")
    sizes = {"dim": 16, "hidden": 16, "dilations": (1, 2), "code_dim": 8, "level_hidden": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CausalDepthNetwork(n_codebooks=4, codebook_size=60, head_dim=8, **sizes)
    sample = torch.randint(0, 60, (2, 4, 20), generator=torch.Generator().manual_seed(1))
    model = IntegerDepthNetwork.from_float(network.eval(), sample)
    model.save_pretrained(tmp_path / "tiny" / "entropy")
    return load_codec(tmp_path / "tiny", device="cpu")


@pytest.mark.parametrize("levels", [2, 4])
def test_the_model_beside_a_codec_is_used(codec: Codec, levels: int) -> None:
    waveform = torch.as_tensor(make_tone(1.0, 0)).reshape(1, 1, -1)
    mode, model = choose_model(codec)
    assert mode == "model" and isinstance(model, EntropyModel)
    data = compress(waveform, codec, n_codebooks=levels, block_seconds=0.3)
    assert data == compress(waveform, codec, n_codebooks=levels, block_seconds=0.3, entropy=model)
    assert data[5] == 3 and data[41:49].hex() == model.model_hash[:16]
    found = decompress(data, codec)
    assert torch.equal(found.waveform, codec.roundtrip(waveform, levels)) and not found.problems


def test_a_codec_with_another_decoder_decodes_a_stream(
    codec: StftCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waveform = torch.as_tensor(make_tone(1.0, 0)).reshape(1, 1, -1)
    data, tuned = compress(waveform, codec), with_noise(codec, "decoder")
    header, crc = parse_header(data[: header_length(data)])
    assert header.mode == "model" and header.encoder_hash == codec.spec.encoder_hash[:16]
    assert pack_header(header) == (data[: header_length(data)], crc)
    with pytest.raises(ValueError, match="is not beside the codec 'noisy'"):
        decompress(data, tuned)
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path))  # has the codec that the stream names
    found = decompress(data, tuned).waveform
    assert found.equal(tuned.decode(codec.encode(waveform), waveform.shape[-1]))
    with pytest.raises(ValueError, match=r"'tiny' \(encoder \w+\), not by 'noisy' \(encoder"):
        check_header(header, with_noise(codec, "quantizer"))

    old = replace(header, encoder_hash="")  # of an older version
    shorter = pack_header(old)[0]
    assert len(shorter) == header_length(data) - 8 and parse_header(shorter)[0] == old
    check_header(old, codec)
    with pytest.raises(ValueError, match=r"'tiny' \(weights \w+\), not by 'noisy' \(weights"):
        check_header(old, tuned)


def test_a_variable_bitrate_does_without_trained_models(codec: Codec, tmp_path: Path) -> None:
    model = choose_model(codec)[1]
    variable = make_variable(None)
    variable.loaded_from = str(tmp_path / "tiny"), None  # beside the model
    waveform = torch.as_tensor(make_tone(1.0, 0)).reshape(1, 1, -1)
    assert compress(waveform, variable)[5] == 3 and compress(waveform, variable, level=1.0)[5] == 0
    for entropy in ("model", model):
        with pytest.raises(ValueError, match=r"entropy = model: .* varies; use entropy = packed"):
            compress(waveform, variable, entropy=entropy, level=1.0)


def test_models_are_loaded_by_their_folder(codec: Codec, tmp_path: Path) -> None:
    model = load_model(tmp_path / "tiny" / "entropy")
    assert mode_of(model) == "model"
    assert model.model_hash == choose_model(codec, "model")[1].model_hash
    with pytest.raises(FileNotFoundError, match="no entropy model: none"):
        load_model("none")


def test_the_model_of_speech_16k_saves_a_tenth_of_real_speech() -> None:
    codec = load_codec("speech-16k", device="cpu")
    corpus = open_corpus("recipes/data/allison", split="test")
    sizes = {"auto": 0, "packed": 0}
    for entry in corpus.entries[:4]:
        waveform = corpus.load(entry, 16000).waveform[None]
        for entropy in sizes:
            sizes[entropy] += len(compress(waveform, codec, entropy=entropy))
        found = decompress(compress(waveform, codec), codec)
        assert torch.equal(found.waveform, codec.roundtrip(waveform)) and not found.problems
    assert sizes["auto"] < 0.9 * sizes["packed"]
