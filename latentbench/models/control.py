"""Latent diffusion models with a ControlNet: an image per row steers the U-Net."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Guidance, Name, NotNegative, Steps, TimeNodes
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.models.components import resolve
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.lora import LORA_FILE, merge_lora
from latentbench.models.stable_diffusion_xl import StableDiffusionXL
from latentbench.types import Capability

IMAGE = "control"  # the condition's tensor that the ControlNet reads
SHARED = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")


class Controlled(LatentDiffusion):
    """What controlled models share: the ControlNet, and network calls with its residuals.

    Source: "Adding Conditional Control to Text-to-Image Diffusion Models" (ControlNet), section 3.
    `controlled` adds an image to each row of a condition. The ControlNet then reads x_t, the time,
    the prompt and the image, and what it returns is added to the U-Net's skip connections and to
    its middle block's output. Gradients pass through both networks. A call without images is that
    of the plain model.

    The two networks cost about as much per row as two rows of the U-Net alone, and are counted so:
    with images, a row is two forward evaluations, one of the U-Net and one of the ControlNet, and
    two backward ones where a gradient passes through both.

    Layers that methods name, tap or tune are the U-Net's. The middle block's output is tapped
    before the ControlNet adds to it, skip connections afterwards. There is no guess mode: a branch
    of guidance has the images that its condition has, and one scale holds for all layers.
    """

    controlnet: Any
    control_scale: float

    def load_controlnet(self, name: str, scale: float) -> None:
        """Load the ControlNet.

        Args:
            name: a local folder or a hub id.
            scale: factor on all that it adds to the U-Net.

        Raises:
            MissingWeights: it is not on disk and cannot be fetched, or is damaged.
            BadInput: it was made for another U-Net, or for control images of another size.
        """
        self.control_scale = scale
        self.controlnet = self.component("diffusers.ControlNetModel", "controlnet", resolve(name))
        own, unet = self.controlnet.config, self.network.config
        for key in SHARED:
            if _plain(own[key]) != _plain(unet[key]):
                raise BadInput(
                    f"the ControlNet {name!r} has {key} {own[key]}, the U-Net of {self.path!r} "
                    f"{unet[key]}; choose a ControlNet that was trained on this model"
                )
        side = int(unet.sample_size) * 2 ** (len(own.conditioning_embedding_out_channels) - 1)
        if (own.conditioning_channels, side) != (3, self.image_size):
            raise BadInput(
                f"the ControlNet {name!r} reads images of {own.conditioning_channels} channels and "
                f"{side} pixels for this model's latents; it must read 3 and {self.image_size}"
            )

    def networks(self) -> Sequence[nn.Module]:
        """Return the model's networks and the ControlNet."""
        return (*super().networks(), self.controlnet)

    def settings(self) -> tuple[Any, ...]:
        """Return what changes an image besides weights and schedule."""
        return (*super().settings(), self.control_scale)

    def controlled(self, condition: Condition, images: Float[Tensor, "b 3 h w"]) -> Condition:
        """Return the condition with an image per row; see the base class.

        Raises:
            BadInput: images of another size or range, or not one per row.
        """
        rows = {len(value) for value in condition.tensors.values()}
        size = (3, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != size or rows != {len(images)}:
            raise BadInput(
                f"a control image per row is needed, {rows} of {size}, got {tuple(images.shape)}; "
                f"resize them, or give one to each row"
            )
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise BadInput(
                f"control images must lie in [0, 1], got [{float(images.min()):.3f}, "
                f"{float(images.max()):.3f}]; map [-1, 1] by (x + 1) / 2"
            )
        return Condition({**condition.tensors, IMAGE: images.to(self.device)})

    def call(
        self, x: Float[Tensor, "r c h w"], timesteps: Tensor, condition: Condition
    ) -> Float[Tensor, "r c h w"]:
        """Return the U-Net's output, steered where the condition has images."""
        tensors = dict(condition.tensors)
        images = tensors.pop(IMAGE, None)
        if images is None:
            return super().call(x, timesteps, condition)
        told, rows = self.told(tensors), len(x)
        self.evaluations.forward += rows
        down, middle = self.controlnet(
            x, timesteps, controlnet_cond=images, conditioning_scale=self.control_scale,
            return_dict=False, **told,
        )  # fmt: skip
        passed = [v for v in (*down, middle) if v.requires_grad]
        if passed:
            count = lambda _: self._count_backward(rows)  # noqa: E731
            torch.autograd.graph.register_multi_grad_hook(passed, count, mode="any")
        return self.network(
            x, timesteps, down_block_additional_residuals=down,
            mid_block_additional_residual=middle, **told,
        ).sample  # fmt: skip

    def told(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the keywords that both networks receive, of the condition without its images."""
        return dict(tensors)


class ControlledDiffusion(Controlled):
    """A latent diffusion model with a ControlNet, and a LoRA where one is given.

    It has the layout, spaces and prompts of `LatentDiffusion`. A method that knows nothing of
    control images runs on it as on the model without the ControlNet, and gives the same images.

    Source: see `Controlled`, which also says how calls are counted. The LoRA is merged into the
    U-Net alone, at scale 1, as in `AdaptedDiffusion`.

    Args:
        path: name of an embedded model, a local folder, or a hub id.
        controlnet: a local folder or a hub id.
        control_scale: factor on all that the ControlNet adds; 0 is the plain model.
        adapter: a LoRA on the U-Net, as `path`; None: none.
        adapter_file: its file.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.

    Raises:
        MissingWeights: weights are not on disk and cannot be fetched, or are damaged.
        BadInput: a ControlNet for another U-Net.

    Example:
        ``ControlledDiffusion(path="/data/sd15", controlnet="/data/softedge")``
    """

    gives: ClassVar[frozenset[Capability]] = LatentDiffusion.gives | {Capability.CONTROL}

    def __init__(
        self,
        *,
        path: Name,
        controlnet: Name,
        control_scale: NotNegative = 1.0,
        adapter: Name | None = None,
        adapter_file: Name = LORA_FILE,
        steps: Steps = 50,
        guidance: Guidance = 3.0,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(
            path=path, steps=steps, guidance=guidance, time_nodes=time_nodes, dtype=dtype,
            device=device,
        )  # fmt: skip
        if adapter is not None:
            merge_lora(self.network, adapter, adapter_file)
        self.load_controlnet(controlnet, control_scale)


class ControlledXL(Controlled, StableDiffusionXL):
    """Stable Diffusion XL with a ControlNet, which also reads pooled text and sizes.

    Source: see `Controlled`, which also says how calls are counted.

    Args:
        path: a local folder or a hub id.
        controlnet: likewise.
        control_scale: factor on all that the ControlNet adds; 0 is the plain model.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        vae_tiling: decode in overlapping tiles; see `StableDiffusionXL`.
        device: where the networks run.

    Raises:
        MissingWeights: weights are not on disk and cannot be fetched, or are damaged.
        BadInput: a ControlNet for another U-Net.

    Example:
        ``ControlledXL(path="/data/sdxl", controlnet="/data/canny_xl", dtype="float16")``
    """

    gives: ClassVar[frozenset[Capability]] = StableDiffusionXL.gives | {Capability.CONTROL}

    def __init__(
        self,
        *,
        path: Name,
        controlnet: Name,
        control_scale: NotNegative = 1.0,
        steps: Steps = 50,
        guidance: Guidance = 5.0,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        vae_tiling: bool = False,
        device: str = "cpu",
    ) -> None:
        super().__init__(
            path=path, steps=steps, guidance=guidance, time_nodes=time_nodes, dtype=dtype,
            vae_tiling=vae_tiling, device=device,
        )  # fmt: skip
        self.load_controlnet(controlnet, control_scale)

    def told(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the keywords that both networks receive, of the condition without its images."""
        own = dict(tensors)
        states = own.pop("encoder_hidden_states")
        return {"encoder_hidden_states": states, "added_cond_kwargs": own}


def _plain(value: Any) -> Any:
    """Return a config's value with lists as tuples: a file has only lists."""
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value
