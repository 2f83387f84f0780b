"""Alignment of two prompts' tokens."""

import pytest
import torch

from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.prompt_tokens import read_tokens
from methods.editing.alignment import Alignment, changed_words, refined, replaced, require_a_word


@pytest.fixture
def tokens(tmp_path):
    tokenizer = toy.word_tokenizer(tmp_path)
    return lambda prompt: read_tokens(tokenizer, prompt)


def columns(found: Alignment) -> list[list[int]]:
    """Return the source tokens of each target token."""
    return [column.nonzero().flatten().tolist() for column in found.A.T]


def test_equal_prompts_are_aligned_one_by_one(tokens):
    same = tokens("a face, with hat")
    for align in (replaced, refined):
        found = align(same, same)
        assert torch.equal(found.A, torch.eye(toy.TOKENS)) and bool(found.taken.all())


def test_a_word_takes_the_place_of_another(tokens):
    found = replaced(tokens("a face with hat"), tokens("a face with smile"))
    assert torch.equal(found.A, torch.eye(toy.TOKENS)) and bool(found.taken.all())


@pytest.mark.parametrize(("source", "target"), [("hat", "hats"), ("hats", "hat")])
def test_words_after_one_of_another_length_keep_their_places(tokens, source, target):
    """The published code is off by one from there on; every target token finds its own."""
    ours, theirs = tokens(f"a {source} face"), tokens(f"a {target} face")
    found = replaced(ours, theirs)
    (face,), (end,) = theirs.of_word(2), [theirs.count - 1]
    assert columns(found)[face] == ours.of_word(2) and ours.count - 1 in columns(found)[end]
    pieces = found.A[ours.of_word(1)][:, theirs.of_word(1)]
    assert float(pieces.sum()) == len(ours.of_word(1))
    torch.testing.assert_close(found.A.sum(1), torch.ones(toy.TOKENS))


def test_new_words_keep_their_own_maps(tokens):
    ours, theirs = tokens("a face"), tokens("a smile face with hat")
    found = refined(ours, theirs)
    assert columns(found)[:7] == [[0], [1], [], [2], [], [], [3]]
    assert found.taken[:7].tolist() == [1, 1, 0, 1, 0, 0, 1]
    assert columns(found)[7:] == [[k] for k in range(7, toy.TOKENS)]


def test_tokenizers_are_aligned_apart(tokens):
    ours, theirs = tokens("a face"), tokens("a smile face")
    parts = [refined(ours, theirs), refined(theirs, ours)]
    found = Alignment.concat(parts)
    assert torch.equal(found.A[: toy.TOKENS, : toy.TOKENS], parts[0].A)
    assert torch.equal(found.A[toy.TOKENS :, toy.TOKENS :], parts[1].A)
    assert float(found.A.sum()) == float(parts[0].A.sum() + parts[1].A.sum())


def test_words_that_differ():
    assert changed_words("a smiling man", "a frowning man") == [1]
    assert changed_words("a man", "a man, smiling") == []
    assert changed_words("A man, smiling", "a man") == [2]


def test_words_of_neither_prompt_are_refused():
    require_a_word(("a cat,", "a dog"), ["mouse", "Cat"])
    with pytest.raises(BadInput, match=r"neither of the prompts 'a cat' and 'a dog' has a word"):
        require_a_word(("a cat", "a dog"), ["mouse"])
