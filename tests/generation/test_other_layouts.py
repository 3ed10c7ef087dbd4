"""Codecs whose levels differ in rate or size, from audio to generated audio."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from makers.codecs import MAKERS
from tokgen.bitstream.codes_file import read_codes, write_codes
from tokgen.codec.base import Codec
from tokgen.corpus.listed import open_corpus
from tokgen.generation.sampling import sample
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.tokenizing import tokenize_corpus


@pytest.mark.parametrize("name", ["snac", "dualcodec"])
def test_codes_go_through_datasets_files_model_and_sampler(
    name: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    codec: Codec = MAKERS[name]()
    corpus = open_corpus(tiny_corpus)
    settings = {"workers": 1, "progress": False}
    tokenize_corpus(corpus, codec, tmp_path / "tokens", **settings)  # type: ignore[arg-type]
    tokens = load_tokens(tmp_path / "tokens")
    assert tokens.provenance.codec_spec.sizes == codec.spec.sizes
    split = next(iter(tokens.splits))
    codes, n_samples = tokens.codes(split, 0), tokens.splits[split][0]["n_samples"]
    assert codes.shape[1] == codec.spec.n_codebooks
    path = tmp_path / "codes.safetensors"
    write_codes(path, codes[0], n_samples, codec.spec)
    file = read_codes(path)
    file.check_codec(codec.spec)
    assert file.codes.long().equal(codes[0].long())
    assert codec.decode(file.codes[None].long(), n_samples).shape == (1, 1, n_samples)

    sizes = {"dim": 32, "depth": 1, "heads": 2, "dim_head": 16}
    model = MaskedTransformer.for_codec(codec, conditioning_dim=0, **sizes).eval()
    lengths = torch.tensor([6, 4])
    drawn = sample(model, None, lengths, SamplingSettings(top_p=1.0), seed=0)
    assert drawn.shape == (2, codec.spec.n_codebooks, 6)
    for level, size in enumerate(codec.spec.sizes):
        assert drawn[:, level].max() < size
    audio = codec.decode(drawn)
    assert audio.isfinite().all()
    assert codec.spec.bitrate == pytest.approx(
        codec.spec.frame_rate * sum(math.log2(n) for n in codec.spec.sizes)
    )
