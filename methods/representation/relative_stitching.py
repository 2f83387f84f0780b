"""Relative stitching: one model's decoder reads what another model's encoder says of anchors."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from latentbench.batching import even_batches, map_batches
from latentbench.bounds import Count, Name, Positive, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import LatentModel
from latentbench.models.autoencoder import AutoencodedDiffusion
from latentbench.models.push_forward import PushForward
from latentbench.models.semantic import SemanticDiffusion
from latentbench.option import Option
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.fit_images import refuse_too_few

ENCODED = 32  # images that an encoder sees at once
FAMILIES = (PushForward, SemanticDiffusion, AutoencodedDiffusion)


class RelativeStitching(Editor[Any]):
    """Encodes with another model, and decodes with the cell's, through cosines to shared anchors.

    Source: "Relative Representations Enable Zero-Shot Latent Space Communication", sections 3 and
    4.2. r(x) = [cos(E(x), E(a_1)), ..., cos(E(x), E(a_k))] with the same anchor images in both
    spaces. The cell's model learns to read its own r(x) and is then shown the other encoder's.

    - `relative`: a linear map, from the model's own r(x) to its own codes. The other encoder is met
      at the anchors alone.
    - `absolute`: the other encoder's codes as they are; they must be as long.
    - `procrustes`: the best rotation with one scale, of centred codes of the anchors.
    - `linear`: ridge regression from codes of the anchors to codes of the anchors.

    The last two are fitted to pairs of codes, as `relative` is not. Deviations: the source trains
    encoder and decoder together with relative inputs; here both are as they are, and the map stands
    before the decoder. It reads back the direction of a code, not its length, which r(x) lacks.
    Anchors are drawn uniformly, there by class. Codes of maps are read as one vector; x_T of a
    model that takes one is drawn anew, as an inverted one holds the image.

    Args:
        encoder: a yaml of conf/model that encodes; of the image size of the cell's model.
        bridge: see above.
        anchors: k, of the generators' split; the cell's seed chooses them. Fewer than a code has
            numbers leave a part of it unread.
        images: of the same split, the anchors among them, from which `relative` is learned.
        centred: take the anchors' mean off both spaces before cosines are taken.
        ridge: of `relative` and `linear`, as a share of the inputs' mean variance.
        steps: sampling steps, where the model has any; default: the model's.

    Raises:
        BadInput: models of two image sizes; codes of two lengths for `absolute`.

    Example:
        >>> editor = RelativeStitching(encoder="faces_diffae", anchors=128)
        >>> # editor.fit(data, []); editor.decode(editor.invert(batch))
    """

    paper = "Relative Representations Enable Zero-Shot Latent Space Communication, 3 and 4.2"
    scope = "model"
    families = FAMILIES
    small: ClassVar[Mapping[str, Any]] = {"anchors": 24, "images": 32}
    others: ClassVar[Mapping[str, str]] = {"encoder": "model"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "represent": frozenset({Space.NOISE}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.SECOND_MODEL}) for verb in ("invert", "represent")
    }

    def __init__(
        self,
        *,
        encoder: Name = "faces_diffae",
        bridge: Literal["relative", "absolute", "procrustes", "linear"] = "relative",
        anchors: Annotated[int, between(2, 1_000_000)] = 256,
        images: Count = 1000,
        centred: bool = True,
        ridge: Positive = 0.1,
        steps: Steps | None = None,
    ) -> None:
        if anchors > images:
            raise BadInput(f"{anchors} anchors are more than the {images} images")
        self.encoder, self.bridge, self.anchors, self.images = encoder, bridge, anchors, images
        self.centred, self.ridge, self.steps = centred, ridge, steps
        self.learned_: dict[str, Tensor] = {}  # the anchors' codes, and the map to the model's own

    @classmethod
    def misfit(cls, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why the other model has no code to read, or None."""
        other = others.get("encoder")
        if other is None or issubclass(other.cls, FAMILIES):
            return None
        return f"encoder={other.name} ({other.cls.__name__}) has no encoder to a code"

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are."""
        refuse_too_few(self.images, data)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn the map from what is read of the other encoder to the model's own codes."""
        other = self.parts["encoder"]
        if other.image_size != self.model.image_size:
            raise BadInput(
                f"encoder={self.encoder} takes images of {other.image_size} pixels, the model "
                f"{self.model.image_size}; take two models of one size"
            )
        chosen = self.streams.choice("fit/images", data.size("generator"), self.images)
        read = {"relative": self.images, "absolute": 1}.get(self.bridge, self.anchors)
        theirs = _codes(other, data, chosen[: min(read, self.anchors)])
        own = _codes(self.model, data, chosen[:read])
        d = own.shape[1]
        if self.bridge == "absolute":
            if theirs.shape[1] != d:
                raise BadInput(
                    f"codes of encoder={self.encoder} have {theirs.shape[1]} numbers, those of the "
                    f"model {d}; bridge=absolute takes codes of one length"
                )
            self.learned_ = {"map": torch.eye(d).to(own), "offset": own.new_zeros(1, d)}
            return
        centre = theirs.mean(0, keepdim=True)
        if self.bridge == "relative":
            centre = centre if self.centred else torch.zeros_like(centre)
            anchors = own[: self.anchors]
            mean = anchors.mean(0, keepdim=True) if self.centred else own.new_zeros(1, d)
            r = relative(own, anchors, mean)
            W = ridge_regression(r - r.mean(0), own - own.mean(0), self.ridge)
            self.learned_ = {"anchors": theirs, "map": W, "offset": own.mean(0) - r.mean(0) @ W}
        else:
            x, y = theirs - centre, own - own.mean(0)
            linear = self.bridge == "linear"
            W = ridge_regression(x, y, self.ridge) if linear else procrustes(x, y)
            self.learned_ = {"map": W, "offset": own.mean(0)}
        self.learned_ |= {"offset": self.learned_["offset"].reshape(1, d), "centre": centre}

    def state(self) -> dict[str, Tensor]:
        """Return the anchors' codes and the map."""
        return self.learned_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        self.learned_ = {name: v.to(self.model.device) for name, v in state.items()}

    def represent(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return the other encoder's codes, as codes of the model."""
        if not self.learned_:
            raise BadInput("RelativeStitching has learned nothing yet; call fit, or load_state")
        return map_batches(self._stitched, _code(self.parts["encoder"], batch.images))

    def invert(self, batch: Batch) -> Latent:
        """Return codes of the model, with fresh noise where it takes x_T besides."""
        z = self.represent(batch)
        if isinstance(self.model, AutoencodedDiffusion):
            return Latent({Space.VAE: z.unflatten(1, self.model.latent_shape)})
        ((space, _),) = self.model.code_of(batch.images[:1]).parts.items()
        if not isinstance(self.model, SemanticDiffusion):
            return Latent({space: z})
        shape = self.model.latent_shape
        x = self.streams.normal("relative_stitching", batch.ids, shape, self.model.device)
        return Latent({Space.NOISE: x, space: z})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes."""
        if isinstance(self.model, AutoencodedDiffusion):
            return self.model.decode(latent.parts[Space.VAE])
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def _stitched(self, code: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        """Return codes of the model."""
        own = self.learned_
        if self.bridge == "relative":
            code = relative(code, own["anchors"], own["centre"])
        elif self.bridge != "absolute":
            code = code - own["centre"]
        return own["offset"] + code @ own["map"]


def relative(
    codes: Float[Tensor, "n d"], anchors: Float[Tensor, "k d"], centre: Float[Tensor, "1 d"]
) -> Float[Tensor, "n k"]:
    """Return the cosines of codes to anchors, both seen from a centre.

    Example:
        >>> relative(torch.tensor([[2.0, 0.0]]), torch.eye(2), torch.zeros(1, 2)).tolist()
        [[1.0, 0.0]]
    """
    return normalize(codes - centre, dim=1) @ normalize(anchors - centre, dim=1).T


def ridge_regression(
    x: Float[Tensor, "n k"], y: Float[Tensor, "n d"], ridge: float
) -> Float[Tensor, "k d"]:
    """Return the W of least |x W - y|^2 + c |W|^2, c being `ridge` of the mean of x^T x's diagonal.

    Example:
        >>> ridge_regression(torch.eye(2), torch.eye(2), 1.0).tolist()
        [[0.5, 0.0], [0.0, 0.5]]
    """
    gram = x.double().T @ x.double()
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    return torch.linalg.solve(gram, x.double().T @ y.double()).to(x)


def procrustes(x: Float[Tensor, "n e"], y: Float[Tensor, "n d"]) -> Float[Tensor, "e d"]:
    """Return the rotation of x nearest to y, times the ratio of their lengths.

    Example:
        >>> turned = torch.tensor([[0.0, 2.0], [-2.0, 0.0]])
        >>> procrustes(torch.eye(2), turned).round(decimals=4).tolist()
        [[0.0, 2.0], [-2.0, 0.0]]
    """
    u, _, vh = torch.linalg.svd(x.double().T @ y.double(), full_matrices=False)
    return (u @ vh * (y.double().norm() / x.double().norm())).to(x)


def _code(model: LatentModel, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    """Return what a model's encoder says of images, as one vector each."""
    parts = list(model.code_of(images).parts.values())
    return parts[0] if parts else model.encode(images).flatten(1)


def _codes(model: LatentModel, data: Dataset, chosen: Sequence[int]) -> Float[Tensor, "n d"]:
    """Return the codes of images of the generators' split."""
    codes = []
    with torch.no_grad():
        for index, kept in even_batches(len(chosen), ENCODED):
            images = data.batch("generator", [chosen[k] for k in index]).images
            codes.append(_code(model, images)[:kept].cpu())
    return torch.cat(codes).to(model.device)
