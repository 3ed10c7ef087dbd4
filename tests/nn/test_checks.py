"""Damaged model folders end in one clear error before anything large is built."""

from __future__ import annotations

import json
import pickle
import resource
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from makers.codecs import make_dac, make_stft_codec
from tokgen.codec.spec import CodecSpec
from tokgen.modelling.masked import MaskedTransformer
from tokgen.nn.files import MAX_DEPTH, MAX_HEADER_BYTES, MAX_JSON_BYTES, read_json, read_tensors
from tokgen.zoo.lookup import list_codecs, load_codec

Load = Callable[[Path], Any]
LOADERS: dict[str, Load] = {
    "stft": load_codec,
    "dac": load_codec,
    "masked": MaskedTransformer.from_pretrained,
}

SPEC = CodecSpec("little", 16000, 320, 2, 8).as_dict()


def save(kind: str, folder: Path) -> None:
    if kind == "stft":
        make_stft_codec().save_pretrained(folder)
    elif kind == "dac":
        make_dac("dac-even").save_pretrained(folder)
    else:
        MaskedTransformer(
            n_codebooks=2, codebook_size=8, conditioning_dim=3, dim=16, depth=1, heads=2
        ).save_pretrained(folder)


@pytest.fixture(params=list(LOADERS))
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Load]:
    """A folder of each kind, and what loads it."""
    folder = tmp_path / request.param
    save(request.param, folder)
    return folder, LOADERS[request.param]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Allow a gigabyte more than is in use now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def change(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def fails(folder: Path, load: Load, message: str) -> None:
    """Check that loading ends in one line that names the folder."""
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)


def test_sizes_are_compared_with_the_weights(saved: tuple[Path, Load], little_memory: None) -> None:
    folder, load = saved
    for value in (1e9, 10**9, 10**6, 10**15, 5):
        change(folder, n_codebooks=value)
        fails(folder, load, "n_codebooks|fit|layers|a setting")
    change(folder, n_codebooks=10**9)
    fails(
        folder, load, r"n_codebooks = 1000000000, but .*(holds only \d+ tensors|must be 0\.\.\d+)"
    )


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("stft", {"encoder_depth": 500_000}, "holds only .* largest .* encoder_depth = 500000"),
        ("stft", {"codebook_size": 2**18}, r"codebook\.weight has shape \(60, 4\) in .*262144"),
        ("stft", {"width": 16.0}, r"width = 16\.0 is not of type int"),
        ("stft", {"width": "16"}, r"width = '16' is not of type int"),
        ("stft", {"width": True}, "width = True is not of type int"),
        ("stft", {"quantizer_dropout": [0.5]}, "quantizer_dropout .* is not of type float"),
        ("stft", {"hop_length": 0}, r"a setting is wrong: .*zero"),
        ("stft", {"hop_length": -320}, r"hop_length = -320, but must be 0\.\."),
        ("stft", {"sample_rate": 10**9}, "sample_rate = 1000000000: must be at most 768000"),
        ("dac", {"codebook_size": 2**30}, r"weights do not fit config\.json.* \(1073741824, 4\)"),
        ("dac", {"downsampling_ratios": "x"}, "a setting is wrong|hop_length"),
        ("dac", {"n_codebooks": None}, "n_codebooks = None: must be an integer"),
        ("dac", {"codebook_size": "32"}, "codebook_size = '32': must be an integer"),
        ("dac", {"sampling_rate": 0}, "sample_rate = 0: must be an integer of at least 1"),
        ("dac", {"transformers_weights": "../x.safetensors"}, r"transformers_weights = '\.\./x"),
        ("dac", {"configuration_files": ["../config.4.json"]}, "configuration_files = .* into"),
        ("dac", {"quantization_config": {"a": 1}}, "quantization_config = .* floating point"),
        ("dac", {"attn_implementation": "who/what"}, "'who/what' would fetch code"),
        ("masked", {"conditioning_dim": 10**9}, r"conditioning_dim = 1000000000, but must be 0"),
        ("masked", {"depth": 200_000}, "holds only .* largest .* depth = 200000"),
        ("masked", {"conditioning_mean": [0.0, "x", 1.0]}, "conditioning_mean = .* not of type"),
        ("masked", {"conditioning_mean": [0.0]}, r"mean has shape \(3,\) in .*\(1,\)"),
        ("masked", {"codec": "mine"}, "codec = 'mine' is not of type dict"),
        ("masked", {"codec": {"name": "a"}}, "a setting is wrong: .*'sample_rate'"),
        ("masked", {"codec": {**SPEC, "weight_hash": 5}}, "weight_hash = 5: must be a string"),
        ("masked", {"conditioning": {"x": 1}}, "a setting is wrong: .*'x'"),
        ("masked", {"heads": 0}, "a setting is wrong: heads = 0"),
        ("stft", {"model_type": 9000 * "x"}, ".{,600}$"),
        ("masked", {"model_type": 9000 * "x"}, "^.{,300}x…, not a 'tokgen_masked_transformer'$"),
        ("masked", {9000 * "x": 1}, "^.{,400}…$"),
    ],
)
def test_wrong_settings(
    kind: str, settings: dict, message: str, tmp_path: Path, little_memory: None
) -> None:
    save(kind, tmp_path / kind)
    change(tmp_path / kind, **settings)
    fails(tmp_path / kind, LOADERS[kind], message)


