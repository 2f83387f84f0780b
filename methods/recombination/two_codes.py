"""What methods share that make one vector code of two: triplets of codes, and the verb."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.vector_code import (
    MEAN,
    UNIT,
    CodeLearner,
    drawing,
    encoded,
    rendered,
    vector_code,
)


class TwoCodes(CodeLearner):
    """Encodes two images, makes one code of the two, and decodes it with all else of the first.

    All else is x_T, where the model has one: inverted from the first image under its own code.
    Codes are whitened here and nowhere else: `operate` takes and returns codes of mean 0 and spread
    1 per number, over the first images of the triplets.

    Attributes:
        images: of the generators' split, drawn one by one under the cell's seed; each is the first
            of one triplet and the second of another.
    """

    measured: ClassVar[tuple[str, ...]] = (MEAN, UNIT)

    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"combine": frozenset({Space.NOISE})}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "combine": frozenset({Capability.LABELS, Capability.COUNTERFACTUALS})
    }

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn each operator that is asked for, from exact triplets."""
        self.learned_ = {}
        for edit in edits:
            if edit.factors:
                codes = self.triplets(data, edit)
                self.learned_ |= {MEAN: codes[0].mean(0), UNIT: codes[0].std(0).clamp(min=1e-6)}
                found = self.learn(edit.name, *self.whitened(codes))
                self.learned_ |= {f"{edit.name}/{name}": v.detach() for name, v in found.items()}

    @abstractmethod
    def learn(
        self,
        name: str,
        a: Float[Tensor, "n d"],
        b: Float[Tensor, "n d"],
        c: Float[Tensor, "n d"],
    ) -> Mapping[str, Tensor]:
        """Return what is learned of an operator's triplets: codes whitened, c the answer."""

    @abstractmethod
    def operate(
        self, name: str, a: Float[Tensor, "r d"], b: Float[Tensor, "r d"], ids: Sequence[str]
    ) -> Float[Tensor, "r d"]:
        """Return what an operator makes of two whitened codes, whitened."""

    def combine(self, a: Batch, b: Batch, edit: Edit) -> Float[Tensor, "b 3 h w"]:
        """Return the first images with what the operator takes of the second ones.

        Raises:
            BadInput: nothing is fitted.
        """
        if MEAN not in self.learned_:
            raise BadInput(f"{type(self).__name__} has learned nothing yet; call fit first")
        latent = self.model.invert(a, self.cache, steps=self.steps)
        space, first = vector_code(latent)
        _, second = vector_code(self.model.code_of(b.images))
        one, two = (self.whitened(code.float()) for code in (first, second))
        code = self.operate(edit.name, one, two, a.ids) * self.learned_[UNIT] + self.learned_[MEAN]
        parts = {**latent.parts, space: code.to(first)}
        return self.model.sample(Latent(parts, latent.start), guidance=1.0, steps=self.steps)

    def learned(self, name: str) -> dict[str, Tensor]:
        """Return what was learned of an operator.

        Raises:
            BadInput: nothing.
        """
        start = f"{name}/"
        found = {k.removeprefix(start): v for k, v in self.learned_.items() if k.startswith(start)}
        if not found:
            raise BadInput(f"{type(self).__name__} has not learned {name!r}; call fit with it")
        return found

    def triplets(self, data: Dataset, edit: Edit) -> Float[Tensor, "3 n d"]:
        """Return codes of images, of others, and of the answers, which are drawn; kept by content.

        An answer has the named factors of the second image and all others of the first.

        Raises:
            BadInput: a factor that the data do not have.
        """
        columns = columns_of(data, edit.factors)
        draw = self.streams.generator("fit/images")  # a permutation of millions takes far longer
        size = data.size("generator")
        chosen = torch.randint(size, (self.images,), generator=draw).tolist()
        known = data.describe("generator", chosen).factors
        assert known is not None
        wanted = known.clone()
        wanted[:, columns] = known.roll(1, 0)[:, columns]
        model = self.model
        key = content_hash("triplets", model.fingerprint(), *drawing(model, data), known, wanted)

        def make() -> dict[str, Tensor]:
            a = encoded(model, data, chosen).float()
            return {"codes": torch.stack([a, a.roll(1, 0), rendered(model, data, wanted).float()])}

        return self.cache.get_or_make("codes", key, make)["codes"].to(model.device)


def columns_of(data: Dataset, factors: Sequence[str]) -> list[int]:
    """Return which of the data's factors these are.

    Raises:
        BadInput: the data do not have one of them.
    """
    unknown = [name for name in factors if name not in data.factor_names]
    if unknown:
        raise BadInput(
            f"{', '.join(unknown)}: {type(data).__name__} has no such factor; it has: "
            f"{', '.join(data.factor_names)}"
        )
    return [data.factor_names.index(name) for name in factors]
