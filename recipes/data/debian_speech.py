"""Build speech corpora from Debian's packages, as Parquet files that every tokgen command opens.

    python recipes/data/debian_speech.py --out corpora                        # all, by apt-get
    python recipes/data/debian_speech.py --out corpora --sources en stamps --debs FOLDER

A corpus has the columns id, audio (16 kHz FLAC), text (null if there is none), duration in
seconds, split, speaker, language and license. `--list` shows the sources.

Splits go by `int(sha256(group), 16) % 100`: below 8 is test, below 13 validation, the rest train.
The group of a telephone prompt is its id, so its speaker is in all splits. The group of a clip of
other packages is its speaker, who is in one split only; the speakers of long dialogues are
`Source.trained` and are split by clip. `ru` and `music` are for testing alone.

Needs dpkg-deb, and apt-get unless `--debs` holds the packages.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
import torch
from torch import Tensor

from tokgen.audio.files import read_audio
from tokgen.audio.resampling import resample
from tokgen.audio.sources import AudioError
from tokgen.runs.progress import progress_bar

SAMPLE_RATE = 16000
LEAST_SECONDS = 0.3
PROMPTS = "usr/share/asterisk/sounds"
FILLETS = "usr/share/games/fillets-ng"
STAMPS = "usr/share/tuxpaint/stamps"
NOT_SPEECH = re.compile(r"silence/.*|beep(err)?|.*-2tone|tt-monkeys")


@dataclass(frozen=True)
class Clip:
    """One file of a package."""

    id: str
    path: Path
    text: str | None
    speaker: str
    language: str


@dataclass(frozen=True)
class Source:
    """Packages, and how to list their clips.

    Attributes:
        about: what it is.
        packages: names of Debian packages. All are unpacked into one folder.
        clips: lists the clips of that folder.
        license: SPDX identifier.
        trained: a pattern of speakers who are split by clip; others are in one split only.
        split: the split of all clips; None splits by hash.
        piece_seconds: cut files into pieces of this length.
    """

    about: str
    packages: tuple[str, ...]
    clips: Callable[[Path], Iterator[Clip]]
    license: str
    trained: str = "(?!)"
    split: str | None = None
    piece_seconds: float | None = None


def split_of(group: str) -> str:
    """Return the split of a group: 8 % test, 5 % validation, the rest train."""
    percent = int(hashlib.sha256(group.encode()).hexdigest(), 16) % 100
    return "test" if percent < 8 else "validation" if percent < 13 else "train"


# The packages' layouts.


def prompts(root: Path, language: str, speaker: str, suffix: str, folder: str) -> Iterator[Clip]:
    """List telephone prompts. Their texts are in the package without "-g722" in its name."""
    texts: dict[str, str] = {}
    for file in root.glob("usr/share/doc/*/core-sounds-*.txt.gz"):
        texts |= prompt_texts(gzip.decompress(file.read_bytes()).decode("utf-8", "replace"))
    for path in sorted((root / PROMPTS / folder).rglob(f"*{suffix}")):
        id = path.relative_to(root / PROMPTS / folder).with_suffix("").as_posix()
        if not NOT_SPEECH.fullmatch(id):
            yield Clip(id, path, texts.get(id), speaker, language)


def prompt_texts(listing: str) -> dict[str, str]:
    """Parse lines "id: text". Texts in brackets describe sounds and are left out."""
    found = {}
    for line in listing.splitlines():
        id, colon, text = line.partition(":")
        if colon and text.strip() and not line.startswith(";") and text.strip()[0] not in "[<(":
            found[id.strip()] = text.strip()
    return found


def dialogues(root: Path, language: str) -> Iterator[Clip]:
    """List the dialogues of Fish Fillets. The scripts name the character of each clip."""
    texts: dict[str, tuple[str, str]] = {}
    for file in sorted(root.glob(f"{FILLETS}/script/**/dialogs_{language}.lua")):
        texts |= dialogue_texts(file.read_text("utf-8", "replace"))
    for path in sorted(root.glob(f"{FILLETS}/sound/**/{language}/*.ogg")):
        level = path.relative_to(root / FILLETS / "sound").parts[:-2]
        text, character = texts.get(path.stem, ("", level[0]))
        who = character if character in ("small", "big") else f"{level[0]}-{character or level[0]}"
        id = "/".join((language, *level, path.stem))
        yield Clip(id, path, text or None, f"fillets-{language}-{who}", language)


_DIALOG = re.compile(r'dialogId\("([^"]*)",\s*"([^"]*)",\s*"((?:[^"\\]|\\.)*)"\)')
_TRANSLATED = re.compile(r'dialogStr\("((?:[^"\\]|\\.)*)"\)')


def dialogue_texts(script: str) -> dict[str, tuple[str, str]]:
    """Parse a script of dialogues into the text and the character of each clip id.

    A line `dialogId("id", "font_character", "English text")` is followed by `dialogStr("text")`
    in other languages.
    """
    found: dict[str, tuple[str, str]] = {}
    last = None
    for line in script.splitlines():
        if match := _DIALOG.match(line):
            last, character, text = match.groups()
            found[last] = (_unescape(text), character.removeprefix("font_"))
        elif last is not None and (match := _TRANSLATED.match(line)):
            found[last] = (_unescape(match[1]), found[last][1])
    return found


def _unescape(text: str) -> str:
    return text.replace('\\"', '"').replace("\\n", " ").strip()


def stamps(root: Path) -> Iterator[Clip]:
    """List Tux Paint's spoken descriptions of stamps, one speaker a language."""
    for path in sorted(root.glob(f"{STAMPS}/**/*_desc*.ogg")):
        name, _, language = path.stem.partition("_desc")
        language = language.removeprefix("_") or "en"
        described = path.with_name(f"{name}.txt")
        lines = described.read_text("utf-8", "replace").splitlines() if described.exists() else []
        key = f"{language}.utf8="
        translated = [line.removeprefix(key) for line in lines if line.startswith(key)]
        text = lines[0] if language == "en" and lines else (translated or [""])[0]
        id = path.relative_to(root / STAMPS).with_suffix("").as_posix()
        yield Clip(id, path, text.strip() or None, f"stamps-{language}", language)