def test_missing_settings(tmp_path: Path) -> None:
    save("masked", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    del config["n_codebooks"]
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    fails(tmp_path / "m", MaskedTransformer.from_pretrained, "a setting is wrong: .*n_codebooks")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 30 * "0"])
def test_numbers_in_settings_are_finite(saved: tuple[Path, Load], number: str) -> None:
    folder, load = saved
    path = folder / "config.json"
    path.write_text(path.read_text().rstrip().rstrip("}") + f', "more": [{number}]}}')
    fails(folder, load, r"more\.0 = .* is not finite or above the limit of 9\.0072e\+15")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, f"cannot be read: nested over {MAX_DEPTH} levels deep"),
        ('{"a":' * 500 + "1" + "}" * 500, f"is nested over {MAX_DEPTH} levels deep"),
        ("[1]", "holds a list, not settings"),
        ('{"a": ' + 5000 * "1" + "}", "cannot be read: Exceeds the limit"),
        ("\x00", "cannot be read"),
        (" " * (MAX_JSON_BYTES + 1), f"over the limit of {MAX_JSON_BYTES}"),
    ],
)
def test_damaged_json(saved: tuple[Path, Load], text: str, message: str) -> None:
    folder, load = saved
    (folder / "config.json").write_text(text)
    fails(folder, load, message)


def test_invalid_utf8_in_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"config\.json cannot be read: 'utf-8'"):
        read_json(tmp_path / "config.json")


def test_damaged_weights(saved: tuple[Path, Load], little_memory: None) -> None:
    folder, load = saved
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for kept in (0, 5, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:kept])
        fails(folder, load, r"model\.safetensors is damaged")
    for content, message in (
        (pickle.dumps({"a": 1}), "is a pickle, .* tokgen opens no pickles"),
        (b"PK\x03\x04" + bytes(100), "is a pickle, .* tokgen opens no pickles"),
        (struct.pack("<Q", 2**62) + data[8:], "header of 4611686018427387904 bytes does not fit"),
        (data[:9] + b"[" * 50 + data[59:], "is damaged"),
        (struct.pack("<Q", 9000) + b"{" + 8999 * b"x", ".{,600}$"),
    ):
        path.write_bytes(content)
        fails(folder, load, message)
    with path.open("wb") as file:  # a sparse file
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(1 << 40)
    fails(folder, load, f"over the limit of {MAX_HEADER_BYTES}")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors; tokgen opens no"):
        load(folder)
    path.mkdir()
    fails(folder, load, "is not a regular file")


@pytest.mark.parametrize("size", [0x280, 0x380, 0x480])
def test_headers_that_start_like_a_pickle_are_read(size: int, tmp_path: Path) -> None:
    header = '{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", size) + header.ljust(size).encode() + bytes(8))
    assert read_tensors(path) == {"w": ("F32", (2,))}


def test_weights_of_other_names_and_types(saved: tuple[Path, Load]) -> None:
    folder, load = saved
    path = folder / "model.safetensors"
    state = load_file(path)
    name = max(state, key=lambda key: state[key].numel())
    for wrong in (
        {k: v for k, v in state.items() if k != name},
        state | {"more": torch.zeros(3)},
        state | {name: state[name][:1].clone()},
    ):
        save_file(wrong, path, {"format": "pt"})
        fails(folder, load, r"weights do not fit config\.json: .*")
    save_file(state | {name: state[name].int()}, path, {"format": "pt"})
    fails(folder, load, f"{name} is of I32, but the network needs torch.float32")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(saved: tuple[Path, Load], value: float) -> None:
    folder, load = saved
    path = folder / "model.safetensors"
    state = load_file(path)
    name = max(state, key=lambda key: state[key].numel())
    state[name].view(-1)[1] = value
    save_file(state, path, {"format": "pt"})
    fails(folder, load, f"model.safetensors: {name} holds NaN or infinity")


def shard(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Divide the weights of a folder into two files, and return the index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names: dict[str, str] = {}
    for i, keys in enumerate((list(state)[::2], list(state)[1::2])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({key: state[key] for key in keys}, folder / file, {"format": "pt"})
        names |= dict.fromkeys(keys, file)
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path, index


def test_shards_load_and_stay_inside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "dac"
    save("dac", folder)
    before = load_codec(folder).spec.weight_hash
    path, index = shard(folder)
    assert load_codec(folder).spec.weight_hash == before
    key, file = next(iter(index["weight_map"].items()))
    (tmp_path / "out.safetensors").write_bytes((folder / file).read_bytes())
    for wrong in ("../out.safetensors", str(tmp_path / "out.safetensors"), "a/../../out", 3, ""):
        path.write_text(json.dumps({**index, "weight_map": {**index["weight_map"], key: wrong}}))
        fails(folder, load_codec, r"index\.json names the file .*, which is not inside the folder")
    path.write_text(
        json.dumps({**index, "weight_map": {**index["weight_map"], key: "config.json"}})
    )
    fails(folder, load_codec, r"'config\.json', which is not \.safetensors")
    for wrong in ({"metadata": {}}, {"weight_map": []}, {"weight_map": {}, "metadata": 1}):
        path.write_text(json.dumps(wrong))
        fails(folder, load_codec, "has no weight_map of tensor names to files")
    path.write_text(json.dumps(index))
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {file}"):
        load_codec(folder)


def test_damaged_cards_do_not_stop_a_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = "[" * 2000
    for name, card in (("deep", f"a: {deep}"), ("date", "a: 2024-99-99"), ("key", "? [a]\n: b")):
        save("stft", tmp_path / name)
        (tmp_path / name / "README.md").write_text(f"---\n{card}\n---\n")
    save("stft", tmp_path / "old")
    (tmp_path / "old" / "codec.toml").write_text(f"a = {deep}")
    save("stft", tmp_path / "nan")
    change(tmp_path / "nan", sample_rate="x")
    monkeypatch.setenv("TOKGEN_ZOO", str(tmp_path))
    with pytest.warns(UserWarning, match="cannot be read|is missing or wrong"):
        names = {card.name for card in list_codecs()}
    assert {"deep", "date", "key"} <= names and not names & {"old", "nan"}
