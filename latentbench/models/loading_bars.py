"""The bars that diffusers and transformers draw while they load a checkpoint."""


def hide_loading_bars() -> None:
    """Keep diffusers and transformers from drawing bars between our lines."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
