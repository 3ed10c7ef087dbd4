"""Latent datasets: the rows of token datasets, with the latents of a continuous codec."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, load_dataset
from torch import Tensor

import tokgen.tokens.engines.job
import tokgen.tokens.latents
from makers.audio import RATE, make_tone
from makers.continuous import make_continuous, make_vibevoice
from makers.corpora import CLIPS
from makers.hub import local_hub
from tokgen.audio.files import write_audio
from tokgen.cli.main import main
from tokgen.codec.continuous import ContinuousCodec
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.storage import Storage
from tokgen.tokens.cache import cached_latents
from tokgen.tokens.columns import token_features
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.engines.job import Job
from tokgen.tokens.latents import LatentDataset, draw_frames, load_latents
from tokgen.tokens.opening import with_provenance
from tokgen.tokens.provenance import Provenance, provenance_of
from tokgen.tokens.shards import ShardStore
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.training.train import train
from tokgen.zoo.continuous import load_continuous
from tokgen.zoo.stft import StftCodec

D = 8
QUIET = {"shard_rows": 3, "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def codec() -> ContinuousCodec:
    return make_continuous()


@pytest.fixture(scope="module")
def folder(
    tiny_corpus: Path, codec: ContinuousCodec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`tiny_corpus` as latents, three rows a shard. Tests must not change it."""
    out = tmp_path_factory.mktemp("out") / "latents"
    tokenize_corpus(tiny_corpus, codec, out, **QUIET)
    return out


@pytest.fixture(scope="module")
def latents(folder: Path) -> LatentDataset:
    return load_latents(folder)


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


# -- what is written -----------------------------------------------------------


def test_rows_equal_the_output_of_the_codec(
    tiny_corpus: Path, latents: LatentDataset, codec: ContinuousCodec
) -> None:
    n = 0
    seen = dict.fromkeys(latents.splits, 0)
    for utterance in open_corpus(tiny_corpus).utterances(RATE, rejected=[]):
        split, i = utterance.split, seen[utterance.split]
        row = latents.splits[split].with_format("numpy")[i]
        expected = codec.encode(utterance.waveform[None]).half()
        assert np.array_equal(row["latents"], expected[0].T.float().numpy())
        found = latents.latents(split, i)
        assert found.dtype == torch.float32 and torch.equal(found.half(), expected)
        assert (row["id"], row["text"]) == (utterance.id, utterance.text)
        assert row["mfcc"].shape == (len(row["latents"]), 30)
        decoded = latents.decode(codec, split, i)
        assert torch.equal(decoded, codec.decode(found, utterance.waveform.shape[-1]))
        seen[split] += 1
        n += 1
    assert n == len(CLIPS)
    with pytest.raises(ValueError, match="no split 'dev': the latents have test, train"):
        latents.latents("dev", 0)


def test_columns_and_provenance(
    folder: Path, latents: LatentDataset, codec: ContinuousCodec
) -> None:
    features = latents.splits["train"].features.arrow_schema
    assert features.names == ["id", "latents", "n_samples", "text", "speaker", "mfcc"]
    kind = f"list<item: fixed_size_list<item: halffloat>[{D}]>"
    assert str(features.field("latents").type) == kind
    about = latents.provenance
    assert about.codec_spec == codec.spec and about.codec["weight_hash"] == codec.spec.weight_hash
    assert (about.column, about.width, about.sample_rate, about.hop_length) == (
        "latents",
        D,
        RATE,
        320,
    )
    assert provenance_of(load_dataset(str(folder), split="test")) == about
    assert "n_codebooks" not in about.as_dict()
    assert str(latents) == (
        "LatentDataset(2 test, 6 train, 2 validation; codec tiny-continuous, 8 latents, "
        "50 frames/s)"
    )
    card = (folder / "README.md").read_text()
    assert "# Latents of a neural audio codec" in card
    assert "| latents | 8 per frame, rounded to float16 |" in card
    assert f"| `latents` | float16 [T, {D}], time first |" in card
    assert "tokgen.load_continuous('tiny-continuous')" in card and "codebook" not in card
    assert "--codec tiny-continuous --out latents" in card


