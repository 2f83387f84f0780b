"""`dataset=faces`: procedural faces through the interface of every data set."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Share
from latentbench.data import face_edits, faces
from latentbench.data.dataset import Dataset
from latentbench.data.masks import changed
from latentbench.types import Batch, Capability, Description, Edit

DILATE = 1  # pixels by which the mask of an edit grows


class FacesDataset(Dataset):
    """Procedural faces, see `latentbench.data.faces`; their own edits, see `face_edits`.

    Args:
        size: pixels per side, 64 or a divisor of it; None is 64.
        correlation: ties between factors, 0 (independent) to 1.

    Example:
        >>> FacesDataset(size=32).batch("test", [0]).images.shape
        torch.Size([1, 3, 32, 32])
    """

    version = faces.Faces.version
    parts = faces.PARTS
    edit_kinds = tuple(face_edits.KINDS)
    gives = frozenset(
        {
            Capability.LABELS,
            Capability.PROMPTS,
            Capability.PART_MASKS,
            Capability.COUNTERFACTUALS,
            Capability.EDITS,
            Capability.SECOND_DOMAIN,
        }
    )

    def __init__(
        self, *, size: Literal[1, 2, 4, 8, 16, 32, 64] | None = None, correlation: Share = 0.0
    ) -> None:
        self.image_size, self.correlation = size or faces.NATIVE_SIZE, correlation
        self.factor_names, self.attributes = faces.FACTOR_NAMES, faces.ATTRIBUTES
        self.things = faces.THINGS
        self._split("test")  # refuses a wrong size or correlation now

    def size(self, split: str) -> int:
        """Return how many faces the split holds."""
        del split
        return faces.SPLIT_SIZE

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return faces with captions, factors and part masks."""
        known = self.describe(split, indices)
        assert known.factors is not None
        images = faces.render(known.factors, self.image_size)
        masks = _Masks(known.factors, self.image_size)
        return Batch(known.ids, images, known.prompts, known.factors, masks)

    def describe(self, split: str, indices: Sequence[int]) -> Description:
        """Return ids, captions and factors; no face is drawn."""
        factors = self._split(split).factors(torch.as_tensor(list(indices)))
        ids = tuple(f"{split}/{i}" for i in indices)
        return Description(ids, tuple(faces.caption(factors)), factors)

    def counterfactual(
        self, split: str, indices: Sequence[int], factor: str, values: Float[Tensor, " b"]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the same faces with one factor set."""
        return self.render(self.with_factors(split, indices, {factor: values}))

    def with_factors(
        self, split: str, indices: Sequence[int], values: Mapping[str, Float[Tensor, " b"]]
    ) -> Float[Tensor, "b f"]:
        """Return the factors of the same faces with these set."""
        factors = self._split(split).factors(torch.as_tensor(list(indices)))
        for factor, value in values.items():
            factors = faces.with_factor(factors, factor, value)
        return factors

    def render(self, factors: Float[Tensor, "b f"]) -> Float[Tensor, "b 3 h w"]:
        """Return faces with these factors."""
        return faces.render(factors, self.image_size)

    def second_domain(self, split: str, indices: Sequence[int]) -> Float[Tensor, "b 3 h w"]:
        """Return line drawings of the same faces."""
        factors = self._split(split).factors(torch.as_tensor(list(indices)))
        return faces.render(factors, self.image_size, "lines")

    def second_size(self, split: str) -> int:
        """Return how many line drawings the split holds."""
        return self.size(split)

    def edited_prompts(
        self, split: str, indices: Sequence[int], factor: str, values: Float[Tensor, " b"]
    ) -> tuple[str, ...]:
        """Return the captions of the same faces with one factor set."""
        return tuple(faces.caption(self.with_factors(split, indices, {factor: values})))

    def words(self, factor: str) -> tuple[str, str]:
        """Return the captions' words for a low and a high value of a factor."""
        known = faces.FACTORS[faces.factor_index(factor)].words
        return known[0], known[-1]

    def edit(self, split: str, indices: Sequence[int]) -> Edit:
        """Return what is asked of these faces, under the name of the first one's kind.

        The mask is where the answer differs visibly from the face, grown by a pixel.
        """
        before, wanted = self.batch(split, indices), self.edited_factors(split, indices)
        assert before.factors is not None
        return Edit(
            face_edits.edit_of(indices[0], before.factors[0].tolist()).kind,
            source_prompts=before.prompts,
            target_prompts=tuple(faces.caption(wanted)),
            masks=changed(before.images, self.render(wanted), DILATE),
        )

    def edited_factors(self, split: str, indices: Sequence[int]) -> Float[Tensor, "b f"]:
        """Return the factors of the faces that `edit` asks for."""
        factors = self._split(split).factors(torch.as_tensor(list(indices)))
        return face_edits.edited(indices, factors)

    def of_kind(self, split: str, kind: str) -> Sequence[int]:
        """Return the faces whose edit is of this kind, among the first of the split."""
        return face_edits.of_kind(split, kind, self.correlation)

    def _split(self, split: str) -> faces.Faces:
        return faces.Faces(split=split, size=self.image_size, correlation=self.correlation)


class CausalFaces(FacesDataset):
    """Faces whose factors act on one another; a counterfactual is what follows from setting one.

    The ties of `latentbench.data.faces.CORRELATED` are causes: age acts on glasses and beard, a
    smile opens the mouth, the hair's length acts on the beard, skin on the colour of the hair.
    Setting a driver moves its followers by the law that drew them, with what each has of its own
    kept; setting a follower leaves its drivers (`latentbench.data.faces.intervened`). Nothing else
    differs from `FacesDataset`, but that it asks for no edits of its own.

    Args:
        size: pixels per side, 64 or a divisor of it; None is 64.
        correlation: strength of the ties, 0 (independent) to 1.

    Example:
        >>> CausalFaces(size=32).counterfactual("test", [0], "age", torch.ones(1)).shape
        torch.Size([1, 3, 32, 32])
    """

    gives = FacesDataset.gives - {Capability.EDITS}
    edit_kinds = ()

    def __init__(
        self, *, size: Literal[1, 2, 4, 8, 16, 32, 64] | None = None, correlation: Share = 0.8
    ) -> None:
        super().__init__(size=size, correlation=correlation)

    def with_factors(
        self, split: str, indices: Sequence[int], values: Mapping[str, Float[Tensor, " b"]]
    ) -> Float[Tensor, "b f"]:
        """Return the factors of the same faces after do(factors = values)."""
        index = torch.as_tensor(list(indices))
        return faces.intervened(split, index, self.correlation, values)


class _Masks(Mapping[str, Float[Tensor, "b h w"]]):
    """Part masks, drawn when first asked for: they cost as much as the images."""

    def __init__(self, factors: Float[Tensor, "b f"], size: int) -> None:
        self._factors, self._size = factors, size

    @cached_property
    def _drawn(self) -> Mapping[str, Tensor]:
        return faces.part_masks(self._factors, self._size)

    def __getitem__(self, name: str) -> Float[Tensor, "b h w"]:
        return self._drawn[name].float()

    def __iter__(self) -> Iterator[str]:
        return iter(faces.PARTS)

    def __len__(self) -> int:
        return len(faces.PARTS)
