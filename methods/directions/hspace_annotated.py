"""Class differences in h-space on the model's own samples, annotated by a classifier."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.bounds import Count, Name, Positive, Steps
from latentbench.data.dataset import Dataset
from latentbench.model import Convention
from latentbench.sampling.loop import Recorder, generate, plain
from latentbench.types import Capability, Space
from methods.directions.hspace import FIT_BATCH, HSpaceDirections


class HSpaceAnnotated(HSpaceDirections):
    """`hspace` without labelled images: the model samples, a classifier says what the samples show.

    Source: "Discovering Interpretable Directions in the Semantic Latent Space of Diffusion Models",
    section on supervised directions: of N samples under the empty prompt, v is the mean of h over
    the n that the classifier scores highest minus that over the n lowest, at every step. h is
    recorded while the samples are made; the published code makes the chosen ones once more.

    Args:
        classifier: that annotates the samples; never a judge.
        space: "bottleneck" (h_t), or "noise": the same difference of x_T.
        steps: sampling steps; default: the model's.
        images: N, samples that are annotated, from the cell's seed.
        extremes: n, samples on either side of a class difference.
        balance: attributes of whose two classes, as the classifier says, each side holds as many.
        orthogonal: project each direction off those of all other attributes, or of these.
        asymmetric: change x0 only, not the direction to x_t (Asyrp).
        convention: timestep that the network receives while inverting.
        max_strength: largest g of a benchmark's curve.

    Example:
        >>> editor = HSpaceAnnotated(images=256)  # editor.fit(data, edits); editor.edit(...)
    """

    version = 1
    small: ClassVar[Mapping[str, Any]] = {"images": 8, "extremes": 3}
    others: ClassVar[Mapping[str, str]] = {"classifier": "classifier"}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.CLASSIFIER})
    }

    def __init__(
        self,
        *,
        classifier: Name = "attr1",
        space: Literal["bottleneck", "noise"] = "bottleneck",
        steps: Steps | None = None,
        images: Count = 256,
        extremes: Count = 32,
        balance: Sequence[Name] | None = None,
        orthogonal: bool | Sequence[Name] = False,
        asymmetric: bool = False,
        convention: Convention = "matched",
        max_strength: Positive = 6.0,
    ) -> None:
        super().__init__(
            space=space, steps=steps, images=images, extremes=extremes, balance=balance,
            orthogonal=orthogonal, asymmetric=asymmetric, convention=convention,
            components=1, max_strength=max_strength,
        )  # fmt: skip
        self.classifier = classifier

    def _codes(self, data: Dataset, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return codes of samples ``[images, n, c, h, w]`` (or x_T) and what the classifier says.

        Raises:
            BadInput: an attribute that is no label of the classifier.
        """
        model, classifier = self.model, self.parts["classifier"]
        columns = [classifier.column(name) for name in names]
        codes, labels, grid = [], [], model.grid(self.steps)
        with torch.no_grad():
            for index, kept in even_batches(self.images, FIT_BATCH):
                ids = [f"annotated/{k}" for k in index]
                x = model.prior(self.streams, ids).parts[Space.NOISE]
                layer, terms = self._layer(), plain(model.unconditional(len(x)))
                recorder = Recorder(layers=[layer])
                found = generate(model, x, terms, grid=grid, interventions=[recorder])
                shown = classifier.log_odds(model.decode(found).clamp(-1, 1))
                h = [recorder.maps[layer][i] for i in range(grid.n)]
                own = x if self.space is Space.NOISE else torch.stack(h, 1)
                codes.append(own[:kept])
                labels.append(shown[:kept, columns].sigmoid().cpu())
        return torch.cat(codes), torch.cat(labels)
