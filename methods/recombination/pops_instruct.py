"""pOps, the instruct operator: a diffusion prior moves an image's embedding by a word."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import PriorTransformer
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.batching import even_batches
from latentbench.bounds import Count, Guidance, Name, NotNegative, Positive, Share, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput, unknown
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.fit_images import refuse_too_few
from methods.directions.vector_code import (
    ENCODED,
    MEAN,
    UNIT,
    CodeLearner,
    encoded,
    vector_code,
)
from methods.recombination.embedding_prior import (
    LEVELS,
    nearest_map,
    noised,
    predicted,
    prior,
    refuse_width,
    sampled,
    seeded,
    spread,
    trained,
    with_one,
)

CLIP = 1.0  # norm of gradients
WORD = "word/"  # of what is learned: the embeddings of the words that were asked for


class PopsInstruct(CodeLearner):
    """Denoises an image's own embedding under the image and a word that it should come to fit.

    Source: "pOps: Photo-Inspired Diffusion Operators", the instruct operator, and the authors'
    code. With e whitened embeddings, P a transformer over [e_a, word, 0, t, e_t, learned query]
    with a causal mask that is read at the query and predicts the clean embedding:

    1. e_t = sqrt(abar_t) e_a + sqrt(1 - abar_t) eps on the cosine schedule; image and word are both
       zeroed with the chance `drop`.
    2. P learns |P(e_t, t, a, word) - e_a|^2 + clip_strength (1 - cos(R P, text(word))), for a word
       drawn of all that are asked for: at 0 the image stays, at large values the word is all.
    3. To apply it, P(0, 0) + s (P(a, word) - P(0, 0)) is the predicted e_0 of a DDPM step.

    The strength is the share of the way from the image's code to the operator's; 1 is as published.

    Deviations: the embedding is the model's vector code (z_sem, a VAE's mean, w), which no text
    encoder shares: R is the affine map to the scorer's embedding that is nearest on the fit's
    images, and the word's slot is the scorer's embedding of it, projected to the code's size, in
    place of all tokens of "A WORD OBJECT". The prior starts from scratch, there from a trained text
    prior, and the rate falls to zero; the decoder starts from the image's own x_T. The cosine has a
    tenth of the published weight, 10, at which a prior from scratch learns the word first, and the
    image only in a fit that is long enough.

    Args:
        scorer: a yaml of conf/scorer, whose text tower reads the words.
        images: of the generators' split, chosen by the cell's seed.
        iterations: steps of Adam.
        batch: images of each step.
        learning_rate: of Adam at the start.
        clip_strength: weight of the cosine; 0 is the control.
        drop: chance that image and word are zeroed in training.
        layers: of the transformer.
        width: of the transformer, a multiple of its 4 heads.
        prior_steps: sampling steps of the prior.
        prior_guidance: s.
        steps: sampling steps of the decoder; default: the model's, where it has any.
        max_strength: largest strength of a benchmark's curve.

    Raises:
        BadInput: a width that the heads do not divide, an edit without words.

    Example:
        >>> method = PopsInstruct(clip_strength=0.5)  # method.fit(data, edits); method.edit(...)
    """

    paper = "pOps: Photo-Inspired Diffusion Operators, the instruct operator"
    measured: ClassVar[tuple[str, ...]] = (MEAN, UNIT)
    small: ClassVar[Mapping[str, Any]] = {
        "images": 12, "iterations": 2, "batch": 4, "layers": 1, "width": 16, "prior_steps": 3,
    }  # fmt: skip
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE}) for verb in ("invert", "edit")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.SCORER})}

    def __init__(
        self,
        *,
        scorer: Name = "clip1",
        images: Annotated[Count, between(2, 1_000_000)] = 2048,
        iterations: Count = 800,
        batch: Count = 64,
        learning_rate: Positive = 1e-3,
        clip_strength: NotNegative = 1.0,
        drop: Share = 0.2,
        layers: Annotated[int, between(1, 100)] = 4,
        width: Annotated[int, between(8, 8192)] = 128,
        prior_steps: Annotated[int, between(2, LEVELS)] = 25,
        prior_guidance: Guidance = 1.0,
        steps: Steps | None = None,
        max_strength: Positive = 1.0,
    ) -> None:
        refuse_width(width)
        self.scorer, self.images, self.iterations, self.batch = scorer, images, iterations, batch
        self.learning_rate, self.clip_strength, self.drop = learning_rate, clip_strength, drop
        self.layers, self.width, self.prior_steps = layers, width, prior_steps
        self.prior_guidance, self.steps, self.max_strength = prior_guidance, steps, max_strength
        self.learned_ = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are."""
        refuse_too_few(self.images, data)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn the operator for the words after of all edits; nothing if none will be asked for.

        Raises:
            BadInput: an edit without words.
        """
        if not edits:
            return
        for edit in edits:
            if edit.words is None:
                raise BadInput(
                    f"edit {edit.name!r} has no words for before and after, of which pops_instruct "
                    f"learns; take a data set and a benchmark that give them, such as "
                    f"benchmark=attribute_editing of dataset=faces"
                )
        chosen = self.streams.choice("fit/images", data.size("generator"), self.images)
        codes, scorer = encoded(self.model, data, chosen).float(), self.parts["scorer"]
        self.learned_ = {MEAN: codes.mean(0), UNIT: codes.std(0).clamp(min=1e-6)}
        words, seen = list(dict.fromkeys(edit.words[1] for edit in edits if edit.words)), []
        with torch.no_grad():
            for index, kept in even_batches(len(chosen), ENCODED):
                images = data.batch("generator", [chosen[k] for k in index]).images
                seen.append(scorer.image(images)[:kept])
            text = scorer.text(words).to(codes)
        e = self.whitened(codes)
        found = self.learn(e, nearest_map(e, torch.cat(seen).to(e)), text)
        self.learned_ |= {name: v.detach() for name, v in found.items()}
        for edit in edits:
            if edit.words:
                self.learned_[WORD + edit.name] = text[words.index(edit.words[1])][None].clone()

    def learn(
        self,
        e: Float[Tensor, "n d"],
        read: Float[Tensor, "f c"],
        text: Float[Tensor, "w c"],
    ) -> dict[str, Tensor]:
        """Return the operator's weights.

        Args:
            e: whitened codes.
            read: R, see `nearest_map`.
            text: embeddings of the words.
        """
        net, project = self._networks(e, text)
        weights = weights_of(net, project)
        adam = torch.optim.Adam(weights.values(), self.learning_rate)
        for step in self.fitting.steps("pops_instruct", self.iterations, weights, adam):
            draw = self.streams.generator(f"pops_instruct/{step}")
            rows = torch.randint(len(e), (self.batch,), generator=draw).to(e.device)
            asked = torch.randint(len(text), (self.batch,), generator=draw).to(e.device)
            t = torch.randint(LEVELS, (self.batch,), generator=draw).to(e.device)
            eps = torch.randn(self.batch, e.shape[1], generator=draw).to(e)
            told = (torch.rand(self.batch, 1, 1, generator=draw) >= self.drop).to(e)
            slots = told * torch.stack([e[rows], project(spread(text[asked]))], 1)
            guess = predicted(net, noised(e[rows], t, eps), t, slots)  # 1.
            fits = F.cosine_similarity(with_one(guess) @ read, text[asked], 1)
            loss = (guess - e[rows]).square().mean() + self.clip_strength * (1 - fits).mean()  # 2.
            adam.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.iterations)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights.values(), CLIP)
            adam.step()
        return weights

    def invert(self, batch: Batch) -> Latent:
        """Return each image's code, with x_T where the model has one."""
        return self.model.invert(batch, self.cache, steps=self.steps)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images of codes between their own and what the operator makes of them."""
        text, latent, s = self._text(edit), self.invert(batch), len(strengths)
        space, code = vector_code(latent)
        made = self.operate(self.whitened(code.float()), text.expand(len(batch), -1), batch.ids)
        way = made * self.learned_[UNIT] + self.learned_[MEAN] - code
        parts = {k: v.repeat_interleave(s, 0) for k, v in latent.parts.items()}
        share = strengths.to(code).repeat(len(batch))[:, None]
        parts[space] = parts[space] + share * way.to(code).repeat_interleave(s, 0)
        return self.decode(Latent(parts, latent.start)).unflatten(0, (len(batch), s))

    def operate(
        self, e: Float[Tensor, "r d"], text: Float[Tensor, "r c"], ids: Sequence[str]
    ) -> Float[Tensor, "r d"]:
        """Return a sample of the operator's prior under codes and words, one noise per id.

        In float64: in float32, where a row stands in the batch decides how its last bits round.

        Args:
            e: whitened codes.
            text: embedding of each row's word.
            ids: one name per row, for its noise.
        """
        net, project = self._networks(e, text)
        for network in (net, project):
            nn.Module.double(network)

        def drawn(stream: str) -> Tensor:
            return self.streams.normal(stream, ids, e.shape[1:], e.device).double()

        with torch.no_grad():
            for name, weight in weights_of(net, project).items():
                weight.copy_(self.learned_[name])
            slots = torch.stack([e.double(), project(spread(text.double()))], 1)

            def predict(x: Tensor, t: Tensor) -> Tensor:
                x0 = predicted(net, x, t, slots)
                if self.prior_guidance == 1:
                    return x0
                free = predicted(net, x, t, torch.zeros_like(slots))
                return free + self.prior_guidance * (x0 - free)  # 3.

            start = drawn("pops_instruct/start")
            found = sampled(
                predict, start, lambda i: drawn(f"pops_instruct/noise/{i}"), self.prior_steps
            )
        return found.to(e)

    def _text(self, edit: Edit) -> Float[Tensor, "1 c"]:
        """Return the embedding of an edit's word."""
        if MEAN not in self.learned_:
            raise BadInput("PopsInstruct has learned nothing yet; call fit, or load_state")
        if WORD + edit.name not in self.learned_:
            known = [k.removeprefix(WORD) for k in self.learned_ if k.startswith(WORD)]
            raise unknown("edit", edit.name, known)
        return self.learned_[WORD + edit.name]

    def _networks(
        self, e: Float[Tensor, "n d"], text: Float[Tensor, "w c"]
    ) -> tuple[PriorTransformer, nn.Linear]:
        """Return the prior and the words' projection before they have learned anything."""
        start, size, read = self.streams.generator("pops_instruct/weights"), len(e[0]), len(text[0])
        made = partial(prior, self.layers, self.width, size, 2)
        net, project = seeded(start, lambda: (made(), nn.Linear(read, size)))
        for network in (net, project):
            nn.Module.to(network, e.device)
        return net, project


def weights_of(net: PriorTransformer, project: nn.Linear) -> dict[str, Tensor]:
    """Return the operator's weights by name."""
    words = {f"words/{name}": v for name, v in project.named_parameters()}
    return {f"prior/{name}": v for name, v in trained(net).items()} | words
