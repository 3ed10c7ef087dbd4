"""Opening token datasets, and statistics of their conditioning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from makers.tokens import token_rows
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.columns import compute_statistics
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec


def test_folders_that_are_not_token_datasets(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokenize_corpus(open_corpus(tiny_corpus), tiny_codec, tokens, workers=1, progress=False)
    with pytest.raises(FileNotFoundError, match="no token dataset"):
        load_tokens(tmp_path / "none")
    with pytest.raises(ValueError, match="not a finished token dataset"):
        load_tokens(tmp_path)


def test_statistics_are_over_frames() -> None:
    rows = token_rows()
    mean, deviation = compute_statistics(rows)
    frames = np.concatenate([np.array(m, dtype=np.float64) for m in rows["mfcc"]])
    np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation, frames.std(0), rtol=1e-6)


def test_a_constant_feature_has_a_positive_deviation() -> None:
    _, deviation = compute_statistics(token_rows().select([1]))
    assert deviation[2] > 0


def test_statistics_need_a_conditioning() -> None:
    with pytest.raises(ValueError, match="no conditioning: tokenize it with one of mfcc, log_mel"):
        compute_statistics(token_rows(mfcc=False))
