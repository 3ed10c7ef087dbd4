from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import tokgen.tokens.precision
from makers.audio import RATE, make_tone
from makers.codecs import make_stft_codec
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.precision import MATCH_FLOOR, choose_precision, match_rates, running_in
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.stft import StftCodec


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    speech = open_corpus("recipes/data/allison", split="test").utterances(RATE, rejected=[])
    return [utterance.waveform for utterance, _ in zip(speech, range(3), strict=False)]


def test_float32_matches_itself(clips: list[torch.Tensor]) -> None:
    assert match_rates(load_codec("speech-16k"), clips, "float32") == [1.0] * 8


def test_fewer_bits_change_codes_and_deeper_levels_more(clips: list[torch.Tensor]) -> None:
    rates = match_rates(load_codec("speech-16k"), clips, "bfloat16")
    assert rates[0] > 0.9 and rates[-1] < rates[0]
    assert all(0 < rate < 1 for rate in rates)


def test_rates_count_frames_not_clips(tiny_codec: StftCodec, monkeypatch) -> None:
    """All three frames of one clip differ, and the only frame of the other is equal."""
    precision = "float32"

    def encode(waveform: torch.Tensor) -> torch.Tensor:
        n = waveform.shape[-1] // 320
        wrong = torch.is_autocast_enabled("cpu") and n == 3
        return torch.full((1, 2, n), int(wrong))

    monkeypatch.setattr(tiny_codec, "encode", encode)
    long, short = torch.ones(960), torch.ones(320)
    assert match_rates(tiny_codec, [long, short], "bfloat16") == [0.25, 0.25]
    assert match_rates(tiny_codec, [long, short], precision) == [1.0, 1.0]


def test_a_cpu_keeps_float32_unless_told(clips: list[torch.Tensor]) -> None:
    codec = load_codec("speech-16k")
    assert choose_precision(codec, clips).precision == "float32"
    with pytest.warns(UserWarning, match=rf"match float32, by level, are .* under {MATCH_FLOOR}"):
        chosen = choose_precision(codec, clips, "bfloat16")
    assert chosen.precision == "bfloat16"
    assert "% of codes per level equal float32" in str(chosen)
    assert chosen.n_frames == sum(math.ceil(c.shape[-1] / 320) for c in clips)


class OnAGpu(StftCodec):
    """Pretends to run on a GPU on which only `good` precisions give the codes of float32."""

    good: tuple[str, ...] = ()
    now = "float32"

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")

    @contextmanager
    def running_in(self, precision: str, device: torch.device) -> Iterator[None]:
        self.now = precision
        yield

    def encode(self, waveform, n_codebooks=None, lengths=None):
        return torch.full((1, 2, 100), int(self.now not in ("float32", *self.good)))


@pytest.mark.parametrize(
    ("good", "expected", "tried"),
    [
        (("bfloat16", "tf32"), "bfloat16", 1),
        (("tf32",), "tf32", 2),
        ((), "float32", 2),
    ],
)
def test_a_gpu_uses_the_fastest_precision_with_equal_codes(
    good: tuple[str, ...], expected: str, tried: int, monkeypatch
) -> None:
    tiny = make_stft_codec()
    codec = OnAGpu(tiny.model, tiny.spec)
    codec.good = good
    monkeypatch.setattr(tokgen.tokens.precision, "running_in", codec.running_in)
    chosen = choose_precision(codec, [make_tone(1.0, 0)])
    assert chosen.precision == expected
    assert len(chosen.measured) == tried


@pytest.mark.parametrize(("precision", "expected"), [("float32", False), ("tf32", True)])
def test_tensorfloat_is_off_unless_asked_for(precision: str, expected: bool) -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with running_in(precision, torch.device("cuda")):
        assert torch.backends.cudnn.allow_tf32 is expected
        assert torch.backends.cuda.matmul.allow_tf32 is expected
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_bad_precisions_are_refused(tiny_codec: StftCodec) -> None:
    with pytest.raises(ValueError, match="precision 'int8' is unknown; use auto, float32"):
        choose_precision(tiny_codec, [], "int8")
    with (
        pytest.raises(ValueError, match="'tf32' needs a GPU"),
        running_in("tf32", torch.device("cpu")),
    ):
        pass
    with pytest.raises(ValueError, match="no audio to measure it on"):
        choose_precision(tiny_codec, [], "bfloat16")


def test_a_dataset_records_its_precision(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    corpus = open_corpus(tiny_corpus)
    with pytest.warns(UserWarning, match="under"):
        tokenize_corpus(corpus, tiny_codec, tmp_path / "t", precision="bfloat16", progress=False)
    assert load_tokens(tmp_path / "t").provenance.precision == "bfloat16"
    with pytest.raises(ValueError, match="precision: bfloat16 → float32"):
        tokenize_corpus(corpus, tiny_codec, tmp_path / "t", progress=False)
