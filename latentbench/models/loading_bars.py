"""The bars that diffusers and transformers draw while they load a checkpoint."""


def hide_loading_bars() -> None:
    """Keep diffusers and transformers from drawing bars between our lines."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()
