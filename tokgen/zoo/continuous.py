"""Load continuous codecs by name, and the STFT codec without its quantizer.

codec = load_continuous("speech-16k-continuous")
latents = codec.encode(waveform)  # [B, D, T]
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from tokgen.codec.checks import check_layout
from tokgen.codec.continuous import ContinuousCodec, ContinuousSpec
from tokgen.codec.windows import Reach
from tokgen.nn.cards import ModelCardFacts, read_licence, read_metadata, write_card
from tokgen.nn.files import brief
from tokgen.nn.hashes import hash_saved, hashes_of
from tokgen.nn.hub import CONFIG, Pushable
from tokgen.nn.pretrained import LoadedCard, folder_name
from tokgen.runs.device import pick_device
from tokgen.runs.progress import quiet_libraries
from tokgen.zoo.finding import find_codec, load_found
from tokgen.zoo.names import check_name, split_kbps, waveform_kind
from tokgen.zoo.networks.autoencoder import StftAutoencoder

__all__ = ["PretrainedContinuous", "StftContinuous", "load_continuous"]


def load_continuous(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
    device: str | torch.device = "cpu",
) -> ContinuousCodec:
    """Load a continuous codec with its weights.

    Args:
        name: a continuous codec of the zoo (see `list_codecs`), a folder, or a hub id
            ("owner/name").
        revision, token, cache_dir, local_files_only, subfolder, device: as for `load_codec`.
    Raises:
        FileNotFoundError: no codec of this name; the message lists the known names.
        ValueError: the folder is damaged, or holds a codec with codes or none that tokgen can run.
    """
    if waveform_kind(name):
        check_name(name)
    plain, kbps = split_kbps(name)
    hub = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    found = find_codec(plain, revision, subfolder, hub)
    if not found.continuous:
        raise ValueError(f"{found.name} has a quantizer and is not continuous: load_codec loads it")
    return load_found(found, kbps).to(pick_device(device))


class PretrainedContinuous(ContinuousCodec, Pushable):
    """A continuous codec that loads from a folder, and is saved or uploaded with a card.

    Attributes:
        decoder_parts: beginnings of the names of weights that only decoding uses. Latents do not
            depend on them: they are not in `spec.encoder_hash`.
    """

    library: ClassVar[str] = "tokgen"  # that runs the network
    decoder_parts: ClassVar[tuple[str, ...]] = ()
    trained_dtype: ClassVar[torch.dtype | None] = None  # recipes save weights in it
    loaded_card = LoadedCard()

    @staticmethod
    def numbers(config: dict[str, Any]) -> dict[str, Any]:
        """Return sample_rate, hop_length and latent_dim for a config.json."""
        return {name: config[name] for name in ("sample_rate", "hop_length", "latent_dim")}

    @classmethod
    def read_spec(cls, name: str, config: dict[str, Any], **about: Any) -> ContinuousSpec:
        """Return the spec for a config.json; `about` are fields that are not in it.

        Raises:
            KeyError: a setting is missing, for which the library has a default.
            ValueError: a setting is wrong.
        """
        try:
            return ContinuousSpec.of(
                name, **cls.numbers(config), **{"library": cls.library, **about}
            )
        except (ArithmeticError, AttributeError, TypeError) as error:
            raise ValueError(f"a setting is wrong: {brief(error)}") from error

    @classmethod
    @abstractmethod
    def load_model(cls, folder: Path) -> Any:
        """Load the network in float32."""

    @classmethod
    @abstractmethod
    def config_of(cls, model: Any) -> dict[str, Any]:
        """Return a network's settings as in config.json."""

    @classmethod
    def from_model(cls, model: Any, name: str = "continuous", **about: Any) -> Self:
        """Wrap a model; `about` are more fields of the spec."""
        about = {**hashes_of(model, cls.decoder_parts), **about}
        return cls(model, cls.read_spec(name, cls.config_of(model), **about))

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, name: str | None = None, **about: Any) -> Self:
        """Load a folder that `save_pretrained` wrote, in float32.

        Args:
            folder: see above.
            name: name in the spec; None means the folder's.
            about: revision and licence; the licence is read from the card without it.
        Raises:
            FileNotFoundError, ValueError: as `load_continuous`.
        """
        folder = Path(folder)
        about = {"licence": read_licence(read_metadata(folder)), **about}
        model = cls.load_model(folder)
        try:
            codec = cls.from_model(model, name or folder_name(folder), **about)
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG}: {error}") from error
        codec.loaded_card = LoadedCard.read(folder, codec.spec.weight_hash)
        return codec

    def save_model(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Save the network."""
        model: Any = self.model if dtype is None else copy.deepcopy(self.model).to(dtype)
        with quiet_libraries():
            model.save_pretrained(folder)

    def save_pretrained(
        self,
        folder: str | Path,
        card: ModelCardFacts | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Save a folder that `load_continuous` can load.

        Args:
            folder: is created if it is missing. A README.md that was written by hand is kept.
            card: facts for the card; None keeps the card of weights that are saved as they were
                loaded.
            dtype: type of the saved weights; None keeps theirs, and so the latents.
        """
        folder = Path(folder)
        self.save_model(folder, dtype)
        saved = hash_saved(self.model.state_dict(), dtype)
        if card is not None or not self.loaded_card.keep(folder, saved):
            facts = card or ModelCardFacts(licence=self.spec.licence)
            self.write_card(folder, facts, weight_hash=saved)

    def write_card(self, folder: Path, facts: ModelCardFacts, *, weight_hash: str = "") -> None:
        """Write the card (README.md) of a saved codec, unless there is one written by hand.

        Args:
            folder: see above.
            facts: for the card.
            weight_hash: of the saved weights; "" if they are those of `model`.
        """
        s = self.spec
        about = {
            "network": f"{type(self.model).__name__} of {self.library}",
            "audio": f"{s.sample_rate} Hz, {s.hop_length} samples per frame",
            "latents": f"{s.latent_dim} per frame, {s.frame_rate:g} frames per second",
            "weights": f"`{weight_hash or hash_saved(self.model.state_dict())}`",
        }
        example = f"""
import tokgen

codec = tokgen.load_continuous("folder or hub id of this codec")
waveform, rate = tokgen.read_audio("speech.wav", sample_rate={s.sample_rate})
latents = codec.encode(waveform[None])  # [1, {s.latent_dim}, T]
tokgen.write_audio("decoded.wav", codec.decode(latents, waveform.shape[-1])[0], rate)
"""
        name = f"Continuous codec trained from {facts.base}" if facts.base else folder_name(s.name)
        tags = ["codec", "autoencoder", "tokgen"]
        write_card(folder, name, about, example, facts, library=self.library, tags=tags)


class StftContinuous(PretrainedContinuous):
    """`StftAutoencoder` as a continuous codec."""

    model: StftAutoencoder
    trained_dtype = torch.float16
    decoder_parts = ("decoder.",)

    def __init__(self, model: StftAutoencoder, spec: ContinuousSpec) -> None:
        super().__init__(model, spec)
        edge = model.spectrum.reach
        encoder, decoder = (
            Reach(stack.before + edge, stack.after + edge)
            for stack in (model.encoder, model.decoder)
        )
        self.reaches = encoder, decoder

    @classmethod
    def load_model(cls, folder: Path) -> StftAutoencoder:
        return StftAutoencoder.from_pretrained(folder)

    @classmethod
    def config_of(cls, model: StftAutoencoder) -> dict[str, Any]:
        return model.config

    def encode_latents(self, waveform: Tensor, lengths: list[int] | None = None) -> Tensor:
        check_layout(waveform)
        return self.model.encode_latents(waveform, lengths)

    def decode_latents(self, latents: Tensor) -> Tensor:
        return self.model.decode_latents(latents)
