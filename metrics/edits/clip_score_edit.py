"""`clip_score_edit`: does what is inside the mask fit the caption?"""

from torch import Tensor

from latentbench.metric import Figure
from latentbench.types import Samples
from metrics.networks.clip import Net
from metrics.pairs.clip_score import ClipScore, caption_score
from metrics.pairs.masks import BLACK, hide


class EditedClipScore(ClipScore):
    """CLIP score of the outputs with everything outside the mask black, and of the sources.

    Source: Ju et al., "PnP Inversion" (PIE-Bench), its column "Edited"; its column "Whole" is
    `clip_score`, and the source image with its own caption is the anchor of both.

    Args:
        net: as in `clip_score`.

    Example:
        >>> list(EditedClipScore().figures)
        ['clip_score_edit', 'clip_score_anchor']
    """

    needs = frozenset({"prompts", "source_prompts", "sources", "masks"})
    source = "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code; PIE-Bench"

    def __init__(self, *, net: Net = "vit_l14") -> None:
        super().__init__(net=net)
        self.names = tuple(
            self.column.replace("clip_score", name)
            for name in ("clip_score_edit", "clip_score_anchor")
        )

    @property
    def figures(self) -> dict[str, Figure]:
        """The two figures."""
        whats = (
            "100 times the cosine of the masked output and its caption, at least 0",
            "the same of the whole source and its own caption",
        )
        return {
            name: Figure(what, low=0.0, high=100.0, higher_is_better=better)
            for name, what, better in zip(self.names, whats, (True, None), strict=True)
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return a score per output, and one per source."""
        assert samples.prompts is not None and samples.source_prompts is not None
        assert samples.masks is not None and samples.sources is not None
        inside = hide(samples.outputs, samples.masks == 0, BLACK)
        sources = samples.sources[:, None]
        found = (
            caption_score(self.encoder, inside, samples.prompts),
            caption_score(self.encoder, sources, samples.source_prompts)[:, 0],
        )
        return dict(zip(self.names, found, strict=True))