def letters(root: Path) -> Iterator[Clip]:
    """List KLettres' letters and syllables, one speaker a language."""
    folder = root / "usr/share/klettres"
    for path in sorted(folder.glob("*/*/*.ogg")):
        language = path.relative_to(folder).parts[0]
        id = path.relative_to(folder).with_suffix("").as_posix()
        yield Clip(id, path, None, f"klettres-{language}", language)


def words(root: Path) -> Iterator[Clip]:
    """List the words of KTuberling, one speaker a language."""
    folder = root / "usr/share/ktuberling/sounds"
    for path in sorted((*folder.glob("*/*.ogg"), *folder.glob("*/*.wav"))):
        language = path.relative_to(folder).parts[0]
        id = path.relative_to(folder).with_suffix("").as_posix()
        yield Clip(id, path, None, f"ktuberling-{language}", language)


def music(root: Path) -> Iterator[Clip]:
    """List the music on hold."""
    for path in sorted((root / "usr/share/asterisk/moh").glob("*.g722")):
        yield Clip(path.stem, path, None, path.stem.split("-")[0], "zxx")


def asterisk(about: str, language: str, speaker: str, voice: str, license: str) -> Source:
    """Describe a set of Asterisk's own prompts."""
    packages = (f"asterisk-core-sounds-{language}-g722", f"asterisk-core-sounds-{language}")
    clips = partial(prompts, language=language, speaker=speaker, suffix=".g722", folder=voice)
    split = "test" if language == "ru" else None
    return Source(about, packages, clips, license, trained=".*", split=split)


def voice(
    about: str, package: str, license: str, clips: Callable[[Path], Iterator[Clip]]
) -> Source:
    """Describe the prompts of one speaker in one package."""
    return Source(about, (package,), clips, license, trained=".*")


