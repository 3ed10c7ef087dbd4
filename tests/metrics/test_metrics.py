"""Each metric: identities, golden values, failures, and the backends by name."""

import math
import sys

import pytest
import torch

from makers.audio import make_tone
from makers.paths import ALLISON
from tokgen.corpus.listed import open_corpus
from tokgen.extras import require
from tokgen.metrics import cer
from tokgen.metrics.cer import (
    Edits,
    RecognitionError,
    Wav2Vec2Recogniser,
    edits,
    make_recogniser,
)
from tokgen.metrics.codebook import codebook_use, perplexity, token_match
from tokgen.metrics.mos import SquimMos, make_mos
from tokgen.metrics.pesq import MAX_SECONDS, pesq_wb
from tokgen.metrics.si_sdr import si_sdr
from tokgen.metrics.text import normalise_text

CLEAN = make_tone(2.0, 0)
NOISE = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("Press 2, please.", "press two please"),
        ("Don't  STOP — it’s 1,024!", "dont stop its one thousand and twenty four"),
        ("Café [music] déjà-vu", "café music déjà vu"),
        ("ﬁve", "five"),
        ("9" * 5000, " ".join(["nine"] * 5000)),
        ("", ""),
        ("...", ""),
    ],
)
def test_one_normaliser_for_both_sides(raw, plain):
    assert normalise_text(raw).replace("-", " ") == plain


def test_edits_of_equal_texts_are_none_and_are_capped():
    assert edits("Press 2.", "press two") == Edits(0, 9)
    assert edits("abcd", "abxd") == Edits(1, 4)
    assert edits("to", "to " * 50) == Edits(2, 2)  # a looping recogniser
    assert edits("hello", "") == Edits(5, 5)
    with pytest.raises(ValueError, match="no letters"):
        edits("...", "x")


def test_pesq_ceiling_monotony_and_golden_value():
    assert pesq_wb(CLEAN, CLEAN, 16000) == pytest.approx(4.644, abs=1e-3)
    values = [pesq_wb(CLEAN, CLEAN + a * NOISE, 16000) for a in (0.001, 0.01, 0.1)]
    assert values == pytest.approx([4.6248, 3.8257, 1.3455], abs=2e-3)
    assert pesq_wb(CLEAN, 0.5 * CLEAN, 16000) == pytest.approx(4.644, abs=0.01)


def test_pesq_at_another_rate_is_resampled():
    from tokgen.audio.files import resample

    clean, noisy = (resample(x, 16000, 48000) for x in (CLEAN, CLEAN + 0.01 * NOISE))
    wanted = pesq_wb(CLEAN, CLEAN + 0.01 * NOISE, 16000)
    assert pesq_wb(clean, noisy, 48000) == pytest.approx(wanted, abs=0.1)


def test_what_pesq_cannot_score_is_nan_not_a_score():
    assert math.isnan(pesq_wb(torch.zeros(1, 16000), torch.zeros(1, 16000), 16000))
    assert math.isnan(pesq_wb(CLEAN[:, :100], CLEAN[:, :100], 16000))
    with pytest.raises(ValueError, match="equal length"):
        pesq_wb(CLEAN, CLEAN[:, :-1], 16000)


BROKEN = {
    "nan": torch.where(torch.arange(32000) == 99, math.nan, CLEAN),
    "infinity": torch.where(torch.arange(32000) == 99, math.inf, CLEAN),
    "no samples": CLEAN[:, :0],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_not_audio_is_a_failure_of_every_metric(kind):
    broken = BROKEN[kind]
    clean = CLEAN[:, : broken.shape[-1]]
    for reference, estimate in ((clean, broken), (broken, clean)):
        assert math.isnan(pesq_wb(reference, estimate, 16000))
        assert math.isnan(si_sdr(reference, estimate))
    assert math.isnan(make_mos("distillmos").score(broken, 16000))
    with pytest.raises(RecognitionError, match="empty or not finite"):
        make_recogniser("moonshine").transcribe(broken, 16000)


def test_pesq_refuses_what_overruns_its_fifty_utterances():
    def bursts(seconds):
        t = torch.arange(round(seconds * 16000)) / 16000
        noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
        return 0.2 * noise * (t % 0.5 < 0.25)

    assert pesq_wb(bursts(19), bursts(19), 16000) == pytest.approx(4.644, abs=1e-3)
    assert math.isnan(pesq_wb(bursts(30), bursts(30), 16000))  # without the limit: a crash
    assert MAX_SECONDS < 50 * 0.2 + 49 * 0.2


def test_si_sdr_against_its_closed_form():
    n = 16000
    t = torch.arange(n) / n
    signal, noise = torch.sin(2 * math.pi * 100 * t), torch.sin(2 * math.pi * 333 * t)
    for ratio in (1.0, 0.1, 0.01):
        wanted = -20 * math.log10(ratio)
        assert si_sdr(signal, 3 * (signal + ratio * noise) + 0.2) == pytest.approx(wanted, abs=1e-3)
    assert si_sdr(signal, 2 * signal) == math.inf
    assert math.isnan(si_sdr(torch.zeros(10), torch.randn(10)))


def test_codebook_use_from_one_entry_to_all():
    uniform = torch.arange(64).repeat(4)[None]
    assert codebook_use([uniform[:, :100], uniform[:, 100:]], 64).tolist() == pytest.approx([100.0])
    assert codebook_use([torch.zeros(1, 9).long()], 64).item() == 0
    assert perplexity([uniform], 64).item() == pytest.approx(64)
    assert codebook_use([uniform % 8], 64).item() == pytest.approx(50)


def test_token_match_counts_per_level():
    a = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    b = torch.tensor([[1, 2, 0, 0], [5, 6, 7, 8]])
    assert token_match(a, b).tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="trim to match"):
        token_match(a, b[:, :3])


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[eval\]'"):
        require("pesq")


