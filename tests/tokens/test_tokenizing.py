from __future__ import annotations

import errno
import itertools
import json
import math
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import tokgen.codec.long_audio
import tokgen.tokens.engines.job
from makers.audio import RATE, make_tone
from makers.codecs import make_encodec, make_mimi, make_stft_codec
from makers.corpora import CLIPS, table
from makers.processes import fork_context
from makers.tokens import rows_of
from tokgen.audio.files import write_audio
from tokgen.codec.base import Codec
from tokgen.corpus.listed import open_corpus
from tokgen.runs.locks import lock_folder
from tokgen.tokens import tokenizing
from tokgen.tokens.columns import sides_of
from tokgen.tokens.conditioning import Conditioning, ConditioningSettings
from tokgen.tokens.dataset import check_codec, load_tokens
from tokgen.tokens.engines import local
from tokgen.tokens.engines.job import split_name
from tokgen.tokens.provenance import provenance_of
from tokgen.tokens.report import TokenizeReport
from tokgen.tokens.tokenizing import tokenize_corpus
from tokgen.zoo.stft import StftCodec

N_BAD = 3


@pytest.fixture(scope="module")
def folder(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus, and bad files."""
    folder = tmp_path_factory.mktemp("mixed") / "mixed"
    shutil.copytree(tiny_corpus, folder)
    (folder / "aa empty.wav").touch()
    (folder / "cc.wav").write_text("not audio")
    write_audio(folder / "zz silent.wav", torch.zeros(1, RATE), RATE)
    return folder


def run(folder: Path, codec: Codec, out: Path, **settings) -> TokenizeReport:
    settings = {"shard_rows": 3, "batch_seconds": 3.0, "workers": 1, "progress": False, **settings}
    return tokenize_corpus(open_corpus(folder), codec, out, **settings)


@pytest.fixture(scope="module")
def tokens(folder: Path, tiny_codec: StftCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "tokens"
    run(folder, tiny_codec, out)
    return out


def content(out: Path) -> dict:
    """Everything that must be equal after two runs."""
    found = load_tokens(out)
    return {
        "rows": rows_of(out),
        "provenance": found.provenance,
        "features": {split: str(data.features) for split, data in found.splits.items()},
        "rejections": (out / "rejections.jsonl").read_text(),
        "files": sorted(str(p.relative_to(out)) for p in out.rglob("*")),
        "card": [card.read_text() for card in out.glob("README.md")],
        "beside": sorted(p.name for p in out.parent.iterdir() if out.name in p.name),
    }


# -- what is written -----------------------------------------------------------


def test_rows_equal_the_output_of_the_codec(
    folder: Path, tokens: Path, tiny_codec: StftCodec
) -> None:
    corpus = open_corpus(folder)
    mfcc = Conditioning(ConditioningSettings.for_codec(tiny_codec.spec))
    splits = load_tokens(tokens).splits.with_format("numpy")
    seen = {split: iter(data) for split, data in splits.items()}
    n = 0
    for utterance in corpus.utterances(RATE, rejected=[]):
        row = next(seen[utterance.split])
        assert row["id"] == utterance.id  # the corpus' order
        assert (row["text"], row["speaker"]) == (utterance.text, utterance.speaker)
        assert row["n_samples"] == utterance.waveform.shape[-1]
        codes = tiny_codec.encode(utterance.waveform[None])[0]
        assert np.array_equal(row["codes"], codes.T.numpy())
        frames = mfcc(utterance.waveform[None])[0].T.numpy().astype(np.float16)
        assert np.array_equal(row["mfcc"], frames)
        assert row["mfcc"].shape == (len(row["codes"]), 30)
        n += 1
    assert n == len(CLIPS)
    assert all(next(rest, None) is None for rest in seen.values())


def test_types_of_the_columns(tokens: Path) -> None:
    features = load_tokens(tokens).splits["train"].features.arrow_schema
    assert [str(field.type) for field in features] == [
        "string",
        "list<item: fixed_size_list<item: uint16>[4]>",
        "int64",
        "string",
        "string",
        "list<item: fixed_size_list<item: halffloat>[30]>",
    ]
    assert features.names == ["id", "codes", "n_samples", "text", "speaker", "mfcc"]


def test_every_split_has_the_provenance(tokens: Path, tiny_codec: StftCodec) -> None:
    found = load_tokens(tokens)
    assert set(found.splits) == {"train", "validation", "test"}
    provenance = found.provenance
    assert provenance.spec == tiny_codec.spec
    assert (provenance.sample_rate, provenance.hop_length) == (16000, 320)
    assert (provenance.n_codebooks, provenance.codebook_size) == (4, 60)
    assert provenance.conditioning is not None and provenance.conditioning["n_mfcc"] == 30
    assert provenance.corpus == "mixed"
    assert len(provenance.corpus_fingerprint) == 64
    assert json.loads((tokens / "provenance.json").read_text()) == provenance.as_dict()
    for split in found.splits.values():
        assert provenance_of(split.select([0])) == provenance
    check_codec(provenance, tiny_codec.spec)
    other = make_stft_codec(5, name="other").spec
    with pytest.raises(ValueError, match=r"by codec 'tiny' .* not by 'other'"):
        check_codec(provenance, other)


def test_bad_files_are_reported_and_counted(
    folder: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    report = run(folder, tiny_codec, tmp_path / "t")
    assert (report.n_rows, report.n_rejected) == (len(CLIPS), N_BAD)
    assert report.resumed_rows == 0
    assert report.audio_seconds == pytest.approx(sum(seconds for _, seconds, *_ in CLIPS))
    reasons = {Path(r.source).name: r.reason for r in report.rejections}
    assert set(reasons) == {"aa empty.wav", "cc.wav", "zz silent.wav"}
    assert "empty" in reasons["aa empty.wav"] and "silence" in reasons["zz silent.wav"]
    lines = (tmp_path / "t" / "rejections.jsonl").read_text().splitlines()
    assert {Path(json.loads(line)["source"]).name for line in lines} == set(reasons)


def test_equal_stems_are_distinct_rows(tiny_codec: StftCodec, tmp_path: Path) -> None:
    for seed, name in enumerate(("a.wav", "a.flac", "train/a.wav")):
        write_audio(tmp_path / "corpus" / name, make_tone(0.5, seed), RATE)
    tokenize_corpus(tmp_path / "corpus", tiny_codec, tmp_path / "tokens", progress=False)
    rows = {row["id"]: row for split in rows_of(tmp_path / "tokens").values() for row in split}
    assert set(rows) == {"a.wav", "a.flac", "train/a"}
    assert len({str(row["codes"]) for row in rows.values()}) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_seconds": 0.01},
        {"batch_seconds": 1000.0, "shard_rows": 256},
        {"shard_rows": 1, "batch_seconds": 2.2},
    ],
)
def test_batches_and_shards_change_nothing(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path, settings: dict
) -> None:
    run(folder, tiny_codec, tmp_path / "tokens", **settings)
    found, expected = content(tmp_path / "tokens"), content(tokens)
    if "shard_rows" in settings:  # so the number of files differs
        assert found.pop("files") != expected.pop("files")
    assert found == expected


def test_shards_also_end_by_their_audio(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    long = {"shard_rows": 1000}
    run(folder, tiny_codec, tmp_path / "one", shard_seconds=1e4, **long)
    run(folder, tiny_codec, tmp_path / "many", shard_seconds=4.0, **long)
    one, many = ({p.name for p in (tmp_path / x / "data").iterdir()} for x in ("one", "many"))
    assert one == {
        "train-00000-of-00001.parquet",
        "test-00000-of-00001.parquet",
        "validation-00000-of-00001.parquet",
    }
    assert len(many) > len(one)
    assert rows_of(tmp_path / "many") == rows_of(tmp_path / "one") == rows_of(tokens)


def test_long_audio_is_encoded_in_blocks(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(tokgen.tokens.engines.job, "LONG_SECONDS", 0.5)
    monkeypatch.setattr(Codec, "encode_batch_with_side", lambda *args: pytest.fail("held whole"))
    monkeypatch.setattr(tiny_codec, "window_frames", 40)
    rows = rows_of(tokens)
    long = {row["id"] for split in rows.values() for row in split if row["n_samples"] > RATE / 2}
    for path in folder.rglob("*.wav"):
        if path.stem in long or path.stem in ("aa empty", "cc", "zz silent"):
            (tmp_path / "c").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "c" / path.name)
    report = run(tmp_path / "c", tiny_codec, tmp_path / "tokens")
    found = {row["id"]: row for split in rows_of(tmp_path / "tokens").values() for row in split}
    for split in rows.values():
        for row in split:
            if row["id"] in found:
                assert found[row["id"]]["codes"] == row["codes"]
                assert found[row["id"]]["mfcc"] == row["mfcc"]
    assert len(found) >= 3 and report.n_rejected == N_BAD


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """A folder of two tables of six clips."""
    for name, ids in (("train-0", "abcdef"), ("train-1", "ghijkl")):
        columns = {"id": list(ids), "text": [f"say {id}" for id in ids]}
        (tmp_path / "speech").mkdir(exist_ok=True)
        pq.write_table(table(tmp_path, **columns), tmp_path / "speech" / f"{name}.parquet")
    return tmp_path / "speech"


def test_a_stream_makes_the_rows_of_a_listed_corpus(
    parquet: Path, tiny_codec: StftCodec, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(local, "context_of", lambda job: fork_context())  # faster than spawning
    settings = {"workers": 2, "progress": False, "shard_rows": 4}
    tokenize_corpus(open_corpus(parquet), tiny_codec, tmp_path / "listed", **settings)
    stream = open_corpus(parquet, streaming=True)
    assert stream.n_entries is None
    report = tokenize_corpus(stream, tiny_codec, tmp_path / "streamed", **settings)
    assert report.n_rows == 12
    assert rows_of(tmp_path / "streamed") == rows_of(tmp_path / "listed")


def test_duplicate_ids_of_a_stream_give_a_warning(
    parquet: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    shutil.copy(parquet / "train-0.parquet", parquet / "train-1.parquet")
    stream = open_corpus(parquet, streaming=True)
    with pytest.warns(UserWarning, match="6 ids of the stream belong to several .* 'a'"):
        report = tokenize_corpus(stream, tiny_codec, tmp_path / "t", progress=False, workers=1)
    assert report.n_rows == 12


def test_audio_too_long_for_a_codec_is_rejected_by_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tokgen.tokens.engines.job, "LONG_SECONDS", 0.5)
    monkeypatch.setattr(tokgen.codec.long_audio, "WHOLE_SECONDS", 2.0)
    for name, seconds in (("short", 1.0), ("long", 3.0)):
        write_audio(tmp_path / "c" / f"{name}.wav", make_tone(seconds, 0), RATE)
    report = run(tmp_path / "c", make_mimi(), tmp_path / "t", conditioning=None)
    assert report.n_rows == 1
    assert [Path(r.source).name for r in report.rejections] == ["long.wav"]
    assert "audio of more than" in report.rejections[0].reason


def test_fewer_levels_and_no_mfcc(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    run(folder, tiny_codec, tmp_path / "t", n_codebooks=2, conditioning=None)
    found = load_tokens(tmp_path / "t")
    assert "mfcc" not in found.splits["test"].column_names
    assert found.provenance.conditioning is None and found.provenance.n_codebooks == 2
    whole = load_tokens(tokens).splits["test"][0]["codes"]
    assert found.splits["test"][0]["codes"] == [frame[:2] for frame in whole]


@pytest.mark.parametrize("levels", [None, 2])
def test_a_beam_search_chooses_the_codes(
    folder: Path, tiny_codec: StftCodec, tmp_path: Path, levels: int | None, monkeypatch
) -> None:
    monkeypatch.setattr(tokgen.tokens.engines.job, "LONG_SECONDS", 0.6)  # both ways of encoding
    settings = {"conditioning": None, "n_codebooks": levels}
    run(folder, tiny_codec, tmp_path / "t", beam=4, **settings)
    found = load_tokens(tmp_path / "t")
    assert (found.provenance.beam, found.provenance.distance) == (4, "projected")
    expected = {
        u.id: tiny_codec.encode(u.waveform[None], levels, beam=4)[0].T.tolist()
        for u in open_corpus(folder).utterances(RATE, rejected=[])
    }
    rows = {row["id"]: row["codes"] for split in found.splits.values() for row in split}
    assert rows == expected and len(rows) == len(CLIPS)
    assert "--beam 4" in (tmp_path / "t" / "README.md").read_text()
    other = tiny_codec.with_beam(4, "latent")
    assert changes(folder, other, tmp_path / "t", **settings) == "distance: projected → latent"
    greedy = changes(folder, tiny_codec, tmp_path / "t", **settings)
    assert greedy == "beam: 4 → 1; distance: projected → "


def test_the_bar_shows_hours_and_real_time_factor(
    folder: Path, tiny_codec: StftCodec, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(folder, tiny_codec, tmp_path / "t", progress=True)
    bar = capsys.readouterr().err
    assert "tokenizing mixed" in bar
    assert "13/13" in bar.replace(" ", "") or "12/12" in bar.replace(" ", "")
    assert re.search(r"0\.00 h of audio, RTF \d+\.\d{4}", bar)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train"),
        ("dev-clean", "dev_clean"),
        ("../../x", "_x"),
        (None, "train"),
        ("all", "all_"),
        ("é", "é"),
    ],
)
def test_a_split_is_not_a_path(name: str | None, expected: str) -> None:
    assert split_name(name) == expected


def test_a_hostile_split_name_stays_inside_the_folder(
    tiny_codec: StftCodec, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    write_audio(corpus / "a.wav", make_tone(0.3, 0), RATE)
    (corpus / "metadata.csv").write_text("file_name,text,split\na.wav,x,../../../../evil\n")
    run(corpus, tiny_codec, tmp_path / "out" / "t")
    assert [str(split) for split in load_tokens(tmp_path / "out" / "t").splits] == ["_evil"]
    assert not list(tmp_path.rglob("evil"))


# -- side information ----------------------------------------------------------


@pytest.fixture(scope="module")
def chunked() -> Codec:
    """A codec with chunks of a second and one scale per chunk."""
    return make_encodec("encodec-48k")


@pytest.fixture(scope="module")
def scaled(tiny_corpus: Path, chunked: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scaled") / "tokens"
    run(tiny_corpus, chunked, out)
    return out


def test_rows_with_side_information_decode_like_the_audio(
    tiny_corpus: Path, scaled: Path, chunked: Codec
) -> None:
    found = load_tokens(scaled)
    assert found.provenance.side_names == ["scales"]
    assert str(found.splits["train"].features.arrow_schema.field("side_scales").type) == (
        "list<item: float>"
    )
    rejected: list = []
    corpus = {u.id: u for u in open_corpus(tiny_corpus).utterances(8000, rejected=rejected)}
    for split in found.splits.values():
        codes = [torch.tensor(c).long().T for c in split["codes"]]
        sides = sides_of(split, chunked.side_names)
        decoded = chunked.decode_batch(codes, list(split["n_samples"]), sides)
        for row, audio in zip(split, decoded, strict=True):
            waveform = corpus.pop(row["id"]).waveform[None]
            n = waveform.shape[-1]
            torch.testing.assert_close(audio, chunked.roundtrip(waveform)[0], atol=1e-5, rtol=0)
            assert len(row["side_scales"]) == chunked.spec.n_chunks(n)
            assert len(row["mfcc"]) == len(row["codes"]) == chunked.spec.n_frames(n)
    assert not corpus and not rejected


def test_batches_do_not_change_side_information(
    tiny_corpus: Path, scaled: Path, chunked: Codec, tmp_path: Path
) -> None:
    run(tiny_corpus, chunked, tmp_path / "tokens", batch_seconds=100.0)
    assert content(tmp_path / "tokens") == content(scaled)


def test_missing_side_information_is_refused(tokens: Path, scaled: Path, chunked: Codec) -> None:
    plain = load_tokens(tokens).splits["test"]
    assert sides_of(plain, ()) is None
    with pytest.raises(ValueError, match=r"no side information \['scales'\].*tokenize again"):
        sides_of(plain, chunked.side_names)
    row = load_tokens(scaled).splits["test"][0]
    with pytest.raises(ValueError, match=r"needs side information \['scales'\]"):
        chunked.decode_batch([torch.tensor(row["codes"]).T], [row["n_samples"]])


# -- what is refused -----------------------------------------------------------


def test_settings_out_of_range(folder: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"n_codebooks = 5: tiny has levels 1..4"):
        run(folder, tiny_codec, tmp_path / "t", n_codebooks=5)
    for name, value in {
        "n_codebooks": 0,
        "workers": -1,
        "batch_seconds": 0,
        "batch_seconds ": math.nan,
        "shard_rows": 0,
        "shard_rows ": -5,
        "shard_seconds": 0,
        "shard_seconds ": math.inf,
        "conditioning": "mel",
        "engine": "spark",
        "format": "csv",
        "precision": "float8",
    }.items():
        name = name.strip()
        with pytest.raises(ValueError, match=f"{name}.*{value}"):  # before anything is loaded
            tokenize_corpus("no such corpus", "no such codec", tmp_path / "t", **{name: value})
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_usable_audio_is_refused(tiny_codec: StftCodec, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.wav").touch()
    with pytest.raises(ValueError, match=r"no usable audio: 1 rejected \(.*a.wav: .*empty"):
        run(tmp_path / "c", tiny_codec, tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_folder_with_other_content_is_refused(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="not a token dataset: choose another folder"):
            run(folder, tiny_codec, out)


def changes(folder: Path, codec: Codec, out: Path, **settings) -> str:
    """Return what the error about a finished dataset says to have changed."""
    with pytest.raises(ValueError, match=r"Since then, these changed \(old → new\): ") as found:
        run(folder, codec, out, **settings)
    text = str(found.value)
    assert text.startswith(f"{out} holds tokens of codec 'tiny' and corpus ")
    assert text.endswith(". Choose another folder, or delete this one to tokenize again")
    return text.partition("→ new): ")[2].partition(". Choose")[0]


def test_what_changed_since_the_dataset_was_made_is_named(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    folder, out = tmp_path / "c", tmp_path / "t"
    shutil.copytree(tiny_corpus, folder)
    run(folder, tiny_codec, out)
    other = make_stft_codec(5)
    hashes = [codec.spec.encoder_hash[:12] for codec in (tiny_codec, other)]
    changed = f"codec 'tiny': encoder {hashes[0]} → encoder {hashes[1]}"
    assert changes(folder, other, out) == changed
    assert changes(folder, tiny_codec, out, n_codebooks=1) == "n_codebooks: 4 → 1"
    assert changes(folder, tiny_codec, out, conditioning=None) == "conditioning: mfcc → none"
    (folder / "c.wav").unlink()
    for seed, name in enumerate(("b", "x", "y")):
        write_audio(folder / f"{name}.wav", make_tone(0.35, seed + 9), RATE)
    table = (folder / "metadata.csv").read_text().replace("c.wav", "x.wav")
    (folder / "metadata.csv").write_text(table.replace("hello there", "hello"))
    assert changes(folder, tiny_codec, out, n_codebooks=2) == (
        "n_codebooks: 4 → 2; utterances of the corpus: 2 new (first 'x'), 1 gone (first 'c'), "
        "2 with other audio or texts (first 'b')"
    )


def test_what_changed_since_unfinished_work_is_named(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    folder, out = tmp_path / "c", tmp_path / "t"
    shutil.copytree(tiny_corpus, folder)
    with pytest.raises(KeyboardInterrupt):
        run(folder, Counting(tiny_codec, stop_after=6), out)
    (folder / "a one.wav").unlink()
    reason = r"because these changed .*: utterances of the corpus: 1 gone \(first 'a one'\)"
    with pytest.warns(UserWarning, match=reason):
        run(folder, Counting(tiny_codec), out)


def test_a_second_process_is_refused(folder: Path, tiny_codec: StftCodec, tmp_path: Path) -> None:
    held, go_on = fork_context().Event(), fork_context().Event()
    args = (tmp_path / ".t.partial", held, go_on)
    other = fork_context().Process(target=_hold, args=args)
    other.start()
    assert held.wait(60)
    try:
        with pytest.raises(OSError, match=r"\.t\.partial is in use by process \d+ on .*: wait"):
            run(folder, tiny_codec, tmp_path / "t")
    finally:
        go_on.set()
        other.join()
    assert list(tmp_path.iterdir()) == []


def _hold(folder: Path, held, go_on) -> None:
    with lock_folder(folder):
        held.set()
        go_on.wait(60)


def test_a_dataset_that_another_run_has_just_made_is_kept(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path, monkeypatch
) -> None:
    """Both looked for it before one of them had the lock."""
    out = tmp_path / "tokens"
    found = iter((False, False))
    real = tokenizing.is_there
    monkeypatch.setattr(tokenizing, "is_there", lambda place: next(found, None) or real(place))
    shutil.copytree(tokens, out)
    codec = Counting(tiny_codec)
    assert run(folder, codec, out).resumed_rows == len(CLIPS) and codec.n == 0
    assert content(out) == content(tokens) and list(tmp_path.iterdir()) == [out]


# -- disks ---------------------------------------------------------------------


class Full(StftCodec):
    """Runs a function after some clips, and goes on."""

    def __init__(self, codec: StftCodec, after: int, act: Callable[[], None]) -> None:
        super().__init__(codec.model, codec.spec)
        self.n, self.after, self.act = 0, after, act

    def encode_batch_with_side(self, waveforms):
        self.n += len(waveforms)
        if self.n > self.after:
            self.act()
        return super().encode_batch_with_side(waveforms)


def test_a_full_disk_gives_one_line_and_the_run_is_resumed(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    out, work = tmp_path / "tokens", tmp_path / ".tokens.partial"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:  # a write past the limit fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))

    try:
        with pytest.raises(OSError, match=rf"{work}.*run the same command again") as found:
            run(folder, Full(tiny_codec, 6, fill), out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(found.value) and found.value.errno == errno.EFBIG
    kept = {path.relative_to(work).parts[0] for path in work.rglob("*") if path.is_file()}
    assert kept == {"plan.json", "corpus.jsonl", "done", "data"}
    assert run(folder, tiny_codec, out).resumed_rows > 0
    assert content(out) == content(tokens) and list(tmp_path.iterdir()) == [out]


def test_a_failure_before_the_first_shard_leaves_nothing(
    folder: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    for error in (OSError("odd"), KeyboardInterrupt()):

        def fail(error=error) -> None:
            raise error

        with pytest.raises(type(error)):
            run(folder, Full(tiny_codec, 0, fail), tmp_path / "deep" / "tokens")
        assert not list((tmp_path / "deep").glob("*"))


@pytest.mark.parametrize("last", [True, False])
def test_work_that_is_deleted_midway_gives_one_line(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path, last: bool
) -> None:
    out, work = tmp_path / "tokens", tmp_path / ".tokens.partial"
    codec = Full(tiny_codec, 8 if last else 4, lambda: shutil.rmtree(work, ignore_errors=True))
    with pytest.raises(FileNotFoundError, match=rf"{work}.*run the same command again"):
        run(folder, codec, out)
    run(folder, tiny_codec, out)
    assert content(out) == content(tokens)


def test_a_folder_that_cannot_be_written_is_noticed_first(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file is not a folder"):
        tokenize_corpus("no such corpus", "no such codec", tmp_path / "file" / "tokens")


def test_rejections_are_valid_json_whatever_the_name(
    tiny_corpus: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(tiny_corpus, folder)
    for name in (b"\xff\xfe.wav", b"a\x1b[31m\n.wav", b'"\\.wav', "\u2028.wav".encode()):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(b"RIFF no audio")
    report = run(folder, tiny_codec, tmp_path / "t")
    lines = (tmp_path / "t" / "rejections.jsonl").read_bytes().splitlines()
    assert len(lines) == report.n_rejected == 4
    for line in lines:
        fields = json.loads(line)
        assert set(fields) == {"source", "reason"}
        "".join(fields.values()).encode()  # no lone surrogates
    assert run(folder, tiny_codec, tmp_path / "t").n_rejected == 4


# -- resuming ------------------------------------------------------------------


class Counting(StftCodec):
    """Counts clips, and raises KeyboardInterrupt after some."""

    def __init__(self, codec: StftCodec, stop_after: int | None = None) -> None:
        super().__init__(codec.model, codec.spec)
        self.n, self.stop_after = 0, stop_after

    def encode_batch_with_side(self, waveforms):
        if self.stop_after is not None and self.n >= self.stop_after:
            raise KeyboardInterrupt
        self.n += len(waveforms)
        return super().encode_batch_with_side(waveforms)


def test_a_finished_dataset_is_left_alone(
    folder: Path, tokens: Path, tiny_codec: StftCodec
) -> None:
    codec = Counting(tiny_codec)
    before = content(tokens)
    (tokens.parent / ".tokens.partial").mkdir()  # left by a kill just before the end
    report = run(folder, codec, tokens)
    assert codec.n == 0
    assert report.resumed_rows == report.n_rows == len(CLIPS)
    assert report.n_rejected == N_BAD
    assert report.audio_seconds == pytest.approx(sum(seconds for _, seconds, *_ in CLIPS))
    assert content(tokens) == before


def test_an_interrupted_run_is_resumed(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    with pytest.raises(KeyboardInterrupt):
        run(folder, Counting(tiny_codec, stop_after=6), out)
    codec = Counting(tiny_codec)
    report = run(folder, codec, out)
    assert 0 < report.resumed_rows < len(CLIPS)
    assert codec.n == len(CLIPS) - report.resumed_rows
    assert report.n_rows == len(CLIPS) and report.n_rejected == N_BAD
    assert content(out) == content(tokens)


def test_a_damaged_shard_is_made_again(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    with pytest.raises(KeyboardInterrupt):
        run(folder, Counting(tiny_codec, stop_after=8), out)
    shards = sorted((tmp_path / ".tokens.partial").glob("data/*"))
    assert len(shards) > 1
    shards[1].write_bytes(shards[1].read_bytes()[:100])
    run(folder, tiny_codec, out)
    assert content(out) == content(tokens)


def test_unfinished_work_of_another_codec_is_not_used(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path
) -> None:
    out = tmp_path / "tokens"
    with pytest.raises(KeyboardInterrupt):
        run(folder, Counting(make_stft_codec(9), stop_after=6), out)
    with pytest.warns(UserWarning, match=r"because these changed \(old → new\): codec 'tiny'"):
        report = run(folder, tiny_codec, out)
    assert report.resumed_rows == 0
    assert content(out) == content(tokens)


def run_and_count(
    folder: Path, out: Path, kill_at: int, format: str = "parquet"
) -> tuple[int | None, int]:
    """Run in another process, which is killed at its event number `kill_at`.

    An event opens, makes, renames or removes one of the run's files.

    Returns:
        exit code, and the number of events.
    """
    events = fork_context().Value("i", 0)
    child = fork_context().Process(target=_run_and_die, args=(folder, out, kill_at, format, events))
    child.start()
    child.join(300)
    return child.exitcode, events.value


def _run_and_die(folder: Path, out: Path, kill_at: int, format: str, events) -> None:
    def audit(event: str, args: tuple) -> None:
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir") and out.name in str(
            args[0]
        ):
            events.value += 1
            if events.value == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    codec = make_stft_codec()
    sys.addaudithook(audit)
    run(folder, codec, out, format=format)


def test_killed_again_and_again(folder: Path, tokens: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    kills = 0
    for kill_at in itertools.count(10, 10):
        code, _ = run_and_count(folder, out, kill_at)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills >= 5
    assert content(out) == content(tokens)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_killed_at_any_instant(
    folder: Path, tokens: Path, tiny_codec: StftCodec, tmp_path: Path, format: str
) -> None:
    whole = tmp_path / "whole" / "tokens"
    code, n_events = run_and_count(folder, whole, 0, format)
    assert code == 0
    expected = content(whole)
    assert expected["rows"] == rows_of(tokens)
    for kill_at in range(1, n_events + 1, 1 + n_events // 9):
        out = tmp_path / str(kill_at) / "tokens"
        assert run_and_count(folder, out, kill_at, format)[0] == -signal.SIGKILL
        run(folder, tiny_codec, out, format=format)
        assert content(out) == expected
