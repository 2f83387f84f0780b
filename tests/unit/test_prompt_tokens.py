"""Tokens of prompts, of CLIP's tokenizer and T5's."""

import pytest
import transformers_toy as small

from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible
from latentbench.models.flux import Flux
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.prompt_tokens import read_tokens
from latentbench.types import Space


def test_words_are_found_through_pieces_and_punctuation(tmp_path):
    clip = toy.word_tokenizer(tmp_path)
    found = read_tokens(clip, "a face, with Hats")
    assert found.words == (None, 0, 1, None, 2, 3, 3, 3, *[None] * 4)
    assert found.count == 9 and len(found) == toy.TOKENS
    assert found.of_word(3) == [5, 6, 7]
    t5 = read_tokens(small.t5_tokenizer(), "a face with", 5)
    assert t5.words == (0, 1, 2, None, None) and t5.count == 4


def test_a_prompt_that_would_be_cut_is_refused(tmp_path):
    with pytest.raises(BadInput, match="prompt of 14 tokens, at most 12"):
        read_tokens(toy.word_tokenizer(tmp_path), "a " * 12)


def test_tokens_are_those_of_the_condition(latent, tmp_path):
    """As many, and a word that changes changes the condition from its tokens on."""
    path = small.save_sd3(tmp_path / "sd3", small.SD35_MEDIUM, t5=True)
    sd3 = TransformerFlow(path=path, steps=2, t5=True, t5_tokens=small.T5_TOKENS)
    path = small.save_flux(tmp_path / "flux", small.FLUX_SCHNELL, small.SCHNELL_SCHEDULE)
    settings = {"image_size": 16, "t5_tokens": small.T5_TOKENS, "embedded_guidance": None}
    flux = Flux(path=path, steps=2, **settings)
    bare = TransformerFlow(path=str(tmp_path / "sd3"), steps=2, t5_tokens=4)
    for model, parts in ((latent, 1), (sd3, 2), (flux, 1), (bare, 2)):
        assert Space.TOKEN_MAPS in model.spaces
        prompt = "a face with hat"
        tokens = model.prompt_tokens(prompt)
        states = model.condition((prompt,), 1).tensors["encoder_hidden_states"]
        assert len(tokens) == parts and sum(map(len, tokens)) == states.shape[1]
        other = model.condition(("a face with smile",), 1).tensors["encoder_hidden_states"]
        moved = (states - other)[0].abs().amax(1) > 1e-6
        assert moved[tokens[0].of_word(3)].all()


def test_a_model_without_tokens_says_so(pixel):
    with pytest.raises(Incompatible, match="PixelDiffusion has no tokens"):
        pixel.prompt_tokens("a face")
