"""The `tokgen` command: every verb, its flags and its errors."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from makers.audio import make_tone
from makers.codecs import make_encodec, make_stft_codec, save_codec
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.codes_file import read_codes, write_codes
from tokgen.cli import main as cli
from tokgen.cli.parsing import read_settings
from tokgen.cli.settings import Drift, Info, Report
from tokgen.tokens.dataset import load_tokens
from tokgen.zoo.stft import StftCodec

pytestmark = pytest.mark.usefixtures("zoo")


def settings_of(verb: str, argv: list[str]) -> object:
    return read_settings(cli.VERBS[verb], argv)[0]


def test_codecs_and_info(tool, tiny_codec: StftCodec) -> None:
    code, out, err = tool("codecs")
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if line.startswith("tiny ")]
    assert len(lines) == 1
    assert lines[0].split()[:7] == ["tiny", "16000", "320", "50", "4", "x", "60"]
    code, out, err = tool("info", "tiny")
    assert (code, err) == (0, "")
    assert tiny_codec.spec.weight_hash in out
    assert "StftCodecModel of tokgen" in out and "16000 Hz" in out and "CC0-1.0" in out


def test_encode_and_decode(tool, tmp_path: Path, tiny_codec: StftCodec) -> None:
    source, codes, out = (
        tmp_path / "é 1.wav",
        tmp_path / "new" / "x.safetensors",
        tmp_path / "y.wav",
    )
    write_audio(source, make_tone(1.23, 0, 44100), 44100)
    code, said, err = tool("encode", source, "--codec", "tiny", "--out", codes)
    assert (code, err) == (0, "")
    assert "4 levels x 62 frames, 1.23 s" in said
    waveform, _ = read_audio(source, sample_rate=16000)
    with safe_open(str(codes), framework="pt") as file:
        stored = file.get_tensor("codes")
        assert stored.dtype == torch.uint16
        assert torch.equal(stored.long(), tiny_codec.encode(waveform[None])[0])
        assert file.metadata() == {
            "kind": "tokgen codes 1",
            "codec": "tiny",
            "weight_hash": tiny_codec.spec.weight_hash,
            "encoder_hash": tiny_codec.spec.encoder_hash,
            "n_samples": str(waveform.shape[-1]),
            "sample_rate": "16000",
        }
    code, said, err = tool("decode", codes, "--out", out)
    assert code == 0
    decoded, rate = read_audio(out)
    assert rate == 16000 and decoded.shape == waveform.shape
    expected = tiny_codec.roundtrip(waveform[None])[0].clamp(-1, 1)
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=0)


def test_encode_fewer_levels(tool, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", make_tone(0.5, 0), 16000)
    codes = tmp_path / "x.safetensors"
    args = ("encode", tmp_path / "a.wav", "--codec", "tiny", "--out", codes)
    assert tool(*args, "--n_codebooks", 2)[0] == 0
    assert read_codes(codes).codes.shape == (2, 25)
    assert tool("decode", codes, "--out", tmp_path / "y.flac")[0] == 0
    code, _, err = tool(*args, "--n-codebooks", 9, "--overwrite")
    assert code == 2 and err.startswith("error: --n_codebooks = 9")


def test_encode_with_a_beam_search(tool, tmp_path: Path, tiny_codec: StftCodec) -> None:
    write_audio(tmp_path / "a.wav", make_tone(0.5, 0), 16000)
    codes = tmp_path / "x.safetensors"
    args = ("encode", tmp_path / "a.wav", "--codec", "tiny", "--out", codes)
    assert tool(*args, "--beam", 4)[0] == 0
    waveform, _ = read_audio(tmp_path / "a.wav")
    assert torch.equal(read_codes(codes).codes, tiny_codec.encode(waveform[None], beam=4)[0])
    code, _, err = tool(*args, "--beam", 2000, "--overwrite")
    assert code == 2 and err.startswith("error: --beam = 2000: must be 1 (greedy) to 1024")


def test_side_information_travels_in_the_file(tool, tmp_path: Path) -> None:
    codec = make_encodec("encodec-48k")
    codec.model.save_pretrained(tmp_path / "stereo")
    source, codes, out = (tmp_path / name for name in ("a.wav", "x.safetensors", "y.wav"))
    write_audio(source, make_tone(2.5, 0, 8000), 8000)
    assert "side values  scales" in tool("info", tmp_path / "stereo")[1]
    code, said, err = tool("encode", source, "--codec", tmp_path / "stereo", "--out", codes)
    assert code == 0 and "3 levels x 600 frames, 2.50 s" in said
    found = read_codes(codes)
    assert found.side["scales"].shape == (3,) and found.n_samples == 20000
    decode = ("decode", codes, "--codec", tmp_path / "stereo", "--out", out, "--overwrite")
    assert tool(*decode)[0] == 0
    decoded, _ = read_audio(out)
    waveform, _ = read_audio(source)
    expected = codec.roundtrip(waveform[None])[0].clamp(-1, 1)
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=0)
    scales = found.side["scales"]
    for side, message in (
        ({}, "needs side information ['scales'] besides the codes"),
        ({"scales": scales[:2]}, "scales of shape (1, 2): stereo needs one per chunk, (1, 3)"),
        ({"scales": scales[None]}, "side information 'scales' of shape (1, 3)"),
        ({"scales": scales * math.nan}, "'scales' holds NaN or infinity"),
    ):
        write_codes(codes, found.codes, 20000, codec.spec, side)
        code, _, err = tool(*decode)
        assert code == 2 and message in err


def test_codes_at_a_bitrate_are_decoded_by_the_codecs_name(tool, zoo, tmp_path: Path) -> None:
    make_encodec("encodec-24k").model.save_pretrained(zoo / "enc")
    wav = tmp_path / "a.wav"
    write_audio(wav, make_tone(1.0, 0), 16000)
    assert tool("encode", wav, "--codec", "enc:2", "--out", tmp_path / "a.safetensors")[0] == 0
    code, _, err = tool("decode", tmp_path / "a.safetensors", "--out", tmp_path / "b.wav")
    shutil.rmtree(zoo / "enc")  # other tests share this zoo
    assert code == 0, err
    assert read_codes(tmp_path / "a.safetensors").codes.shape[0] == 2


def test_decode_refuses_codes_of_another_codec(tool, tmp_path: Path, tiny_codec: StftCodec) -> None:
    other = make_stft_codec(4, name="other")
    folder = save_codec(other, tmp_path / "other")
    codes, out = tmp_path / "x.safetensors", tmp_path / "y.wav"
    write_codes(codes, other.encode(make_tone(0.5, 0)[None])[0], 8000, other.spec)
    code, _, err = tool("decode", codes, "--out", out)
    assert code == 2 and "codec 'other', which is not in the zoo: name its folder" in err
    code, _, err = tool("decode", codes, "--codec", "tiny", "--out", out)
    assert code == 2 and "by codec 'other'" in err and "not by 'tiny'" in err
    assert not out.exists()
    assert tool("decode", codes, "--codec", folder, "--out", out)[0] == 0


def test_a_codec_named_in_a_file_is_not_a_path(
    tool, tmp_path: Path, tiny_codec: StftCodec, monkeypatch
) -> None:
    save_codec(tiny_codec, tmp_path / "trap")
    monkeypatch.chdir(tmp_path)
    for name in ("trap", "./trap", str(tmp_path / "trap"), "../trap", "owner/name"):
        spec = StftCodec.from_model(tiny_codec.model, name).spec
        write_codes("x.safetensors", torch.zeros(4, 2, dtype=torch.long), 600, spec)
        code, _, err = tool("decode", "x.safetensors", "--out", "y.wav")
        assert code == 2 and "which is not in the zoo" in err


def test_decode_checks_the_file(tool, tmp_path: Path, tiny_codec: StftCodec) -> None:
    path = tmp_path / "x.safetensors"
    metadata = {
        "kind": "tokgen codes 1",
        "codec": "tiny",
        "weight_hash": tiny_codec.spec.weight_hash,
        "sample_rate": "16000",
    }
    zeros = torch.zeros(2, 2, dtype=torch.int32)
    for codes, n_samples, message in (
        (zeros, "99999999999999", "n_samples"),
        (zeros, "-1", "n_samples"),
        (zeros + 60, "600", "the code 60, but 'tiny' has codes below 60"),
        (zeros - 5, "600", "a code is -5, below 0"),
        (torch.zeros(9, 2, dtype=torch.int32), "600", "levels 9, but 'tiny' has at most 4"),
    ):
        save_file({"codes": codes}, path, {**metadata, "n_samples": n_samples})
        code, _, err = tool("decode", path, "--out", tmp_path / "y.wav")
        assert code == 2 and message in err


def test_tokenize(tool, tmp_path: Path, tiny_corpus: Path) -> None:
    out = tmp_path / "tokens"
    args = ("tokenize", "--corpus", tiny_corpus, "--codec", "tiny", "--out", out)
    code, said, err = tool(*args, "--n_codebooks", 3, "--min_seconds", 0.6)
    assert code == 0
    assert "8 rows, 0.00 h of audio, 0 rejected" in said
    assert "RTF" in err
    found = load_tokens(out)
    assert found.provenance.n_codebooks == 3
    assert sum(len(split) for split in found.splits.values()) == 8
    code, said, _ = tool(*args, "--n-codebooks", 3, "--min-seconds", 0.6)
    assert code == 0 and "8 rows (8 of them from before)" in said
    code, _, err = tool(*args)
    assert code == 2 and "Choose another folder, or delete this one" in err
    small = ("tokenize", "--corpus", tiny_corpus, "--codec", "tiny", "--out", tmp_path / "small")
    assert tool(*small, "--split", "test", "--conditioning", "none")[0] == 0
    assert list(load_tokens(tmp_path / "small").splits) == ["test"]


def test_tokenize_shows_what_was_rejected(tool, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_audio(corpus / "good.wav", make_tone(0.5, 0), 16000)
    for i in range(12):
        (corpus / f"bad {i:02d}.wav").touch()
    args = ("tokenize", "--corpus", corpus, "--codec", "tiny", "--out", tmp_path / "t")
    code, said, err = tool(*args)
    assert code == 0 and "1 rows" in said and "12 rejected" in said
    assert "bad 09.wav: empty" in err and "bad 10.wav" not in err
    assert "and 2 more, all in" in err


def test_rejections_are_printed_without_escape_bytes(tool, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_audio(corpus / "good.wav", make_tone(0.5, 0), 16000)
    (corpus / "bad\x1b[2J\n.wav").touch()
    code, _, err = tool("tokenize", "--corpus", corpus, "--codec", "tiny", "--out", tmp_path / "t")
    assert code == 0 and r"bad\x1b[2J\n.wav: empty file" in err
    assert "\x1b[2J" not in err


@pytest.mark.parametrize("verb", ["tokenize", "drift", "score"])
def test_links_are_followed_on_request(tool, tmp_path: Path, verb: str) -> None:
    write_audio(tmp_path / "elsewhere" / "a.wav", make_tone(0.6, 0), 16000)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").symlink_to("../elsewhere/a.wav")
    small = {"drift": ["--passes", 2, "--samples", 0], "score": ["--metrics", "si_sdr"]}
    out = [] if verb == "score" else ["--out", tmp_path / "out"]
    args = [verb, "--corpus", tmp_path / "corpus", "--codec", "tiny", *out, *small.get(verb, [])]
    code, _, err = tool(*args)
    assert code == 2 and "a.wav: link to a file elsewhere" in err and "follow_links" in err
    assert tool(*args, "--follow-links", "--language", "en")[0] == 0


def test_without_a_verb_the_help_is_printed(tool) -> None:
    code, out, err = tool()
    assert (code, out) == (2, "") and "usage: tokgen" in err and "tokenize" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["info", "tinny"], "no codec 'tinny' (did you mean tiny?); known: "),
        (["encode", "none.wav", "--codec", "tiny", "--out", "x.safetensors"], "no such file"),
        (["encode", "none.wav", "--codec", "tiny"], "missing: --out; see tokgen encode --help"),
        (["decode", "none.safetensors", "--out", "y.wav"], "no such file"),
        (["tokenize", "--corpus", "./none", "--codec", "tiny", "--out", "t"], "no folder or file"),
        (["sing"], "no verb 'sing'; verbs are codecs, info"),
        (["inf", "tiny"], "no verb 'inf' (did you mean info?)"),
        (["info"], "missing: codec; see tokgen info --help"),
        (["report"], "missing: runs; see tokgen report --help"),
        (["info", "tiny", "b"], "unexpected 'b': info takes CODEC before the flags"),
        (["info", "tiny", "--jsn"], "unknown --jsn (did you mean --json?); see tokgen info"),
        (
            ["score", "--codec", "a", "--codec", "b", "--codec", "a", "--corpus", "c"],
            "codec a is given twice: give each once",
        ),
        (["encode", "a", "--codec", "tiny", "--out"], "--out: expected one argument; see tokgen"),
        (["encode", "a", "--codec", "tiny", "--outt", "x"], "see tokgen encode --help"),
        (
            ["encode", "a", "--codec", "tiny", "--out", "x", "--n-codebooks", "few"],
            "n_codebooks is 'few', but must be a whole number; see tokgen encode --help",
        ),
        (
            ["tokenize", "--corpus", "c", "--codec", "tiny", "--out", "t", "--engine", "slurm"],
            "engine is 'slurm', but must be one of local, accelerate, ray; see tokgen",
        ),
        (["info", "tiny", "--config", "none.yaml"], "File does not exist"),
        (
            ["encode", "a", "--codec", "tiny", "--out", "x.safetensors", "--device", "tpu"],
            "device 'tpu'",
        ),
        (["score", "--codec", "tiny", "--corpus", ".", "--device", "cuda:99"], "this machine"),
        (["completion", "tcsh"], "one of bash, zsh, fish; see tokgen completion --help"),
        (["recipes", "copy"], "name the recipe to copy"),
        (["recipes", "copy", "sing"], "no recipe 'sing'; there are compare_codecs, "),
    ],
)
def test_errors_are_one_line(tool, tmp_path: Path, monkeypatch, args, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = tool(*args)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_an_error(tool, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", make_tone(0.5, 0), 16000)
    (tmp_path / "file").touch()
    args = ("encode", tmp_path / "a.wav", "--codec", "tiny", "--out")
    code, _, err = tool(*args, tmp_path / "file" / "x.safetensors")
    assert code == 2 and err.startswith("error: ")


def test_help_and_version(capsys: pytest.CaptureFixture) -> None:
    def said(*args: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            cli.main(args)
        assert exit_.value.code == 0
        return capsys.readouterr().out

    assert "tokgen 0" in said("--version")
    general = said("--help")
    for name, verb in cli.VERBS.items():
        assert name in general
        text = said(name, "--help")
        assert f"usage: tokgen {name} " in text and "--config" in text
        for field in dataclasses.fields(verb.settings):
            flag = f"  --{field.name.rstrip('_')}"  # "continue" is a word of Python
            assert field.name in verb.positional or flag in text
    text = said("tokenize", "--help")
    assert "leave out clips shorter than this" in text
    assert "audio of any format and rate" in said("encode", "--help")


@pytest.mark.parametrize("argv", [["--help"], ["--version"]])
def test_the_general_help_imports_nothing_heavy(argv: list[str]) -> None:
    heavy = "{'torch', 'jsonargparse', 'numpy', 'tabulate', 'yaml', 'transformers'}"
    code = f"import atexit, sys; atexit.register(lambda: print({heavy} & set(sys.modules)))"
    code += f"; from tokgen.cli.main import main; main({argv})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("name", sorted(cli.VERBS))
def test_the_help_of_a_verb_is_plain(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    verb = cli.VERBS[name]
    assert "(type: " not in text and "null" not in text and "CONFIG " not in text
    assert "examples:" in text and all(line.splitlines()[0] in text for line in verb.examples)
    kinds = get_type_hints(verb.settings)
    for field in dataclasses.fields(verb.settings):
        for kind in (kinds[field.name], *get_args(kinds[field.name])):
            # also in `Literal[...] | None`, but not in `int | Literal[...]`
            if get_origin(kind) is Literal and int not in get_args(kinds[field.name]):
                assert "{" + ",".join(get_args(kind)) + "}" in text


@pytest.mark.parametrize("name", sorted({*cli.VERBS} - {"completion"}))
def test_examples_are_commands_that_can_be_read(name: str) -> None:
    for line in cli.VERBS[name].examples:
        _, word, *argv = shlex.split(line.rpartition("| ")[2].replace("\\\n", " "))
        argv = argv[: argv.index(">")] if ">" in argv else argv
        assert word == name
        read_settings(cli.VERBS[name], argv)


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("codecs", []),
        ("info", ["tiny"]),
        ("encode", ["a.wav", "--codec", "tiny", "--out", "a.safetensors"]),
        ("decode", ["a.safetensors", "--out", "a.wav", "--device", "cpu"]),
        ("tokenize", ["--corpus", "c", "--codec", "tiny", "--out", "t", "--streaming"]),
        ("score", ["--corpus", "c", "--codec", "tiny", "--metrics", "pesq,f0"]),
        ("drift", ["--corpus", "c", "--codec", "a", "--codec", "b", "--out", "d", "--phase"]),
        ("report", ["a", "b", "--audio", "opus"]),
        ("recipes", ["copy", "vocode_mfcc", "--overwrite"]),
        ("completion", ["zsh"]),
    ],
)
def test_a_printed_config_is_read_back(
    name: str, argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    expected = settings_of(name, argv)
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, *argv, "--print_config"])
    assert exit_.value.code == 0
    config = tmp_path / "settings.yaml"
    config.write_text(capsys.readouterr().out)
    assert settings_of(name, ["--config", str(config)]) == expected


def test_flags_with_dashes_or_underscores_and_a_config(tmp_path: Path) -> None:
    drift = functools.partial(settings_of, "drift")
    expected = Drift(corpus="c", codec=["a"], out=tmp_path, clip_seconds=2.0, phase=True)
    flags = ["--corpus", "c", "--codec", "a", "--out", str(tmp_path)]
    for more in (
        ["--clip-seconds", "2", "--phase"],
        ["--clip_seconds", "2", "--phase"],
        ["--clip-seconds=2", "--phase=true"],
        ["--clip_seconds=2.0", "--phase", "true"],
    ):
        assert drift([*flags, *more]) == expected
    config = tmp_path / "drift.yaml"
    config.write_text(f"{{corpus: c, codec: [a], out: '{tmp_path}', clip_seconds: 2, phase: true}}")
    assert drift(["--config", str(config)]) == expected
    assert drift([f"--config={config}", "--match-level", "false"]).match_level is False
    assert [drift([*flags, "--shift", n]).shift for n in ("37", "-61", "random")] == [
        *(37, -61, "random")
    ]
    assert drift([f"--config={config}", "--codec", "b", "--codec=c"]).codec == ["b", "c"]
    config.write_text("{clip-seconds: 2}")
    with pytest.raises(ValueError, match=r"clip-seconds.*; see tokgen drift --help"):
        drift([*flags, "--config", str(config)])


def test_positional_settings() -> None:
    report = functools.partial(settings_of, "report")
    assert report(["a", "b", "--clips", "3"]) == Report(runs=[Path("a"), Path("b")], clips=3)
    assert report(["--clips", "3", "a"]) == Report(runs=[Path("a")], clips=3)
    info = functools.partial(settings_of, "info")
    assert info(["--revision", "12", "a"]) == Info(codec="a", revision="12")


def test_ctrl_c_says_how_to_go_on(zoo: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    tone = make_tone(10.0, 0)
    for i in range(1000):
        path = corpus / f"{i}.wav"
        if i == 0:
            write_audio(path, tone, 16000)
        else:
            os.link(corpus / "0.wav", path)
    command = [sys.executable, "-m", "tokgen", "tokenize", "--corpus", str(corpus)]
    command += ["--codec", "tiny", "--out", str(tmp_path / "tokens")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    partial, deadline = tmp_path / ".tokens.partial", time.monotonic() + 60
    while not list(partial.glob("done/*.json")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=600)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted; finished shards are kept: run the same command again to go on" in err
    assert list(partial.glob("done/*.json")) and not (tmp_path / "tokens").exists()


def test_score(tool, tmp_path: Path, tiny_corpus: Path) -> None:
    out = tmp_path / "score.json"
    flags = ["--corpus", tiny_corpus, "--split", "test", "--asr", "moonshine"]
    code, said, err = tool("score", "--codec", "tiny", *flags, "--mos", "distillmos", "--out", out)
    assert code == 0, err
    assert "tiny decoded" in said and "codebook use" in said and "DistillMOS" not in said
    content = json.loads(out.read_text())
    assert content["scores"]["tiny decoded"]["pesq"]["n"] == 2
    assert content["codecs"][0]["codec"]["name"] == "tiny"
    before = out.read_bytes()
    code, _, err = tool("score", "--codec", "nothing/here", *flags, "--out", out)
    assert code == 2 and "already exists: give another file, or set --overwrite" in err
    assert out.read_bytes() == before
    flags += ["--codec", "tiny"]
    code, said, _ = tool("score", *flags, "--metrics", "pesq, f0", "--metrics=voicing")
    assert code == 0 and "F0 error: swift-f0" in said and "CER" not in said
    code, _, err = tool("score", *flags, "--metrics", "pesq,polqa")
    assert code == 2 and "metrics ['polqa']: known are" in err
    code, _, err = tool("score", *flags, "--mos", "squim")
    assert code == 2 and "mos squim needs --mos_reference" in err


def test_score_of_several_codecs(tool, tmp_path: Path, tiny_corpus: Path, zoo: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(zoo / "tiny", folder)
    flags = ["--corpus", tiny_corpus, "--split", "test", "--metrics", "cer,si_sdr"]
    (tmp_path / "score.json").write_text("old")
    flags += ["--out", tmp_path / "score.json", "--overwrite", "--language", "de", "--workers", 0]
    code, said, err = tool("score", "--codec", "tiny", "--codec", folder, *flags)
    assert code == 0, err
    lines = [line.split("  ")[0] for line in said.splitlines()]
    assert lines[:4] == ["row", "original", "tiny decoded", "other decoded"]
    reason = "the recogniser knows en, but the language is de"
    assert f"CER does not apply to 2 of 2 clips: {reason}" in said and "moonshine" not in err
    content = json.loads((tmp_path / "score.json").read_text())
    assert list(content["scores"]) == ["original", "tiny decoded", "other decoded"]
    assert [c["codec"]["name"] for c in content["codecs"]] == ["tiny", "other"]
    assert content["failures"] == []


def test_drift(tool, tmp_path: Path, tiny_corpus: Path) -> None:
    out = tmp_path / "drift"
    flags = ["--corpus", tiny_corpus, "--passes", 3, "--clips", 2, "--clip-seconds", 1]
    codecs = ["--codec", "tiny", "--codec", "opus:24"]
    code, said, err = tool("drift", *codecs, *flags, "--phase", "--out", out)
    assert code == 0, err
    lines = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "PESQ @ 3" in said and "tiny" in lines and "opus:24" in lines
    names = {"drift.json", "drift.csv", "drift.png", "phase.json", "phase.png"}
    assert names <= {path.name for path in out.iterdir()}
    content = json.loads((out / "drift.json").read_text())
    assert [c["name"] for c in content["codecs"]] == ["tiny", "opus:24"]
    before = (out / "drift.csv").read_text()
    shown = {path: path.stat().st_mtime_ns for path in (out / "clips").rglob("*.safetensors")}
    assert len(shown) == 6  # two clips each, and two of the shifts
    assert tool("drift", *codecs, *flags, "--out", out)[0] == 0  # keeps finished clips
    assert {path: path.stat().st_mtime_ns for path in shown} == shown
    assert (out / "drift.csv").read_text() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--codec", "tiny", "--passes", "1"], "--passes is 1, but must be at least 2"),
        (["--codec", "tiny", "--codec", "tiny"], "codec tiny is given twice"),
        (["--codec", "opus"], "add a bitrate in kbps"),
        (["--codec", "mp3:2"], "8 to 320 kbps"),
        (["--codec", "tiny", "--clip-seconds", "-1"], "clip_seconds is -1"),
        (
            ["--codec", "tiny", "--shift", "some"],
            "--shift is 'some', but must be a whole number or random",
        ),
        (["--codec", "tiny", "--shift", "-320"], "whole frames of 320 samples move nothing"),
        (["--codec", "tiny", "--protocol", "paper"], "500 excerpts of 1 s need 500 s, but"),
        (
            ["--codec", "tiny", "--protocol", "paper", "--match_level", "false"],
            "match_level is false, but protocol paper",
        ),
        (["--codec", "nowhere"], "no codec 'nowhere'"),
    ],
)
def test_drift_says_what_is_wrong(tool, tmp_path, tiny_corpus, flags, message) -> None:
    code, _, err = tool("drift", "--corpus", tiny_corpus, "--out", tmp_path / "o", *flags)
    assert code == 2 and message in err and err.count("\n") == 1
