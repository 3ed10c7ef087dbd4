"""The network of QINCo2, a residual quantizer whose codebooks depend on the levels before.

Vallaeys et al. 2025, "Qinco2: Vector Compression and Search with Improved Implicit Neural
Codebooks". Level k > 0 turns a row c of its codebook and the frame decoded so far into a vector:

    e = W_in c;  e += W_c [e; decoded] + b;  e += W_down relu(W_up e), L times
    decoded += c + W_out e

Encoding compares the rows of a second codebook with what is left, runs the network on the A best
(`preselect`) for every path of the beam, and keeps the best paths. W_out starts at zero, so an
untrained network is residual k-means. The code was written from the paper and the published
results; the names of weights can be those of the public code, see `from_public`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.nn.dense import argmax, linear
from tokgen.quantizers.offline.additive import ResidualKMeans
from tokgen.quantizers.offline.base import OfflineQuantizer

__all__ = ["PRESETS", "Qinco2Network", "QincoLevel"]

# Sizes of the paper: blocks L, embedding d_e, hidden d_h.
PRESETS: dict[str, dict[str, int]] = {
    "S": {"n_blocks": 2, "embedding_dim": 128, "hidden_dim": 256},
    "M": {"n_blocks": 4, "embedding_dim": 384, "hidden_dim": 384},
    "L": {"n_blocks": 16, "embedding_dim": 384, "hidden_dim": 384},
}
_MAX_VALUES = 1 << 22  # of the widest layer, at a time


class QincoLevel(nn.Module):
    """One level after the first.

    Attributes:
        rows: codebook [R, D].
        light: codebook [R, D] of the pre-selection; None without one.
    """

    def __init__(
        self,
        dim: int,
        size: int,
        *,
        n_blocks: int,
        embedding_dim: int,
        hidden_dim: int,
        light: bool,
    ) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(size, dim))
        self.light = nn.Parameter(torch.zeros(size, dim)) if light else None
        same = embedding_dim == dim
        self.into = None if same else nn.Linear(dim, embedding_dim, bias=False)
        self.concat = nn.Linear(embedding_dim + dim, embedding_dim)
        self.up: Any = nn.ModuleList(
            nn.Linear(embedding_dim, hidden_dim, bias=False) for _ in range(n_blocks)
        )
        self.down: Any = nn.ModuleList(
            nn.Linear(hidden_dim, embedding_dim, bias=False) for _ in range(n_blocks)
        )
        self.out = None if same else nn.Linear(embedding_dim, dim, bias=False)
        self.reset()

    def reset(self) -> None:
        """Draw the layers; what they add to the row is zero."""
        nn.init.zeros_(self.concat.weight)
        nn.init.zeros_(self.concat.bias)
        for layer in (self.into, *self.up):
            if layer is not None:
                nn.init.kaiming_uniform_(layer.weight)
        for layer in (self.out, *self.down):
            if layer is not None:
                nn.init.zeros_(layer.weight)

    def embedded(self) -> Tensor:
        """Return what all rows make before the decoded frame joins, [R, d_e]."""
        e = self.rows if self.into is None else linear(self.rows, self.into.weight)
        return e + linear(e, self.concat.weight[:, : e.shape[-1]].contiguous(), self.concat.bias)

    def forward(self, code: Tensor, decoded: Tensor, embedded: Tensor | None = None) -> Tensor:
        """Return what codes add to decoded frames.

        Args:
            code: int64 [n, A].
            decoded: frames decoded so far [n, D].
            embedded: result of `embedded`; None computes it.
        Returns:
            [n, A, D].
        """
        embedded = self.embedded() if embedded is None else embedded
        seen = linear(decoded, self.concat.weight[:, embedded.shape[-1] :].contiguous())
        e = F.embedding(code, embedded) + seen[:, None]
        for up, down in zip(self.up, self.down, strict=True):
            e = e + linear(F.relu(linear(e, up.weight)), down.weight)
        if self.out is not None:
            e = linear(e, self.out.weight)
        # With d_e = D there is neither a map in nor out, and the output is c + e.
        return F.embedding(code, self.rows) + e


class Qinco2Network(OfflineQuantizer):
    """QINCo2 without its training.

    Args:
        dim, n_codebooks, codebook_size: D, K and R.
        preset: "S", "M" or "L" of `PRESETS`; None takes the three sizes.
        n_blocks: L.
        embedding_dim: d_e; 0 means D.
        hidden_dim: d_h.
        preselect: rows A for which the network runs; 0 means all.
    """

    searches: ClassVar[bool] = True
    mean: Tensor
    scale: Tensor
    first: nn.Parameter  # codebook of the first level [R, D]

    def __init__(
        self,
        *,
        dim: int,
        n_codebooks: int = 8,
        codebook_size: int = 256,
        preset: str | None = "S",
        n_blocks: int = 2,
        embedding_dim: int = 128,
        hidden_dim: int = 256,
        preselect: int = 16,
    ) -> None:
        sizes = {"n_blocks": n_blocks, "embedding_dim": embedding_dim, "hidden_dim": hidden_dim}
        if preset is not None:
            if preset not in PRESETS:
                raise ValueError(f"preset {preset!r}: known are {', '.join(PRESETS)}")
            sizes = PRESETS[preset]
        shape = {"dim": dim, "n_codebooks": n_codebooks, "codebook_size": codebook_size}
        super().__init__({**shape, "preset": None, **sizes, "preselect": preselect})
        if not 0 <= preselect <= codebook_size:
            raise ValueError(f"preselect = {preselect}: must be 0 (all) to {codebook_size}")
        self.preselect = preselect
        self.register_buffer("preselection", torch.tensor(preselect))  # part of the weights' hash
        sizes = {**sizes, "embedding_dim": sizes["embedding_dim"] or dim}
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self.first = nn.Parameter(torch.zeros(codebook_size, dim))
        self.levels: list[QincoLevel] = nn.ModuleList(  # type: ignore[assignment]
            QincoLevel(dim, codebook_size, light=preselect > 0, **sizes)
            for _ in range(n_codebooks - 1)
        )

    def start(self, frames: Tensor, seed: int, progress: bool = True) -> None:
        """Start from residual k-means of frames [n, D], so that codes and frames are its own."""
        frames = frames.to(self.mean.device)
        self.mean.copy_(frames.mean(0))
        self.scale.copy_(frames.std())
        if not float(self.scale) > 0:
            raise ValueError("all frames are equal: give audio that is not silent")
        kmeans = ResidualKMeans(
            dim=self.dim, n_codebooks=self.n_codebooks, codebook_size=self.codebook_size
        )
        kmeans.fit(self.normalised(frames), seed=seed, progress=progress)
        with torch.no_grad():
            self.first.copy_(kmeans.codebooks[0])
            for level, rows in zip(self.levels, kmeans.codebooks[1:], strict=True):
                level.rows.copy_(rows if level.out is not None else rows / 2)
                if level.light is not None:
                    level.light.copy_(rows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for level in self.levels:
                level.reset()
        self.fitted.fill_(1)

    def normalised(self, frames: Tensor) -> Tensor:
        """Return frames minus the mean, divided by one scale for all dimensions."""
        return (frames - self.mean) / self.scale

    def search(self, target: Tensor, n_codebooks: int, beam: int) -> Tensor:
        """Return codes [n, k] of normalised frames [n, D]; see the module's description."""
        tables = [level.embedded() for level in self.levels[: n_codebooks - 1]]
        chosen = self.preselect or self.codebook_size
        wide = max([beam * chosen * t.shape[1] * 2 for t in tables], default=beam * self.dim)
        step = max(1, _MAX_VALUES // wide)
        parts = [self._search(t, tables, beam) for t in target.split(step)]
        return torch.cat(parts) if parts else target.new_zeros(0, n_codebooks, dtype=torch.long)

    def _search(self, target: Tensor, tables: list[Tensor], beam: int) -> Tensor:
        n, dim = target.shape
        near = _squared_distances(target[:, None], self.first)[:, 0]  # [n, R]
        keep = min(beam, self.codebook_size) if tables else 1
        codes = _smallest(near, keep)[..., None]  # [n, P, 1]
        decoded = self.first[codes[..., 0]]  # [n, P, D]
        for index, (level, table) in enumerate(zip(self.levels, tables, strict=False), 1):
            paths = decoded.shape[1]
            if level.light is None:
                rows = torch.arange(self.codebook_size, device=target.device)
                tried = rows.expand(n * paths, -1)
            else:
                left = (target[:, None] - decoded).flatten(0, 1)
                tried = _smallest(_squared_distances(left, level.light), self.preselect)
            added = level(tried, decoded.flatten(0, 1), table)  # [n * P, A, D]
            found = (decoded.flatten(0, 1)[:, None] + added).view(n, -1, dim)  # [n, P * A, D]
            error = (found - target[:, None]).square().sum(-1)
            keep = min(beam, error.shape[1]) if index < len(tables) else 1
            best = _smallest(error, keep)  # [n, keep]
            decoded = found.gather(1, best[..., None].expand(-1, -1, dim))
            parent = best // tried.shape[1]
            codes = codes.gather(1, parent[..., None].expand(-1, -1, index))
            code = tried.reshape(n, -1).gather(1, best)
            codes = torch.cat([codes, code[..., None]], -1)
        return codes[:, 0]

    def decoded_levels(self, codes: Tensor) -> list[Tensor]:
        """Return normalised frames [n, D] after each level of codes [n, k], with gradient."""
        found = [F.embedding(codes[:, 0], self.first)]
        for level, code in zip(self.levels, codes.T[1:], strict=False):
            found.append(found[-1] + level(code[:, None], found[-1])[:, 0])
        return found

    def forward(self, target: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the training losses for codes [n, K] of normalised frames [n, D].

        Returns:
            the mean squared error summed over levels, and that of the pre-selection.
        """
        decoded = self.decoded_levels(codes)
        error = sum((F.mse_loss(x, target) for x in decoded), target.new_zeros(()))
        light = target.new_zeros(())
        for before, level, code in zip(decoded, self.levels, codes.T[1:], strict=False):
            if level.light is not None:
                guess = before.detach() + F.embedding(code, level.light)
                light = light + F.mse_loss(guess, target)
        return error, light

    def _encode(self, frames: Tensor, n_codebooks: int, beam: int) -> Tensor:
        target = self.normalised(frames)
        codes = self.search(target, n_codebooks, beam)
        if beam == 1:
            return codes
        greedy = self.search(target, n_codebooks, 1)  # can be better, for few frames
        left = [(self.decoded_levels(c)[-1] - target).square().sum(-1) for c in (codes, greedy)]
        return torch.where((left[1] < left[0])[:, None], greedy, codes)

    def _decode(self, codes: Tensor) -> Tensor:
        return self.decoded_levels(codes)[-1] * self.scale + self.mean

    @classmethod
    def from_public(cls, weights: Mapping[str, Tensor], preselect: int) -> Self:
        """Make a quantizer of weights with the names of the paper's public code.

        Args:
            weights: its state dict.
            preselect: A that the weights were trained with.
        """
        table = weights["steps.0.codebook.weight"]
        steps = {int(name.split(".")[1]) for name in weights if name.startswith("steps.")}
        into, blocks = weights.get("steps.1.in_proj.weight"), 0
        while f"steps.1.residual_blocks.{blocks}.up_proj.weight" in weights:
            blocks += 1
        hidden = weights["steps.1.residual_blocks.0.up_proj.weight"].shape[0] if blocks else 1
        model = cls(
            dim=table.shape[1],
            n_codebooks=len(steps),
            codebook_size=table.shape[0],
            preset=None,
            n_blocks=blocks,
            embedding_dim=0 if into is None else into.shape[0],
            hidden_dim=hidden,
            preselect=preselect,
        )
        names = {"first": "steps.0.codebook.weight", "mean": "data_mean", "scale": "data_std"}
        for k in range(len(steps) - 1):
            ours, theirs = f"levels.{k}.", f"steps.{k + 1}."
            pairs = {"rows": "codebook", "light": "substep.codebook", "into": "in_proj"}
            pairs |= {"concat": "concat.mlp", "out": "out_proj"}
            pairs |= {f"{x}.{i}": f"residual_blocks.{i}.{x}_proj" for i in range(blocks)
                      for x in ("up", "down")}  # fmt: skip
            for our, their in pairs.items():
                plain = our in ("rows", "light")
                names[ours + our + ("" if plain else ".weight")] = f"{theirs}{their}.weight"
            names[f"{ours}concat.bias"] = f"{theirs}concat.mlp.bias"
        state: dict[str, Any] = {"fitted": torch.ones((), dtype=torch.uint8)}
        state["preselection"] = torch.tensor(preselect)
        state |= {our: weights[their].float() for our, their in names.items() if their in weights}
        model.load_state_dict(state)
        return model.eval()


def _squared_distances(x: Tensor, rows: Tensor) -> Tensor:
    """Return the squared distances of x [..., D] from rows [R, D], less |x|^2: [..., R]."""
    return rows.square().sum(-1) - 2 * linear(x, rows)


def _smallest(values: Tensor, n: int) -> Tensor:
    """Return the places of the n smallest values [m, C] in ascending order, [m, n]."""
    if n == 1:
        return argmax(-values)[:, None]
    return values.topk(n, largest=False).indices
