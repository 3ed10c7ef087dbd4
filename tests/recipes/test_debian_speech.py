"""Speech corpora from Debian packages, built from small trees with the packages' layouts."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile as sf
import torch

from makers.audio import make_tone
from makers.paths import ROOT
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus

SPEC = importlib.util.spec_from_file_location(
    "debian_speech", ROOT / "recipes/data/debian_speech.py"
)
debian_speech = importlib.util.module_from_spec(SPEC)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    import sys

    sys.modules["debian_speech"] = debian_speech
    SPEC.loader.exec_module(debian_speech)
    yield
    del sys.modules["debian_speech"]


def speak(path: Path, seconds: float = 0.5, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = make_tone(seconds, len(path.name))
    if path.suffix == ".gsm":
        raw = {"format": "RAW", "subtype": "GSM610"}
        sf.write(path, waveform[0, ::2].numpy(), 8000, **raw)
    elif path.suffix == ".ogg":
        sf.write(path, waveform[0].numpy(), rate, format="OGG", subtype="VORBIS")
    else:
        write_audio(path, waveform, rate)


def built(name: str, root: Path, out: Path):
    summary = debian_speech.build(name, debian_speech.SOURCES[name], root, out / f"{name}.parquet")
    corpus = open_corpus(out / f"{name}.parquet")
    return summary, {entry.id: entry for entry in corpus.entries}


def test_prompts_have_texts_and_are_split_by_id(tmp_path):
    sounds = tmp_path / "root/usr/share/asterisk/sounds/it_IT_f_Menardi"
    for name in ("vm-intro.wav", "digits/1.wav", "beep.wav", "silence/1.wav"):
        speak(sounds / name)
    listing = tmp_path / "root/usr/share/doc/x/core-sounds-it.txt.gz"
    listing.parent.mkdir(parents=True)
    lines = "; a comment\nvm-intro: Lasciate: un messaggio \nbeep: [a tone]\ndigits/1:\n"
    listing.write_bytes(gzip.compress(lines.encode()))
    summary, entries = built("it-menardi", tmp_path / "root", tmp_path)
    assert set(entries) == {"vm-intro", "digits/1"} and summary.startswith("2 clips")
    intro = entries["vm-intro"]
    assert (intro.text, intro.speaker, intro.language) == (
        "Lasciate: un messaggio", "Menardi", "it",
    )  # fmt: skip
    assert entries["digits/1"].text is None
    for id, entry in entries.items():
        percent = int(hashlib.sha256(id.encode()).hexdigest(), 16) % 100
        expected = "test" if percent < 8 else "validation" if percent < 13 else "train"
        assert entry.split == expected


def test_dialogues_know_their_characters(tmp_path):
    script = tmp_path / "root/usr/share/games/fillets-ng/script/city/dialogs_cs.lua"
    script.parent.mkdir(parents=True)
    script.write_text(
        'dialogId("cit-m-a", "font_small", "What \\"is\\" it?")\ndialogStr("Co \\"to\\" je?")\n\n'
        'dialogId("cit-s-b", "font_statue", "I speak.")\ndialogStr("Mluvím.")\n',
        encoding="utf-8",
    )
    sounds = tmp_path / "root/usr/share/games/fillets-ng/sound/city/cs"
    for name in ("cit-m-a.ogg", "cit-s-b.ogg", "unknown.ogg"):
        speak(sounds / name)
    _, entries = built("fillets-cs", tmp_path / "root", tmp_path)
    assert entries["cs/city/cit-m-a"].text == 'Co "to" je?'
    assert {e.speaker for e in entries.values()} == {
        "fillets-cs-small", "fillets-cs-city-statue", "fillets-cs-city-city",
    }  # fmt: skip
    statue = entries["cs/city/cit-s-b"]
    assert statue.split == debian_speech.split_of("fillets-cs-city-statue")  # by the speaker
    assert entries["cs/city/cit-m-a"].split == debian_speech.split_of("cs/city/cit-m-a")


def test_stamps_take_the_text_of_their_language(tmp_path):
    folder = tmp_path / "root/usr/share/tuxpaint/stamps/animals"
    for name in ("owl_desc.ogg", "owl_desc_ca.ogg", "owl.ogg"):
        speak(folder / name)
    (folder / "owl.txt").write_text("An owl.\nca.utf8=Un mussol.\n", encoding="utf-8")
    _, entries = built("stamps", tmp_path / "root", tmp_path)
    assert {id: (e.text, e.speaker) for id, e in entries.items()} == {
        "animals/owl_desc": ("An owl.", "stamps-en"),
        "animals/owl_desc_ca": ("Un mussol.", "stamps-ca"),
    }


def test_gsm_letters_words_and_pieces(tmp_path):
    root = tmp_path / "root"
    speak(root / "usr/share/asterisk/sounds/es/hola.gsm", 1.0)
    _, entries = built("es-co", root, tmp_path)
    assert entries["hola"].seconds == pytest.approx(1.0, abs=0.05)
    speak(root / "usr/share/klettres/cs/alpha/a.ogg")
    speak(root / "usr/share/ktuberling/sounds/de/ball.ogg")
    assert built("klettres", root, tmp_path)[1]["cs/alpha/a"].speaker == "klettres-cs"
    assert built("ktuberling", root, tmp_path)[1]["de/ball"].language == "de"
    pieces = debian_speech.pieces("song", torch.ones(1, 11 * 16000), 5.0)
    assert [(id, p.shape[-1]) for id, p in pieces] == [("song-000", 80000), ("song-001", 80000)]


def test_damaged_and_silent_files_are_counted(tmp_path):
    folder = tmp_path / "root/usr/share/klettres/cs/alpha"
    speak(folder / "a.ogg")
    (folder / "b.ogg").write_bytes(b"OggS no audio")
    speak(folder / "c.ogg", 0.1)
    summary, entries = built("klettres", tmp_path / "root", tmp_path)
    assert set(entries) == {"cs/alpha/a"}
    assert "1 unreadable" in summary and "1 silent or too short" in summary
    shutil.rmtree(folder)
    with pytest.raises(SystemExit, match="klettres: no clip found in klettres-data"):
        built("klettres", tmp_path / "root", tmp_path)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_packages_come_from_a_folder_and_corpora_are_kept(tmp_path, capsys):
    tree = tmp_path / "tree"
    speak(tree / "usr/share/klettres/cs/alpha/a.ogg")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: klettres-data\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\n"
        "Description: letters\n"
    )
    debs = tmp_path / "debs"
    debs.mkdir()
    deb = debs / "klettres-data_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", tree, deb], check=True, capture_output=True)
    flags = ["--out", str(tmp_path / "out"), "--debs", str(debs), "--sources", "klettres"]
    assert debian_speech.main(flags) == 0
    assert len(open_corpus(tmp_path / "out/klettres.parquet")) == 1
    assert debian_speech.main(flags) == 0 and "exists, left as it is" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"has no ktuberling-data_\*\.deb: apt-get download"):
        debian_speech.main([*flags[:-1], "ktuberling"])
