"""Generated audio files, and generators that lie beside their codec."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from makers.audio import RATE, make_tone
from makers.codecs import make_stft_codec, save_codec
from makers.generators import make_generator
from tokgen.audio.files import read_audio, write_audio
from tokgen.codec.stable.settings import StableDecoding
from tokgen.generation.files import generate_files
from tokgen.generation.generate import generate
from tokgen.generation.generators import check_generator, find_generator
from tokgen.generation.settings import SamplingSettings
from tokgen.zoo.stft import StftCodec

SETTINGS = SamplingSettings(steps=(2, 1))


@pytest.fixture(scope="module")
def codec() -> StftCodec:
    return make_stft_codec(name="little", n_codebooks=3, codebook_size=32)


@pytest.fixture
def zoo(codec: StftCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo in the working folder: "little" with a generator and "bare" without; and speech.wav."""
    save_codec(codec, tmp_path / "zoo" / "little")
    make_generator(codec).save_pretrained(tmp_path / "zoo" / "little" / "generator")
    save_codec(make_stft_codec(1, "bare"), tmp_path / "zoo" / "bare")
    write_audio(tmp_path / "speech.wav", make_tone(0.6, 3), RATE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path / "zoo"))
    return tmp_path / "zoo"


def test_a_generator_beside_a_codec_is_found_by_the_codecs_name(zoo: Path, codec) -> None:
    found = find_generator("little")
    assert found == (zoo / "little" / "generator", "little")
    made = generate("little", like="speech.wav", settings=SETTINGS, seed=2)
    direct = generate(make_generator(codec), codec, like="speech.wav", settings=SETTINGS, seed=2)
    assert made.codes.equal(direct.codes) and made.waveform.equal(direct.waveform)
    assert generate(
        zoo / "little" / "generator", like="speech.wav", settings=SETTINGS, seed=2
    ).codes.equal(made.codes)


def test_a_generator_in_a_folder_that_is_in_no_zoo(zoo: Path, monkeypatch) -> None:
    named = generate("little", like="speech.wav", settings=SETTINGS)
    shutil.move(zoo / "little", "elsewhere")
    monkeypatch.delenv("TOKGEN_ZOO")
    made = generate("elsewhere", like="speech.wav", settings=SETTINGS)
    assert made.codes.equal(named.codes)
    with pytest.raises(FileNotFoundError, match="'little' is not in the zoo"):
        generate("elsewhere/generator", like="speech.wav")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bare", r"the codec bare has no generator beside it \(those that have one: little"),
        ("lttle", r"no model 'lttle' \(did you mean little\?\)"),
        ("zoo", "zoo holds no model: it has no config.json"),
        ("", "no model ''"),
    ],
)
def test_names_of_models_are_checked(zoo: Path, name: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        check_generator(name)
    check_generator("owner/model")  # is not looked up
    check_generator("little")


def test_the_folder_of_a_run_is_that_of_its_model(zoo: Path, codec) -> None:
    make_generator(codec).save_pretrained("run/model")
    check_generator("run")
    assert find_generator("run") == (Path("run/model"), None)


def test_a_model_and_another_codec_are_refused_by_name(zoo: Path) -> None:
    with pytest.raises(ValueError, match=r"made for codec 'little' \(.*\), not for 'bare' \("):
        generate("little", "bare", like="speech.wav")
    with pytest.raises(ValueError, match=r"config.json is of a .*, not a"):
        generate("zoo/bare", like="speech.wav")


def test_files_have_a_seed_each(zoo: Path) -> None:
    given = {"prompt": "speech.wav", "seconds": 0.2, "settings": SETTINGS}
    made = generate_files("little", "new/out.wav", n=2, seed=5, **given)
    assert [file.path for file in made.results] == [Path("new/out-1.wav"), Path("new/out-2.wav")]
    for file, seed in zip(made.results, (5, 6), strict=True):
        alone = generate("little", seed=seed, **given)
        assert file.seed == seed and file.n_samples == alone.waveform.shape[-1] == 12800
        heard = read_audio(file.path)[0]
        torch.testing.assert_close(heard, alone.waveform.clamp(-1, 1), atol=1e-4, rtol=0)
    assert "out-2.wav: 0.80 s by little, seed 6" in str(made)
    assert json.dumps(made.to_dict()) and len(made.records()) == 2
    before = Path("new/out-2.wav").read_bytes()
    Path("new/out-1.wav").unlink()
    with pytest.raises(FileExistsError, match=r"out-2.wav already exists"):
        generate_files("no model", "new/out.wav", n=2, **given)  # before anything is loaded
    assert not Path("new/out-1.wav").exists() and Path("new/out-2.wav").read_bytes() == before
    generate_files("little", "new/out.wav", n=2, seed=9, overwrite=True, **given)
    assert Path("new/out-2.wav").read_bytes() != before


def test_stable_files_keep_their_codes(zoo: Path, codec) -> None:
    given = {"infill": "speech.wav", "start": 0.2, "end": 0.3, "settings": SETTINGS}
    made = generate_files("little", "out.flac", stable=StableDecoding(steps=4), **given)
    [file] = made.results
    codes = generate("little", **given).codes
    heard = codec.encode(read_audio("out.flac")[0][None])[0]
    assert file.kept == pytest.approx((heard == codes).double().mean().item())
    assert f"{100 * file.kept:.2f} % of the codes stable" in str(made)
    with pytest.raises(ValueError, match=r"out.mp3 with stable: .* write .wav or .flac"):
        generate_files("no model", "out.mp3", stable=True, **given)


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("out.txt", {}, "out.txt must end in .wav, .flac, .mp3, .opus or .m4a"),
        ("speech.wav", {"overwrite": True}, "speech.wav is an input file"),
        ("out.wav", {"n": 0}, "n = 0: must be at least 1"),
        ("out.wav", {"seed": -1}, "seed = -1: must be at least 0"),
        ("out.wav", {"keep": 0.5}, "keep= without vary="),
    ],
)
def test_arguments_are_checked_before_the_model_is_looked_for(zoo, out, more, message) -> None:
    with pytest.raises(ValueError, match=message):
        generate_files("no model", out, like="speech.wav", **more)
