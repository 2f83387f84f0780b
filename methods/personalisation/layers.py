"""What methods share that tell every layer of cross-attention something else."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import Incompatible
from latentbench.model import AttentionCall, Condition, DiffusionModel
from latentbench.parameterization import prediction_error
from latentbench.sampling.loop import Intervention, Step, denoise, noise_to_level, plain
from latentbench.streams import Streams

BRANCH = "condition"  # the branch that reads the subject's word


class LayerPrompts(Intervention, ABC):
    """Lets each cross-attention layer read keys and values of its own in the branch of the prompt.

    Args:
        layers: names of the layers.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.places = {layer: k for k, layer in enumerate(layers)}

    @abstractmethod
    def read(self, step: Step, place: int) -> tuple[Float[Tensor, "b m d"], Float[Tensor, "b m d"]]:
        """Return what the keys and what the values of a layer are made from.

        Args:
            step: where the loop is.
            place: number of the layer, in the order in which they run.
        """

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Return the layer's call with the prompt's branch replaced."""
        if call.layer not in self.places:
            return None
        keys, values = (
            self._in_place(step, call.context, own)
            for own in self.read(step, self.places[call.layer])
        )
        key, value = call.project(keys)
        if values is not keys:
            value = call.project(values)[1]
        return replace(call, context=values, key=key, value=value)

    def _in_place(self, step: Step, context: Tensor, own: Tensor) -> Tensor:
        rows = list(step.split(context).unbind(0))
        rows[step.branches.index(BRANCH)] = own.to(context)
        return torch.cat(rows)


def cross_layers(model: DiffusionModel) -> tuple[str, ...]:
    """Return the names of the cross-attention layers, in the order in which they run.

    Raises:
        Incompatible: the network has none.
    """
    found = tuple(name for name in model.attention_layers() if name.endswith("attn2"))
    if not found:
        raise Incompatible(
            f"{type(model.network).__name__} has no layers of cross-attention among its "
            f"{len(model.attention_layers())} attention layers; choose a U-Net that reads "
            f"prompts, such as model=sd15"
        )
    return found


def denoising_loss(
    model: DiffusionModel,
    streams: Streams,
    component: str,
    z0: Float[Tensor, "b ..."],
    ids: Sequence[str],
    step: int,
    condition: Condition,
    interventions: Sequence[Intervention],
) -> Float[Tensor, ""]:
    """Return the mean squared error of what the network predicts, at one level for all latents.

    The level is drawn from the sampler's grid.

    Args:
        model: the denoiser.
        streams: where level and noises come from.
        component: whose draws they are.
        z0: clean latents.
        ids: their names.
        step: number of the step, on which the draws depend.
        condition: one row per latent.
        interventions: changes inside the network.
    """
    grid = model.grid()
    drawn = streams.generator(component, f"{step}/level")
    level = int(torch.randint(grid.n, (), generator=drawn))
    eps = streams.normal(component, [f"{step}/{i}" for i in ids], z0.shape[1:], z0.device).to(z0)
    x = noise_to_level(grid, z0, eps, level)
    terms = plain(condition)
    found = denoise(model, x, terms, grid=grid, level=level, interventions=interventions)
    levels = grid.levels(level, x)
    return prediction_error(model.prediction_type, found, (z0, eps), *levels).square().mean()


def rows_by_prompt(
    model: DiffusionModel,
    prompts: Sequence[str],
    words: Sequence[Mapping[str, Float[Tensor, " d"]]],
) -> list[Float[Tensor, "b m d"]]:
    """Return what a text encoder makes of the prompts with each layer's words."""
    return [
        model.condition_with_words(prompts, own).tensors["encoder_hidden_states"] for own in words
    ]
