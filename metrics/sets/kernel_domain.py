"""`kd_domain_<judge>`: do translations look like images of the domain that they should be in?"""

from typing import ClassVar

from latentbench.metric import Figure
from metrics.sets.kernel import KernelDistance


class DomainKernelDistance(KernelDistance):
    """Kernel distance of the outputs to real images of the data set's second domain.

    No pairs are needed, so it runs on a user's data. It says nothing of content: an image of the
    second domain that has nothing to do with its source is perfect.

    Source: Binkowski et al., "Demystifying MMD GANs", section 4, as `KernelDistance` has it.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.

    Example:
        >>> DomainKernelDistance().column
        'kd_domain_zoo1'
    """

    prefix = "kd_domain"
    second: ClassVar[bool] = True

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "kernel distance of outputs to real images of the second domain, features of"
        return {self.column: Figure(f"{what} {self.extractor}", higher_is_better=False)}