def test_unknown_backends_list_the_known():
    with pytest.raises(ValueError, match="known are auto, wav2vec2, moonshine"):
        make_recogniser("whisper")
    with pytest.raises(ValueError, match="known are auto, squim, distillmos"):
        make_mos("nisqa")
    with pytest.raises(ValueError, match="non-matching reference"):
        make_mos("squim")


def test_wav2vec2_out_of_reach_half_way_falls_back(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("connection lost")

    monkeypatch.setattr(cer, "hub_model_in_reach", lambda name: True)
    monkeypatch.setattr(cer, "Wav2Vec2Recogniser", fail)
    with pytest.warns(UserWarning, match="using moonshine"):
        assert make_recogniser("auto").backend.startswith("moonshine")
    with pytest.raises(OSError, match="connection lost"):
        make_recogniser("wav2vec2")


def test_weights_in_a_pickle_are_not_loaded(wav2vec2_folder):
    (wav2vec2_folder / "model.safetensors").rename(wav2vec2_folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        make_recogniser(f"wav2vec2:{wav2vec2_folder}")


def test_mos_auto_without_a_reference_says_what_it_took():
    with pytest.warns(UserWarning, match="none is given; using distillmos"):
        assert make_mos("auto").backend.startswith("distillmos")


def test_embedded_judges_hear_speech_as_speech():
    clips = list(open_corpus(ALLISON, split="test", max_seconds=4).utterances(16000, rejected=[]))
    recogniser, predictor = make_recogniser("moonshine"), make_mos("distillmos")
    counts = [edits(c.text, recogniser.transcribe(c.waveform, 16000)) for c in clips[:4]]
    assert sum(c.n_edits for c in counts) <= 0.1 * sum(c.n_chars for c in counts)
    speech = clips[0].waveform
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(0))
    falling = [predictor.score(speech + a * noise, 16000) for a in (0, 0.01, 0.1)]
    assert falling == sorted(falling, reverse=True) and falling[0] > 3.5 > falling[2] + 1


@pytest.fixture
def wav2vec2_folder(tmp_path):
    """A random wav2vec2 CTC model of a few thousand weights, saved as the hub has it."""
    import json

    from tokgen.audio.torchaudio_shim import import_torchaudio

    import_torchaudio()
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH"]
    (tmp_path / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    processor = Wav2Vec2Processor(
        Wav2Vec2FeatureExtractor(), Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    )
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_wav2vec2_loads_from_a_folder(wav2vec2_folder):
    recogniser = make_recogniser(f"wav2vec2:{wav2vec2_folder}")
    assert isinstance(recogniser, Wav2Vec2Recogniser)
    assert str(wav2vec2_folder) in recogniser.backend
    text = recogniser.transcribe(CLEAN, 16000)
    assert set(text) <= set("ABCDEFGH |</unkps>")
    assert text == recogniser.transcribe(CLEAN, 16000)


def test_auto_falls_back_and_says_so(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("tokgen.metrics.backends.hub_model_in_reach", lambda name: False)
    monkeypatch.setattr("tokgen.metrics.cer.WAV2VEC2", "nobody/nothing")
    with pytest.warns(UserWarning, match="using moonshine"):
        assert make_recogniser("auto").backend.startswith("moonshine")


def test_squim_runs_on_its_real_network_with_random_weights(monkeypatch):
    from tokgen.audio.torchaudio_shim import import_torchaudio

    torchaudio = import_torchaudio()
    torch.manual_seed(0)
    network = torchaudio.models.squim_subjective_base()
    bundle = torchaudio.pipelines.SQUIM_SUBJECTIVE
    monkeypatch.setattr(type(bundle), "get_model", lambda self: network)
    predictor = make_mos("auto", make_tone(1.0, 9), 16000)
    assert isinstance(predictor, SquimMos)
    assert predictor.backend.startswith("squim (SQUIM_SUBJECTIVE, reference ")
    assert math.isfinite(predictor.score(CLEAN, 16000))
    assert math.isnan(predictor.score(torch.zeros(1, 16000), 16000))


def test_mos_auto_falls_back_and_says_so(monkeypatch):
    from tokgen.audio.torchaudio_shim import import_torchaudio

    def unreachable(self):
        raise OSError("no route")

    bundle = import_torchaudio().pipelines.SQUIM_SUBJECTIVE
    monkeypatch.setattr(type(bundle), "get_model", unreachable)
    with pytest.warns(UserWarning, match="using distillmos"):
        predictor = make_mos("auto", CLEAN, 16000)
    assert predictor.backend.startswith("distillmos")
    with pytest.raises(OSError, match="no route"):
        make_mos("squim", CLEAN, 16000)
    quiet, noisy = (predictor.score(CLEAN + a * NOISE, 16000) for a in (0.0, 0.3))
    assert 1 <= noisy < quiet <= 5


def test_moonshine_does_not_remember_the_clips_before() -> None:
    clips = [make_tone(1.5, seed) for seed in range(5)]
    recogniser = make_recogniser("moonshine")
    forwards = [recogniser.transcribe(clip, 16000) for clip in clips]
    backwards = [recogniser.transcribe(clip, 16000) for clip in reversed(clips)][::-1]
    assert forwards == backwards and len(set(forwards)) > 1
