"""The code and the commands of the documentation work.

Blocks marked `python` and `sh` run in order, page by page, in a folder with a small corpus. Long
trainings and large codebooks are made small. Blocks marked `bash`, and the README's commands, are
only shown; all commands are parsed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import quantize_offline
from makers.paths import ALLISON, ROOT
from tests.recipes.test_recipes import SETTINGS
from tokgen.audio.files import write_audio
from tokgen.cli import main as cli
from tokgen.comparison.settings import TelephoneSettings
from tokgen.corpus.listed import open_corpus
from tokgen.generation.speech import Speaker
from tokgen.modelling.settings import ModelSettings
from tokgen.modelling.text.model import TextModel
from tokgen.modelling.text.symbols import Symbols
from tokgen.runs.settings import parse_settings
from tokgen.training.text_frames import speaking_transformer
from tokgen.zoo.lookup import load_codec

DOCS = ROOT / "docs"
FOLDERS = [DOCS / "guides", DOCS / "extend"]
PAGES = [ROOT / "README.md", DOCS / "getting_started.md"]
PAGES += [page for folder in FOLDERS for page in sorted(folder.glob("*.md"))]
WITH_COMMANDS = sorted([
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"),
    *(ROOT / "codecs").glob("*/README.md"),
])  # fmt: skip
BLOCK = re.compile(r"^```(?: \{ \.)?(\w+)(?: \})?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
SHORTER = [
    (r'"runs/two", steps=1000', '"runs/two", **SMALL'),
    (r"\bsteps=1000\b", "steps=2, crop_seconds=1.0"),
    (r"\bsteps=600\b", "steps=2, validate_every=2, validation_passes=2"),
    (r"--bitrate 4 --name mine", "--codebook_size 32 --bitrate 2 --name mine"),
    (r"--finetune_decoder 2000", "--finetune_decoder 2 --finetune.batch_size 2"),
]
SMALL = {
    "steps": 2, "crop_seconds": 1.0, "metrics": ["pesq"], "drift_passes": 0,
    "telephone": TelephoneSettings(rounds=0),
}  # fmt: skip
SPLITS = ("train", "train", "train", "validation", "test", "test")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield language and text of each block of code, with the files that it includes."""
    for found in BLOCK.finditer(page.read_text()):
        yield found[1], INCLUDE.sub(lambda file: (ROOT / file[1]).read_text(), found[2])


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            if words:
                yield words


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with speech.wav and my_audio, six clips of speech with their texts."""
    folder = tmp_path_factory.mktemp("guide")
    clips = folder / "my_audio"
    clips.mkdir()
    source = open_corpus(ALLISON, max_seconds=2.6)
    lines = ["file_name,text,speaker,split"]
    for i, (entry, split) in enumerate(zip(source.entries, SPLITS, strict=False)):
        utterance = source.load(entry, 16000)
        write_audio(clips / f"{i}.wav", utterance.waveform, 16000)
        lines.append(f'{i}.wav,"{utterance.text}",allison,{split}')
    (clips / "metadata.csv").write_text("\n".join(lines) + "\n")
    write_audio(folder / "speech.wav", utterance.waveform, 16000)
    return folder


def save_speaker(folder: Path) -> None:
    """Save small random models that speak with the codec speech-16k."""
    names = Symbols.of_texts(["abcdefghijklmnopqrstuvwxyz"]).names
    text = TextModel(symbols=names, dim=16, encoder_depth=1, decoder_depth=1)
    model = speaking_transformer(
        load_codec("speech-16k"), text, ModelSettings(dim=32, depth=1, heads=2)
    )
    Speaker(model, text).save_pretrained(folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(
    page: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in corpus.iterdir():
        (tmp_path / source.name).symlink_to(source)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"SMALL": SMALL}
    if page.stem == "text":  # the model that its recipe trains
        save_speaker(tmp_path / "runs/tts_masked/model")
    for language, text in blocks(page):
        for pattern, shorter in SHORTER:
            text = re.sub(pattern, shorter, text)
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif language == "sh" and page.name != "README.md":
            for words in commands(text):
                run(words, page)


def run(words: list[str], page: Path) -> None:
    """Run a command of `tokgen`, or of the one recipe that is quick enough."""
    if words[:4] == ["accelerate", "launch", "-q", "recipes/quantize_offline.py"]:
        assert quantize_offline.main(words[4:]) == 0, words
        return
    assert words[0] == "tokgen", f"{page.name}: {words} cannot run here; mark it bash"
    assert cli.main(words[1:]) == 0, words


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_can_be_parsed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for language, text in blocks(page):
        for words in commands(text) if language in ("sh", "bash") else ():
            parse(words)


def parse(words: list[str]) -> None:
    """Parse a command of `tokgen` or a recipe; raise ValueError or SystemExit if it is wrong."""
    if words[:4] == ["accelerate", "launch", "-m", "tokgen"]:
        words = words[3:]
    if words[0] == "tokgen":
        if words[1] != "recipes":
            cli.read_settings(cli.VERBS[words[1]], words[2:])
    elif words[:2] == ["accelerate", "launch"]:
        script = next(word for word in words if word.endswith(".py"))
        flags = words[words.index(script) + 1 :]
        parse_settings(SETTINGS[Path(script).stem], (ROOT / script).with_suffix(".yaml"), flags)
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()


def test_a_wrong_command_is_found() -> None:
    with pytest.raises(ValueError, match="codecs"):
        parse(["tokgen", "drift", "--codecs", "opus:12", "--corpus", "x", "--out", "y"])
    with pytest.raises(SystemExit):
        parse(["accelerate", "launch", "recipes/train_codec.py", "--stages", "5"])
