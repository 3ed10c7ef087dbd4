"""Repeated editing: what is edited, what stays, resume, and the files."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from makers.audio import make_tone
from makers.codecs import MAKERS, BlockCodec, make_stft_codec
from tokgen.codec.depth import OutOfReach
from tokgen.comparison.settings import TelephoneSettings
from tokgen.comparison.telephone import (
    UNTOUCHED,
    check_codec,
    play_telephone,
    score_untouched,
)
from tokgen.comparison.telephone_results import write_telephone
from tokgen.evaluation.scorer import Scorer
from tokgen.generation.clips import conditioning_for
from tokgen.generation.held_out import HeldOut
from tokgen.generation.prompts import gap_start
from tokgen.generation.settings import SamplingSettings
from tokgen.metrics.pesq import pesq_wb
from tokgen.modelling.masked import MaskedTransformer

SAMPLING = SamplingSettings(steps=(2, 1))
SETTINGS = TelephoneSettings(rounds=3, n_clips=3, gap_seconds=0.3)
SECONDS = (1.2, 0.9, 1.5, 1.1)
SHORT = (1.1, 1.05, 1.15, 0.5)  # for codecs with many frames
SHORT_SETTINGS = TelephoneSettings(rounds=3, n_clips=3, gap_seconds=0.1)


def held_out_of(codec, seconds=SECONDS) -> HeldOut:
    clips = [make_tone(s, i) for i, s in enumerate(seconds)]
    codes = codec.encode_batch(clips)
    return HeldOut(
        codec, [f"c{i}" for i in range(4)], [3, 5, 7, 9], ["one", "two", "three", None],
        [c.shape[-1] for c in clips], codes, None, None, clips,
    )  # fmt: skip


def model_of(codec, seed: int = 0) -> MaskedTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaskedTransformer.for_codec(
            codec, dim=32, depth=1, heads=2, dim_head=32, conditioning_dim=0, embedding="learned"
        ).eval()


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(("pesq",))


def play(codec, scorer, out, settings=SETTINGS, seconds=SECONDS, **more):
    held_out = held_out_of(codec, seconds)
    return play_telephone(
        model_of(codec), held_out, settings, SAMPLING, scorer, out=out, progress=False, **more
    )


def test_every_clip_has_every_round(tiny_codec, scorer, tmp_path) -> None:
    found = play(tiny_codec, scorer, tmp_path)
    fields = {"pesq", "pesq_untouched", "match_untouched", "segments", "unscored"}
    assert set(found.values) == fields
    assert all(v.shape == (3, 3) for v in found.values.values())
    assert [w.shape[-1] for w in found.last] == [round(s * 16000) for s in SECONDS[:3]]


def test_an_idempotent_codec_keeps_what_was_never_edited(scorer, tmp_path) -> None:
    still = play(BlockCodec(name="still", hop=16), scorer, tmp_path, SHORT_SETTINGS, SHORT)
    assert (still.values["match_untouched"] == 1).all()
    untouched = still.values["pesq_untouched"]
    np.testing.assert_allclose(untouched[:, 1:], untouched[:, :-1], atol=1e-6)
    held_out = held_out_of(BlockCodec(name="still", hop=16), SHORT)
    start = gap_start(held_out.codec.spec, held_out.n_samples[1], 0.1, (0, held_out.items[1], 0))
    edited = torch.ones(held_out.n_samples[1], dtype=torch.bool)
    edited[max(0, round(16000 * (start - 0.1))) : round(16000 * (start + 0.2))] = False
    expected = score_untouched(held_out.originals[1], held_out.resynthesis()[1], edited, 16000)
    assert {name: still.values[name][1, 0] for name in expected} == pytest.approx(expected)
    moving = play(make_stft_codec(name="drifter"), scorer, tmp_path)
    assert moving.values["match_untouched"][:, -1].max() < 0.9


def test_untouched_segments_are_scored_alone():
    original = make_tone(3.0, 0)
    now = original + 0.01 * torch.randn(original.shape, generator=torch.manual_seed(0))
    untouched = torch.ones(48000, dtype=torch.bool)
    untouched[:100] = untouched[16000:24000] = untouched[30000:31000] = False
    segments = [slice(100, 16000), slice(31000, 48000)]  # 24000 to 30000 is too short
    scores = [pesq_wb(original[:, s], now[:, s], 16000) for s in segments]
    now[:, ~untouched] = 0.5 * torch.randn(int((~untouched).sum()))  # edits must not matter
    found = score_untouched(original, now, untouched, 16000)
    assert found["pesq_untouched"] == pytest.approx(np.average(scores, weights=[15900, 17000]))
    assert (found["segments"], found["unscored"]) == (3, 1)
    same = score_untouched(original, original, untouched, 16000)
    assert same["pesq_untouched"] == pytest.approx(4.644, abs=1e-3)
    silent = torch.where(torch.arange(48000) < 20000, 0, original)
    assert score_untouched(silent, now, untouched, 16000)["unscored"] == 2
    nothing = score_untouched(original, now, torch.zeros(48000, dtype=torch.bool), 16000)
    assert np.isnan(nothing["pesq_untouched"]) and nothing["segments"] == 0
    untouched[:] = False
    untouched[:6000] = True
    assert score_untouched(original, now, untouched, 16000)["unscored"] == 1


def test_regions_stay_unless_they_move(tiny_codec, scorer, tmp_path) -> None:
    fixed = play(tiny_codec, scorer, tmp_path)
    moved = TelephoneSettings(rounds=3, n_clips=3, gap_seconds=0.3, moving=True)
    moving = play(tiny_codec, scorer, tmp_path, moved)
    first = fixed.values["match_untouched"][:, 0]
    np.testing.assert_array_equal(first, moving.values["match_untouched"][:, 0])
    assert not np.array_equal(fixed.last[0], moving.last[0])


def test_it_resumes_after_a_kill(tiny_codec, scorer, tmp_path, monkeypatch) -> None:
    whole = play(tiny_codec, scorer, tmp_path / "whole", batch_size=2)
    folder = tmp_path / "cut"
    play(tiny_codec, scorer, folder, batch_size=2)
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == 3
    files[2].unlink()
    files[0].write_bytes(files[0].read_bytes()[:40])
    again = play(tiny_codec, scorer, folder, batch_size=2)
    for name, values in whole.values.items():
        np.testing.assert_array_equal(values, again.values[name])
    assert all(a.equal(b) for a, b in zip(whole.last, again.last, strict=True))

    def dead(*args, **kwargs):
        raise AssertionError("finished clips are edited again")

    monkeypatch.setattr("tokgen.comparison.telephone.generate_clips", dead)
    play(tiny_codec, scorer, folder, batch_size=2)


def test_files_hold_every_round_and_paired_differences(tiny_codec, scorer, tmp_path) -> None:
    codecs, more = (tiny_codec, BlockCodec(name="still", hop=16)), (SHORT_SETTINGS, SHORT)
    calls = [play(codec, scorer, tmp_path / "clips", *more) for codec in codecs]
    write_telephone(calls, SHORT_SETTINGS, scorer, tmp_path)
    content = json.loads((tmp_path / "telephone.json").read_text())
    assert content["rounds"] == 3 and content["settings"]["gap_seconds"] == 0.1
    curves = {(c["codec"], c["metric"]): c["points"] for c in content["curves"]}
    assert set(curves) == {
        (codec, m) for codec in ("tiny", "still")
        for m in ("pesq", *(m.name for m in UNTOUCHED))
    }  # fmt: skip
    points = curves["still", "match_untouched"]
    assert [p["round"] for p in points] == [1, 2, 3] and points[0]["mean"] == 1.0
    mean = calls[0].values["pesq"][:, 2].mean()
    assert curves["tiny", "pesq"][2]["mean"] == pytest.approx(mean)
    last = {d["metric"]: d for d in content["differences"]}
    gain = (calls[1].values["pesq_untouched"] - calls[0].values["pesq_untouched"])[:, 2]
    assert last["pesq_untouched"]["mean"] == pytest.approx(gain.mean())
    assert last["pesq_untouched"]["than"] == "tiny" and last["pesq_untouched"]["n"] == 3
    counts = {(c["codec"], c["round"]): c for c in content["untouched"]}
    assert len(counts) == 2 * 3
    found = {name: int(calls[1].values[name][:, 1].sum()) for name in ("segments", "unscored")}
    assert counts["still", 2] == {"codec": "still", "round": 2, **found}
    assert found["segments"] > found["unscored"]
    assert "alone" in content["backends"]["pesq_untouched"]
    with (tmp_path / "telephone.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 3 * 3
    assert (tmp_path / "telephone.png").stat().st_size > 5000


def test_the_region_follows_the_conditioning(tiny_codec, scorer, tmp_path) -> None:
    from tokgen.tokens.conditioning import ConditioningSettings

    settings = asdict(ConditioningSettings.for_codec(tiny_codec.spec))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MaskedTransformer.for_codec(
            tiny_codec, dim=32, depth=1, heads=2, dim_head=32, conditioning=settings
        ).eval()
    plain = held_out_of(tiny_codec)
    told = replace(plain, conditioning=conditioning_for(model, plain.originals))
    more = {"out": tmp_path, "progress": False}
    a = play_telephone(model, plain, SETTINGS, SAMPLING, scorer, **more)
    louder = replace(told, conditioning=[c + 20 for c in told.conditioning])
    b = play_telephone(model, louder, SETTINGS, SAMPLING, scorer, **more)
    assert not a.last[0].equal(b.last[0])


def test_stable_edits_leave_what_was_never_edited(tiny_codec, scorer, tmp_path) -> None:
    """The plain codes drift, and the stable ones stay code for code."""
    settings = TelephoneSettings(rounds=4, n_clips=1, gap_seconds=0.1)
    seconds = (0.5, 0.5, 0.5, 0.5)
    plain = play(tiny_codec, scorer, tmp_path, settings, seconds).values["match_untouched"]
    stable = replace(settings, stable=True)
    found = play(tiny_codec, scorer, tmp_path, stable, seconds).values["match_untouched"]
    assert found.shape == (1, 4) and (found == 1).all()
    assert plain[0, -1] < 0.9


def test_moved_audio_is_edited_on_its_grid(tiny_codec, scorer, tmp_path) -> None:
    settings = TelephoneSettings(
        rounds=2, n_clips=1, gap_seconds=0.1, stable=True, shift=37, grid="auto"
    )
    found = play(tiny_codec, scorer, tmp_path, settings)
    assert found.values["match_untouched"].min() > 0.9
    assert found.last[0].shape == (1, 19200)
    lost = play(tiny_codec, scorer, tmp_path, replace(settings, grid=None))
    assert lost.values["match_untouched"][0, 1:].max() < 0.5


def test_codecs_that_cannot_are_refused(scorer, tmp_path) -> None:
    for settings, message in (
        ({"stable": True}, "cannot decode stably"),
        ({"grid": "auto"}, "overlapping chunks"),
    ):
        codec = BlockCodec() if "stable" in settings else MAKERS["encodec-48k"]()
        with pytest.raises(ValueError, match=message):
            check_codec(codec, TelephoneSettings(**settings))
    with pytest.raises(ValueError, match="shift = 'often'"):
        TelephoneSettings(shift="often")


@pytest.mark.parametrize("wrong", [{"rounds": -1}, {"n_clips": 0}, {"gap_seconds": 0.0}])
def test_bad_settings_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TelephoneSettings(**wrong)


class Narrow(BlockCodec):
    """Cannot reach its bitrate on audio of one length."""

    def encode_batch_with_side(self, waveforms, *args, **more):
        if any(w.shape[-1] == round(SECONDS[1] * 16000) for w in waveforms):
            raise OutOfReach("bitrate = 1 kbps: too little")
        return super().encode_batch_with_side(waveforms, *args, **more)


def test_a_clip_out_of_reach_fails_in_every_round(scorer, tmp_path) -> None:
    codec = Narrow(name="narrow", hop=16)
    settings = TelephoneSettings(rounds=2, n_clips=2, gap_seconds=0.1)
    clips = [make_tone(s, i) for i, s in enumerate(SECONDS[:2])]
    held_out = HeldOut(
        codec, ["a", "b"], [0, 1], [None] * 2, [c.shape[-1] for c in clips],
        [codec.encode(c[None])[0] for c in clips], None, None, clips,
    )  # fmt: skip
    for _ in range(2):  # the second call reads what the first kept
        call = play_telephone(
            model_of(codec), held_out, settings, SAMPLING, scorer, out=tmp_path, progress=False
        )
        assert call.lost == {"b": "bitrate = 1 kbps: too little"}
        assert np.isfinite(call.values["match_untouched"][0]).all()
        assert np.isnan(call.values["match_untouched"][1]).all()
        assert call.last[1].numel() == 0
    write_telephone([call], settings, scorer, tmp_path / "files")
    content = json.loads((tmp_path / "files/telephone.json").read_text())
    [failure] = content["failures"]
    assert (failure["codec"], failure["clip"]) == ("narrow", "b")
    curve = next(c for c in content["curves"] if c["metric"] == "match_untouched")
    assert [(p["n"], p["n_failed"]) for p in curve["points"]] == [(1, 1), (1, 1)]
