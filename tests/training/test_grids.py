"""Training clips on other grids: their codes are those of audio that begins later."""

from __future__ import annotations

import torch

from makers.audio import make_tone
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.cache import cached_tokens
from tokgen.tokens.splitting import with_test_split
from tokgen.training.grids import add_grids, on_other_grids


def test_codes_on_other_grids_are_those_of_audio_that_begins_later(
    tiny_codec, tiny_corpus, tmp_path
):
    corpus = open_corpus(tiny_corpus)
    tokens = cached_tokens(corpus, tiny_codec, tmp_path, conditioning=None, progress=False)
    more = add_grids(tokens, corpus, tiny_codec, 3, tmp_path)
    plain = tokens.splits["train"]
    train = more.splits["train"]
    assert len(train) == 3 * len(plain) and train[: len(plain)]["codes"] == plain[:]["codes"]
    assert more.splits["test"][:]["id"] == tokens.splits["test"][:]["id"]
    rate, frame = tiny_codec.spec.sample_rate, 1000 / tiny_codec.spec.frame_rate
    entry = next(e for e in corpus.entries if e.id == plain[0]["id"])
    waveform = corpus.load(entry, rate).waveform
    for grid in (1, 2):
        start = round(grid * frame / 3)
        row = train[grid * len(plain)]
        assert row["id"] == f"{entry.id}@{start}ms"
        codes = tiny_codec.encode(waveform[None, :, start * rate // 1000 :])[0].T
        assert torch.tensor(row["codes"]).equal(codes)


def test_one_grid_adds_nothing(tiny_codec, tiny_corpus, tmp_path):
    corpus = open_corpus(tiny_corpus)
    assert len(on_other_grids(corpus, 50.0, 1)) == 0
    tokens = cached_tokens(corpus, tiny_codec, tmp_path, conditioning=None, progress=False)
    assert add_grids(tokens, corpus, tiny_codec, 1, tmp_path) is tokens


def test_clips_of_a_test_split_that_was_made_are_on_no_grid(tiny_codec, tmp_path):
    for i in range(4):
        write_audio(tmp_path / "few" / f"{i}.wav", make_tone(0.6, i), 16000)
    corpus = open_corpus(tmp_path / "few")
    whole = cached_tokens(corpus, tiny_codec, tmp_path, conditioning=None, progress=False)
    tokens = with_test_split(whole)
    more = add_grids(tokens, corpus, tiny_codec, 2, tmp_path)
    trained = {i.split("@")[0] for i in more.splits["train"]["id"]}
    assert trained == set(tokens.splits["train"]["id"]) and len(more.splits["train"]) == 4
