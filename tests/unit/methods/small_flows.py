"""A small flow model of Stable Diffusion 3's form, and the draws whose level has no signal."""

from pathlib import Path

import torch
import transformers_toy as small

from latentbench.models.transformer_flow import TransformerFlow


def small_flow(folder: Path) -> TransformerFlow:
    """Return a flow of two levels, saved in the folder."""
    return TransformerFlow(path=small.save_sd3(folder, small.SD3_MEDIUM), steps=2)


def noisiest(editor) -> str:
    """Return the name of a draw whose level, of two, has no signal."""
    names = (f"draw {k}" for k in range(100))
    levels = ((name, editor.streams.generator(name, "level")) for name in names)
    return next(name for name, draw in levels if int(torch.randint(2, (), generator=draw)) == 0)