def fillets(language: str, about: str) -> Source:
    """Describe the dialogues of one language. The scripts are in the package without language."""
    packages = tuple({"fillets-ng-data": 1, f"fillets-ng-data-{language}": 1})
    if language == "en":
        packages = ("fillets-ng-data",)
    clips = partial(dialogues, language=language)
    return Source(about, packages, clips, "GPL-2.0-or-later", trained=r"fillets-\w+-(small|big)")


SOURCES = {
    "en": asterisk("English prompts", "en", "Allison Smith", "en_US_f_Allison", "CC-BY-SA-3.0"),
    "es": asterisk("Spanish prompts", "es", "Allison Smith", "es_MX_f_Allison", "CC-BY-SA-3.0"),
    "fr": asterisk("French prompts", "fr", "June Wallack", "fr_CA_f_June", "CC-BY-SA-3.0"),
    "it": asterisk("Italian prompts", "it", "Carlo Flora", "it_IT_m_Carlo", "CC-BY-3.0"),
    "it-menardi": voice(
        "Italian prompts, another speaker",
        "asterisk-prompt-it-menardi-wav",
        "CC-BY-SA-3.0",
        partial(prompts, language="it", speaker="Menardi", suffix=".wav", folder="it_IT_f_Menardi"),
    ),
    "es-co": voice(
        "Colombian prompts, 8 kHz GSM",
        "asterisk-prompt-es-co",
        "GPL-2.0-only",
        partial(prompts, language="es", speaker="es-co", suffix=".gsm", folder="es"),
    ),
    "fr-armelle": voice(
        "French prompts, 8 kHz GSM",
        "asterisk-prompt-fr-armelle",
        "BSD-2-Clause",
        partial(prompts, language="fr", speaker="Armelle Desjardins", suffix=".gsm", folder="fr"),
    ),
    "fillets-cs": fillets("cs", "Czech dialogues, acted"),
    "fillets-nl": fillets("nl", "Dutch dialogues, acted"),
    "fillets-en": fillets("en", "English dialogues, acted, effects among them"),
    "stamps": Source(
        "descriptions of pictures in 14 languages",
        ("tuxpaint-stamps-default",),
        stamps,
        "GPL-2.0-only",
    ),
    "klettres": Source(
        "letters and syllables in 20 languages", ("klettres-data",), letters, "GPL-2.0-or-later"
    ),
    "ktuberling": Source("words in 25 languages", ("ktuberling-data",), words, "GPL-2.0-or-later"),
    "ru": asterisk("Russian prompts: test only", "ru", "ru", "ru_RU_f_IvrvoiceRU", "CC-BY-3.0"),
    "music": Source(
        "music on hold in pieces of 5 s: test only",
        ("asterisk-moh-opsound-g722",),
        music,
        "CC-BY-SA-3.0",
        split="test",
        piece_seconds=5.0,
    ),
}


# Building.


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("corpora"), help="folder (corpora)")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES), metavar="S")
    parser.add_argument("--debs", type=Path, help="folder with .deb files, instead of apt-get")
    parser.add_argument("--list", action="store_true", help="show the sources, and end")
    a = parser.parse_args(argv)
    if a.list:
        for name, source in SOURCES.items():
            print(f"{name:11} {source.about}; {source.license}; {' '.join(source.packages)}")
        return 0
    a.out.mkdir(parents=True, exist_ok=True)
    for name in a.sources:
        out = a.out / f"{name}.parquet"
        if out.exists():
            print(f"{out}: exists, left as it is")
            continue
        with tempfile.TemporaryDirectory() as root:
            for package in SOURCES[name].packages:
                unpack(package, a.debs, Path(root))
            print(f"{out}: {build(name, SOURCES[name], Path(root), out)}")
    return 0


