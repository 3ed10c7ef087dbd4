"""`--level` and `--bitrate` of the verbs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from makers.audio import make_tone
from makers.codecs import make_stft_codec, make_variable, save_codec
from tokgen.audio.files import write_audio
from tokgen.bitstream.codes_file import read_codes
from tokgen.tokens.dataset import load_tokens


@pytest.fixture(autouse=True)
def vary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo with a codec of variable bitrate, and one of a constant one."""
    save_codec(make_variable(None), folder / "zoo" / "vary")
    save_codec(make_stft_codec(), folder / "zoo" / "fixed")
    monkeypatch.setenv("TOKGEN_ZOO", str(folder / "zoo"))
    (folder / "corpus").mkdir()
    write_audio("corpus/a.wav", make_tone(1.0, 0), 16000)


def test_encode_and_info(tool, folder: Path) -> None:
    for flag, name in (("--level 0.9", "a"), ("--bitrate 0.7", "b")):
        code, out, err = tool(f"encode a.wav --codec vary --out {name}.safetensors {flag}")
        assert (code, err) == (0, "")
        assert " of 4 levels x 15 frames, 0.30 s, 0." in out
        assert tool(f"info {name}.safetensors")[1] == out
        facts = json.loads(tool(f"info {name}.safetensors --json")[1])
        found = read_codes(folder / f"{name}.safetensors")
        assert facts["kbps"] == found.kbps and 1 < facts["mean_depth"] < 4
        assert tool(f"decode {name}.safetensors --out new/{name}.wav")[0] == 0
    assert tool("encode a.wav b.flac --codec vary --level 0.9 --out codes/")[0] == 0
    whole, alone = read_codes("codes/a.safetensors"), read_codes("a.safetensors")
    assert whole.codes.equal(alone.codes) and whole.side["depth"].equal(alone.side["depth"])


def test_tokenize(tool) -> None:
    line = "tokenize --corpus corpus --codec vary --workers 2 --conditioning none"
    for flag, out in (("--level 0.9", "a"), ("--bitrate 0.7", "b")):
        code, text, _ = tool(f"{line} {flag} --out {out}")
        assert code == 0 and " h of audio at 0." in text and " kbps, 0 rejected" in text
    assert load_tokens("a").provenance.level == 0.9
    assert load_tokens("b").provenance.bitrate == 0.7
    assert tool(f"{line.replace('vary', 'vary:0.7')} --out c")[0] == 0
    assert load_tokens("c").provenance.bitrate == 0.7
    code, _, err = tool(f"{line} --level 2 --out a")
    assert code == 2 and "rate: level 0.9 → level 2" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--codec vary --level 1 --bitrate 2", "level 1 and bitrate 2 are both given: give one"),
        ("--codec vary --level 0", "--level is 0, but must be above 0 and finite"),
        ("--codec vary --bitrate -1", "--bitrate is -1, but must be above 0 and finite"),
        ("--codec fixed --level 1", "fixed has no variable bitrate"),
        ("--codec fixed --bitrate 1", "fixed has no variable bitrate"),
        ("--codec vary --bitrate 0.9 --n_codebooks 2", "with --n_codebooks = 2; choose one"),
    ],
)
def test_wrong_flags(tool, folder: Path, flags: str, message: str) -> None:
    for line in ("encode a.wav --out o.safetensors", "tokenize --corpus corpus --out o"):
        code, _, err = tool(f"{line} {flags}")
        assert code == 2 and message in err, err
    assert not list(folder.glob("o*"))
