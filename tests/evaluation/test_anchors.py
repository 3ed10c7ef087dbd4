"""Anchors of speaker similarity, by hand and in the table of `score_codec`."""

from __future__ import annotations

import json
import math

import pytest
import torch

from tokgen.corpus.listed import open_corpus
from tokgen.evaluation.anchors import OTHER_SPEAKER, SAME_SPEAKER, speaker_anchors
from tokgen.evaluation.codec_scores import score_codec
from tokgen.metrics.speaker import make_speaker_encoder, speaker_similarity


def angle(degrees: float) -> torch.Tensor:
    """A unit vector; the cosine of two is that of the difference of their angles."""
    return torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def cosine(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def test_anchors_by_hand():
    voices = [angle(0), angle(10), angle(30), angle(90), None, angle(45)]
    rows, notes = speaker_anchors(voices, ["ann", "ann", "ann", "ben", "ann", None])
    upper, lower = (row.values["speaker"] for row in rows)
    assert [row.name for row in rows] == [SAME_SPEAKER, OTHER_SPEAKER]
    by_clip = [
        (cosine(10) + cosine(30)) / 2, (cosine(10) + cosine(20)) / 2, (cosine(30) + cosine(20)) / 2,
    ]  # fmt: skip
    assert upper.mean == pytest.approx(sum(by_clip) / 3) and upper.n == 3
    ben = (cosine(90) + cosine(80) + cosine(60)) / 3
    assert lower.mean == pytest.approx((cosine(90) + cosine(80) + cosine(60) + ben) / 4)
    assert lower.n == 4 and upper.mean > lower.mean
    assert len(notes) == 1 and "compare originals with each other" in notes[0]


@pytest.mark.parametrize(
    ("voices", "speakers", "rows", "why"),
    [
        ([angle(0), angle(10)], ["ann", "ann"], [SAME_SPEAKER], "all clips have the speaker ann"),
        ([angle(0), angle(10)], ["ann", "ben"], [OTHER_SPEAKER], "no speaker has two clips"),
        ([angle(0), angle(10)], [None, None], [], "the speakers of the clips are not known"),
        ([None, None], ["ann", "ben"], [], "no clip has a voice"),
    ],
)
def test_notes_say_why_an_anchor_is_missing(voices, speakers, rows, why):
    found, notes = speaker_anchors(voices, speakers)
    assert [row.name for row in found] == rows
    assert why in notes[0]


def test_scores_of_a_codec_show_the_anchors(tiny_codec, tiny_corpus):
    corpus = open_corpus(tiny_corpus, min_seconds=1.0)
    options = {"speaker": "resemblyzer", "workers": 0, "progress": False}
    found = score_codec(tiny_codec, corpus, metrics="speaker", **options)
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(content["scores"]) == ["original", "tiny decoded", SAME_SPEAKER, OTHER_SPEAKER]
    anchors = [content["scores"][name]["speaker"] for name in (SAME_SPEAKER, OTHER_SPEAKER)]
    clips = list(corpus.utterances(16000, rejected=[]))
    assert [a["n"] for a in anchors] == [len(clips)] * 2
    encoder = make_speaker_encoder("resemblyzer")
    voices = [encoder.embed(clip.waveform, 16000) for clip in clips]
    means = []
    for i, clip in enumerate(clips):
        others = [j for j in range(len(clips)) if j != i and clips[j].speaker == clip.speaker]
        similar = [speaker_similarity(voices[i], voices[j]) for j in others]
        means.append(sum(similar) / len(similar))
    assert anchors[0]["mean"] == pytest.approx(sum(means) / len(means))
    assert SAME_SPEAKER in found.table() and OTHER_SPEAKER in found.table()
    without = score_codec(tiny_codec, corpus, metrics="pesq", workers=0, progress=False)
    assert SAME_SPEAKER not in without.table() and "anchor" not in without.table()
