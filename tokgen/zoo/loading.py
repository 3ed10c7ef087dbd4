"""Base classes of the codecs that load from a folder or a hub id.

Models load strictly: only from safetensors, and every weight must fit.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import nn

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.hub import HubArguments
from tokgen.nn.cards import ModelCardFacts, read_licence, read_metadata, write_card
from tokgen.nn.checks import check_count
from tokgen.nn.files import WeightsHeader, brief
from tokgen.nn.hashes import hash_saved, hashes_of
from tokgen.nn.hub import CONFIG, Pushable, resolve_folder
from tokgen.nn.pretrained import LoadedCard, folder_name
from tokgen.runs.progress import quiet_libraries
from tokgen.zoo.transformers_loading import from_transformers, load_transformers

__all__ = [
    "PretrainedCodec",
    "TransformersCodec",
    "choose_bandwidth",
    "let_gradients_through",
    "refuse_bandwidth",
]


class PretrainedCodec(Codec, Pushable):
    """A codec that loads from a folder or a hub id, and is saved or uploaded with a card.

    Attributes:
        decoder_parts: beginnings of the names of weights that only decoding uses, such as
            "decoder.". Codes do not depend on them: they are not in `spec.encoder_hash`.
        saved_in_dtype: beginnings of the names of weights that are saved in the type that is asked
            for; the default is all.
    """

    library: ClassVar[str]  # that runs the network
    decoder_parts: ClassVar[tuple[str, ...]] = ()
    saved_in_dtype: ClassVar[tuple[str, ...]] = ("",)
    published_files: ClassVar[tuple[str, ...]] = ()  # patterns of names, besides config.json
    savable: ClassVar[bool] = True  # else save_model raises ValueError
    trained_dtype: ClassVar[torch.dtype | None] = None  # recipes save weights in it; None keeps all
    loaded_card = LoadedCard()

    @staticmethod
    @abstractmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        """Return the fields of `CodecSpec` for a config.json.

        Raises:
            ValueError: the model does not have this bandwidth in kbps.
        """

    @classmethod
    def read_spec(
        cls, name: str, config: dict[str, Any], bandwidth: float | None = None, **about: Any
    ) -> CodecSpec:
        """Return the spec for a config.json.

        Args:
            about: the fields of `CodecSpec` that are not in config.json.
        Raises:
            KeyError: a setting is missing, for which the library has a default.
            ValueError: a setting is wrong, or the model does not have this bandwidth.
        """
        try:
            variable = config.get("importance") is not None
            return CodecSpec(name, **cls.numbers(config, None if variable else bandwidth), **about)
        except (ArithmeticError, AttributeError, IndexError, TypeError) as error:
            raise ValueError(f"a setting is wrong: {brief(error)}") from error
        except ValueError as error:
            raise ValueError(brief(error)) from error

    @classmethod
    @abstractmethod
    def load_model(cls, folder: Path) -> Any:
        """Load the network in float32."""

    @classmethod
    @abstractmethod
    def config_of(cls, model: Any) -> dict[str, Any]:
        """Return a network's settings as in config.json, with the model's type."""

    @classmethod
    def parts_of_decoder(cls, model: Any) -> tuple[str, ...]:
        """Return `decoder_parts` for a network."""
        return cls.decoder_parts

    @classmethod
    def class_for(cls, config: dict[str, Any]) -> type[Any]:
        """Return the subclass for a model with these settings."""
        return cls

    @classmethod
    def from_model(
        cls,
        model: Any,
        name: str | None = None,
        *,
        bandwidth: float | None = None,
        revision: str | None = None,
        licence: str = "",
    ) -> Self:
        """Wrap a model.

        Args:
            name: name in the spec; None means the model's type.
            bandwidth: kbps; None means the highest. A codec of variable bitrate meets it on
                average over each utterance, see `Codec.with_rate`.
        Raises:
            ValueError: the model does not have this bandwidth, or its settings disagree.
        """
        config = cls.config_of(model)
        name = name or config["model_type"]
        about = {"library": cls.library, "revision": revision, "licence": licence}
        about |= hashes_of(model, cls.parts_of_decoder(model))
        spec = cls.read_spec(name, config, bandwidth, **about)
        codec = cls.class_for(config)(model.eval(), spec)
        if bandwidth is not None and codec.variable:
            codec = codec.with_rate(bitrate=bandwidth)
        return codec

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        revision: str | None = None,
        *,
        name: str | None = None,
        licence: str | None = None,
        bandwidth: float | None = None,
        **hub: Unpack[HubArguments],
    ) -> Self:
        """Load from a folder that the model's `save_pretrained` wrote, or a hub id, in float32.

        Args:
            source: folder, or hub id "owner/name".
            revision: branch, tag or commit of a hub id; None means the main branch.
            name: name in the spec; None means the folder's name or the hub id.
            licence: licence of the weights; None reads it from the card.
            bandwidth: kbps; None means the highest.
            hub: token, cache_dir, local_files_only and subfolder, see `tokgen.hub.HubArguments`.
        Raises:
            FileNotFoundError: no such folder, and no such hub model in reach.
            ValueError: another model's config, weights that do not fit, or a bandwidth that the
                model does not have.
        """
        folder = resolve_folder(source, revision, published=cls.published_files, **hub)
        model = cls.load_model(folder)
        hub_name = "/".join(filter(None, (str(source), hub.get("subfolder"))))
        name = name or (folder_name(folder) if Path(source).is_dir() else hub_name)
        if licence is None:
            licence = read_licence(read_metadata(folder))
        about: Any = {"bandwidth": bandwidth, "revision": revision, "licence": licence}
        try:
            codec = cls.from_model(model, name, **about)
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG}: {error}") from error
        codec.loaded_card = LoadedCard.read(folder, codec.spec.weight_hash)
        return codec

    def save_pretrained(
        self,
        folder: str | Path,
        card: ModelCardFacts | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Save a folder that `load_codec` and the codec's own library can load.

        Without `card`, weights that are saved as they were loaded keep their card.

        Args:
            folder: is created if it is missing. A README.md that was written by hand is kept.
            card: facts for the card.
            dtype: type of the saved floating-point weights; None keeps theirs, and so the codes.
        """
        folder = Path(folder)
        self.save_model(folder, dtype)
        saved = hash_saved(self.model.state_dict(), dtype, self.saved_in_dtype)
        if card is not None or not self.loaded_card.keep(folder, saved):
            facts = card or ModelCardFacts(licence=self.spec.licence)
            self.write_card(folder, facts, weight_hash=saved)

    def save_model(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Save the network."""
        model: Any = self.model if dtype is None else copy.deepcopy(self.model).to(dtype)
        with quiet_libraries():
            model.save_pretrained(folder)

    def write_card(
        self, folder: str | Path, facts: ModelCardFacts, *, weight_hash: str = ""
    ) -> None:
        """Write the card (README.md) of a saved codec, unless there is one written by hand.

        Args:
            folder: see above.
            facts: for the card.
            weight_hash: of the saved weights; "" if they are those of `model`.
        """
        s, folder = self.spec, Path(folder)
        name = f"Codec trained from {facts.base}" if facts.base else folder_name(s.name)
        kbps = f"{s.bitrate / 1000:.2f} kbps, {s.frame_rate:g} frames per second"
        about = {
            "network": f"{type(self.model).__name__} of {self.library}",
            "audio": f"{s.sample_rate} Hz, {s.hop_length} samples per frame",
            "levels": f"{s.n_codebooks} of {s.codebook_size} entries",
            "bitrate": kbps,
            "weights": f"`{weight_hash or hash_saved(self.model.state_dict())}`",
        }
        example = f"""
import tokgen

codec = tokgen.load_codec("folder or hub id of this codec")
waveform, rate = tokgen.read_audio("speech.wav", sample_rate={s.sample_rate})
codes = codec.encode(waveform[None])  # [1, {s.n_codebooks}, T]
tokgen.write_audio("decoded.wav", codec.decode(codes, waveform.shape[-1])[0], rate)
"""
        tags = ["codec", "neural-audio-codec", "tokgen"]
        write_card(folder, name, about, example, facts, library=self.library, tags=tags)


class TransformersCodec(PretrainedCodec):
    """A codec that wraps a model of transformers."""

    library = "transformers"
    model_class: ClassVar[str]  # name of the model's class in transformers

    @classmethod
    def config_of(cls, model: Any) -> dict[str, Any]:
        return model.config.to_dict()

    @classmethod
    def network_class(cls, config: dict[str, Any]) -> Any:
        """Return the class of the network for a config.json."""
        return from_transformers(cls.model_class)

    @classmethod
    def load_model(cls, folder: Path) -> Any:
        return load_transformers(folder, cls.network_class, cls.check_levels)

    @classmethod
    def check_levels(cls, folder: Path, config: dict[str, Any], header: WeightsHeader) -> None:
        """Check the number of levels in config.json, before the network is built."""
        with suppress(KeyError):  # the library has a default for this setting
            try:
                n_codebooks = cls.read_spec(folder.name, config).n_codebooks
            except ValueError as error:
                raise ValueError(f"{folder / CONFIG}: {error}") from error
            check_count("n_codebooks", n_codebooks, header)


def choose_bandwidth(kbps: list[float], bandwidth: float | None) -> float:
    """Return `bandwidth` if it is one of `kbps`; None means the highest."""
    chosen = max(kbps) if bandwidth is None else bandwidth
    if chosen not in kbps:
        known = ", ".join(f"{k:g}" for k in sorted(kbps))
        raise ValueError(f"bandwidth {chosen:g} kbps: the model has {known}; pass one of them")
    return chosen


def refuse_bandwidth(bandwidth: float | None) -> None:
    """Check that no bandwidth is requested of a model with one bitrate."""
    if bandwidth is not None:
        raise ValueError(f"bandwidth {bandwidth:g} kbps: the model has one bitrate; leave it out")


def let_gradients_through(network: nn.Module) -> None:
    """Put LSTMs into training mode if gradients are on, as cuDNN requires.

    Without dropout, the mode does not change the results.
    """
    if torch.is_grad_enabled():
        for module in network.modules():
            if isinstance(module, nn.LSTM):
                module.train()
