"""Models of metrics come from the hub's cache, from the hub, or not at all, with a reason."""

import socket
import time
import warnings

import pytest
import torch
from huggingface_hub import constants, snapshot_download

from makers.audio import make_tone
from makers.hub import local_hub
from makers.speech_models import save_wav2vec2, save_wavlm
from tokgen.metrics import backends
from tokgen.metrics.asr.ctc import WAV2VEC2, Wav2Vec2Recogniser
from tokgen.metrics.asr.names import make_recogniser
from tokgen.metrics.backends import find_model, hub_model_in_reach
from tokgen.metrics.speaker import FILES, WAVLM, WavlmEncoder, make_speaker_encoder

RATE = 16000


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub without models, and an empty cache."""
    with local_hub(tmp_path / "home", monkeypatch) as running:
        yield running


@pytest.fixture
def offline(monkeypatch):
    """Set HF_HUB_OFFLINE when called."""
    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_a_speaker_encoder_is_downloaded_once(hub, tmp_path, offline, capfd):
    folder = save_wavlm(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    commit = hub.add("models", WAVLM, folder)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = make_speaker_encoder("auto")
    assert encoder.backend == f"wavlm ({WAVLM}@{commit[:12]})"
    assert not any("pytorch_model" in request for request in hub.requests)
    assert "%" not in "".join(capfd.readouterr())  # the bars of downloads and weights
    hub.requests.clear()
    again = make_speaker_encoder("wavlm")
    assert hub.requests == []
    tone = make_tone(2.0, 0)
    assert torch.equal(again.embed(tone, RATE), encoder.embed(tone, RATE))
    offline()
    assert make_speaker_encoder("auto").backend == encoder.backend


def test_a_recogniser_is_downloaded_once(hub, tmp_path, offline):
    hub.add("models", WAV2VEC2, save_wav2vec2(tmp_path / "model"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = make_recogniser("auto").transcribe(make_tone(1.0, 0), RATE)
    hub.requests.clear()
    offline()
    recogniser = make_recogniser("auto")
    assert isinstance(recogniser, Wav2Vec2Recogniser) and hub.requests == []
    assert recogniser.transcribe(make_tone(1.0, 0), RATE) == text


def test_any_complete_revision_in_the_cache_is_found(hub, tmp_path):
    """A conversion to safetensors in a pull request was downloaded; the main branch has none."""
    folder = save_wavlm(tmp_path / "model")
    converted = hub.add("models", WAVLM, folder)
    hub.repositories[f"models/{WAVLM}"].refs = {"refs/pr/1": converted}
    (folder / "model.safetensors").unlink()
    hub.add("models", WAVLM, folder)
    snapshot_download(WAVLM)
    snapshot_download(WAVLM, revision="refs/pr/1")
    hub.requests.clear()
    assert find_model(WAVLM, FILES).name == converted and hub.requests == []


def test_errors_name_the_fix(hub, offline, monkeypatch):
    with pytest.raises(OSError, match=r"no such model, or it is private.*HF_TOKEN"):
        make_speaker_encoder("wavlm")
    with pytest.raises(OSError, match=r"private/model cannot be downloaded.*HF_TOKEN"):
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        make_recogniser("wav2vec2:private/model")
    offline()
    with pytest.raises(OSError, match=f"unset HF_HUB_OFFLINE.*hf download {WAVLM}"):
        make_speaker_encoder("wavlm")
    with pytest.raises(FileNotFoundError, match="is not in the hub's cache"):
        WavlmEncoder(local_files_only=True)


def test_a_hub_out_of_reach_is_named(hub):
    hub.close()
    with pytest.raises(OSError, match=f"cannot be reached.*hf download {WAVLM}.*HF_TOKEN"):
        make_speaker_encoder("wavlm")


def test_auto_does_not_wait_for_a_silent_hub(hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(backends, "TIMEOUT", 0.5)
        began = time.monotonic()
        with pytest.warns(UserWarning, match="using resemblyzer"):
            make_speaker_encoder("auto")
        assert time.monotonic() - began < 5


def test_a_hub_is_in_reach_if_it_has_the_model(hub, tmp_path, offline):
    assert not hub_model_in_reach(WAVLM)
    hub.add("models", WAVLM, save_wavlm(tmp_path / "model"))
    assert hub_model_in_reach(WAVLM)
    offline()
    assert not hub_model_in_reach(WAVLM)
