"""`rarest_alternative_<judge>`: does a mixture have all of its parts?"""

import torch
from torch import Tensor

from latentbench.errors import BadInput
from latentbench.metric import Figure
from latentbench.types import Samples
from metrics.networks.readings import FactorMetric, targets

MOST = 8  # alternatives of a mixture
PART = "part of alternative "


class RarestAlternative(FactorMetric):
    """Share of the images that show the alternative which is shown least.

    An even mixture of m alternatives has 1 / m, somewhat less in few images; a method that always
    shows the same one has 0, and so has one that shows none. An image that shows several counts as
    an equal part of each. Images of which no mixture was asked have no value.

    Source: "Reduce, Reuse, Recycle: Compositional Generation with Energy-Based Diffusion Models and
    MCMC", section 4, mixtures; here on known factors.

    Args:
        extractor: judge that reads factors.

    Raises:
        BadInput: more than 8 alternatives.

    Example:
        >>> list(RarestAlternative().figures)
        ['rarest_alternative_zoo1']
    """

    at = "main"
    needs = frozenset({"factors", "wanted"})
    source = "Reduce, Reuse, Recycle, section 4 (mixtures), on known factors"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"share of the images that show the rarest alternative, read by {self.extractor}"
        return {f"rarest_alternative_{self.extractor}": Figure(what, "", 0.0, 1.0, True)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return which part of each row ``[b]`` shows the first alternative, the second, and so on.

        They are kept for `measured`, which knows the rarest.
        """
        parts = torch.full((len(samples), MOST), torch.nan, dtype=torch.float64)
        answers = samples.answers()
        if len(answers) > MOST:
            raise BadInput(
                f"RarestAlternative counts up to {MOST} alternatives, got {len(answers)}; ask for "
                f"fewer at once"
            )
        if len(answers) > 1:
            read = self.reader.factors(samples.outputs[:, 0]) > 0.5
            asked = torch.stack([targets(one, type(self).__name__)[:, 0] for one in answers], 1)
            assert samples.wanted is not None and samples.other_wanted is not None
            wanted = torch.cat([samples.wanted[:, :1], samples.other_wanted], 1) > 0.5
            own = asked & ~asked.all(1, keepdim=True)  # what is asked of all of them tells nothing
            shown = torch.where(own, read[:, None] == wanted, True).all(-1).double()
            parts[:, : len(answers)] = shown / shown.sum(1, keepdim=True).clamp(min=1)
        return {f"{PART}{k}": parts[:, k] for k in range(MOST)}

    def measured(self) -> dict[str, Tensor]:
        """Return the parts, and as the figure's values those of each group's rarest alternative."""
        found = super().measured()
        parts = torch.stack([found[f"{PART}{k}"] for k in range(MOST)], 1)
        rarest = torch.full_like(parts[:, 0], torch.nan)
        for group in sorted(set(self.seen.groups)):
            rows = torch.tensor([name == group for name in self.seen.groups])
            means = parts[rows].mean(0)
            if bool(means.isfinite().any()):
                rarest[rows] = parts[rows, int(means.nan_to_num(torch.inf).argmin())]
        return found | dict.fromkeys(self.figures, rarest)
