"""Drift with stable decoding and with the frame grid found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import MAKERS, BlockCodec
from makers.effects import Effect
from tokgen.codec.stable.settings import StableDecoding
from tokgen.corpus.listed import open_corpus
from tokgen.drift import chain
from tokgen.drift.chain import Treatment, send_through
from tokgen.drift.clips import DriftClips
from tokgen.drift.compare import measure_drift
from tokgen.drift.passes import drift_of, run_drift
from tokgen.drift.shifts import place_clip
from tokgen.zoo.stft import StftCodec

STABLE = Treatment(StableDecoding())


@pytest.fixture(scope="module")
def clip() -> Tensor:
    return make_tone(1.2, 3)


@pytest.mark.parametrize("match_level", [True, False])
def test_stable_passes_do_not_drift(tiny_codec: StftCodec, clip: Tensor, match_level: bool) -> None:
    plain = drift_of(tiny_codec, clip, 4, match_level=match_level)
    found = drift_of(tiny_codec, clip, 4, match_level=match_level, treatment=STABLE)
    assert (found.codes == found.codes[0]).all() and (plain.codes != plain.codes[0]).any()
    assert (found.values["match_first"] == 1).all()
    assert len(set(found.values["pesq"])) == len(set(found.values["log_mel"])) == 1
    assert found.values["level"] == pytest.approx([plain.values["level"][0]] * 4)


def test_the_first_stable_pass_is_stable_decoding(tiny_codec: StftCodec, clip: Tensor) -> None:
    [first] = send_through(tiny_codec, clip, [0], False, STABLE)
    codes = tiny_codec.encode(clip[None])
    expected, _ = tiny_codec.decode(codes, clip.shape[-1], stable=True)
    assert torch.equal(first.output, expected[0]) and torch.equal(first.codes, codes[0])
    [scaled] = send_through(tiny_codec, clip, [0], True, STABLE)
    power = [x.square().mean().item() for x in (scaled.output, clip)]
    assert power[0] == pytest.approx(power[1], rel=0.05)
    assert torch.equal(tiny_codec.encode(scaled.output[None]), codes)


def test_equal_codes_are_searched_once(
    tiny_codec: StftCodec, clip: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []
    blocks = chain.stable_blocks
    monkeypatch.setattr(chain, "stable_blocks", lambda *a: searches.append(a) or blocks(*a))
    passes = list(send_through(tiny_codec, clip, [0] * 6, True, STABLE))
    assert len(passes) == 6 and len(searches) == 1


def test_the_grid_is_found_after_shifts(tiny_codec: StftCodec, clip: Tensor) -> None:
    """Codes under shifts are comparable, and those within the clip come back."""
    clip, places = clip[:, :12000], place_clip(37, 3, 320)
    few = StableDecoding(repairs=1)
    found = drift_of(tiny_codec, clip, 3, places=places, treatment=Treatment(few, "auto"))
    assert found.values["match_first"].shape == (3, 4)
    assert (found.codes[:, :, 5:-5] == found.codes[0, :, 5:-5]).mean() > 0.98
    lost = drift_of(
        tiny_codec, clip, 2, places=places[:2], treatment=Treatment(StableDecoding(steps=0))
    )
    assert "match_first" not in lost.values
    grid = drift_of(tiny_codec, clip, 3, places=places, treatment=Treatment(grid="auto"))
    assert grid.values["match_first"][-1].mean() < found.values["match_first"][-1].mean()


def test_rows_stand_beside_the_plain_ones(
    tiny_codec: StftCodec, tiny_corpus: Path, tmp_path: Path
) -> None:
    codecs = [tiny_codec, Effect(lambda w: w, "as is")]
    options = {"split": "test", "passes": 2, "clip_seconds": 0.5, "samples": 1, "progress": False}
    found = measure_drift(codecs, tiny_corpus, tmp_path, **options, stable=True)
    assert [d.name for d in found.drifts] == ["tiny", "as is", "tiny (stable)"]
    assert (
        found.drifts[2].at("match_previous", 2).mean
        == 1
        > found.drifts[0].at("match_previous", 2).mean
    )
    assert {d.codec for d in found.differences} == {"as is", "tiny (stable)"}
    content = json.loads((tmp_path / "drift.json").read_text())
    assert content["settings"]["stable"]["steps"] == 40 and content["settings"]["grid"] is None
    assert "tiny (stable)" in found.table() and (tmp_path / "drift.png").stat().st_size > 5000
    assert (tmp_path / "audio" / "tiny__stable_").is_dir()
    again = measure_drift(codecs, tiny_corpus, tmp_path, **options, stable=True)  # from the store
    assert again.table() == found.table()
    with pytest.raises(FileExistsError, match="tiny"):
        measure_drift(codecs, tiny_corpus, tmp_path, **options, stable=True, grid="auto")


def test_results_are_kept_apart(tiny_codec: StftCodec, tiny_corpus: Path, tmp_path: Path) -> None:
    clips = DriftClips(open_corpus(tiny_corpus, split="test"), seconds=0.5, n_clips=1)
    options = {"out": tmp_path, "passes": 2, "n_samples": 0, "progress": False}
    names = []
    for treatment in (Treatment(), STABLE, Treatment(StableDecoding(steps=1, repairs=0))):
        run = run_drift(tiny_codec, clips, **options, treatment=treatment)
        names.append((run.name, run.at("match_first", 2).item()))
    assert [name for name, _ in names] == ["tiny", "tiny (stable)", "tiny (stable)"]
    assert len({match for _, match in names}) == 3 and names[1][1] == 1


@pytest.mark.parametrize(
    ("codec", "treatment", "message"),
    [
        (Effect(lambda w: w, "as is"), STABLE, "as is has no codes"),
        (BlockCodec(), STABLE, "cannot decode stably"),
        (MAKERS["encodec-48k"], Treatment(grid="auto"), "overlapping chunks"),
    ],
)
def test_codecs_without_a_treatment(
    codec, treatment: Treatment, message: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    codec = codec() if callable(codec) else codec
    with pytest.raises(ValueError, match=message):
        measure_drift(
            codec,
            tiny_corpus,
            tmp_path,
            passes=2,
            stable=treatment.stable or False,
            grid=treatment.grid,
        )
    assert not list(tmp_path.iterdir())


def test_names_say_what_is_done() -> None:
    assert Treatment().name("a") == "a" and not Treatment()
    assert Treatment(grid="auto").name("a") == "a (grid)"
    assert Treatment(StableDecoding(), "auto").name("a") == "a (stable, grid)"
    assert Treatment().plan() == []
