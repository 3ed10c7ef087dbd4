"""Speaker similarity: same and other voices, failures, and the loading of encoders."""

import math
import types
import warnings

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from makers.audio import make_tone
from makers.paths import ALLISON
from makers.speech_models import save_wavlm
from tokgen.audio.resampling import resample
from tokgen.corpus.listed import open_corpus
from tokgen.metrics import backends
from tokgen.metrics.speaker import (
    FILES,
    ResemblyzerEncoder,
    WavlmEncoder,
    make_speaker_encoder,
    speaker_similarity,
)

RATE = 16000


@pytest.fixture(scope="module")
def clips():
    """Four clips of one speaker, [1, N] at 16 kHz."""
    found = open_corpus(ALLISON, split="test", max_seconds=5).utterances(RATE, rejected=[])
    return [clip.waveform for clip, _ in zip(found, range(4), strict=False)]


@pytest.fixture(scope="module")
def encoder():
    return make_speaker_encoder("resemblyzer")


@pytest.fixture
def wavlm_folder(tmp_path):
    return save_wavlm(tmp_path / "model")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Make an empty hub cache and an unreachable hub; return the path of a WavLM snapshot."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(backends, "hub_model_in_reach", lambda name: False)
    return tmp_path / "hub/models--microsoft--wavlm-base-plus-sv/snapshots" / ("0123456789ab" * 2)


def test_one_speaker_is_closer_than_another(encoder, clips):
    embeddings = [encoder.embed(clip, RATE) for clip in clips]
    same = [speaker_similarity(a, b) for a in embeddings for b in embeddings if a is not b]
    # Slower playback lowers pitch and formants, like another voice.
    low = [encoder.embed(clip, 12000) for clip in clips]
    other = [speaker_similarity(a, b) for a in embeddings for b in low]
    tone = encoder.embed(make_tone(2.0, 0), RATE)
    assert min(same) > 0.78 > max(other)
    assert max(speaker_similarity(a, tone) for a in embeddings) < 0.6


def test_similarity_to_itself_is_one_and_falls_with_noise(encoder, clips):
    clean = encoder.embed(clips[0], RATE)
    assert clean.dtype == torch.float32 and clean.norm().item() == pytest.approx(1, abs=1e-6)
    assert speaker_similarity(clean, clean) == pytest.approx(1, abs=1e-6)
    noise = torch.randn(clips[0].shape, generator=torch.Generator().manual_seed(0))
    noisy = [encoder.embed(clips[0] + a * noise, RATE) for a in (0.001, 0.01, 0.1)]
    similarities = [1, *(speaker_similarity(clean, each) for each in noisy)]
    assert similarities == sorted(similarities, reverse=True) and similarities[-1] < 0.7


def test_level_and_rate_do_not_change_the_speaker(encoder, clips):
    clip, clean = clips[0], encoder.embed(clips[0], RATE)
    for gain in (0.25, -1.0, 1 / 30):
        assert speaker_similarity(clean, encoder.embed(gain * clip, RATE)) > 0.9999
    upsampled = encoder.embed(resample(clip, RATE, 44100), 44100)
    assert speaker_similarity(clean, upsampled) > 0.98


def test_embeddings_do_not_depend_on_earlier_clips(encoder, clips):
    first = encoder.embed(clips[0], RATE)
    encoder.embed(clips[1], RATE)
    assert torch.equal(encoder.embed(clips[0].flatten(), RATE), first)
    assert torch.equal(ResemblyzerEncoder().embed(clips[0], RATE), first)


def test_only_the_first_thirty_seconds_count(encoder, clips):
    long = torch.cat([torch.cat(clips, -1)] * 6, -1)[:, : 40 * RATE]
    assert long.shape[-1] > 31 * RATE
    assert torch.equal(encoder.embed(long, RATE), encoder.embed(long[:, : 30 * RATE], RATE))


def broken_clips():
    speech = make_tone(2.0, 0)
    here = torch.arange(speech.shape[-1]) == 99
    return {
        "no samples": speech[:, :0],
        "too short": speech[:, : RATE - 1],
        "silence": torch.zeros(1, 2 * RATE),
        "constant": torch.full((1, 2 * RATE), 0.5),
        "rounding noise": 1e-5 * speech,
        "nan": torch.where(here, math.nan, speech),
        "infinity": torch.where(here, math.inf, speech),
        "nan after 30 s": torch.cat([*[speech] * 16, torch.full((1, 1), math.nan)], -1),
    }


@pytest.mark.parametrize("kind", broken_clips())
@pytest.mark.parametrize("backend", ["resemblyzer", "wavlm"])
def test_clips_without_voice_have_no_similarity(kind, backend, encoder, wavlm_folder):
    judge = encoder if backend == "resemblyzer" else WavlmEncoder(str(wavlm_folder))
    embedding = judge.embed(broken_clips()[kind], RATE)
    assert embedding is None
    whole = judge.embed(make_tone(1.0, 0), RATE)
    assert whole is not None
    assert math.isnan(speaker_similarity(whole, embedding))
    assert math.isnan(speaker_similarity(embedding, whole))


