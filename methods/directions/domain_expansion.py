"""Domain expansion: directions of a code that change nothing are taught to show new domains."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log2
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from latentbench.batching import even_batches
from latentbench.bounds import (
    Count,
    Name,
    NotNegative,
    Positive,
    SetSize,
    between,
    matches,
)
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput, Incompatible, NoEffect, unknown
from latentbench.models.convolutions import ImageEncoder
from latentbench.models.push_forward import PushForward
from latentbench.types import Batch, Capability, Concept, Edit, Latent, Space
from methods.directions.fit_images import refuse_too_few
from methods.directions.vector_code import ENCODED, VectorCodeEditor, vector_code

IMAGES = "images"  # the domain that the data's second images show
POOL = 1000  # codes of the prior whose mean and spread are taken
PENALTY, PENALTY_EVERY = 0.5, 16  # R1, as the embedded GAN was trained
COARSEST = 4  # pixels a side of the discriminator's last map
CODE, WEIGHTS, ASKED, AFTER = "code/", "weights/", "asked/", "after/"  # parts of the state

Domains = Annotated[
    str,
    matches(
        r"(images|[^+]*\S to \S[^+]*)( \+ (images|[^+]*\S to \S[^+]*))*",
        "such as 'bareeyed to glasses + bareheaded to hat', or 'images'",
    ),
]
Weights = Mapping[str, Tensor]
Pair = tuple[str, str] | None  # words before and after; None: the second domain's images


class DomainExpansion(VectorCodeEditor):
    """Tunes a generator so that dormant directions of its code each show a new domain.

    Source: "Domain Expansion of Image Generators", its method as the authors' code has it. The
    basis V holds the right singular vectors of all weights that read the code, stacked. Domain i
    gets the i-th of the last vectors, which change an image least. With B the other vectors, R the
    repurposed ones and w_avg the mean code,

        w_b = B B^T w + R R^T w_avg,    w_i = w_b + s v_i,

    and a copy G of the generator G_0 learns, one domain drawn for each image,

        source * softplus(-D(G(w_b))) + l2 |G(w_b) - G_0(w_b)|^2
        + perceptual * d(G(w_b), G_0(w_b)) + expand * (1 - cos(E(G(w_i)) - E(G(w_b)), t_i)),

    E being a scorer's embedding and t_i the difference of two texts ("StyleGAN-NADA"). The strength
    is the share of s, so 0 is the source image, of a code projected to the base subspace. `compose`
    adds w_b + s sum_i a_i v_i over the concepts; `generate` draws the source domain.

    Domains are the edits that a benchmark announces, each under its words; where it announces none,
    those of `domains`. The domain "images" takes for t_i the difference of the mean embeddings of
    the data's second domain and of its images, of which no pair is known.

    Deviations: one network E, without prompt templates, where the paper takes two of CLIP; d is
    1 - cos of E's embeddings, there LPIPS; the discriminator starts from nothing and both players
    move in one step; no path length penalty, no people from sets of photos ("MyStyle"); s is in
    standard deviations of the code along the middle vector, there 20; all linear layers that read
    the code are stacked, so that a VAE can be expanded too; R1 has the weight with which the
    embedded GAN was trained, 0.5 in every 16th step. Words of a concept that name no domain are
    left to the noise; a negative weight goes the other way, where nothing was trained.

    Args:
        scorer: a yaml of conf/scorer.
        domains: what is learned where the benchmark announces no edit: "BEFORE to AFTER" in words,
            or "images", joined by " + "; no two with the same words after.
        images: of the generators' split, that D and the domain "images" see.
        iterations: steps of Adam; 0 leaves the generator as it is.
        batch: codes of each step.
        learning_rate: of Adam.
        distance: s.
        repurpose: "dormant", or the control "leading": the vectors that change an image most.
        source: weight of the adversarial term; 0 trains no D.
        l2: weight of the squared error.
        perceptual: weight of d.
        expand: weight of the domains.
        max_strength: largest share of s of a benchmark's curve.

    Raises:
        BadInput: two domains with the same words after, more domains than directions to spare, an
            edit without words, a concept that names no domain or has a region.
        Incompatible: a model without a decoder that can be tuned.
        NoEffect: concepts that lead an image into no domain at all.

    Example:
        >>> editor = DomainExpansion(domains="bareheaded to hat")  # editor.fit(data, [])
    """

    paper = "Domain Expansion of Image Generators, the authors' code"
    families = (PushForward,)
    measured: ClassVar[tuple[str, ...]] = (CODE + "centre",)
    small: ClassVar[Mapping[str, Any]] = {"images": 12, "iterations": 4, "batch": 4}
    others: ClassVar[Mapping[str, str]] = {"scorer": "scorer"}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE}) for verb in ("invert", "edit", "generate", "compose")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.SCORER}) for verb in ("invert", "edit", "generate", "compose")
    }

    def __init__(
        self,
        *,
        scorer: Name = "clip1",
        domains: Domains = (
            "bareeyed to glasses + bareheaded to hat + frowning to smiling + shaven to bearded"
            " + white to maroon"
        ),
        images: SetSize = 256,
        iterations: Annotated[int, between(0, 1_000_000)] = 300,
        batch: Count = 8,
        learning_rate: Positive = 0.0005,
        distance: Positive = 5.0,
        repurpose: Literal["dormant", "leading"] = "dormant",
        source: NotNegative = 1.0,
        l2: NotNegative = 10.0,
        perceptual: NotNegative = 10.0,
        expand: NotNegative = 1.0,
        max_strength: Positive = 1.0,
    ) -> None:
        refuse_same_words(domains)
        self.scorer, self.domains, self.images = scorer, domains, images
        self.iterations, self.batch, self.learning_rate = iterations, batch, learning_rate
        self.distance, self.repurpose = distance, repurpose
        self.source, self.l2, self.perceptual, self.expand = source, l2, perceptual, expand
        self.max_strength = max_strength
        self.learned_: dict[str, Tensor] = {}

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return what it asks for, and a second domain where a setting names its images."""
        spaces, needs = super().required(verbs, config)
        if spaces and None in pairs_of(str(config.get("domains", ""))):
            needs |= {Capability.SECOND_DOMAIN}
        return spaces, needs

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are."""
        if self.source or None in pairs_of(self.domains):
            refuse_too_few(self.images, data)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Choose directions for the domains, and tune a copy of the generator.

        Raises:
            BadInput: an edit without words, or too many domains.
            Incompatible: the model has no decoder that can be tuned.
        """
        for edit in edits:
            if edit.words is None:
                raise BadInput(
                    f"edit {edit.name!r} has no words for before and after, from which "
                    f"domain_expansion learns its domain; take a data set and a benchmark that "
                    f"give them, such as benchmark=attribute_editing of dataset=faces"
                )
        asked = {edit.name: edit.words for edit in edits}
        pairs = list(dict.fromkeys([*asked.values()] or pairs_of(self.domains)))
        self.learned_ = self._subspaces(len(pairs))
        for name, words in asked.items():
            self.learned_[ASKED + name] = torch.tensor(pairs.index(words))
        for k, words in enumerate(pairs):
            self.learned_[IMAGES if words is None else AFTER + words[1]] = torch.tensor(k)
        with torch.no_grad():
            targets = torch.cat([self._direction(data, words) for words in pairs])
        self.learned_ |= {WEIGHTS + k: v for k, v in self._tuned(data, targets).items()}

    def invert(self, batch: Batch) -> Latent:
        """Return each image's code, projected to the base subspace."""
        space, code = vector_code(super().invert(batch))
        return Latent({space: self.projected(code)})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes, by the expanded generator."""
        return self._images(self._expanded(), vector_code(latent)[1])

    def moved(
        self, code: Float[Tensor, "r d"], edit: Edit, strength: Float[Tensor, " r"]
    ) -> Float[Tensor, "r d"]:
        """Return codes of the base subspace, moved into the edit's domain."""
        share = edit.sign * strength  # an edit that lowers an attribute has a domain of its own
        return code + share[:, None] * self.steps_to_domains()[self._number(edit)]

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image of the source domain per id, in range however far tuning has gone."""
        return self._images(self._expanded(), self._drawn(ids, noise)).clamp(-1, 1)

    def compose(
        self,
        ids: Sequence[str],
        concepts: Sequence[Concept],
        noise: Float[Tensor, "b ..."] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, in all the domains that its concepts name.

        Raises:
            NoEffect: they lead an image into none.
        """
        weights, steps = self._expanded(), self.steps_to_domains()
        shares = torch.stack([self._shares(concept, len(steps)) for concept in concepts]).sum(0)
        idle = [name for name, row in zip(ids, shares.tolist(), strict=True) if not any(row)]
        if idle:
            raise NoEffect(
                f"no concept leads {', '.join(idle[:5])} into a domain: none names one, or their "
                f"weights add up to 0; name a domain of method.domains by its words after"
            )
        return self._images(weights, self._drawn(ids, noise) + shares.to(steps) @ steps)

    def projected(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return w_b of codes."""
        repurposed, centre = self._known(CODE + "repurposed"), self._known(CODE + "centre")
        return code + (centre - code) @ repurposed.T @ repurposed

    def steps_to_domains(self) -> Float[Tensor, "k d"]:
        """Return s v_i of all domains."""
        return self._known(CODE + "distance") * self._known(CODE + "repurposed")

    def losses(
        self,
        weights: Weights,
        original: Weights,
        w: Float[Tensor, "b d"],
        domain: Int[Tensor, " b"],
        targets: Float[Tensor, "k e"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "b 3 h w"]]:
        """Return the loss without its adversarial term, and the images G(w_b).

        Args:
            weights: of G.
            original: of G_0.
            w: codes, not projected.
            domain: number of each row's domain.
            targets: t_i of all domains.
        """
        look, base = self.parts["scorer"].image, self.projected(w)
        moved = base + self.steps_to_domains()[domain]
        before, after = self._images(weights, torch.cat([base, moved])).chunk(2)
        with torch.no_grad():
            kept = self._images(original, base)
            seen_kept = look(kept)
        seen_before, seen_after = look(before), look(after)
        change = seen_after - seen_before.detach()
        expand = 1 - F.cosine_similarity(change, targets[domain].to(change), 1).mean()
        apart = 1 - F.cosine_similarity(seen_before, seen_kept, 1).mean()
        loss = self.expand * expand + self.l2 * F.mse_loss(before, kept) + self.perceptual * apart
        return loss, before

    def _tuned(self, data: Dataset, targets: Float[Tensor, "k e"]) -> dict[str, Tensor]:
        """Return the weights of G after its training."""
        original = {k: v.detach().float() for k, v in self._decoder().named_parameters()}
        own = {k: v.clone().requires_grad_() for k, v in original.items()}
        critic = self._critic() if self.source else nn.Module()
        tensors = {WEIGHTS + k: v for k, v in own.items()} | dict(critic.named_parameters())
        adam = torch.optim.Adam(tensors.values(), self.learning_rate, betas=(0.0, 0.99))
        chosen = self.chosen(data) if self.source else []
        for step in self.fitting.steps("domain_expansion", self.iterations, tensors, adam):
            draw = f"domain_expansion/{step}"
            w = self.model.push(self._noise(draw, self.batch)).detach()
            generator = self.streams.generator(draw, "domains")
            domain = torch.randint(len(targets), (len(w),), generator=generator).to(w.device)
            loss, made = self.losses(own, original, w, domain, targets)
            if self.source:
                rows = torch.randint(len(chosen), (len(w),), generator=generator).tolist()
                real = data.batch("generator", [chosen[k] for k in rows]).images.to(w)
                loss = loss + self._game(critic, made, real, step)
            adam.zero_grad()
            loss.backward()
            self.model.evaluations.backward += 2 * len(w)
            adam.step()
        return {k: v.detach() for k, v in own.items()}

    def _game(
        self,
        critic: nn.Module,
        made: Float[Tensor, "b 3 h w"],
        real: Float[Tensor, "b 3 h w"],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return both players' losses: each moves its own weights alone."""
        held = {k: v.detach() for k, v in critic.named_parameters()}
        fooled = functional_call(critic, held, (made,))
        real = real.detach().requires_grad_()
        genuine = critic(real)
        loss = self.source * F.softplus(-fooled).mean()
        loss = loss + F.softplus(critic(made.detach())).mean() + F.softplus(-genuine).mean()
        if step % PENALTY_EVERY:
            return loss
        (slope,) = torch.autograd.grad(genuine.sum(), real, create_graph=True)
        penalty = slope.square().sum((1, 2, 3)).mean()
        return loss + PENALTY_EVERY * PENALTY / 2 * penalty

    def _subspaces(self, count: int) -> dict[str, Tensor]:
        """Return the directions of so many domains, the mean code, and s."""
        V = basis(self._decoder(), self.model.latent_shape[-1])
        if count >= len(V):
            raise BadInput(
                f"{count} domains leave nothing of a code of {len(V)} numbers; ask for fewer"
            )
        with torch.no_grad():
            codes = self.model.push(self._noise("domain_expansion/pool", POOL))
        repurposed = V.flip(0)[:count] if self.repurpose == "dormant" else V[:count]
        spread = ((codes - codes.mean(0)) @ V[len(V) // 2]).std()
        return {
            CODE + "repurposed": repurposed.contiguous(),
            CODE + "centre": codes.mean(0),
            CODE + "distance": self.distance * spread,
        }

    def _direction(self, data: Dataset, words: Pair) -> Float[Tensor, "1 e"]:
        """Return t_i of a domain."""
        scorer = self.parts["scorer"]
        if words is not None:
            before, after = scorer.text(words)
            return (after - before)[None]
        there = data.second_size("generator")
        others = self.streams.choice("fit/second", there, min(self.images, there))
        photos = self._seen(lambda index: data.batch("generator", index).images, self.chosen(data))
        return self._seen(lambda index: data.second_domain("generator", index), others) - photos

    def _seen(
        self, images: Callable[[Sequence[int]], Tensor], chosen: Sequence[int]
    ) -> Float[Tensor, "1 e"]:
        """Return the mean of the scorer's embeddings of images."""
        found = []
        for index, kept in even_batches(len(chosen), ENCODED):
            found.append(self.parts["scorer"].image(images([chosen[k] for k in index]))[:kept])
        return torch.cat(found).mean(0, keepdim=True)

    def _images(self, weights: Weights, code: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes by a generator with these weights."""
        self.model.evaluations.forward += len(code)
        return functional_call(self._decoder(), dict(weights), (code,))

    def _decoder(self) -> nn.Module:
        parts = self.model.tunable()
        if "decoder" not in parts:
            raise Incompatible(
                f"{type(self.model).__name__} has no decoder that can be tuned; choose "
                f"model=faces_gan or model=faces_vae"
            )
        return parts["decoder"]

    def _critic(self) -> nn.Module:
        """Return D before training."""
        blocks = max(int(log2(self.model.image_size / COARSEST)), 1)
        channels = [32 * min(k + 1, 3) for k in range(blocks)]
        with torch.device("meta"):
            critic = ImageEncoder(self.model.image_size, channels, 1, norm=False)
        critic = critic.to_empty(device=self.model.device)
        generator = self.streams.generator("domain_expansion/critic")
        for weight in critic.parameters():
            size = weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.0
            weight.data = size * torch.randn(weight.shape, generator=generator).to(weight)
        return critic

    def _noise(self, stream: str, rows: int) -> Float[Tensor, "b d"]:
        names = [str(row) for row in range(rows)]
        return self.streams.normal(stream, names, self.model.latent_shape, self.model.device)

    def _drawn(self, ids: Sequence[str], noise: Tensor | None) -> Float[Tensor, "b d"]:
        """Return codes of the prior, projected to the base subspace."""
        own = self.model.prior(self.streams, ids).parts[Space.NOISE]
        return self.projected(self.model.push(own if noise is None else noise.to(own)))

    def _expanded(self) -> dict[str, Tensor]:
        self._known(CODE + "centre")
        own = self.learned_.items()
        return {k.removeprefix(WEIGHTS): v for k, v in own if k.startswith(WEIGHTS)}

    def _known(self, name: str) -> Tensor:
        if name not in self.learned_:
            raise BadInput("DomainExpansion has learned nothing yet; call fit, or load_state")
        return self.learned_[name]

    def _number(self, edit: Edit) -> int:
        """Return the number of an edit's domain."""
        self._known(CODE + "centre")
        named = [k.removeprefix(ASKED) for k in self.learned_ if k.startswith(ASKED)]
        if edit.name in named:
            return int(self.learned_[ASKED + edit.name])
        if edit.attribute is None and IMAGES in self.learned_:
            return int(self.learned_[IMAGES])
        raise unknown("edit", edit.name, named)

    def _shares(self, concept: Concept, count: int) -> Float[Tensor, "b k"]:
        """Return how far a concept moves each image into each domain."""
        if concept.region is not None:
            raise BadInput(
                "a concept has a region, and a code is of the whole image; use method=composed"
            )
        after = {k.removeprefix(AFTER): v for k, v in self.learned_.items() if k.startswith(AFTER)}
        shares = torch.zeros(len(concept.prompts), count)
        for row, prompt in enumerate(concept.prompts):
            words = prompt.split()
            found = [int(v) for name, v in after.items() if {*name.split()} <= {*words}]
            if len(words) == 1 and not found:
                raise BadInput(
                    f"no domain shows {prompt!r}, known: {', '.join(after)}; add it to "
                    f"method.domains, as in 'bareeyed to glasses'"
                )
            shares[row, found] = concept.weight
        return shares


def basis(decoder: nn.Module, code: int) -> Float[Tensor, "d d"]:
    """Return right singular vectors of all weights that read a code, the strongest first.

    Each has the sign that makes its largest number positive.

    Args:
        decoder: what makes images of codes.
        code: length of a code; every linear layer that takes so many numbers reads it.

    Example:
        >>> layer = nn.Linear(2, 3, bias=False)
        >>> layer.weight.data = torch.tensor([[0.0, 3.0], [1.0, 0.0], [0.0, 4.0]])
        >>> basis(layer, 2)
        tensor([[0., 1.],
                [1., 0.]])
    """
    layers = [m for m in decoder.modules() if isinstance(m, nn.Linear) and m.in_features == code]
    if not layers:
        raise Incompatible(
            f"no linear layer of {type(decoder).__name__} reads a code of {code} numbers; choose "
            f"model=faces_gan or model=faces_vae"
        )
    stacked = torch.cat([layer.weight.detach() for layer in layers]).double()
    V = torch.linalg.svd(stacked).Vh
    largest = V.gather(1, V.abs().argmax(1, keepdim=True))
    return (V * largest.sign()).float()  # a singular vector has no sign


def pairs_of(domains: str) -> list[Pair]:
    """Return the words before and after of each domain; None is that of images.

    Example:
        >>> pairs_of("bareeyed to glasses + images")
        [('bareeyed', 'glasses'), None]
    """
    found: list[Pair] = []
    for one in domains.split(" + ") if domains else ():
        before, _, after = one.partition(" to ")
        found.append(None if one == IMAGES else (before, after))
    return found


def refuse_same_words(domains: str) -> None:
    """Refuse two domains with the same words after: a concept could not say which of them it means.

    Raises:
        BadInput: says which words.

    Example:
        >>> refuse_same_words("bareheaded to hat + hat to bareheaded")
    """
    seen: set[str] = set()
    for words in pairs_of(domains):
        after = IMAGES if words is None else words[1]
        if after in seen:
            raise BadInput(
                f"two of domains={domains!r} lead to {after!r}, which is how a domain is asked "
                f"for; leave one of them out"
            )
        seen.add(after)
