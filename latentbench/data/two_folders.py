"""`dataset=two_folders`: a user's own images of two domains, unpaired."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Name, Size
from latentbench.content import content_hash
from latentbench.data.faults import refuse
from latentbench.data.folder import Folder
from latentbench.errors import BadInput
from latentbench.paths import user_path
from latentbench.types import Capability


class TwoFolders(Folder):
    """Images of one domain, as `Folder` reads them, and images of the domain to translate to.

    No image of one folder belongs to an image of the other. Both are dealt out to splits alike, by
    their files' names or by a table in each folder.

    Args:
        path: the folder of the first domain.
        target: the folder of the domain to translate to.
        table: csv, tsv, jsonl or parquet file of the first; by default the only one in the folder.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split and folder, by name; None for all.
        links: follow links that lead out of the folders.

    Raises:
        BadInput: at once, before any work: no folder, no image, images that cannot be read (by
            name), a table that does not match them, one folder within the other, an image that is
            in both.

    Example:
        ``TwoFolders(path="/data/photos", target="/data/drawings", size=64)``
    """

    gives = frozenset({Capability.SECOND_DOMAIN})

    def __init__(
        self,
        *,
        path: Name,
        target: Name,
        table: Name | None = None,
        size: Size | None = None,
        limit: Count | None = None,
        links: bool = False,
    ) -> None:
        first = user_path(path, "dataset.path").resolve()
        second = user_path(target, "dataset.target").resolve()
        _check_apart(first, second)
        super().__init__(path=path, table=table, size=size, limit=limit, links=links)
        self._target = Folder(path=str(second), size=size, limit=limit, links=links)
        self._refuse_copies()
        self.gives |= TwoFolders.gives

    def second_domain(self, split: str, indices: Sequence[int]) -> Float[Tensor, "b 3 h w"]:
        """Return images of the second folder."""
        return self._target.batch(split, indices).images

    def second_size(self, split: str) -> int:
        """Return how many images of the second folder the split holds."""
        return self._target.size(split)

    def fingerprint(self) -> str:
        """Return a hash of all images of both folders and of what tables say of them."""
        return content_hash(super().fingerprint(), self._target.fingerprint())

    def _refuse_copies(self) -> None:
        """Refuse files of the second folder that are in the first one as well, byte by byte."""
        first = {digest: name for name, digest in self._hashes.items()}
        second = self._target._hashes.items()
        copies = [
            f"{name}: it is {first[one]} of the other" for name, one in second if one in first
        ]
        what = f"images below {self._target.path} are in {self.path} as well"
        refuse(copies, what, "an image belongs to one domain: leave one of the two", len(second))


def _check_apart(first: Path, second: Path) -> None:
    """Refuse a second folder that is none, or that shares images with the first.

    Raises:
        BadInput: says which.
    """
    if not second.is_dir():
        raise BadInput(f"{second} is not a folder; give dataset.target=/where/the/others/are")
    if first == second or first in second.parents or second in first.parents:
        raise BadInput(
            f"dataset.path={first} and dataset.target={second} share images, as sub-folders are "
            f"searched as well; give two folders of which neither is in the other"
        )