def test_embeddings_of_two_encoders_do_not_compare():
    with pytest.raises(ValueError, match=r"\(4,\) and \(5,\)"):
        speaker_similarity(torch.ones(4), torch.ones(5))
    assert speaker_similarity(torch.tensor([1.0, 0]), torch.tensor([-3.0, 0])) == -1


def test_resemblyzer_prints_nothing_and_names_its_backend(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_speaker_encoder("resemblyzer").backend == (
            "resemblyzer (weights of 0.1.4 in float16, -30 dBFS)"
        )
    assert capfd.readouterr() == ("", "")


def test_wavlm_loads_from_a_folder(wavlm_folder, clips):
    encoder = make_speaker_encoder(f"wavlm:{wavlm_folder}")
    assert isinstance(encoder, WavlmEncoder) and encoder.backend == f"wavlm ({wavlm_folder})"
    embedding = encoder.embed(clips[0], RATE)
    assert embedding.shape == (24,) and embedding.norm().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(
        embedding, make_speaker_encoder(f"wavlm:{wavlm_folder}").embed(clips[0], RATE)
    )
    assert speaker_similarity(embedding, encoder.embed(clips[1], RATE)) < 1 - 1e-6


def test_weights_in_a_pickle_are_not_loaded(wavlm_folder):
    (wavlm_folder / "model.safetensors").rename(wavlm_folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        make_speaker_encoder(f"wavlm:{wavlm_folder}")


def test_a_wavlm_without_a_speaker_head_is_refused(tmp_path):
    save_wavlm(tmp_path, "WavLMModel")
    with pytest.raises(ValueError, match="give a WavLMForXVector"):
        make_speaker_encoder(f"wavlm:{tmp_path}")


def test_unknown_encoders_are_refused():
    with pytest.raises(ValueError, match="known are auto, wavlm, resemblyzer"):
        make_speaker_encoder("ecapa")


def test_auto_uses_the_cache(cache):
    save_wavlm(cache)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = make_speaker_encoder("auto")
    assert encoder.backend == "wavlm (microsoft/wavlm-base-plus-sv@0123456789ab)"


def test_auto_falls_back_with_a_warning(cache, monkeypatch):
    cache.mkdir(parents=True)
    (cache / "config.json").write_text("{}")  # an unfinished download
    with pytest.warns(UserWarning, match="using resemblyzer"):
        assert make_speaker_encoder("auto").backend.startswith("resemblyzer")

    def fail(*args, **kwargs):
        raise ConnectionError("connection lost")

    monkeypatch.setattr(backends, "hub_model_in_reach", lambda name: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.warns(UserWarning, match="using resemblyzer"):
        assert make_speaker_encoder("auto").backend.startswith("resemblyzer")
    with pytest.raises(OSError, match="connection lost"):
        make_speaker_encoder("wavlm")


def test_the_hubs_conversion_is_used_if_there_is_only_a_pickle(cache, tmp_path, monkeypatch):
    """The main branch has no safetensors, but the pull request of the converter has."""
    main, converted = tmp_path / "main", save_wavlm(tmp_path / "converted")
    main.mkdir()
    asked = []

    def snapshot_download(name, revision=None, allow_patterns=None, **options):
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError("empty cache")
        assert tuple(allow_patterns) == FILES  # never the pickle
        asked.append(revision)
        return str(converted if revision == "refs/pr/7" else main)

    def get_repo_discussions(name, **filters):
        assert filters["author"] == "SFconvertbot"
        yield types.SimpleNamespace(git_reference="refs/pr/7")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.get_repo_discussions", get_repo_discussions)
    encoder = make_speaker_encoder("wavlm")
    assert encoder.backend == "wavlm (microsoft/wavlm-base-plus-sv@converted)"
    assert asked == [None, "refs/pr/7"]

    def unreachable(name, **filters):
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.get_repo_discussions", unreachable)
    with pytest.raises(OSError, match="cannot be reached"):
        make_speaker_encoder("wavlm")
    monkeypatch.setattr("huggingface_hub.get_repo_discussions", lambda name, **filters: iter(()))
    with pytest.raises(FileNotFoundError, match="convert them to safetensors"):
        make_speaker_encoder("wavlm")


@pytest.mark.network
def test_wavlm_from_the_hub_knows_one_speaker(clips):
    encoder = make_speaker_encoder("wavlm")
    a, b = (encoder.embed(clip, RATE) for clip in clips[:2])
    low = encoder.embed(clips[1], 12000)
    assert speaker_similarity(a, b) > 0.86 > speaker_similarity(a, low)