def unpack(package: str, debs: Path | None, root: Path) -> None:
    """Unpack a package into a folder; nothing is installed."""
    with tempfile.TemporaryDirectory() as downloads:
        if debs is None:
            run(["apt-get", "download", "-q", package], cwd=downloads)
            debs = Path(downloads)
        files = sorted(debs.glob(f"{package}_*.deb"))
        if not files:
            raise SystemExit(f"{debs} has no {package}_*.deb: apt-get download {package}")
        run(["dpkg-deb", "-x", str(files[-1]), str(root)])


def run(command: list[str], cwd: str | None = None) -> None:
    """Run a program of Debian; its words are shown if it fails."""
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not here: run this on Debian or Ubuntu") from None
    except subprocess.CalledProcessError as e:
        raise SystemExit(f"{' '.join(command)} failed: {e.stderr.strip()}") from None


def build(name: str, source: Source, root: Path, out: Path) -> str:
    """Write the corpus of unpacked packages. Returns a summary, to print."""
    rows, skipped = [], Counter[str]()
    clips = list(source.clips(root))
    for clip in progress_bar(name, clips, unit="clip"):
        try:
            waveform = read_clip(clip.path)
        except (AudioError, sf.SoundFileError):
            skipped["unreadable"] += 1
            continue
        for id, piece in pieces(clip.id, waveform, source.piece_seconds):
            seconds = piece.shape[-1] / SAMPLE_RATE
            if seconds < LEAST_SECONDS or not piece.any():
                skipped["silent or too short"] += 1
                continue
            by_clip = re.fullmatch(source.trained, clip.speaker)
            rows.append(
                {
                    "id": id,
                    "audio": {"bytes": flac(piece), "path": f"{Path(id).name}.flac"},
                    "text": clip.text,
                    "duration": seconds,
                    "split": source.split or split_of(id if by_clip else clip.speaker),
                    "speaker": clip.speaker,
                    "language": clip.language,
                    "license": source.license,
                }
            )
    if not rows:
        raise SystemExit(f"{name}: no clip found in {', '.join(source.packages)}")
    partial_file = out.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial_file, row_group_size=100)
    partial_file.replace(out)
    minutes = sum(row["duration"] for row in rows) / 60
    splits = Counter(row["split"] for row in rows)
    speakers = len({row["speaker"] for row in rows})
    left_out = "".join(f", {n} {why}" for why, n in skipped.items())
    counts = " ".join(f"{split} {splits[split]}" for split in ("train", "validation", "test"))
    return f"{len(rows)} clips, {minutes:.1f} min, {speakers} speakers, {counts}{left_out}"


def read_clip(path: Path) -> Tensor:
    """Read a file of a package at 16 kHz, [1, N]. GSM files have no header."""
    if path.suffix != ".gsm":
        return read_audio(path, sample_rate=SAMPLE_RATE)[0]
    raw = {"format": "RAW", "subtype": "GSM610", "samplerate": 8000, "channels": 1}
    samples, rate = sf.read(path, dtype="float32", **raw)
    return resample(torch.from_numpy(samples)[None], rate, SAMPLE_RATE)


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        ("duration", pa.float64()),
        ("split", pa.string()),
        ("speaker", pa.string()),
        ("language", pa.string()),
        ("license", pa.string()),
    ]
)


def pieces(id: str, waveform: Tensor, seconds: float | None) -> Iterator[tuple[str, Tensor]]:
    """Cut a waveform [1, N]; None keeps it whole."""
    if seconds is None:
        yield id, waveform
        return
    for n, piece in enumerate(waveform.split(round(seconds * SAMPLE_RATE), dim=-1)):
        if piece.shape[-1] == round(seconds * SAMPLE_RATE):
            yield f"{id}-{n:03d}", piece


def flac(waveform: Tensor) -> bytes:
    """Encode a waveform [1, N] as 16-bit FLAC."""
    buffer = io.BytesIO()
    sf.write(buffer, waveform[0].clamp(-1, 1).numpy(), SAMPLE_RATE, format="FLAC")
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
