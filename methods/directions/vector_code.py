"""What methods share that move the one vector a VAE, a GAN or a diffusion autoencoder codes by."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, unknown
from latentbench.model import LatentModel
from latentbench.models.push_forward import PushForward
from latentbench.models.semantic import SemanticDiffusion
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.fit_images import refuse_one_sided, refuse_too_few

ENCODED = 32  # images that the encoder sees at once
MEAN, UNIT = "mean", "unit"  # of each channel, in what a fit has learned


def vector_code(latent: Latent) -> tuple[Space, Float[Tensor, "b d"]]:
    """Return the space and the tensor of a latent's vector code."""
    ((space, code),) = [(k, v) for k, v in latent.parts.items() if v.dim() == 2]
    return space, code


def encoded(model: LatentModel, data: Dataset, chosen: Sequence[int]) -> Float[Tensor, "n d"]:
    """Return the codes of images of the generators' split, as the model's encoder gives them."""
    codes = []
    with torch.no_grad():
        for index, kept in even_batches(len(chosen), ENCODED):
            images = data.batch("generator", [chosen[k] for k in index]).images
            codes.append(vector_code(model.code_of(images))[1][:kept])
    return torch.cat(codes)


def rendered(
    model: LatentModel, data: Dataset, factors: Float[Tensor, "n f"]
) -> Float[Tensor, "n d"]:
    """Return the codes of images that the data set draws of factors."""
    codes = []
    with torch.no_grad():
        for index, kept in even_batches(len(factors), ENCODED):
            codes.append(vector_code(model.code_of(data.render(factors[index])))[1][:kept])
    return torch.cat(codes)


def drawing(model: LatentModel, data: Dataset) -> tuple[Any, ...]:
    """Return what decides, besides factors, the images that a data set draws for a model."""
    kind = f"{type(data).__module__}.{type(data).__qualname__}"
    return (kind, data.version, data.fingerprint(), model.image_size)


class CodeLearner(Editor[Any]):
    """Learns something of a model's vector codes.

    Attributes:
        images: of the generators' split that a fit learns from; the cell's seed chooses them.
        steps: sampling steps, where the model has any.
        learned_: what a fit has learned, by name.

    Class attributes:
        measured: what `state` holds of the code itself, which no control changes.
    """

    measured: ClassVar[tuple[str, ...]] = ()

    images: int = 0
    steps: int | None = None
    learned_: dict[str, Tensor]

    scope = "global"
    families = (PushForward, SemanticDiffusion)

    def state(self) -> dict[str, Tensor]:
        """Return what was learned."""
        return self.learned_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        self.learned_ = {name: v.to(self.model.device) for name, v in state.items()}

    def randomise(self, streams: Streams) -> None:
        """Put noise in the place of what was learned, and leave what was measured."""
        own = {name: v for name, v in self.state().items() if name in self.measured}
        super().randomise(streams)
        self.load_state(self.state() | own)

    def whitened(self, code: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Return codes by the mean and the spread that were measured."""
        return (code - self.learned_[MEAN]) / self.learned_[UNIT]


class VectorCodeEditor(CodeLearner):
    """Inverts, moves the vector code, keeps whatever else the latent holds, and decodes."""

    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE}),
    }

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are."""
        refuse_too_few(self.images, data)

    def invert(self, batch: Batch) -> Latent:
        """Return each image's code, with x_T where the model has one."""
        return self.model.invert(batch, self.cache, steps=self.steps)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images of moved codes."""
        latent, s = self.invert(batch), len(strengths)
        space, code = vector_code(latent)
        parts = {k: v.repeat_interleave(s, 0) for k, v in latent.parts.items()}
        g = edit.sign * strengths.to(code).repeat(len(batch))
        parts[space] = self.moved(parts[space], edit, g)
        return self.decode(Latent(parts, latent.start)).unflatten(0, (len(batch), s))

    @abstractmethod
    def moved(
        self, code: Float[Tensor, "r d"], edit: Edit, strength: Float[Tensor, " r"]
    ) -> Float[Tensor, "r d"]:
        """Return the codes after the edit, each at its own strength, signed."""

    def codes(self, data: Dataset) -> Float[Tensor, "n d"]:
        """Return the codes of the fit's images."""
        return encoded(self.model, data, self.chosen(data))

    def chosen(self, data: Dataset) -> list[int]:
        """Return the fit's images."""
        return self.streams.choice("fit/images", data.size("generator"), self.images)

    def number(self, edit: Edit, count: int) -> int:
        """Return the number of the direction that an edit asks for.

        Raises:
            BadInput: it asks for none of them, or nothing was learned.
        """
        name = type(self).__name__
        if count == 0:
            raise BadInput(f"{name} has learned nothing yet; call fit, or load_state")
        if edit.component is None or not 0 <= edit.component < count:
            raise BadInput(
                f"edit {edit.name!r} asks for no direction of {name}, which are asked for by "
                f"number, 0 to {count - 1}; take benchmark=direction_discovery"
            )
        return edit.component


class LabelledCodeEditor(VectorCodeEditor):
    """Moves a standardised code by a row that a fit has learned for each label of the data.

    A class derived from it says in `fit` how the rows come of codes and labels.
    """

    measured: ClassVar[tuple[str, ...]] = (MEAN, UNIT)
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.LABELS})}

    def labelled(
        self, data: Dataset, edits: Sequence[Edit]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n f"]]:
        """Return the fit's codes, standardised per channel, and their labels, -1 or 1.

        What they are standardised by is kept.

        Raises:
            BadInput: an edit's attribute is unknown, or shown by all of the images or by none.
        """
        factors = data.describe("generator", self.chosen(data)).factors
        assert factors is not None
        for name in sorted({edit.attribute for edit in edits if edit.attribute is not None}):
            if name not in data.factor_names:
                raise unknown("attribute", name, data.factor_names)
            refuse_one_sided(name, factors[:, data.factor_names.index(name)] > 0.5)
        codes = self.codes(data)
        mean, unit = codes.mean(0), codes.std(0).clamp(min=1e-6)
        self.learned_ = {MEAN: mean, UNIT: unit}
        return (codes - mean) / unit, (factors.to(codes) > 0.5) * 2.0 - 1.0

    def keep_rows(self, data: Dataset, rows: Float[Tensor, "f d"]) -> None:
        """Keep one row per label, by the label's name."""
        found = rows.detach().to(self.model.device, torch.float32)
        pairs = zip(data.factor_names, found, strict=True)
        self.learned_ |= {f"row/{name}": row[None].clone() for name, row in pairs}

    def row(self, edit: Edit) -> Float[Tensor, " d"]:
        """Return the row of the edit's attribute.

        Raises:
            BadInput: an unknown attribute, or nothing was learned.
        """
        names = [name.removeprefix("row/") for name in self.learned_ if name.startswith("row/")]
        if not names:
            raise BadInput(
                f"{type(self).__name__} has learned nothing yet; call fit, or load_state"
            )
        if edit.attribute not in names:
            raise unknown("attribute", str(edit.attribute), names)
        return self.learned_[f"row/{edit.attribute}"][0]
