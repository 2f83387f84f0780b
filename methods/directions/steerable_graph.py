"""GraphCG: directions of a vector code under which edited codes are told apart."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from latentbench.bounds import Count, NotNegative, Positive, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.types import Edit
from methods.directions.vector_code import VectorCodeEditor

BASIS = 0.1  # standard deviation of the basis vectors
UNIT = "unit"


class SteerableGraph(VectorCodeEditor):
    """D directions: codes moved along one by one amount are alike, other pairs are not.

    Source: "Unsupervised Discovery of Steerable Factors When Graph Deep Generative Models Are
    Entangled" (GraphCG), section 4. d_i = normalise(g(b_i)) with fixed random b_i and a learned g;
    h(z, i, a) = z + a d_i. The energy of two edited codes is the inner product of their unit
    vectors. Alike: the same direction and amount, from z and from z'. Unlike: another amount;
    another direction. The loss is the mean logistic loss of all pairs, over both roles of z and z',
    plus that of the directions' own inner products, plus w |d|. It sees codes alone: no image is
    made in a fit, and no order of directions is learned.

    On Gaussian codes this objective chooses directions no better than random ones: `linear` ends as
    a regular simplex that may be turned at will, `relu_square` on axes of the code's own basis.
    Read it against the benchmark's control.

    Strength is a, in root-mean-square standard deviations of the code.
    Deviations: codes are those of images, centred; pairs of amounts are shuffled before they are
    drawn (the published code always takes the first); the correction q of `nonlinear` is told the
    amount and vanishes at 0 (told a constant 1 there, it does not); pairs are taken by index, so
    that orthogonal codes count; the squares of `relu_square` are normalised again.

    Args:
        variant: "linear" (g a linear map), "relu_square" (linear, ReLU, normalised and squared), or
            "nonlinear" (two layers, and h = z + a d_i + q(z, d_i, a) - q(z, d_i, 0)).
        count: D.
        images: whose codes it learns from.
        batch: codes of one step.
        iterations: optimiser steps.
        learning_rate: of Adam.
        positives: z' is z with noise, or another image's code.
        noise: standard deviation of that noise, in the code's.
        amount: largest a.
        grid: number of amounts, from -amount to amount.
        w_directions: weight of the directions' own inner products.
        w_sparse: weight of |d|.
        steps: sampling steps, where the model has any; default: the model's.
        max_strength: largest a of a benchmark's curve.

    Example:
        >>> editor = SteerableGraph(count=8)  # editor.fit(data, []); editor.edit(...)
    """

    paper = "Unsupervised Discovery of Steerable Factors (GraphCG), section 4"
    numbered = True
    measured = (UNIT,)
    small: ClassVar[Mapping[str, Any]] = {"count": 3, "images": 8, "batch": 4, "iterations": 5}

    def __init__(
        self,
        *,
        variant: Literal["linear", "relu_square", "nonlinear"] = "linear",
        count: Annotated[int, between(2, 1000)] = 10,
        images: Annotated[int, between(2, 1_000_000)] = 500,
        batch: Count = 100,
        iterations: Annotated[int, between(0, 1_000_000)] = 1000,
        learning_rate: Positive = 0.001,
        positives: Literal["noise", "permute"] = "noise",
        noise: Positive = 1.0,
        amount: Positive = 3.0,
        grid: Annotated[int, between(2, 1001)] = 21,
        w_directions: NotNegative = 1.0,
        w_sparse: NotNegative = 0.0,
        steps: Steps | None = None,
        max_strength: Positive = 3.0,
    ) -> None:
        if batch > images:
            raise BadInput(f"a batch of {batch} is more than the {images} images")
        self.variant, self.count, self.batch, self.iterations = variant, count, batch, iterations
        self.learning_rate, self.positives, self.noise = learning_rate, positives, noise
        self.amount, self.grid = amount, grid
        self.w_directions, self.w_sparse = w_directions, w_sparse
        self.images, self.steps, self.max_strength = images, steps, max_strength
        self.learned_ = {}  # the directions, the code's unit and the weights of q

    @classmethod
    def directions(cls, config: Mapping[str, Any]) -> int:
        """Return D."""
        return int(config.get("count", 10))

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn the directions from codes."""
        codes = self.codes(data)
        codes = codes - codes.mean(0)
        unit = codes.square().mean().sqrt().clamp(min=1e-6)
        parts = self._layers(codes.shape[1])
        adam = torch.optim.Adam(parts.parameters(), self.learning_rate)
        tensors = dict(parts.named_parameters())
        rows = [str(k) for k in range(self.count)]
        basis = BASIS * self.streams.normal("steerable_graph/basis", rows, codes.shape[1:])
        for step in self.fitting.steps("steerable_graph", self.iterations, tensors, adam):
            adam.zero_grad()
            self._loss(parts, basis.to(codes), codes / unit, step).backward()
            adam.step()
        found = self._directions(parts, basis.to(codes)).detach()
        self.learned_ = {"directions": found, UNIT: unit[None]}
        if self.variant == "nonlinear":
            self.learned_ |= {f"q/{k}": v.detach() for k, v in parts["q"].state_dict().items()}

    def moved(
        self, code: Float[Tensor, "r d"], edit: Edit, strength: Float[Tensor, " r"]
    ) -> Float[Tensor, "r d"]:
        """Return h(z, i, a)."""
        directions = self.learned_.get("directions", code.new_zeros(0))
        d = directions[self.number(edit, len(directions))]
        unit = self.learned_[UNIT]
        change = strength[:, None] * d
        if self.variant == "nonlinear":
            q = self._two_layers(2 * len(d) + 1, len(d)).to_empty(device=code.device)
            q.load_state_dict({k[2:]: v for k, v in self.learned_.items() if k.startswith("q/")})
            change = change + _correction(q.requires_grad_(False), code / unit, d, strength)
        return code + unit * change

    def _loss(
        self,
        parts: nn.ModuleDict,
        basis: Float[Tensor, "k d"],
        codes: Float[Tensor, "n d"],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return the loss of one pair of amounts on one batch."""
        draw = f"steerable_graph/{step}"
        z = codes[self.streams.choice(f"{draw}/codes", len(codes), self.batch)]
        amounts = torch.linspace(-self.amount, self.amount, self.grid)
        a, c = amounts[self.streams.choice(f"{draw}/amounts", self.grid, 2)].tolist()
        if self.positives == "noise":
            rows = [str(k) for k in range(len(z))]
            other = z + self.noise * self.streams.normal(draw, rows, z.shape[1:], z.device)
        else:
            other = z[self.streams.choice(f"{draw}/order", len(z), len(z))]
        d = self._directions(parts, basis)
        u, v, u_far, v_far = (
            self._edited(parts, start, d, amount)
            for amount in (a, c)
            for start in (z, other)
        )  # fmt: skip
        loss = 0.5 * (contrast(u, v, u_far) + contrast(v, u, v_far))
        k, j = torch.triu_indices(len(d), len(d), offset=1)
        own = (d @ d.T)[k, j]
        apart = binary_cross_entropy_with_logits(own, torch.zeros_like(own))
        return loss + self.w_directions * apart + self.w_sparse * d.abs().mean()

    def _directions(
        self, parts: nn.ModuleDict, basis: Float[Tensor, "k d"]
    ) -> Float[Tensor, "k d"]:
        """Return d_i, of unit length."""
        found = F.normalize(parts["g"](basis), dim=1)
        return F.normalize(found.square(), dim=1) if self.variant == "relu_square" else found

    def _edited(
        self,
        parts: nn.ModuleDict,
        z: Float[Tensor, "n d"],
        d: Float[Tensor, "k d"],
        amount: float,
    ) -> Float[Tensor, "k n d"]:
        """Return the unit vectors of h(z, i, a) by direction and code."""
        h = z + amount * d[:, None]
        if self.variant == "nonlinear":
            a = z.new_full((len(z),), amount)
            h = h + torch.stack([_correction(parts["q"], z, one, a) for one in d])
        return F.normalize(h, dim=2)

    def _layers(self, size: int) -> nn.ModuleDict:
        """Return g, and q where there is one, with weights up to 1 / sqrt(fan-in)."""
        if self.variant == "nonlinear":
            parts = {"g": self._two_layers(size, size), "q": self._two_layers(2 * size + 1, size)}
        else:
            last = nn.ReLU() if self.variant == "relu_square" else nn.Identity()
            with torch.device("meta"):
                parts = {"g": nn.Sequential(nn.Linear(size, size), last)}
        made = nn.ModuleDict(parts).to_empty(device=self.model.device)
        for name, module in made.named_modules():
            if isinstance(module, nn.Linear):
                reach = module.in_features**-0.5
                for key, p in module.named_parameters():
                    drawn = self.streams.generator(f"steerable_graph/{name}/{key}")
                    p.data = (reach * (2 * torch.rand(p.shape, generator=drawn) - 1)).to(p.device)
        return made

    @staticmethod
    def _two_layers(reads: int, size: int) -> nn.Sequential:
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(reads, size), nn.ReLU(), nn.Linear(size, size))


def contrast(
    u: Float[Tensor, "k n d"], v: Float[Tensor, "k n d"], far: Float[Tensor, "k n d"]
) -> Float[Tensor, ""]:
    """Return the mean logistic loss of pairs of unit vectors, by direction and code.

    Args:
        u: h(z, i, a).
        v: h(z', i, a), alike.
        far: h(z, i, c), unlike; and so are those of u of two directions.

    Example:
        >>> one = torch.eye(2)[:, None]
        >>> round(float(contrast(one, one, -one)), 4)  # log(1 + 1/e), four times, and log 2
        0.3892
    """
    k, j = torch.triu_indices(len(u), len(u), offset=1)
    energies = [(u * v).sum(2), (u * far).sum(2), (u[k] * u[j]).sum(2)]
    alike = [torch.ones_like(energies[0]), *(torch.zeros_like(e) for e in energies[1:])]
    flat = torch.cat([e.flatten() for e in energies])
    return binary_cross_entropy_with_logits(flat, torch.cat([e.flatten() for e in alike]))


def _correction(
    q: nn.Module, z: Float[Tensor, "r d"], d: Float[Tensor, " d"], amount: Float[Tensor, " r"]
) -> Float[Tensor, "r d"]:
    """Return q(z, d, a) - q(z, d, 0)."""
    told = torch.cat([z, d.expand_as(z)], 1)
    there, here = (torch.cat([told, a[:, None]], 1) for a in (amount, torch.zeros_like(amount)))
    return q(there) - q(here)
