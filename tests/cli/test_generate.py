"""`tokgen generate`: the audio that the library makes, and errors before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from makers.audio import RATE, make_tone
from makers.generators import make_generator, make_speaker
from tokgen.audio.files import read_audio, write_audio
from tokgen.generation.generate import generate
from tokgen.generation.settings import SamplingSettings
from tokgen.zoo.stft import StftCodec


@pytest.fixture
def model(folder: Path, tiny_codec: StftCodec) -> Path:
    """The working folder has a.wav, b.flac and the model `model` of the codec tiny."""
    return make_generator(tiny_codec).save_pretrained("model")


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("--like a.wav", {"like": "a.wav"}),
        ("--continue a.wav --seconds 0.2", {"prompt": "a.wav", "seconds": 0.2}),
        ("--infill a.wav --from 0.1 --to 0.2", {"infill": "a.wav", "start": 0.1, "end": 0.2}),
        ("--vary a.wav --keep 0.4 --like a.wav", {"vary": "a.wav", "keep": 0.4, "like": "a.wav"}),
        (
            "--like a.wav --window-seconds 0.2 --overlap-seconds 0.1 --steps 3,1 --top-p 0.5",
            {"like": "a.wav", "window_seconds": 0.2, "overlap_seconds": 0.1, "settings": 1},
        ),
    ],
)
def test_the_command_does_what_the_library_does(tool, model, words, given) -> None:
    code, said, err = tool(f"generate --model model {words} --out out.wav --seed 3")
    assert (code, err) == (0, "") and "out.wav: 0." in said and "by tiny, seed 3" in said
    if "settings" in given:
        given = {**given, "settings": SamplingSettings(steps=(3, 1), top_p=0.5)}
    made = generate("model", seed=3, **given)
    write_audio("direct.wav", made.waveform, RATE)
    assert Path("out.wav").read_bytes() == Path("direct.wav").read_bytes()


def test_a_text_is_spoken(tool, folder, tiny_codec: StftCodec) -> None:
    make_speaker(tiny_codec).save_pretrained("run/model")
    argv = ("generate", "--model", "run", "--text", "one, two", "--speed", "0.9", "--steps", "2,1")
    code, said, err = tool(*argv, "--out", "out.wav", "--n", "2", "--seed", "3")
    assert (code, err) == (0, "") and "out-1.wav: 0." in said and "by tiny, seed 4" in said
    sampling = SamplingSettings(steps=(2, 1))
    for i in (1, 2):
        made = generate("run", text="one, two", speed=0.9, settings=sampling, seed=2 + i)
        write_audio("direct.wav", made.waveform, RATE)
        assert Path(f"out-{i}.wav").read_bytes() == Path("direct.wav").read_bytes()


def test_several_files_as_json_and_settings_from_yaml(tool, model) -> None:
    Path("s.yaml").write_text("model: model\ncontinue: a.wav\nseconds: 0.1\nsteps: ['2', '1']\n")
    code, said, err = tool("generate --config s.yaml --out out.mp3 --n 2 --seed 1 --json")
    assert (code == 0 and "clipped" in err) or not err
    found = json.loads(said)
    assert [(f["path"], f["seed"]) for f in found["files"]] == [("out-1.mp3", 1), ("out-2.mp3", 2)]
    assert found["codec"] == "tiny" and read_audio("out-2.mp3")[0].shape[-1] > 0.3 * RATE
    code, _, err = tool("generate --config s.yaml --out out.mp3 --n 2 --seed 1")
    assert code == 2 and "out-1.mp3 already exists: give another file, or set --overwrite" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "missing: --out"),
        ("--model model --out o.wav", "give one of --text, --like, --continue, --infill and"),
        ("--like a.wav --infill a.wav", "--infill needs --from and --to"),
        ("--continue a.wav --vary a.wav", "--continue and --vary are both given: give one"),
        ("--like a.wav --keep 0.5", "--keep is given without --vary"),
        ("--like a.wav --from 1", "--from is given without --infill"),
        ("--vary a.wav --keep 2", "--keep is 2, but must be between 0 and 1"),
        ("--infill a.wav --from 2 --to 1", "--from 2 --to 1: the gap must start at 0 s or later"),
        ("--infill a.wav --from x --to 1", "--from is 'x', but must be a number"),
        ("--continue a.wav --seconds 0", "--seconds is 0, but must be above 0"),
        ("--like no.wav", "no such file: no.wav"),
        ("--like a.wav --n 0", "--n is 0, but must be at least 1"),
        ("--like a.wav --steps 3,x", "--steps 3,x: give whole numbers"),
        ("--like a.wav --out a.wav --overwrite", "a.wav is an input file"),
        ("--like a.wav --out b.flac", "b.flac already exists"),
        ("--like a.wav --out o.mp3 --stable", "o.mp3 with stable"),
        ("--like a.wav --model tiny", "the codec tiny has no generator beside it"),
        ("--like a.wav --model nothing", "no model 'nothing'"),
        ("--like a.wav --codec tinny", "no codec 'tinny' (did you mean tiny?)"),
        ("--like a.wav --window-seconds 2", "--overlap_seconds = 5.0: must be at least 0 and less"),
        ("--text hi --like a.wav", "--text and --like are both given: give one"),
        ("--text hi --vary a.wav", "--text and --vary are both given: give one"),
        ("--like a.wav --speed 2", "--speed is given without --text"),
        ("--text hi --speed 9", "--speed = 9.0: must be between 0.25 and 4"),
        ("--text hi", "the model in model does not speak: it has no text model in text/"),
        ("--like a.wav --contine b.wav", "unknown --contine (did you mean --continue?)"),
    ],
)
def test_wrong_settings_are_refused(tool, folder, words, message, monkeypatch) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    argv = words.split()
    if argv and "--model" not in argv:
        argv += ["--model", "model"]
    if argv and "--out" not in argv:
        argv += ["--out", "o.wav"]
    code, _, err = tool("generate", *argv)
    assert code == 2 and message in err
    assert not Path("o.wav").exists()


def test_a_gap_past_the_end_and_a_codec_as_model(tool, model, tiny_codec_folder) -> None:
    code, _, err = tool("generate --model model --infill a.wav --from 0.1 --to 9 --out o.wav")
    assert code == 2 and "must lie within the 0.3 s of the audio" in err
    write_audio("long.wav", make_tone(0.5, 1), RATE)
    code, _, err = tool("generate --model model --vary a.wav --like long.wav --out o.wav")
    assert code == 2 and "like has 8000 samples, but the result will have 4800" in err