def test_batches_workers_and_formats_change_nothing(
    tiny_corpus: Path, codec: ContinuousCodec, tmp_path: Path
) -> None:
    found = []
    for i, settings in enumerate(
        [{"batch_seconds": 0.1}, {"batch_seconds": 100.0, "workers": 2, "format": "arrow"}]
    ):
        out = tmp_path / str(i)
        tokenize_corpus(tiny_corpus, codec, out, conditioning=None, **(QUIET | settings))
        found.append(load_latents(out).splits)
    assert set(found[0]) == set(found[1])
    for split, rows in found[0].items():
        assert rows.to_list() == found[1][split].to_list()


def test_long_audio_goes_through_in_blocks(
    codec: ContinuousCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_audio(tmp_path / "corpus" / "a.wav", make_tone(3.0, 0), RATE)
    monkeypatch.setattr(codec, "window_frames", 40)
    tokenize_corpus(tmp_path / "corpus", codec, tmp_path / "short", **QUIET)
    monkeypatch.setattr(tokgen.tokens.engines.job, "LONG_SECONDS", 1.0)
    tokenize_corpus(tmp_path / "corpus", codec, tmp_path / "long", **QUIET)
    assert files(tmp_path / "long") == files(tmp_path / "short")
    whole = make_vibevoice()  # has no `reaches`
    tokenize_corpus(tmp_path / "corpus", whole, tmp_path / "whole", **QUIET)
    assert load_latents(tmp_path / "whole").latents("train", 0).shape == (1, 6, 3 * 24000 // 20)


class Broken(type(make_continuous())):  # type: ignore[misc]
    """Fails in the third batch, or makes latents that float16 cannot hold."""

    limit, scale, batches = 3, 1.0, 0

    def encode_batch(self, waveforms: list[Tensor]) -> list[Tensor]:
        self.batches += 1
        if self.batches == self.limit:
            raise KeyboardInterrupt
        return [self.scale * latents for latents in super().encode_batch(waveforms)]


def test_an_interrupted_run_resumes_to_the_same_files(
    tiny_corpus: Path, folder: Path, codec: ContinuousCodec, tmp_path: Path
) -> None:
    out = tmp_path / "latents"
    broken = Broken(codec.model, codec.spec)
    with pytest.raises(KeyboardInterrupt):
        tokenize_corpus(tiny_corpus, broken, out, **QUIET)
    assert not out.exists()
    report = tokenize_corpus(tiny_corpus, codec, out, **QUIET)
    assert 0 < report.resumed_rows < report.n_rows == len(CLIPS)
    assert files(out) == files(folder)
    again = tokenize_corpus(tiny_corpus, codec, out, **QUIET)
    assert again.resumed_rows == len(CLIPS) and again.kbps is None


def test_latents_too_large_for_float16_are_rejected(
    tiny_corpus: Path, codec: ContinuousCodec, tmp_path: Path
) -> None:
    broken = Broken(codec.model, codec.spec)
    broken.limit, broken.scale = 0, 1e6
    with pytest.raises(ValueError, match=r"no usable audio: 10 rejected .*float16 \(65504 at most"):
        tokenize_corpus(tiny_corpus, broken, tmp_path / "out", **QUIET)


# -- what is refused -----------------------------------------------------------


def test_a_codec_of_other_weights_is_refused(latents: LatentDataset, tiny_codec: StftCodec) -> None:
    other = make_continuous("other", seed=1)
    ours, theirs = latents.provenance.codec["encoder_hash"][:12], other.spec.encoder_hash[:12]
    with pytest.raises(
        ValueError,
        match=rf"latents were made by codec 'tiny-continuous' \(encoder {ours}\), not by 'other' "
        rf"\(encoder {theirs}\): tokenize again, or load 'tiny-continuous'",
    ):
        latents.decode(other, "train", 0)
    with pytest.raises(TypeError, match="decodes codes, not latents: load 'tiny-continuous' with"):
        latents.decode(tiny_codec, "train", 0)  # type: ignore[arg-type]


def test_each_kind_is_refused_as_the_other(
    folder: Path, latents: LatentDataset, token_folder: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    is_latent = "is a latent dataset (no codes), not a token dataset (codes): open it with"
    for source in (folder, latents.splits, latents):
        with pytest.raises(ValueError, match=re.escape(is_latent)):
            load_tokens(source)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=re.escape(is_latent)):
            train(source, tiny_codec, tmp_path / "run", steps=1)  # type: ignore[arg-type]
    is_tokens = "is a token dataset (codes), not a latent dataset (no codes): open it with"
    for tokens in (token_folder, load_tokens(token_folder)):
        with pytest.raises(ValueError, match=re.escape(is_tokens)):
            load_latents(tokens)  # type: ignore[arg-type]


def test_another_kind_of_codec_does_not_replace_a_dataset(
    tiny_corpus: Path, folder: Path, tiny_codec: StftCodec
) -> None:
    with pytest.raises(ValueError, match=r"holds latents of codec 'tiny-continuous'.*latent_dim"):
        tokenize_corpus(tiny_corpus, tiny_codec, folder, **QUIET)


@pytest.mark.parametrize(
    "setting", [{"codes": "packed"}, {"n_codebooks": 4}, {"beam": 8}, {"level": 1.0}]
)
def test_settings_of_codes_are_refused(
    setting: dict, tiny_corpus: Path, codec: ContinuousCodec, tmp_path: Path
) -> None:
    name, value = next(iter(setting.items()))
    with pytest.raises(ValueError, match=f"^{name} = {value}: only for codes, and tiny-cont"):
        tokenize_corpus(tiny_corpus, codec, tmp_path / "out", **setting, **QUIET)
    assert not (tmp_path / "out").exists()


def test_damaged_rows_are_named(latents: LatentDataset) -> None:
    rows = latents.splits["test"].to_list()
    rows[1]["latents"][3][2] = float("nan")
    for row in rows:
        del row["mfcc"]
    about = replace(latents.provenance, conditioning=None)
    damaged = Dataset.from_list(rows, features=token_features(D, {}, column="latents"))
    with pytest.raises(
        ValueError, match=r"row 1, column 'latents': a latent that is not finite at"
    ):
        load_latents(with_provenance(DatasetDict(test=damaged), about))
    for wrong in ({"latent_dim": 9}, {"n_codebooks": 2}, {"level": 1.0}, {"latent_dim": "8"}):
        with pytest.raises(ValueError, match="x has no readable provenance"):
            Provenance.from_json(json.dumps({**about.as_dict(), **wrong}), "x")
    assert Provenance.from_json(about.to_json(), "x") == about


# -- frames --------------------------------------------------------------------


def test_frames_and_samples_of_them(
    latents: LatentDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = latents.n_frames("train")
    each = [latents.latents("train", i)[0].mT for i in range(len(latents.splits["train"]))]
    assert torch.equal(latents.frames("train"), torch.cat(each)) and len(torch.cat(each)) == n
    monkeypatch.setattr(tokgen.tokens.latents, "ROWS_PER_PIECE", 2)
    assert [len(piece) for piece in latents.iter_frames("train")] == [
        len(each[i]) + len(each[i + 1]) for i in range(0, len(each), 2)
    ]
    place = {tuple(frame.tolist()): i for i, frame in enumerate(latents.frames("train"))}
    sample = [place[tuple(frame.tolist())] for frame in latents.sample_frames("train", 50)]
    assert len(set(sample)) == 50 and sample != sorted(sample)
    assert max(sample) > n // 2 > min(sample)  # from all over the split
    monkeypatch.setattr(tokgen.tokens.latents, "ROWS_PER_PIECE", 64)
    again = latents.sample_frames("train", 50)
    assert [place[tuple(frame.tolist())] for frame in again] == sample
    other = latents.sample_frames("train", 50, seed=1)
    assert not torch.equal(other, again)
    every = latents.sample_frames("train", 10 * n)
    assert sorted(place[tuple(frame.tolist())] for frame in every) == list(range(n))
    with pytest.raises(ValueError, match="n = 0: must be at least 1"):
        latents.sample_frames("train", 0)


def test_frames_are_drawn_from_several_datasets(latents: LatentDataset) -> None:
    n = latents.n_frames("train")
    drawn = draw_frames([latents, latents], n // 2, seed=3)
    half = latents.sample_frames("train", round(n // 2 / 2), seed=3)
    assert torch.equal(drawn, torch.cat([half, half]))
    assert len(draw_frames([latents, latents], 9 * n)) == 2 * n
    part = LatentDataset(DatasetDict(test=latents.splits["test"]), latents.provenance)
    assert torch.equal(draw_frames([part, latents], 9 * n), draw_frames([latents], 9 * n))
    with pytest.raises(ValueError, match="no dataset has a split 'nothing' with frames"):
        draw_frames([latents], 5, split="nothing")


def test_a_cache_of_latents(tiny_corpus: Path, codec: ContinuousCodec, tmp_path: Path) -> None:
    corpus = open_corpus(tiny_corpus)
    assert isinstance(corpus, Corpus)
    first, second = (cached_latents(corpus, codec, tmp_path, progress=False) for _ in range(2))
    assert first.source == second.source and len(list(tmp_path.iterdir())) == 1
    assert first.splits["train"].column_names == ["id", "latents", "n_samples", "text", "speaker"]


def test_pushed_to_the_hub_and_loaded(
    latents: LatentDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_hub(tmp_path / "home", monkeypatch):
        latents.push_to_hub("me/latents")
        found = load_latents("me/latents")
        assert found.provenance == latents.provenance and found.source == "me/latents"
        assert torch.equal(found.frames("test"), latents.frames("test"))
        with pytest.raises(ValueError, match="me/latents is a latent dataset"):
            load_tokens("me/latents")


# -- from the command line -----------------------------------------------------


def test_tokgen_tokenize_takes_a_continuous_codec(
    tiny_corpus: Path,
    folder: Path,
    codec: ContinuousCodec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    codec.save_pretrained(tmp_path / "zoo" / "tiny-continuous")  # type: ignore[attr-defined]
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path / "zoo"))
    flags = ["--codec", "tiny-continuous", "--shard_rows", "3", "--workers", "2"]
    flags = ["tokenize", "--corpus", str(tiny_corpus), *flags]
    assert main([*flags, "--out", str(tmp_path / "out")]) == 0
    assert "10 rows" in capsys.readouterr().out
    assert {k: v for k, v in files(tmp_path / "out").items() if k.startswith("data/")} == {
        k: v for k, v in files(folder).items() if k.startswith("data/")
    }
    assert main([*flags, "--codes", "packed", "--out", str(tmp_path / "packed")]) == 2
    assert "only for codes, and tiny-continuous is a continuous codec" in capsys.readouterr().err


def test_a_job_that_is_sent_loads_the_codec_by_name(
    tiny_corpus: Path, latents: LatentDataset, codec: ContinuousCodec, tmp_path: Path
) -> None:
    codec.save_pretrained(tmp_path / "tiny-continuous")  # type: ignore[attr-defined]
    named = load_continuous(tmp_path / "tiny-continuous")
    store = ShardStore(Storage(tmp_path / "shards"), latents.provenance, {"units": 1})
    job = Job(
        open_corpus(tiny_corpus),
        named,
        store,
        settings=None,
        n_codebooks=0,
        batch_seconds=1.0,
        precision="float32",
    )
    sent = pickle.dumps(job)
    again = pickle.loads(sent)
    again.load_codec("cpu")
    assert again.codec.spec == named.spec and len(sent) < 20_000
    save = make_continuous(seed=1).save_pretrained
    save(tmp_path / "tiny-continuous")
    with pytest.raises(ValueError, match="give every machine the same zoo"):
        pickle.loads(sent).load_codec("cpu")
