"""What a generative model offers to methods, whatever its family."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from latentbench.cache import Cache
from latentbench.errors import BadInput, Incompatible, unknown
from latentbench.module_state import ModuleState
from latentbench.parameterization import Grid
from latentbench.prompt_tokens import Tokens
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Latent, Space

Convention = Literal["next", "matched"]


@dataclass(frozen=True)
class Condition:
    """What the network receives besides x_t and t: its keyword tensors, one row per image.

    Args:
        tensors: keyword of the network's forward -> tensor ``[b, ...]``, for instance
            ``encoder_hidden_states``. Empty for an unconditional model.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Condition":
        """Return the condition with every tensor changed by the function."""
        return Condition({name: function(value) for name, value in self.tensors.items()})

    def repeat(self, times: int) -> "Condition":
        """Return each row `times` times, neighbours together: the layout of images x strengths."""
        return self.map(lambda value: value.repeat_interleave(times, 0))

    def rows(self, index: Int[Tensor, " r"] | slice) -> "Condition":
        """Return the picked rows."""
        return self.map(lambda value: value[index])

    def lerp(self, other: "Condition", weight: Float[Tensor, " b"]) -> "Condition":
        """Return ``(1 - weight) self + weight other``, one weight per row."""
        pairs = {}
        for name, a in self.tensors.items():
            w = weight.to(a).reshape((-1,) + (1,) * (a.dim() - 1))
            pairs[name] = (1 - w) * a + w * other.tensors[name]
        return Condition(pairs)

    @staticmethod
    def concat(conditions: Sequence["Condition"]) -> "Condition":
        """Return the rows of all conditions, stacked.

        Raises:
            BadInput: some have a tensor, such as a control image, that others lack.
        """
        names = conditions[0].tensors
        for other in conditions[1:]:
            if other.tensors.keys() != names.keys():
                raise BadInput(
                    f"conditions of one network call have the same tensors, got {sorted(names)} "
                    f"and {sorted(other.tensors)}; give all of them a control image, or none"
                )
        return Condition({k: torch.cat([c.tensors[k] for c in conditions]) for k in names})


@dataclass(frozen=True)
class LowRank:
    """A change ``up @ down`` of one linear layer's weights: one for all rows, or one per row.

    Args:
        down: ``[b, r, in]``, b being 1 or the number of rows.
        up: ``[b, out, r]``; holds the scale.

    Example:
        >>> change = LowRank(torch.ones(1, 1, 2), torch.tensor([0.0, 1.0]).reshape(2, 1, 1))
        >>> change(torch.ones(2, 3, 2))[:, 0]
        tensor([[0.],
                [2.]])
    """

    down: Float[Tensor, "b r i"]
    up: Float[Tensor, "c o r"]

    def __call__(self, x: Float[Tensor, "n *t i"]) -> Float[Tensor, "n *t o"]:
        """Return what the change adds to the layer's output for this input.

        Raises:
            BadInput: neither one change nor one per row.
        """
        for part in (self.down, self.up):
            if len(part) not in (1, len(x)):
                raise BadInput(f"got {len(part)} low-rank changes for {len(x)} rows; give 1 or "
                               f"one per row")  # fmt: skip
        rows = x.reshape(len(x), -1, x.shape[-1])
        added = rows @ self.down.to(x).mT @ self.up.to(x).mT
        return added.reshape(*x.shape[:-1], -1)

    def tile(self, times: int) -> "LowRank":
        """Return the change for rows that are repeated as a whole, as those of branches are."""
        down, up = (v if len(v) == 1 else v.repeat(times, 1, 1) for v in (self.down, self.up))
        return LowRank(down, up)


