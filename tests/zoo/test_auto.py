"""transformers' Auto classes open the STFT codec, whichever is imported first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tokgen
from makers.audio import make_tone
from makers.paths import ROOT
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.zoo.stft import StftCodec

import_torchaudio()  # transformers imports it
from transformers import (  # noqa: E402
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoProcessor,
    PreTrainedModel,
)

AutoModelForAudioTokenization = pytest.importorskip("transformers").AutoModelForAudioTokenization

TOKGEN = """
import tokgen
heavy = {"torch", "transformers", "numpy"} & set(sys.modules)
assert "transformers" in done or not heavy, heavy
"""
TRANSFORMERS = "from transformers import AutoConfig, AutoModelForAudioTokenization\n"
CHECK = """
import torch
config = AutoConfig.from_pretrained(sys.argv[1])
assert config.model_type == "tokgen_stft_codec" and config.sampling_rate == 16000
model = AutoModelForAudioTokenization.from_pretrained(sys.argv[1])
waveform = torch.randn(2, 1, 5000, generator=torch.Generator().manual_seed(0)) / 10
codes = model.encode(waveform).audio_codes
assert torch.equal(codes, tokgen.load_codec(sys.argv[1]).encode(waveform))
print("equal", tuple(codes.shape))
"""


@pytest.mark.parametrize("first", ["tokgen", "transformers"])
def test_both_orders_of_import(first: str, tiny_codec_folder: Path) -> None:
    parts = {"tokgen": TOKGEN, "transformers": TRANSFORMERS}
    order = [first, *(name for name in parts if name != first)]
    script = "import sys\ndone = set()\n"
    script += "".join(f"{parts[name]}done.add({name!r})\n" for name in order) + CHECK
    command = [sys.executable, "-c", script, str(tiny_codec_folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "equal (2, 4, 16)", done.stderr


def test_padding_changes_no_codes(tiny_codec: StftCodec, tiny_codec_folder: Path) -> None:
    extractor = AutoFeatureExtractor.from_pretrained(tiny_codec_folder)
    assert type(AutoProcessor.from_pretrained(tiny_codec_folder)) is type(extractor)
    model = AutoModelForAudioTokenization.from_pretrained(tiny_codec_folder)
    clips = [make_tone(seconds, 0)[0].numpy() for seconds in (0.5, 0.31)]
    inputs = extractor(clips, sampling_rate=16000, padding=True, return_tensors="pt")
    codes = model.encode(**inputs).audio_codes
    alone = tiny_codec.encode(torch.from_numpy(clips[1])[None, None])
    assert torch.equal(codes[1:, :, : alone.shape[-1]], alone)
    decoded = model.decode(codes, inputs["padding_mask"]).audio_values
    assert decoded.shape == (2, 1, len(clips[0]))
    out = model(**inputs)
    assert torch.equal(out.audio_codes, codes) and torch.equal(out.audio_values, decoded)
    assert model.encode(**inputs, n_quantizers=2).audio_codes.shape[1] == 2
    left = torch.from_numpy(np.flip(inputs["padding_mask"].numpy(), -1).copy())
    with pytest.raises(ValueError, match="pad on the right"):
        model.encode(inputs["input_values"], left)


def test_a_model_of_transformers(tiny_codec: StftCodec, tiny_codec_folder: Path, tmp_path: Path):
    model = AutoModel.from_pretrained(tiny_codec_folder, device_map="cpu")
    assert isinstance(model, PreTrainedModel) and not model.training
    model.save_pretrained(tmp_path / "again")
    again = tokgen.load_codec(tmp_path / "again")
    loaded = AutoModel.from_pretrained(tmp_path / "again")
    waveform = make_tone(0.4, 0)[None]
    assert torch.equal(loaded.encode(waveform).audio_codes, again.encode(waveform))
    assert again.spec.weight_hash == tokgen.load_codec(tiny_codec_folder).spec.weight_hash
    config = AutoConfig.from_pretrained(tiny_codec_folder)
    new = type(model)(config)
    assert new.encode(waveform).audio_codes.shape == model.encode(waveform).audio_codes.shape


def test_what_would_change_codes_is_refused(tiny_codec_folder: Path) -> None:
    with pytest.raises(ValueError, match="only float32"):
        AutoModel.from_pretrained(tiny_codec_folder, dtype=torch.float16)
    with pytest.raises(TypeError, match="has no quantization_config"):
        AutoModel.from_pretrained(tiny_codec_folder, quantization_config={"load_in_8bit": True})
    config = AutoConfig.from_pretrained(tiny_codec_folder)
    config.width = 32
    with pytest.raises(ValueError, match="config has width = 32, but the weights 16"):
        AutoModel.from_pretrained(tiny_codec_folder, config=config)
