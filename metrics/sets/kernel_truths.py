"""`kd_truths_<judge>`: are edited images distributed as the true counterfactuals are?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from latentbench.zoo.judges import JudgeName
from metrics.sets.feature_sets import FeatureSets
from metrics.sets.kernel import kernel_score


class TruthKernelDistance(FeatureSets):
    """Kernel distance between the outputs and the exact images that perfect edits would give.

    Realism of edits: against real images an edit that puts glasses on everyone is far off although
    it is perfect; against its counterfactuals it is not. Pairs of one image are left out, so a
    perfect method scores about 0, not below.

    Source: Binkowski et al., "Demystifying MMD GANs", section 4, with counterfactuals as
    reference.

    Args:
        extractor: judge that gives the features.

    Example:
        >>> TruthKernelDistance().column
        'kd_truths_zoo1'
    """

    prefix = "kd_truths"
    fewest_real = 0
    needs = frozenset({"truths"})
    source = "Demystifying MMD GANs, section 4, with counterfactuals as reference"
    fewest = 2

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor)

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"kernel distance of outputs to true counterfactuals, features of {self.extractor}"
        return {self.column: Figure(what, higher_is_better=False)}

    def images(self, samples: Samples) -> Float[Tensor, "b k 3 h w"]:
        """Return outputs and truths in turn; of several answers each is one of the truths."""
        main = samples.column(self.at)
        columns = slice(None) if main is None else [main]
        truths = [one.truths[:, columns] for one in samples.answers() if one.truths is not None]
        outputs = samples.headline(self.at)
        return torch.cat([torch.stack([outputs, t], 2).flatten(1, 2) for t in truths], 1)

    def compute(self) -> dict[str, Score]:
        """Return the distance; None below two independent images."""
        features, ids = self.collected()
        n = len(set(ids))
        if n < self.fewest:
            return {self.column: add_note(Score(None, n, note="needs 2 images"), self.remark())}
        outputs, truths = ((features[k::2], ids[k::2]) for k in (0, 1))
        return {self.column: add_note(kernel_score(outputs, truths), self.remark())}
