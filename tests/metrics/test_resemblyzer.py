"""The speaker encoder equals Resemblyzer 0.1.4 to its rounding; its weights are converted."""

import os
import pickle
import runpy
import warnings
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from makers.audio import make_tone
from makers.paths import ALLISON, ROOT
from tokgen.corpus.listed import open_corpus
from tokgen.metrics.resemblyzer import WEIGHTS, ResemblyzerNetwork
from tokgen.metrics.speaker import LEVEL, ResemblyzerEncoder

RATE = 16000
GOLDEN = ROOT / "tests/metrics/resemblyzer.safetensors"  # of Resemblyzer's embed_utterance
CONVERTER = runpy.run_path(str(ROOT / "recipes/data/convert_resemblyzer.py"))


@pytest.fixture(scope="module")
def clips():
    """Clips of speech, and clips of odd lengths and levels, [1, N] at 16 kHz."""
    speech = list(open_corpus(ALLISON, split="test").utterances(RATE, rejected=[]))
    return {
        "clip_0": speech[0].waveform,
        "clip_5": speech[5].waveform,
        "clip_11": speech[11].waveform,
        "one_second": make_tone(1.0, 0),
        "excerpt": make_tone(1.6, 1),
        "excerpt_and_a_sample": torch.cat([make_tone(1.6, 1), make_tone(1.0, 2)[:, :1]], -1),
        "long": make_tone(30.0, 2),
        "quiet": 3e-3 * make_tone(2.5, 4),
        "noise": 0.1 * torch.randn(1, 40000, generator=torch.Generator().manual_seed(0)),
    }


@pytest.mark.parametrize("name", load_file(GOLDEN))
def test_embeddings_equal_those_of_the_package(name, clips):
    golden = load_file(GOLDEN)[name]
    torch.testing.assert_close(
        ResemblyzerEncoder().embed(clips[name], RATE), golden, rtol=0, atol=1e-3
    )


@pytest.mark.slow
def test_any_length_equals_the_package():
    """The installed package, if there is one, agrees at lengths around the limits of excerpts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports deprecated modules
        package = pytest.importorskip("resemblyzer", exc_type=ImportError)
    theirs, ours = package.VoiceEncoder("cpu", verbose=False).eval(), ResemblyzerEncoder()
    whole = make_tone(4.0, 0)
    for n in range(RATE, whole.shape[-1], 1117):
        clip = whole[:, :n]
        levelled = package.normalize_volume(clip[0].numpy(), LEVEL)
        expected = torch.from_numpy(theirs.embed_utterance(levelled))
        torch.testing.assert_close(ours.embed(clip, RATE), expected, rtol=0, atol=1e-3)


def make_wheel(path, content):
    with zipfile.ZipFile(path, "w") as wheel, wheel.open(CONVERTER["PICKLE"], "w") as file:
        torch.save({"model_state": content}, file)
    return path


def test_the_converter_keeps_the_networks_weights(tmp_path):
    weights = ResemblyzerNetwork(width=4).state_dict()
    wheel = make_wheel(tmp_path / "a.whl", weights | {"similarity_bias": torch.zeros(1)})
    assert CONVERTER["main"]([str(wheel), "--out", str(tmp_path / "out/a.safetensors")]) == 0
    kept = load_file(tmp_path / "out/a.safetensors")
    assert kept.keys() == weights.keys()
    assert all(torch.equal(kept[name], weight.half()) for name, weight in weights.items())


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_the_converter_runs_no_code_of_the_pickle(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    wheel = make_wheel(tmp_path / "a.whl", Canary(str(tmp_path / "canary")))
    with pytest.raises(pickle.UnpicklingError):
        CONVERTER["main"]([str(wheel), "--out", str(tmp_path / "a.safetensors")])
    assert not (tmp_path / "canary").exists()


def test_the_weights_name_their_source_and_licence():
    with safe_open(WEIGHTS, "pt") as file:
        about = file.metadata()
    assert about["license"] == "apache-2.0" and "Resemblyzer 0.1.4" in about["source"]
    assert "Resemble.AI" in WEIGHTS.with_name("README.md").read_text()
    assert set(load_file(WEIGHTS)) == set(ResemblyzerNetwork().state_dict())
