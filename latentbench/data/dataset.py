"""The interface of every data set."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from latentbench.errors import BadInput, unknown
from latentbench.types import Batch, Capability, Description, Edit

Split = Literal["generator", "judge", "calibration", "test"]


class Dataset(ABC):
    """Images in named splits, each a deterministic function of (split, index).

    Class attributes:
        version: raised when an image changes; part of every cell's id.
        gives: what it has besides images: labels, prompts, part masks, counterfactuals, edits.
        splits: names of its splits; methods fit on "generator", judges never leave "judge".
    """

    version: ClassVar[int] = 1
    gives: frozenset[Capability] = frozenset()  # a setting may decide
    splits: ClassVar[tuple[str, ...]] = get_args(Split)
    factor_names: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()  # factors that an edit may ask for
    things: tuple[
        str, ...
    ] = ()  # factors that say whether something is there; half of it is not an aim
    parts: tuple[str, ...] = ()  # names of its masks
    edit_kinds: tuple[str, ...] = ()  # kinds of the edits that it asks for itself
    member_factors: tuple[str, ...] = ()  # factors of each of the things in a strip
    pitch: int = 0  # pixels from one thing in a strip to the next

    @abstractmethod
    def size(self, split: str) -> int:
        """Return how many images the split holds."""

    @abstractmethod
    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return the images of these indices, with ids ``split/index`` and all that is known."""

    def describe(self, split: str, indices: Sequence[int]) -> Description:
        """Return what `batch` knows of these images; overridden where that needs no pixels."""
        return self.batch(split, indices).description

    def counterfactual(
        self, split: str, indices: Sequence[int], factor: str, values: Float[Tensor, " b"]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the exact image that a perfect edit of one factor would give."""
        raise NotImplementedError(f"{type(self).__name__} does not know true counterfactuals")

    def with_factors(
        self, split: str, indices: Sequence[int], values: Mapping[str, Float[Tensor, " b"]]
    ) -> Float[Tensor, "b f"]:
        """Return the factors of the images that perfect edits of these factors would give.

        Overridden where setting a factor moves others; what `counterfactual` draws has these.

        Raises:
            BadInput: a factor that the data do not have.
        """
        known = self.describe(split, indices).factors
        if known is None:
            raise BadInput(f"{type(self).__name__} has no labels; take data that give them")
        found = known.clone()
        for factor, value in values.items():
            if factor not in self.factor_names:
                raise unknown("factor", factor, self.factor_names)
            found[:, self.factor_names.index(factor)] = value
        return found

    def render(self, factors: Float[Tensor, "b f"]) -> Float[Tensor, "b 3 h w"]:
        """Return the exact images of factors, where counterfactuals are known."""
        raise NotImplementedError(f"{type(self).__name__} does not draw images")

    def second_domain(self, split: str, indices: Sequence[int]) -> Float[Tensor, "b 3 h w"]:
        """Return images of the domain to translate to, of the same things where it draws both."""
        raise NotImplementedError(f"{type(self).__name__} has images of one domain")

    def second_size(self, split: str) -> int:
        """Return how many images of the domain to translate to the split holds."""
        raise NotImplementedError(f"{type(self).__name__} has images of one domain")

    def edited_prompts(
        self, split: str, indices: Sequence[int], factor: str, values: Float[Tensor, " b"]
    ) -> tuple[str, ...]:
        """Return the captions of the counterfactual images."""
        raise NotImplementedError(f"{type(self).__name__} has no captions of edits")

    def words(self, factor: str) -> tuple[str, str] | None:
        """Return the words for a low and a high value of a factor, where there are any."""
        del factor
        return None

    def edit(self, split: str, indices: Sequence[int]) -> Edit:
        """Return what the data set asks of these images of one kind: prompt pairs and masks."""
        raise NotImplementedError(f"{type(self).__name__} asks for no edits")

    def of_kind(self, split: str, kind: str) -> Sequence[int]:
        """Return the indices of the images whose edit is of this kind."""
        raise NotImplementedError(f"{type(self).__name__} asks for no edits")

    def edited_factors(self, split: str, indices: Sequence[int]) -> Float[Tensor, "b f"]:
        """Return the factors of the images that `edit` asks for, where it can render them."""
        raise NotImplementedError(f"{type(self).__name__} does not know what edits should give")

    def members(
        self, split: str, indices: Sequence[int]
    ) -> tuple[Float[Tensor, "b k f"], Int[Tensor, "b k"]]:
        """Return the factors of the things in strips, and the columns of their middles."""
        raise NotImplementedError(f"{type(self).__name__} has no strips")

    def render_members(self, factors: Float[Tensor, "b f"]) -> Float[Tensor, "b 3 h h"]:
        """Return the things of strips with these factors, each alone in the middle of a square."""
        raise NotImplementedError(f"{type(self).__name__} has no strips")

    def shared_captions(self, factors: Float[Tensor, "b g"]) -> tuple[str, ...]:
        """Return captions of strips whose things share these factors, one word for each."""
        raise NotImplementedError(f"{type(self).__name__} has no strips")

    def fingerprint(self) -> str:
        """Return a hash of the content, for data that are not a function of the config."""
        return ""
