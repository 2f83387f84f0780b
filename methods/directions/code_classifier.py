"""The normals of linear classifiers of a code: how diffusion autoencoders edit an attribute."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from latentbench.bounds import Count, Positive, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.types import Edit
from methods.directions.vector_code import UNIT, LabelledCodeEditor


class CodeClassifier(LabelledCodeEditor):
    """Moves a code along the weight vector of a linear classifier of the attribute.

    Source: "Diffusion Autoencoders: Toward a Meaningful and Decodable Representation", the section
    on attribute manipulation: one linear layer tells all labels from z, standardised over the data,
    under logistic loss; an edit is z + s sqrt(d) w / |w|, d being the length of z, and x_T stays as
    it was inverted. Strength is s.

    Deviations: any code of one vector per image; a label is shown above 1/2.

    Args:
        images: labelled images of the generators' split; the cell's seed chooses them.
        batch: images of one step.
        iterations: steps of Adam.
        learning_rate: of Adam.
        steps: sampling steps, where the model has any; default: the model's.
        max_strength: largest s of a benchmark's curve.

    Example:
        >>> editor = CodeClassifier(images=500)  # editor.fit(data, edits); editor.edit(...)
    """

    paper = "Diffusion Autoencoders, attribute manipulation"
    small: ClassVar[Mapping[str, Any]] = {"images": 12, "batch": 4, "iterations": 5}

    def __init__(
        self,
        *,
        images: Annotated[int, between(2, 1_000_000)] = 2000,
        batch: Count = 32,
        iterations: Annotated[int, between(0, 1_000_000)] = 3000,
        learning_rate: Positive = 0.001,
        steps: Steps | None = None,
        max_strength: Positive = 1.0,
    ) -> None:
        if batch > images:
            raise BadInput(f"a batch of {batch} is more than the {images} images")
        self.images, self.batch, self.iterations = images, batch, iterations
        self.learning_rate, self.steps, self.max_strength = learning_rate, steps, max_strength
        self.learned_ = {}  # mean and deviation of the code, and w / |w| by label

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn all classifiers together."""
        z, y = self.labelled(data, edits)
        shown = (y + 1) / 2
        classifier = self._layer(z.shape[1], y.shape[1])
        adam = torch.optim.Adam(classifier.parameters(), self.learning_rate)
        tensors = dict(classifier.named_parameters())
        for step in self.fitting.steps("code_classifier", self.iterations, tensors, adam):
            rows = self.streams.choice(f"code_classifier/{step}", len(z), self.batch)
            adam.zero_grad()
            binary_cross_entropy_with_logits(classifier(z[rows]), shown[rows]).backward()
            adam.step()
        self.keep_rows(data, normalize(classifier.weight, dim=1))

    def moved(
        self, code: Float[Tensor, "r d"], edit: Edit, strength: Float[Tensor, " r"]
    ) -> Float[Tensor, "r d"]:
        """Return z + s sqrt(d) w / |w|."""
        row, reach = self.row(edit), strength * code.shape[1] ** 0.5
        return code + self.learned_[UNIT] * reach[:, None] * row

    def _layer(self, reads: int, labels: int) -> nn.Linear:
        """Return a linear layer with weights up to 1 / sqrt(fan-in), from the cell's streams."""
        layer = nn.Linear(reads, labels, device="meta").to_empty(device=self.model.device)
        for name, p in layer.named_parameters():
            drawn = self.streams.generator(f"code_classifier/{name}")
            p.data = (reads**-0.5 * (2 * torch.rand(p.shape, generator=drawn) - 1)).to(p.device)
        return layer
