"""Random crops of corpora."""

from __future__ import annotations

import pytest
import torch

from tokgen.codec_training.crops import AudioCrops, to_int16
from tokgen.corpus.listed import open_corpus


def test_crops_repeat_by_seed_and_step(tiny_corpus, tmp_path):
    crops = AudioCrops([open_corpus(tiny_corpus, split="train")], 16000, tmp_path)
    a = crops.batch(5, seed=1, batch_size=3, n_samples=800)
    assert a.shape == (3, 1, 800) and a.abs().max() <= 1
    again = AudioCrops([open_corpus(tiny_corpus, split="train")], 16000, tmp_path)
    assert again.batch(5, seed=1, batch_size=3, n_samples=800).equal(a)
    assert not again.batch(6, seed=1, batch_size=3, n_samples=800).equal(a)
    with pytest.raises(ValueError, match="shorten the crops"):
        crops.batch(0, seed=0, batch_size=1, n_samples=10**9)


def test_a_failure_leaves_no_partial_file(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match="no readable audio"):
        AudioCrops([open_corpus(tmp_path / "corpus")], 16000, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_sixteen_bits_clip_and_round():
    assert to_int16(torch.tensor([-2.0, -1.0, 0.0, 0.5, 2.0])).tolist() == [
        -32768, -32768, 0, 16384, 32767,
    ]  # fmt: skip
