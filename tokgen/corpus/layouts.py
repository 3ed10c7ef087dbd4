"""Layouts of published corpora: the places of audio, texts, speakers and splits.

    layout, folder = find_layout("vctk:/data/VCTK-Corpus-0.92")

A layout is data: a pattern of the paths of the audio, and the places of the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tokgen.corpus.splits import assign_split

__all__ = ["LAYOUTS", "Layout", "find_layout"]

_DAPS_TEST = ("f10", "m10")  # which DAC holds out


@dataclass(frozen=True)
class Layout:
    """The layout of a published corpus.

    Attributes:
        title: name of the corpus.
        audio: pattern of the end of a path, with a group `id` and, if the path tells them, `base`
            (the folder that the layout begins in), `speaker` and `split`.
        example: a path that the pattern fits, for messages.
        language: of all clips that do not state another one.
        speaker: of all clips, if there is one speaker.
        text: path of a clip's transcript, with the groups of `audio` in braces.
        tables: pattern of the files that describe several clips.
        tables_example: names of such files, for messages.
        is_listed: only clips that the tables give a split belong to the corpus.
        own_split: split by id and speaker, for a corpus that is published without splits.
        left_out: pattern of ids in tables that do not belong to the corpus.
    """

    title: str
    audio: re.Pattern[str]
    example: str
    language: str | None = "en"
    speaker: str | None = None
    text: str | None = None
    tables: re.Pattern[str] | None = None
    tables_example: str = ""
    is_listed: bool = False
    own_split: Callable[[str, str], str] | None = None
    left_out: re.Pattern[str] | None = None


def _vctk(microphone: int) -> Layout:
    return Layout(
        f"VCTK 0.92, microphone {microphone}",
        re.compile(
            r"(?P<base>(.*/)?)wav48(_silence_trimmed)?/(?P<speaker>[ps]\d+)/"
            rf"(?P<id>[ps]\d+_\d+)(_mic{microphone})?\.(flac|wav)"
        ),
        f"wav48_silence_trimmed/p225/p225_001_mic{microphone}.flac",
        text="{base}txt/{speaker}/{id}.txt",
        own_split=lambda id, speaker: assign_split(speaker),
        left_out=re.compile(rf"_mic(?!{microphone}$)\d$"),
    )


LAYOUTS = {
    "ljspeech": Layout(
        "LJSpeech 1.1",
        re.compile(r"(?P<base>(.*/)?)wavs/(?P<id>LJ\d+-\d+)\.\w+"),
        "wavs/LJ001-0001.wav",
        speaker="LJ",
        tables=re.compile(r"metadata\.csv"),
        own_split=lambda id, speaker: assign_split(id),
    ),
    "vctk": _vctk(1),
    "vctk-mic2": _vctk(2),
    "libritts": Layout(
        "LibriTTS and LibriTTS-R",
        re.compile(
            r"(?P<base>(.*/)?(?P<split>(train|dev|test)-(clean|other)(-\d+)?)/(?P<speaker>\d+)/\d+/)"
            r"(?P<id>\d+_\d+_\d+_\d+)\.(wav|flac)"
        ),
        "train-clean-100/103/1241/103_1241_000000_000001.wav",
        text="{base}{id}.normalized.txt",
    ),
    "expresso": Layout(
        "Expresso",
        re.compile(
            r"(?P<base>(.*/)?)audio_\d+khz/(read|conversational)/(?P<speaker>[^/]+)/([^/]+/)+"
            r"(?P<id>[^/]+)\.wav"
        ),
        "audio_48khz/read/ex01/happy/base/ex01_happy_00001.wav",
        tables=re.compile(r"read_transcriptions\.txt|splits/(train|dev|test)\.txt"),
        tables_example="splits/train.txt, dev.txt, test.txt",
        is_listed=True,
    ),
    "daps": Layout(
        "DAPS, clean recordings",
        re.compile(r"(?P<base>(.*/)?)clean/(?P<id>(?P<speaker>[fm]\d+)_script\d+_clean)\.wav"),
        "clean/f1_script1_clean.wav",
        own_split=lambda id, speaker: "test" if speaker in _DAPS_TEST else "train",
    ),
    "commonvoice": Layout(
        "Common Voice",
        re.compile(r"(?P<base>(.*/)?)clips/(?P<id>[^/]+)\.(mp3|wav)"),
        "clips/common_voice_en_1.mp3",
        language=None,
        tables=re.compile(r"(train|dev|test|clip_durations)\.tsv"),
        tables_example="train.tsv, dev.tsv, test.tsv",
        is_listed=True,
    ),
}


def find_layout(source: str) -> tuple[Layout | None, str]:
    """Return the layout that a source names, and the source without the name.

    "vctk:/data/VCTK" names one; "/data/VCTK", "s3://bucket/VCTK" and "owner/name:config" do not.
    """
    name, colon, rest = source.partition(":")
    if colon and rest and not rest.startswith("//") and name in LAYOUTS:
        return LAYOUTS[name], rest
    return None, source
