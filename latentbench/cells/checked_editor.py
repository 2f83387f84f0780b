"""The editor as a benchmark sees it: the runner does not trust a method.

A method gets copies of what it is given, and what it returns is checked before anyone uses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.editor import Editor
from latentbench.errors import BadOutput, NotFinite
from latentbench.streams import Streams
from latentbench.types import Batch, Concept, Edit, Endpoint, Latent

LIMIT = 16.0  # images may overshoot [-1, 1], but this is not an image: 0..255, or a broken sampler
DARK = 0.2  # sources with this share of values below 0 hardly have edits without any
CODES = (torch.float32, torch.float64)  # an exact inversion may need more digits than an image
LAW = 0.02  # mean difference of two reconstructions by different batches, in [-1, 1]


class CheckedEditor(Editor[Any]):
    """Passes every verb on to an editor, with copied inputs and checked outputs.

    Checked are type, shape, dtype, range and finiteness of each result, and once per cell, on one
    image, that an edit at strength 0 is the method's own reconstruction. The evaluations of that
    one check are not part of the cell's cost.

    Args:
        editor: the method; it may be attached later.

    Raises:
        BadOutput: a result is not what the verb promises; names method, verb, what was expected
            and what came.
        NotFinite: a result holds NaN or infinity; names the images.
    """

    paper = "none"

    def __init__(self, editor: Editor[Any]) -> None:
        self.editor, self.max_strength = editor, editor.max_strength
        self._law_holds = False

    @property
    def sampling_steps(self) -> int | None:
        """The editor's."""
        return self.editor.sampling_steps

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the editor's samples."""
        found = self.editor.generate(ids, prompts, _copy(noise))
        return self._images("generate", found, ids)

    def invert(self, batch: Batch) -> Latent:
        """Return the editor's codes."""
        found = self.editor.invert(_copy(batch))
        if not isinstance(found, Latent):
            raise self._wrong("invert", "a Latent", type(found).__name__)
        for space, part in found.parts.items():
            self._tensor(f"invert, {space}", part, (len(batch), ...), batch.ids, CODES)
        if found.trajectory is not None:
            asked = batch.trajectory
            shape = (len(batch), ...) if asked is None else tuple(asked.shape)
            self._tensor("invert, trajectory", found.trajectory, shape, batch.ids)
        return found

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the editor's reconstructions."""
        rows = len(next(iter(latent.parts.values())))
        names = [f"row {k}" for k in range(rows)]
        return self._images("decode", self.editor.decode(_copy(latent)), names)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the editor's edits."""
        if not self._law_holds:
            self._check_strength_0(batch, edit)
        found = self.editor.edit(_copy(batch), _copy(edit), strengths.clone())
        return self._images("edit", found, batch.ids, len(strengths), batch.images)

    def randomise(self, streams: Streams) -> None:
        """Put noise in the place of what the editor has learned."""
        self.editor.randomise(streams)

    def effective_strength(self, strength: float) -> float:
        """Return the editor's."""
        return self.editor.effective_strength(strength)

    def interpolate(self, a: Endpoint, b: Endpoint, steps: int) -> Float[Tensor, "b t 3 h w"]:
        """Return the editor's frames."""
        found = self.editor.interpolate(_copy(a), _copy(b), steps)
        return self._images("interpolate", found, a.ids, steps)

    def represent(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return the editor's codes as vectors."""
        found = self.editor.represent(_copy(batch))
        return self._tensor("represent", found, (len(batch), None), batch.ids)

    def compose(
        self, ids: Sequence[str], concepts: Sequence[Concept], noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the editor's samples of several concepts."""
        found = self.editor.compose(ids, [_copy(one) for one in concepts], _copy(noise))
        return self._images("compose", found, ids)

    def mixture(
        self, ids: Sequence[str], concepts: Sequence[Concept], alternatives: Sequence[Concept]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the editor's samples of several concepts and one of some."""
        copies = [[_copy(one) for one in some] for some in (concepts, alternatives)]
        return self._images("mixture", self.editor.mixture(ids, *copies), ids)

    def feature_maps(self, batch: Batch) -> Mapping[str, Float[Tensor, "b d h w"]]:
        """Return the editor's dense features."""
        found = self.editor.feature_maps(_copy(batch))
        if not isinstance(found, Mapping) or not found:
            raise self._wrong("feature_maps", "features by layer", type(found).__name__)
        for layer, maps in found.items():
            self._tensor(f"feature_maps, {layer}", maps, (len(batch), None, None, None), batch.ids)
        return found

    def personalise(
        self, references: Batch, ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the editor's samples of the references' subject."""
        found = self.editor.personalise(_copy(references), ids, prompts)
        return self._images("personalise", found, ids)

    def vary(self, batch: Batch, draws: int) -> Float[Tensor, "b v 3 h w"]:
        """Return the editor's variations."""
        return self._images("vary", self.editor.vary(_copy(batch), draws), batch.ids, draws)

    def invent(
        self, characters: Sequence[str], ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the editor's samples of characters."""
        return self._images("invent", self.editor.invent(characters, ids, prompts), ids)

    def combine(self, a: Batch, b: Batch, edit: Edit) -> Float[Tensor, "b 3 h w"]:
        """Return the editor's combinations of two images each."""
        return self._images("combine", self.editor.combine(_copy(a), _copy(b), _copy(edit)), a.ids)

    def panorama(
        self, ids: Sequence[str], prompts: Sequence[str] | None, width: int
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the editor's wide pictures."""
        found = self.editor.panorama(ids, prompts, width)
        return self._images("panorama", found, ids, width=width)

    def _images(
        self,
        verb: str,
        found: Any,
        ids: Sequence[str],
        outputs: int | None = None,
        sources: Tensor | None = None,
        width: int | None = None,
    ) -> Tensor:
        """Return checked images, ``[ids, 3, size, size]`` or ``[ids, outputs, 3, size, size]``.

        Pictures of another width than the model's have that one.
        """
        middle = () if outputs is None else (outputs,)
        size = self.editor.model.image_size
        shape = (len(ids), *middle, 3, size, width or size)
        images = self._tensor(verb, found, shape, ids)
        low, high = float(images.min()), float(images.max())
        dark = 0.0 if sources is None else float((sources < 0).float().mean())
        as_unit = low >= 0 and dark > DARK
        if max(-low, high) > LIMIT or as_unit:
            raise self._wrong(verb, "images in [-1, 1]", f"values in [{low:g}, {high:g}]")
        return images

    def _tensor(
        self,
        verb: str,
        found: Any,
        shape: tuple[Any, ...],
        ids: Sequence[str],
        dtypes: Sequence[torch.dtype] = (torch.float32,),
    ) -> Tensor:
        """Return a checked tensor of a dtype; None means any length, ... any further axes."""
        allowed = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        expected = f"a {allowed} tensor {_words(shape)}"
        if not isinstance(found, Tensor):
            raise self._wrong(verb, expected, type(found).__name__)
        if found.dtype not in dtypes or not _fits(tuple(found.shape), shape):
            came = f"{str(found.dtype).removeprefix('torch.')} {_words(tuple(found.shape))}"
            raise self._wrong(verb, expected, came)
        finite = torch.isfinite(found).flatten(1).all(1)
        if not bool(finite.all()):
            bad = [name for name, good in zip(ids, finite.tolist(), strict=True) if not good]
            raise NotFinite(
                f"{type(self.editor).__name__}.{verb} returned NaN or infinity for "
                f"{', '.join(bad[:5])}; lower the strength, or check the method"
            )
        return found

    def _check_strength_0(self, batch: Batch, edit: Edit) -> None:
        """Compare an edit of the first image at strength 0 with the method's reconstruction."""
        editor, model = self.editor, self.editor.model
        one, asked = _first(batch), _first(edit)
        counts, saved = replace(model.evaluations), editor.cache.saved.clone()
        found = editor.edit(_copy(one), _copy(asked), torch.zeros(1))
        own = self._images("edit", found, one.ids, 1, one.images)[:, 0]
        if "invert" in type(editor).verbs():
            expected = editor.decode(editor.invert(_copy(one)))
        else:
            expected = model.decode(model.encode(one.images))
        model.evaluations.forward, model.evaluations.backward = counts.forward, counts.backward
        editor.cache.saved.copy_(saved)
        gap = float((own.clamp(-1, 1) - expected.to(own).clamp(-1, 1)).abs().mean())
        if gap > LAW:
            raise BadOutput(
                f"{type(editor).__name__}.edit at strength 0 differs from the method's own "
                f"reconstruction by {gap:.3g} on average over {one.ids[0]!r} (images in [-1, 1], "
                f"{LAW:g} is allowed); strength 0 must be decode(invert(image)), or the model's "
                f"decode(encode(image)) where the method does not invert"
            )
        self._law_holds = True

    def _wrong(self, verb: str, expected: str, came: str) -> BadOutput:
        name = type(self.editor).__name__
        return BadOutput(f"{name}.{verb} must return {expected}, got {came}")


def _words(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join({None: 'd', ...: '...'}.get(n, str(n)) for n in shape)}]"


def _fits(found: tuple[int, ...], expected: tuple[Any, ...]) -> bool:
    if expected[-1] is ...:
        return found[: len(expected) - 1] == expected[:-1]
    pairs = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(e in (None, f) for f, e in pairs)


def _copy(value: Any) -> Any:
    """Return a deep copy of tensors, and of dataclasses and mappings of them."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _copy(getattr(value, f.name)) for f in fields(value)})
    return value


def _first(value: Batch | Edit) -> Any:
    """Return a batch or an edit with its first image alone."""

    def cut(name: str, part: Any) -> Any:
        if isinstance(part, Mapping):
            return {k: v[:1] for k, v in part.items()}
        per_image = isinstance(part, Tensor | tuple) and name != "words"
        return part[:1] if per_image else part

    return replace(value, **{f.name: cut(f.name, getattr(value, f.name)) for f in fields(value)})
