"""The dataset card of a token dataset."""

from __future__ import annotations

import shutil
from pathlib import Path

from datasets import load_dataset

from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec


def test_folders_of_one_name_do_not_share_a_cache(
    tiny_codec: StftCodec, tiny_corpus: Path, tmp_path: Path
) -> None:
    half = shutil.copytree(tiny_corpus, tmp_path / "half")
    for name in ("a one.wav", "b.wav"):
        (half / name).unlink()
    lines = (half / "metadata.csv").read_text().splitlines()
    (half / "metadata.csv").write_text("\n".join([lines[0], *lines[3:]]) + "\n")
    rows = []
    for i, corpus in enumerate((tiny_corpus, half, half)):
        folder = tmp_path / str(i) / "tokens"
        tokenize_corpus(
            corpus, tiny_codec, folder, n_codebooks=2 if i == 2 else None, progress=False
        )
        found = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        rows.append((found.num_rows["train"], len(found["train"][0]["codes"][0])))
    assert rows == [(6, 4), (4, 4), (4, 2)]
