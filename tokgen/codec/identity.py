"""Compare codecs by the hashes of their weights, and say what results of a codec depend on.

A codec has two hashes:

    weight_hash   all weights. Decoded audio depends on it.
    encoder_hash  the weights that codes or latents depend on, of encoder and quantizer. It stays
                  when the decoder alone is tuned. Without a part that only decodes, it equals
                  `weight_hash`.

Files of older versions hold only the `weight_hash`.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any, Protocol

from tokgen.codec.spec import CodecSpec

__all__ = [
    "DESCRIPTION",
    "Hashed",
    "audio_key",
    "check_made_for",
    "codes_key",
    "encodes_like",
    "show_hashes",
    "unclaimed",
    "without_description",
]

DESCRIPTION = ("name", "library", "licence", "revision")  # of weights that a hash identifies


class Hashed(Protocol):
    """A codec's spec, or a file or record that holds the hashes of a codec.

    Attributes:
        weight_hash: hash of all weights.
        encoder_hash: see above; "" if it is not known.
    """

    @property
    def weight_hash(self) -> str: ...

    @property
    def encoder_hash(self) -> str: ...


def encodes_like(one: Hashed, other: Hashed) -> bool:
    """Return whether two codecs make equal codes or latents, so that each decodes the other's."""
    hashes = (_both(one), _both(other))
    return any(a == b for a, b in zip(*hashes, strict=True))


def show_hashes(one: Hashed, other: Hashed) -> tuple[str, str]:
    """Return the hashes by which two codecs differ, for a message: "encoder 0123456789ab"."""
    word, at = "weights", 0
    if one.encoder_hash and other.encoder_hash:
        word, at = "encoder", 1
    first, second = (f"{word} {_both(each)[at][:12]}" for each in (one, other))
    return first, second


def check_made_for(codec: dict[str, Any] | None, spec: CodecSpec, what: str) -> None:
    """Raise ValueError if a model was made for the codes of another codec.

    Args:
        codec: `CodecSpec.as_dict()` of the model's codec; None if it has none.
        spec: of the codec to use.
        what: the model, for the message.
    """
    if codec is None:
        raise ValueError(f"{what} does not name its codec: use one made for {spec.name!r}")
    theirs = CodecSpec(**codec)
    if not encodes_like(theirs, spec):
        ours, other = show_hashes(theirs, spec)
        raise ValueError(
            f"{what} was made for codec {theirs.name!r} ({ours}), not for {spec.name!r} ({other}), "
            f"whose codes mean something else: use {theirs.name!r}"
        )


def codes_key(codec: Any) -> dict[str, Any]:
    """Return what the codes or latents of a codec depend on, JSON-ready, as a key of results.

    Codecs of which only the decoder differs have equal keys.
    """
    key = audio_key(codec)
    if codec.spec.weight_hash:
        del key["weight_hash"]
        key["encoder_hash"] = _both(codec.spec)[1]
    return key


def audio_key(codec: Any) -> dict[str, Any]:
    """Return what the decoded audio of a codec depends on, JSON-ready, as a key of results.

    This is the spec without what only describes it, and the beam search.
    """
    key = without_description(codec.spec.as_dict())
    if is_dataclass(search := getattr(codec, "search", None)):
        key["search"] = asdict(search)  # type: ignore[arg-type]
    return key


def without_description(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec's `as_dict()` without names and licence, if a hash identifies the weights."""
    left_out = (*DESCRIPTION, "encoder_hash") if spec.get("weight_hash") else ()
    return {name: value for name, value in spec.items() if name not in left_out}


def unclaimed(spec: Any, *places: str) -> tuple[str, ...]:
    """Return names for `claim_run` of what may change in a spec while a run goes on.

    Args:
        spec: of the run's codec.
        places: names of the specs in settings.json, such as "codec".
    """
    free = set(spec.as_dict()) - set(without_description(spec.as_dict()))
    return tuple(f"{place}.{name}" for place in places for name in sorted(free | {"encoder_hash"}))


def _both(hashed: Hashed) -> tuple[str, str]:
    return hashed.weight_hash, hashed.encoder_hash or hashed.weight_hash