@runtime_checkable
class Taps(Protocol):
    """What may be changed inside one forward pass of the network.

    `bottleneck` gets the middle block's output; `attend` replaces an attention layer; `features`
    changes the maps of the feature layers that `layers` names; `low_rank` changes linear layers.
    Each may be None or empty. Interventions of the sampling loop are compiled to this.
    """

    @property
    def bottleneck(self) -> "Callable[[Tensor], Tensor] | None":
        """Middle block's output -> what the network goes on with."""

    @property
    def attend(self) -> "Callable[[AttentionCall], Tensor] | None":
        """One attention layer's call -> its output, heads still apart."""

    @property
    def layers(self) -> Sequence[str]:
        """The feature layers that are tapped, names of `DiffusionModel.feature_layers`."""
        ...

    @property
    def features(self) -> "Callable[[str, Tensor], Tensor] | None":
        """Feature layer, its map ``[rows, c, h, w]`` -> what the network goes on with."""

    @property
    def low_rank(self) -> "Mapping[str, Sequence[LowRank]]":
        """Linear layer -> low-rank changes of its weights, for the network's rows."""
        ...


@dataclass(frozen=True)
class AttentionCall:
    """One attention layer at work.

    Args:
        layer: the module's name, in the network's own words.
        cross: whether keys and values come from the condition.
        query: ``[rows, heads, tokens, width]``.
        key: ``[rows, heads, context tokens, width]``.
        value: same shape as key.
        scale: factor on the dot product before the softmax.
        project: recomputes (key, value) from another context ``[rows, tokens, d]``.
        context: what the layer's own keys and values were projected from, ``[rows, tokens, d]``;
            an earlier intervention may have replaced them by more or fewer.
        text: how many of the context's tokens, its last ones, are the prompt's: all in
            cross-attention, none in self-attention, the rest after the image's in joint attention.
        made: returns the output that an earlier intervention has made, where one has.
    """

    layer: str
    cross: bool
    query: Float[Tensor, "r h n d"]
    key: Float[Tensor, "r h m d"]
    value: Float[Tensor, "r h m d"]
    scale: float
    project: Callable[[Tensor], tuple[Tensor, Tensor]]
    context: Float[Tensor, "r c e"]
    text: int = 0
    made: Callable[[], Tensor] | None = None

    def attend(
        self,
        query: Tensor | None = None,
        key: Tensor | None = None,
        value: Tensor | None = None,
    ) -> Float[Tensor, "r h n d"]:
        """Return softmax attention, with any of the three replaced.

        Where an earlier intervention has made the layer's output, that output is what this returns
        when nothing is replaced.

        Raises:
            Incompatible: something is replaced after an earlier intervention has made the output.
        """
        if self.made is not None:
            if query is None and key is None and value is None:
                return self.made()
            raise Incompatible(
                f"an earlier intervention has made the output of attention layer {self.layer}; "
                f"attention with other queries, keys or values would drop it: let the earlier one "
                f"return a changed call, or give this one first"
            )
        q = self.query if query is None else query
        k = self.key if key is None else key
        v = self.value if value is None else value
        return nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)

    def probabilities(self) -> Float[Tensor, "r h n m"]:
        """Return the attention map."""
        return (self.query @ self.key.transpose(-1, -2) * self.scale).softmax(-1)


@dataclass
class Evaluations:
    """How often the network ran, counted in rows (one image at one timestep is one)."""

    forward: int = 0
    backward: int = 0


