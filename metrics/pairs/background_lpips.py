"""`bg_lpips_squeeze`: the published LPIPS to the source, the edited region hidden."""

from torch import Tensor

from latentbench.types import Samples
from metrics.pairs.lpips import LPIPSDistance, Net
from metrics.pairs.masks import hidden_edit, lacks_background


class BackgroundLPIPS(LPIPSDistance):
    """LPIPS of output and source, with the mask black in both, as in PIE-Bench's code.

    It falls as masks grow; rows whose mask covers the whole image are left out.

    Source: Ju et al., "PnP Inversion" (PIE-Bench), LPIPS with SqueezeNet.

    Args:
        net: the trunk; part of the figure's name.

    Example:
        >>> list(BackgroundLPIPS().figures)
        ['bg_lpips_squeeze_pie']
    """

    source = "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code; PIE-Bench"

    def __init__(self, *, net: Net = "squeeze") -> None:
        super().__init__(net=net, against=("sources",))
        self.needs = frozenset({"sources", "masks"})

    def column(self, kind: str) -> str:
        """Return the figure's name: it is against the source always."""
        del kind
        return f"bg_{self.name}_pie"

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the distance of each output; NaN where there is no background."""
        assert samples.masks is not None
        absent = lacks_background(samples.masks)[:, None]
        found = super().values(hidden_edit(samples, black=True))
        return {name: value.masked_fill(absent, float("nan")) for name, value in found.items()}
