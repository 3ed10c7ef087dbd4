"""A token dataset that the tests of several modules read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec


@pytest.fixture(scope="session")
def token_folder(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`tiny_corpus` tokenized by `tiny_codec`, three rows a shard. Tests must not change it."""
    out = tmp_path_factory.mktemp("out") / "tokens"
    tokenize_corpus(tiny_corpus, tiny_codec, out, shard_rows=3, workers=1, progress=False)
    return out