class LatentModel(ABC):
    """A generative model with at least one latent space.

    Class attributes:
        spaces: what a method may work in; compared with `Editor.requires` before loading.
        gives: further abilities: prompts, classes, words.
        version: raised when a fix changes figures; part of every cell's id.
    """

    spaces: ClassVar[frozenset[Space]]
    gives: ClassVar[frozenset[Capability]] = frozenset()
    version: ClassVar[int] = 1

    image_size: int
    latent_shape: tuple[int, ...]  # of x_T, one image
    device: torch.device
    evaluations: Evaluations
    _lent: int = 0  # how many `borrowed` are open

    @classmethod
    def check(cls, settings: Mapping[str, Any], steps: int | None) -> None:
        """Refuse settings that its schedule has no room for, before a weight is read.

        Args:
            settings: of its constructor, defaults filled in.
            steps: sampling steps that a method will take; None where it leaves them to the model.

        Raises:
            BadInput: says what is allowed.
        """
        del settings, steps

    @abstractmethod
    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b ..."]:
        """Return the clean latent z_0 (the images themselves for a pixel model)."""

    @abstractmethod
    def decode(self, latent: Float[Tensor, "b ..."]) -> Float[Tensor, "b 3 h w"]:
        """Return the images of clean latents, differentiable, not clamped."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a hash of the weights and of every setting that changes an image."""

    def prior(self, streams: Streams, ids: Sequence[str]) -> Latent:
        """Return what a sample starts from, one row per id: noise, and a code if it takes one."""
        return Latent({Space.NOISE: self.noise(streams, ids)})

    def noise(self, streams: Streams, ids: Sequence[str]) -> Float[Tensor, "b ..."]:
        """Return the noise of `prior` alone, one row per id: no code is drawn."""
        return streams.normal("prior", ids, self.latent_shape, self.device)

    def code_of(self, images: Float[Tensor, "b 3 h w"]) -> Latent:
        """Return what the model's own encoder says of images; no part where it has no encoder.

        A model without a sampler makes an image of its code alone; a denoiser that is conditioned
        on a code needs x_T as well, which `invert` adds.
        """
        del images
        return Latent({})

    def condition_of(self, latent: Latent) -> Condition:
        """Return the condition of a latent: its prompts or its code, as far as the model takes any.

        The empty condition where the latent has neither.
        """
        del latent
        return Condition()

    @abstractmethod
    def sample(
        self,
        latent: Latent,
        *,
        condition: Condition | None = None,
        null: Condition | None = None,
        guidance: float | Float[Tensor, " b"] | None = None,
        steps: int | None = None,
        interventions: Sequence[Any] = (),
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the images of latents, not clamped: of `prior`, of `invert`, or of paths between.

        A denoiser runs the deterministic sampling loop from the latent's own level; a model without
        a sampler pushes noise forward, decodes a code, and has no use for the other arguments.

        Args:
            latent: noise, code and prompts, one row per image.
            condition: what the network receives; default: `condition_of(latent)`.
            null: what guidance leads away from; default: the empty condition.
            guidance: scale of classifier-free guidance, or one per row; default: the model's.
            steps: sampling steps; default: the model's.
            interventions: changes to the loop (`latentbench.sampling.loop.Intervention`).

        Raises:
            Incompatible: interventions for a model without a sampler.
        """

    def invert(
        self,
        batch: Batch,
        cache: Cache,
        *,
        prompts: Sequence[str] | None = None,
        steps: int | None = None,
        convention: Convention = "matched",
    ) -> Latent:
        """Return latents of images, which `sample` at guidance 1 turns back into the images.

        Args:
            batch: the images; of its prompts nothing is read.
            cache: where an inversion is kept.
            prompts: captions to invert under, one per image, where the model takes any.
            steps: sampling steps; default: the model's.
            convention: timestep that the network receives; see `latentbench.sampling.loop.invert`.

        Raises:
            Incompatible: the model has neither an encoder nor a sampler to run backwards.
        """
        del cache, prompts, steps, convention
        code = self.code_of(batch.images)
        if not code.parts:
            raise Incompatible(f"{type(self).__name__} cannot invert images: it has no encoder")
        return code

    def reconstruction_truth(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return what a perfect inversion gives back: what the autoencoder makes of the images."""
        return self.decode(self.encode(images))

    def networks(self) -> Sequence[nn.Module]:
        """Return all networks that make an image; none where a model is made of something else."""
        return ()

    def tunable(self) -> Mapping[str, nn.Module]:
        """Return the parts that a method may tune for a while, by name: "network", "decoder"."""
        return {}

    @contextmanager
    def borrowed(self, *names: str) -> Iterator[list[nn.Parameter]]:
        """Lend parts of the model for tuning, and take the model back as it was.

        Values of parameters and buffers, gradients and their flags, adapters, hooks and modes are
        byte for byte what they were, also when an exception passes. Parts that are not named are
        frozen as ever. While parts are lent, `fingerprint` is that of the weights as they are.

        Args:
            names: parts, keys of `tunable`.

        Yields:
            The parameters of these parts, which take gradients.

        Raises:
            BadInput: no such part.

        Example:
            >>> # with model.borrowed("decoder") as weights:
            >>> #     optimizer = torch.optim.Adam(weights, 1e-4)
        """
        parts = self.tunable()
        for name in names or ("",):
            if name not in parts:
                raise unknown(f"part of {type(self).__name__} that can be tuned", name, parts)
        lent = [parts[name] for name in names]
        state = ModuleState(self.networks(), lent)
        weights = [p for part in lent for p in part.parameters()]
        self._lent += 1
        try:
            for parameter in weights:
                parameter.requires_grad_()
            yield weights
        finally:
            state.restore()
            self._lent -= 1

    def check_images(self, images: Tensor) -> None:
        """Refuse images of another shape or range before any work."""
        size = (3, self.image_size, self.image_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != size:
            raise BadInput(
                f"{type(self).__name__} takes images [b, {size[0]}, {size[1]}, {size[2]}], got "
                f"{tuple(images.shape)}; resize them or choose another model"
            )
        if float(images.detach().abs().amax()) > 1.001:
            raise BadInput(
                f"images must lie in [-1, 1], got [{float(images.min()):.3f}, "
                f"{float(images.max()):.3f}]; map 0..255 by x / 127.5 - 1"
            )


class DiffusionModel(LatentModel):
    """A denoiser with its noise levels; everything a sampling loop or a method asks of it."""

    network: Any  # torch.nn.Module; diffusers adds config and adapters
    prediction_type: str
    steps: int  # default number of sampling steps
    guidance: float  # default classifier-free guidance; 1 is off

    @abstractmethod
    def grid(self, steps: int | None = None) -> Grid:
        """Return the levels of a sampler with this many steps (default: the model's own)."""

    @abstractmethod
    def condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        """Return the condition of captions; None means the empty condition."""

    def unconditional(self, rows: int, negative: str | None = None) -> Condition:
        """Return what guidance leads away from: the empty condition, or a negative prompt."""
        return self.condition(None if negative is None else (negative,) * rows, rows)

    def prompt_tokens(self, prompt: str) -> tuple[Tokens, ...]:
        """Return what each tokenizer makes of a prompt, in the order of the condition's tokens.

        Together they are as many as the prompt's tokens in an attention layer.

        Raises:
            BadInput: the prompt would be cut.
            Incompatible: the model's condition has no tokens; it lacks `Space.TOKEN_MAPS`.
        """
        raise Incompatible(
            f"the condition of {type(self).__name__} has no tokens that words could be found in; "
            f"choose a model that reads prompts, such as model=sd15"
        )

    def condition_with_words(
        self, prompts: Sequence[str], words: Mapping[str, Float[Tensor, " d"]]
    ) -> Condition:
        """Return the condition of captions with learned words in them, differentiable in the words.

        Args:
            prompts: one caption per row, words apart by spaces, some of them keys of `words`.
            words: token embedding of each learned word ("<smile>").

        Raises:
            Incompatible: the model does not give `Capability.WORDS`.
        """
        raise self._takes_no_words()

    def controlled(self, condition: Condition, images: Float[Tensor, "b 3 h w"]) -> Condition:
        """Return the condition with an image per row that steers the network.

        Guidance away from a condition with the same images keeps what they steer out of it.

        Args:
            condition: as `condition` returns it.
            images: RGB in [0, 1], of the model's size: edges, a sketch, a depth map, as the model
                was trained on.

        Raises:
            Incompatible: the model does not give `Capability.CONTROL`.
        """
        del condition, images
        raise Incompatible(
            f"{type(self).__name__} takes no control image; choose a model that gives "
            f"{Capability.CONTROL}, such as model=controlnet_sd15"
        )

    def vocabulary(self) -> Float[Tensor, "v d"]:
        """Return the model's own token embeddings: the place and scale that words start from.

        Raises:
            Incompatible: the model does not give `Capability.WORDS`.
        """
        raise self._takes_no_words()

    def _takes_no_words(self) -> Incompatible:
        return Incompatible(f"{type(self).__name__} takes no learned words; choose a model that "
                            f"gives {Capability.WORDS}, such as model=sd15")  # fmt: skip

    def condition_of(self, latent: Latent) -> Condition:
        """Return the condition of the latent's prompts, the empty one where it takes none."""
        prompts = latent.prompts if Capability.PROMPTS in self.gives else None
        return self.condition(prompts, len(latent))

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "r ..."],
        timesteps: Num[Tensor, " r"],
        condition: Condition,
        taps: Taps | None = None,
    ) -> Float[Tensor, "r ..."]:
        """Return the network's raw output; rows may be at different timesteps.

        Counts evaluations: one forward per row, and one backward per row when a gradient passes.
        Raises `HookNeverFired` when a tap was given and the network did not call it.
        """

    @abstractmethod
    def attention_layers(self) -> tuple[str, ...]:
        """Return the names of the attention layers, in the order in which they run."""

    def feature_layers(self) -> tuple[str, ...]:
        """Return the names of the layers whose maps may be tapped, in the order in which they run.

        A name is that of a module, in the network's own words, for the map that the module hands
        on. A part of a block follows a colon: ``:residual`` is what the block adds to its shortcut,
        before it is added. None by default.
        """
        return ()

    def middle_layer(self) -> str | None:
        """Return the feature layer whose map is h_t; ``NAME:input`` is what it is made from."""
        return None

    def linear_layers(self) -> Mapping[str, tuple[int, int]]:
        """Return the linear layers that `LowRank` may change: name -> numbers (in, out).

        Names are those of modules, in the network's own words. None by default.
        """
        return {}

    @contextmanager
    def differentiable_attention(self) -> Iterator[None]:
        """Use the plain attention kernel, which has double backward and forward derivatives."""
        kernels = torch.nn.attention
        with kernels.sdpa_kernel(kernels.SDPBackend.MATH):
            yield

    def add_adapter(self, name: str, config: Any) -> list[nn.Parameter]:
        """Add a peft adapter (a `PeftConfig`), switched off, and return its parameters.

        `adapter_scales`, or `Intervention.adapters` within the loop, switches it on.

        Raises:
            BadInput: there is an adapter of this name.
        """
        if name in self._adapters():
            raise BadInput(f"there is an adapter {name!r} already; choose another name")
        from peft import inject_adapter_in_model  # late: takes seconds to import

        inject_adapter_in_model(config, self.network, name)
        self._switch_adapters({})
        own = [p for key, p in self.network.named_parameters() if f".{name}." in key]
        return [p.requires_grad_() for p in own]

    @contextmanager
    def adapter_scales(self, scales: Mapping[str, float]) -> Iterator[None]:
        """Run with these adapters at these scales; none given means the bare network."""
        if not scales:
            yield
            return
        known = self._adapters()
        if scales.keys() - known:
            raise unknown("adapter", sorted(scales.keys() - known)[0], known)
        self._switch_adapters(scales)
        try:
            yield
        finally:
            self._switch_adapters({})

    def remove_adapters(self) -> None:
        """Take all adapters out of the network, which is then as it was loaded."""
        if getattr(self.network, "peft_config", None) is None:
            return
        from peft.tuners.lora import LoraLayer  # late: takes seconds to import

        for name, layer in list(self.network.named_modules()):
            if isinstance(layer, LoraLayer):
                parent, _, own = name.rpartition(".")
                setattr(self.network.get_submodule(parent), own, layer.base_layer)
        del self.network.peft_config

    def _adapters(self) -> set[str]:
        return {name for layer in self._adapter_layers() for name in layer.lora_A}

    def _adapter_layers(self) -> list[Any]:
        from peft.tuners.lora import LoraLayer  # late: takes seconds to import

        return [module for module in self.network.modules() if isinstance(module, LoraLayer)]

    def _switch_adapters(self, scales: Mapping[str, float]) -> None:
        trained = [(p, p.requires_grad) for p in self.network.parameters()]
        for layer in self._adapter_layers():
            layer.enable_adapters(bool(scales))
            if scales:
                layer.set_adapter([name for name in scales if name in layer.lora_A])
            for name in scales.keys() & layer.lora_A.keys():
                layer.set_scale(name, scales[name])
        for parameter, flag in trained:  # peft freezes what it switches off
            parameter.requires_grad_(flag)
