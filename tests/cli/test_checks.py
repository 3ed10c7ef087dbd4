"""Wrong arguments are found before torch is imported, and explained in the command's words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from makers.audio import make_tone
from tokgen.audio.files import write_audio
from tokgen.cli import main as cli

# Runs the command, and fails if it imported a library that takes long.
SCRIPT = """
import sys
from tokgen.cli.main import main
code = main(sys.argv[1:])
heavy = {"torch", "transformers", "datasets", "pyarrow", "av", "soundfile"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""
ENCODE = "encode a.wav --codec tiny --out b.safetensors"
TOKENIZE = "tokenize --corpus folder --codec tiny --out t"
SCORE = "score --corpus folder --codec tiny"
DRIFT = "drift --corpus folder --codec tiny --out d"

WRONG = [
    ("info tinny", "no codec 'tinny' (did you mean tiny?); known: "),
    ("encode a.wav --codec tinny --out b.safetensors", "did you mean tiny?"),
    ("encode none.wav --codec tiny --out b.safetensors", "no such file: none.wav"),
    ("encode a.wav --codec mp3:24 --out b.safetensors", "mp3:24 has no codes, only audio"),
    ("encode a.wav --codec tiny --out a.wav", "a.wav is an input file"),
    ("encode a.wav --codec tiny --out b.wav", "b.wav must end in .safetensors"),
    (
        "encode a.wav --codec tiny --out old.safetensors",
        "already exists: give another file, or set --overwrite",
    ),
    (f"{ENCODE} --n_codebooks 0", "--n_codebooks is 0, but must be at least 1; omit --n_codebooks"),
    (f"{ENCODE} --device tpu", "device 'tpu': give auto, cpu, cuda"),
    ("encode folder --codec tiny --out b.safetensors", "`tokgen tokenize` encodes folders"),
    ("encode a.wav b.wav --codec tiny --out a.wav", "a.wav is a file: give a folder for 2 files"),
    ("encode a.wav --codec tiny --out a.wav/b.safetensors", "a.wav is not a folder"),
    ("decode none.safetensors --out b.wav", "no such file: none.safetensors"),
    ("decode old.safetensors --out a.wav", "a.wav already exists"),
    ("decode old.safetensors --out b.txt", "b.txt must end in .wav, .flac, .mp3, .opus or .m4a"),
    ("decode old.safetensors --out b.wav --codec tinny", "did you mean tiny?"),
    ("decode old.safetensors --out b.wav --format flac", "--format flac, but --out b.wav"),
    ("tokenize --corpus ./none --codec tiny --out t", "no folder or file ./none"),
    ("tokenize --corpus folder --codec tiny --out a.wav/t", "a.wav is not a folder"),
    (f"{TOKENIZE} --workers -1", "--workers is -1, but must be at least 0"),
    (f"{TOKENIZE} --min_seconds -3", "--min_seconds is -3, but must be at least 0"),
    (f"{TOKENIZE} --min-seconds 2 --max-seconds 1", "--min_seconds 2 is more than --max_seconds 1"),
    (f"{TOKENIZE} --n_codebooks 0", "omit --n_codebooks to keep all"),
    (f"{TOKENIZE} --beam 0", "--beam is 0, but must be at least 1"),
    (f"{TOKENIZE} --batch_seconds 0", "--batch_seconds is 0, but must be above 0"),
    (f"{TOKENIZE} --codes packed --format arrow", "codes packed with format arrow"),
    (f"{TOKENIZE} --shard_seconds -1", "--shard_seconds is -1, but must be above 0"),
    (f"{SCORE} --workers -1", "--workers is -1"),
    (f"{SCORE} --metrics pesk", "did you mean pesq?"),
    (f"{SCORE} --codec tinny", "did you mean tiny?"),
    (f"{SCORE} --mos_reference none.wav", "--mos_reference: no such file: none.wav"),
    (f"{SCORE} --out s.txt", "s.txt must end in .json"),
    ("drift --corpus folder --codec aac:64 --out d", "no codec 'aac'; known: "),
    ("drift --corpus folder --codec opus --out d", "opus: add a bitrate in kbps"),
    ("score --corpus folder --codec mp3:2", "8 to 320 kbps"),
    ("drift --corpus folder --codec mp3:2 --out d", "8 to 320 kbps"),
    (f"{DRIFT} --passes 1", "--passes is 1, but must be at least 2"),
    (f"{DRIFT} --codec tiny", "codec tiny is given twice"),
    ("report none", "none: no such folder; give the folder of a run"),
    ("report folder --out page.txt", "page.txt must end in .html"),
    ("report folder --clips -1", "--clips is -1, but must be at least 0"),
    ("report folder --opus_kbps 1", "--opus_kbps is 1, but must be at least 6"),
    ("recipes copy vocode_mfc", "did you mean vocode_mfcc?"),
    ("tokenise", "no verb 'tokenise' (did you mean tokenize?)"),
    ("codecs tiny", "unexpected 'tiny': it has no flag before it; see tokgen codecs --help"),
    ("tokenize clips", "unexpected 'clips': it has no flag before it, such as --corpus, --codec"),
    (f"{ENCODE} --devise cpu", "unknown --devise (did you mean --device?)"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, tiny_codec_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    monkeypatch.chdir(tmp_path)
    write_audio("a.wav", make_tone(0.2, 0), 16000)
    Path("b.wav").write_bytes(b"noise")
    Path("old.safetensors").write_bytes(b"old")
    Path("folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("encode | --codec tiny --out b.tgc", "give the name of an audio file, or -"),
        ("encode a.wav | --codec tiny --out codes", "give the name of an audio file, or -"),
        ("decode | --out b.wav", "give the name of a .safetensors file, or -"),
        ("compress | --codec tiny --out b.tgc", "give the name of an audio file, or -"),
        ("decompress | --out b.wav", "give the name of a .tgc file, or -"),
        ("encode a.wav --codec tiny --out |", 'out is "": give a file, a folder, or -'),
        ("encode a.wav --codec | --out b.safetensors", 'codec is "": give a name that'),
        ("info |", 'codec is "": give a name that `tokgen codecs` lists'),
    ],
)
def test_empty_names_are_explained(
    line: str, message: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    before = sorted(folder.rglob("*"))
    assert cli.main(["" if word == "|" else word for word in line.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and '""' in err and err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_wrong_arguments_are_explained_on_one_line(
    line: str, message: str, folder: Path, capsys: pytest.CaptureFixture
) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_nothing_is_imported_for_wrong_arguments(verb: str) -> None:
    lines = [line for line, _ in WRONG if line.startswith(verb)] or [f"{verb} --wrong"]
    code = SCRIPT.replace("main(sys.argv[1:])", f"[main(line.split()) for line in {lines}][-1]")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


def test_names_of_settings_are_flags_in_messages_but_words_stay() -> None:
    from tokgen.cli.parsing import name_flags

    verb = cli.VERBS["tokenize"]
    assert name_flags("workers is -1", verb) == "--workers is -1"
    for message in ("8 workers died", "the codec was made", "a/min_seconds.wav: no such file"):
        assert name_flags(message, verb) == message
    assert name_flags("pass follow_links=True", verb) == "pass --follow_links"
    assert name_flags("give n_codebooks, or --n_codebooks", verb).count(" --n_codebooks") == 2
