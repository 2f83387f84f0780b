"""Prompts that a method's settings name, in place of the images' own captions."""

from collections.abc import Mapping
from typing import Any

from latentbench.types import Batch, Space


def text_for(config: Mapping[str, Any]) -> frozenset[Space]:
    """Return the space that prompts of the settings need: text, where there is one."""
    own = any(config.get(name) is not None for name in ("inversion_prompt", "negative"))
    return frozenset({Space.TEXT} if own else ())


def prompts_of(batch: Batch, own: str | None) -> tuple[str, ...] | None:
    """Return the setting's prompt for every image, or the captions where it is None."""
    return batch.prompts if own is None else (own,) * len(batch)
