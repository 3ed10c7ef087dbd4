"""The benchmark of quantizers of a codec's latents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import bench_latents as bench
from bench_beam import read_clips
from makers.codecs import make_stft_codec, save_codec
from tokgen.quantizers.offline.additive import ResidualKMeans


def test_shares_are_those_of_the_quantizer(tiny_corpus: Path, tmp_path: Path) -> None:
    codec = make_stft_codec(n_codebooks=2, codebook_size=16)
    save_codec(codec, tmp_path / "codec")
    flags = ["--codec", str(tmp_path / "codec"), "--corpora", str(tiny_corpus)]
    flags += ["--corpus", str(tiny_corpus), "--split", "train", "--levels", "2"]
    flags += ["--codebook-size", "16", "--steps", "2", "--out", str(tmp_path / "out.json")]
    assert bench.main([*flags, "--quantizers", "kmeans", "kmeans:8", "qinco2"]) == 0
    rows = {r["quantizer"]: r for r in json.loads((tmp_path / "out.json").read_text())["rows"]}

    with torch.inference_mode():
        clips = [
            codec.encode_latents(x)[0].mT for x in read_clips(codec, str(tiny_corpus), "train")
        ]
    frames = torch.cat(clips)
    quantizer = ResidualKMeans(dim=frames.shape[1], n_codebooks=2, codebook_size=16)
    quantizer.fit(frames, progress=False)
    left = (frames - quantizer.decode(quantizer.encode(frames))).square().sum()
    share = float(left / (frames - frames.mean(0)).square().sum())
    assert rows["kmeans"]["share_left"]["mean"] == pytest.approx(share, rel=1e-3)
    assert rows["kmeans:8"]["share_left"]["mean"] <= rows["kmeans"]["share_left"]["mean"]
    assert rows["kmeans:8"]["fit_seconds"] == rows["kmeans"]["fit_seconds"]
    assert 0 < rows["qinco2"]["share_left"]["mean"] < 1


def test_quantizers_without_a_search_refuse_a_beam(tiny_corpus: Path, tmp_path: Path) -> None:
    save_codec(make_stft_codec(n_codebooks=2, codebook_size=16), tmp_path / "codec")
    flags = ["--codec", str(tmp_path / "codec"), "--corpora", str(tiny_corpus)]
    flags += ["--corpus", str(tiny_corpus), "--split", "train", "--levels", "2"]
    with pytest.raises(SystemExit):
        bench.main([*flags, "--codebook-size", "16", "--quantizers", "pq:4"])
