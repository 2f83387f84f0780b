"""Planted editors that read the two prompts; else as in `planted_editors`."""

from collections.abc import Mapping
from typing import ClassVar

import planted_editors
import torch

from latentbench.data import faces
from latentbench.types import Capability


class Prompted(planted_editors.Perfect):
    """Renders the face that the target prompt means, at the strength as a share of the change."""

    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.LABELS, Capability.TARGET_PROMPTS})
    }

    def factors(self, batch, edit, strength):
        wanted = meant(batch, edit)
        return batch.factors + min(strength, 1.0) * (wanted - batch.factors)


class Blurred(planted_editors.PerfectBlurred, Prompted):
    pass


class HalfOfAll(planted_editors.PerfectBinary, Prompted):
    pass


class Tiny(planted_editors.Tiny, Prompted):
    pass


class Blur(planted_editors.GlobalBlur, Prompted):
    pass


class Leaky(planted_editors.Leaky, Prompted):
    pass


class OtherFace(planted_editors.OtherFace, Prompted):
    pass


class OneFace(Prompted):
    """Turns everybody into one person with what the target prompt asks for."""

    def factors(self, batch, edit, strength):
        asked = meant(batch, edit) != batch.factors
        one = faces.sample_factors("test", torch.tensor([77])).expand(len(batch), -1)
        return torch.where(asked, meant(batch, edit), one)


def meant(batch, edit):
    """Return the factors with what changes between the prompts as the target has it."""
    wanted = batch.factors.clone()
    for row, prompts in enumerate(zip(edit.source_prompts, edit.target_prompts, strict=True)):
        before, after = (prompt.split() for prompt in prompts)
        for column, factor in enumerate(faces.FACTORS):
            if before[column] != after[column]:
                whole = float(after[column] == factor.words[-1])
                thing = factor.name in faces.THINGS
                wanted[row, column] = whole if thing else factor.value(after[column])
    return wanted
