"""Tests of genkit/networks/text.py."""

import torch

from genkit.networks.text import (
    TEXT_WIDTH,
    PromptedNetwork,
    direct,
    text_encoder,
    text_transformer,
    tokens_of,
    word_tokenizer,
)

WORDS = ("a red cat", "two dogs")


def small() -> PromptedNetwork:
    torch.manual_seed(0)
    return PromptedNetwork(text_encoder(8), text_transformer(3, 8, heads=2, width=8, depth=2))


def test_tokens_are_the_captions_own_words():
    tokenizer = word_tokenizer(WORDS, length=5)
    ids = tokens_of(tokenizer, ["A red CAT", "a green cat", "", "two dogs a red cat dogs"])
    assert ids.shape == (4, 5)
    assert ids[0].tolist() == [*tokenizer.convert_tokens_to_ids(["a", "red", "cat"]), 2, 0]
    assert ids[1, 1] == tokenizer.unk_token_id
    assert ids[2].tolist() == [2, 0, 0, 0, 0]
    assert (ids[3] != 0).all()


def test_a_tokenizer_reads_the_same_after_it_was_saved(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = word_tokenizer(WORDS)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert torch.equal(tokens_of(again, WORDS), tokens_of(tokenizer, WORDS))


def test_a_fresh_transformer_is_zero_and_its_blocks_do_nothing():
    net, x = small(), torch.randn(2, 3, 8, 8)
    tokens = tokens_of(word_tokenizer(WORDS), WORDS)
    out = net(x, torch.tensor([10.0, 900.0]), tokens)
    assert out.shape == x.shape and not out.any()
    hidden = torch.randn(2, 4, 16)
    block = net.network.transformer_blocks[0]
    modulation = net.network.adaln_single(torch.tensor([5.0, 6.0]), {}, 2, hidden.dtype)[0]
    same = block(hidden, encoder_hidden_states=torch.zeros(2, 3, 16), timestep=modulation)
    # Cross-attention has no gate; with zero keys its output is the bias, which is zero.
    assert torch.allclose(same, hidden, atol=1e-6)


def test_text_and_time_reach_the_output_once_it_is_not_zero():
    net, x = small(), torch.randn(1, 3, 8, 8)
    torch.nn.init.normal_(net.network.proj_out.weight)
    torch.nn.init.normal_(net.network.adaln_single.linear.weight, std=0.1)
    one, two = tokens_of(word_tokenizer(WORDS), WORDS)[:, None]
    t = torch.tensor([500.0])
    first = net(x, t, one)
    assert not torch.allclose(first, net(x, t, two))
    assert not torch.allclose(first, net(x, t + 100, one))


def test_the_text_encoder_is_trained_with_it():
    net, x = small(), torch.randn(1, 3, 8, 8)
    torch.nn.init.normal_(net.network.proj_out.weight)
    tokens = tokens_of(word_tokenizer(WORDS), WORDS[:1])
    net(x, torch.tensor([500.0]), tokens).square().sum().backward()
    assert net.text_encoder.shared.weight.grad.abs().sum() > 0


def test_the_order_of_words_reaches_their_embeddings():
    """Who is left of whom: a noun reads otherwise before "left of" than behind it. The broken twin,
    T5's own start, reads a bag of words."""
    said = ["a cat left of a frog", "a frog left of a cat"]
    tokenizer = word_tokenizer(said)
    tokens = tokens_of(tokenizer, said)
    torch.manual_seed(0)
    encoder = text_encoder(len(tokenizer))
    bias = encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight

    def moved() -> float:
        """How far apart the two embeddings of "cat" are, relative to their length."""
        with torch.no_grad():
            both = encoder(input_ids=tokens).last_hidden_state
        before, behind = both[0, 1], both[1, 5]
        return float((before - behind).norm() / before.norm())

    assert moved() > 0.3
    with torch.no_grad():
        bias.normal_(0, TEXT_WIDTH**-0.5, generator=torch.Generator().manual_seed(0))
    assert moved() < 0.1


def test_every_head_sees_its_side_and_the_token_itself():
    bias = torch.zeros(32, 4)
    direct(bias)
    ahead, behind, near_ahead, near_behind = (column == 0 for column in bias.unbind(1))
    assert ahead[17:].all() and not ahead[1:17].any()
    assert behind[1:16].all() and not behind[16:].any()
    assert near_ahead.nonzero().flatten().tolist() == [0, 17, 18, 19, 20]
    assert near_behind.nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
