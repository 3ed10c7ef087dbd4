"""Token datasets on the Hugging Face hub (a stand-in on this machine), and their cards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict, load_dataset
from huggingface_hub import DatasetCard, HfApi, snapshot_download

from makers.hub import TOKEN, LocalHub, environment, local_hub
from makers.tokens import rows_of
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.card import write_card
from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.tokens.provenance import provenance_of
from tokgen.zoo.stft import StftCodec

OLD = Path(__file__).parent / "old"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "home", monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="module")
def tokens(token_folder: Path) -> TokenDataset:
    return load_tokens(token_folder)


# -- both ways -----------------------------------------------------------------


def test_pushed_and_loaded(hub: LocalHub, token_folder: Path, tokens: TokenDataset) -> None:
    assert tokens.push_to_hub("me/tokens") == f"{hub.url}/datasets/me/tokens"
    found = load_tokens("me/tokens")
    assert found.provenance == tokens.provenance and found.source == "me/tokens"
    assert rows_of("me/tokens") == rows_of(token_folder)
    loaded = load_dataset("me/tokens")
    assert provenance_of(loaded) == tokens.provenance
    assert provenance_of(loaded["train"].select([0])) == tokens.provenance


def test_pushed_by_datasets_alone(hub: LocalHub, token_folder: Path, tokens: TokenDataset) -> None:
    load_dataset(str(token_folder)).push_to_hub("me/tokens")
    assert load_tokens("me/tokens").provenance == tokens.provenance
    assert rows_of("me/tokens") == rows_of(token_folder)
    load_tokens("me/tokens").splits["test"].select([1]).push_to_hub("me/one", split="test")
    found = load_tokens("me/one")
    assert found.provenance == tokens.provenance and list(found.splits) == ["test"]


def test_pushed_and_downloaded(
    hub: LocalHub, token_folder: Path, tokens: TokenDataset, tmp_path: Path
) -> None:
    tokens.push_to_hub("me/tokens")
    copy = tmp_path / "copy"
    snapshot_download("me/tokens", repo_type="dataset", local_dir=copy)
    assert load_tokens(copy).provenance == tokens.provenance
    assert rows_of(copy) == rows_of(token_folder)
    assert provenance_of(load_dataset(str(copy))) == tokens.provenance


def test_a_folder_uploaded_as_it_is(
    hub: LocalHub, token_folder: Path, tokens: TokenDataset
) -> None:
    """As `hf upload` does, also from object storage, whose names have gaps."""
    HfApi().create_repo("me/tokens", repo_type="dataset")
    HfApi().upload_folder(repo_id="me/tokens", folder_path=token_folder, repo_type="dataset")
    assert load_tokens("me/tokens").provenance == tokens.provenance
    assert rows_of("me/tokens") == rows_of(token_folder)
    assert provenance_of(load_dataset("me/tokens")) == tokens.provenance
    assert rows_of("hf://datasets/me/tokens") == rows_of(token_folder)


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_an_old_dataset_is_pushed(hub: LocalHub, format: str) -> None:
    old = load_tokens(OLD / format)
    old.push_to_hub("me/old")
    assert load_tokens("me/old").provenance == old.provenance
    assert rows_of("me/old") == rows_of(OLD / format)


def test_an_old_folder_uploaded_as_it_is(hub: LocalHub) -> None:
    """Its provenance is in provenance.json alone."""
    hub.add("datasets", "me/old", OLD / "parquet")
    assert load_tokens("me/old").provenance == load_tokens(OLD / "parquet").provenance
    (hub.files("datasets", "me/old")).pop("provenance.json")
    hub.repositories["datasets/me/none"] = hub.repositories.pop("datasets/me/old")
    with pytest.raises(ValueError, match="me/none has no readable provenance"):
        load_tokens("me/none")


def test_revisions_tokens_and_cache(
    hub: LocalHub, tokens: TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.push_to_hub("private/tokens")
    api = HfApi()
    api.create_tag("private/tokens", tag="all", repo_type="dataset")
    less = {split: part.select([0]) for split, part in tokens.splits.items()}
    replace(tokens, splits=DatasetDict(less)).push_to_hub("private/tokens")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FileNotFoundError, match=r"private/tokens is no folder.*set HF_TOKEN"):
        load_tokens("private/tokens")
    settings = {"token": TOKEN, "cache_dir": tmp_path / "cache"}
    assert len(load_tokens("private/tokens", **settings).splits["train"]) == 1
    found = load_tokens("private/tokens", revision="all", **settings)
    assert len(found.splits["train"]) == 6
    assert all((tmp_path / "cache") in Path(f["filename"]).parents
               for f in found.splits["train"].cache_files)  # fmt: skip


def test_pushed_to_a_branch(hub: LocalHub, tokens: TokenDataset) -> None:
    tokens.push_to_hub("me/tokens", revision="v2")
    with pytest.raises(FileNotFoundError, match="me/tokens is no folder"):
        load_tokens("me/tokens")
    assert load_tokens("me/tokens", revision="v2").provenance == tokens.provenance
    assert b"tokgen.load_tokens" in hub.files("datasets", "me/tokens", "v2")["README.md"]


def test_what_cannot_be_opened(hub: LocalHub, token_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="me/none is no folder, and the hub knows no such"):
        load_tokens("me/none")
    with pytest.raises(ValueError, match="only hub ids have revisions"):
        load_tokens(token_folder, revision="main")
    (tmp_path / "train.parquet").touch()
    with pytest.raises(ValueError, match="only hub ids have revisions"):
        load_tokens(tmp_path / "train.parquet", revision="main")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "train.csv").write_text("a\n1\n")
    hub.add("datasets", "me/plain", tmp_path / "plain")
    with pytest.raises(ValueError, match="me/plain, split 'train', has no column 'codes'"):
        load_tokens("me/plain")


def test_a_name_that_is_a_folder_is_that_folder(
    hub: LocalHub, token_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(token_folder.parent.parent)
    name = f"{token_folder.parent.name}/{token_folder.name}"
    assert load_tokens(name).source == name
    assert hub.requests == []


def test_a_new_process_loads_from_the_hub(
    hub: LocalHub, tokens: TokenDataset, tmp_path: Path
) -> None:
    tokens.push_to_hub("private/tokens")
    code = "import tokgen; print(tokgen.load_tokens('private/tokens').provenance.spec.name)"
    variables = {**os.environ, **environment(hub, tmp_path / "other")}
    found = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "tiny"


# -- cards ---------------------------------------------------------------------


def test_the_card_of_a_folder(token_folder: Path, tokens: TokenDataset) -> None:
    card = DatasetCard.load(token_folder / "README.md")
    data = card.data.to_dict()
    assert data["license"] == "unknown" and data["task_categories"] == ["audio-to-audio"]
    assert {"tokgen", "tiny"} <= set(data["tags"])
    assert data["configs"][0]["data_files"] == [
        {"split": split, "path": f"data/{split}-*"} for split in ("train", "validation", "test")
    ]
    for fact in (
        "10 utterances, 0.00 h",
        "| `train` | 6 | 0.00 |",
        "0 entries of the corpus were rejected",
        f"SHA-256 `{tokens.provenance.spec.weight_hash}`",
        "50 a second, 320 samples each",
        "4 of 4, coarse first",
        "| `codes` | uint16 [T, 4], time first |",
        "| `mfcc` | float16 [T, 30], one vector per frame |",
        "tokgen tokenize --corpus 'tiny corpus' --codec tiny --out tokens",
    ):
        assert fact in card.text, fact


def test_the_card_names_hours_and_what_differs(tokens: TokenDataset) -> None:
    codec = {**tokens.provenance.codec, "n_codebooks": 8}
    about = replace(tokens.provenance, codec=codec, conditioning=None, side_names=["scales"])
    text = write_card(about, {"train": (5000, 7200.0), "a_b": (1, 3600.0)}, n_rejected=3)
    assert "5001 utterances, 3.00 h" in text and "| `train` | 5000 | 2.00 |" in text
    assert "3 entries of the corpus were rejected; `rejections.jsonl`" in text
    assert "--n_codebooks 4 --conditioning none --out" in text
    assert "| `side_scales` |" in text and "mfcc" not in text


def test_names_cannot_break_the_card(tokens: TokenDataset) -> None:
    codec = {**tokens.provenance.codec, "name": "x`|\n---\n# y"}
    about = replace(tokens.provenance, codec=codec, corpus="; rm -rf ~\n```\n# z")
    card = DatasetCard(write_card(about, {"train": (1, 1.0)}))
    assert card.data.to_dict()["tags"][-1] == codec["name"]
    assert not [line for line in card.text.splitlines() if line in ("# y", "# z", "---")]
    assert "--corpus '; rm -rf ~ # z'" in card.text


def test_the_card_on_the_hub(hub: LocalHub, tokens: TokenDataset) -> None:
    def card() -> DatasetCard:
        return DatasetCard(hub.files("datasets", "me/tokens")["README.md"].decode())

    tokens.push_to_hub("me/tokens", license="cc-by-4.0")
    found = card()
    data = found.data.to_dict()
    assert data["license"] == "cc-by-4.0" and "tokgen" in data["tags"]
    assert {part["split"] for part in data["configs"][0]["data_files"]} == set(tokens.splits)
    assert "tokgen.load_tokens('me/tokens')" in found.text

    train = DatasetDict(train=tokens.splits["train"].select([0]))
    replace(tokens, splits=train).push_to_hub("me/tokens")
    assert "1 utterance," in card().text  # our own text is replaced
    assert card().data.to_dict()["license"] == "cc-by-4.0"  # and no license is forgotten

    mine = card()
    mine.text = "# My speech\n"
    hub.files("datasets", "me/tokens")["README.md"] = str(mine).encode()
    tokens.push_to_hub("me/tokens", license="mit")
    assert card().text.strip() == "# My speech"
    assert card().data.to_dict()["license"] == "mit"
    assert load_tokens("me/tokens").provenance == tokens.provenance


def test_the_python_of_a_card_runs(
    hub: LocalHub,
    tokens: TokenDataset,
    tiny_codec_folder: Path,
    tiny_corpus: Path,
    monkeypatch,
) -> None:
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    tokens.push_to_hub("me/tokens")
    text = hub.files("datasets", "me/tokens")["README.md"].decode()
    found: dict = {}
    exec(text.partition("```python\n")[2].partition("```")[0], found)
    assert found["codes"].shape[:2] == (1, 4) and found["waveform"].shape[:2] == (1, 1)
    assert provenance_of(load_dataset("me/tokens")) == tokens.provenance


# -- rows ----------------------------------------------------------------------


def test_how_it_is_printed(tokens: TokenDataset) -> None:
    printed = "TokenDataset(2 test, 6 train, 2 validation; codec tiny, 4 x 60, 50 frames/s)"
    assert repr(tokens) == printed


def test_codes_and_audio_of_a_row(
    tokens: TokenDataset, tiny_codec: StftCodec, tiny_corpus: Path
) -> None:
    corpus = open_corpus(tiny_corpus, split="test")
    for i, utterance in enumerate(corpus.utterances(16000, rejected=[])):
        codes = tiny_codec.encode(utterance.waveform[None])
        assert torch.equal(tokens.codes("test", i), codes)
        n_samples = utterance.waveform.shape[-1]
        decoded = tokens.decode(tiny_codec, "test", i)
        torch.testing.assert_close(decoded, tiny_codec.decode(codes, n_samples))
