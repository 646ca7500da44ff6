"""Small text-conditioned networks to train from nothing: tokenizer, text encoder, transformer.

Built of others' classes, so that a saved pipeline opens anywhere: a WordLevel tokenizer, T5's
encoder (Raffel et al. 2019, arXiv 1910.10683) and PixArt's transformer (Chen et al. 2023, arXiv
2310.00426: adaptive norm shared by the blocks, cross-attention to the text, fixed sine-cosine
positions), initialised as DiT is (Peebles & Xie 2022, arXiv 2212.09748, sec. 3), which diffusers
leaves to its checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from torch import Tensor, nn

TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS = 128, 2, 4
UNSEEN = -4.0  # what the start of a directed head adds to the logits of tokens it overlooks
PAD, UNKNOWN, END = "<pad>", "<unk>", "</s>"


def word_tokenizer(captions: Iterable[str], length: int = 16) -> Any:
    """A tokenizer of the captions' own words, lower case; it pads to `length` tokens, the last of
    a sentence being END, and gives UNKNOWN for every other word."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for caption in captions for word in caption.lower().split()})
    vocabulary = {word: i for i, word in enumerate((PAD, UNKNOWN, END, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
    # Assigned so by the library's own interface; its stubs hold these properties read-only.
    rules: Any = tokenizer
    rules.normalizer = normalizers.Lowercase()
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rules.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        model_max_length=length,
        padding_side="right",
    )


def text_encoder(vocabulary: int) -> Any:
    """T5's encoder, small, for `vocabulary` tokens: (b, length) -> (b, length, TEXT_WIDTH)."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=vocabulary,
        d_model=TEXT_WIDTH,
        d_kv=TEXT_WIDTH // TEXT_HEADS,
        d_ff=2 * TEXT_WIDTH,
        num_layers=TEXT_LAYERS,
        num_heads=TEXT_HEADS,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=2,
    )
    encoder: Any = T5EncoderModel(config)
    direct(encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
    return encoder


@torch.no_grad()
def direct(bias: Tensor) -> None:
    """Let each head of T5's relative position bias (buckets, heads) begin with one side of a token:
    all that follows, all that precedes, and the nearest four of either.

    T5's own start is all but zero, from which a small encoder never learned the order of words: "a
    cat left of a frog" and "a frog left of a cat" were the same picture. After the forward and
    backward masks of directional self-attention (Shen et al. 2017, arXiv 1709.04696).
    """
    half = len(bias) // 2
    distance = torch.arange(half)
    for head in range(bias.shape[1]):
        seen = (distance <= (half, 4)[head // 2 % 2]) & (distance > 0)
        nothing = torch.zeros_like(seen)
        sides = (nothing, seen) if head % 2 == 0 else (seen, nothing)  # behind, ahead
        bias[:, head] = torch.where(torch.cat(sides), 0.0, UNSEEN)
    bias[0] = 0.0  # the token itself


def text_transformer(
    channels: int, size: int, patch: int = 4, heads: int = 3, width: int = 64, depth: int = 6
) -> PixArtTransformer2DModel:
    """PixArt's transformer for (channels, size, size) latents, heads x width features per token."""
    network = PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=width,
        in_channels=channels,
        out_channels=channels,
        num_layers=depth,
        cross_attention_dim=heads * width,
        sample_size=size,
        patch_size=patch,
        caption_channels=TEXT_WIDTH,
        # PixArt's own is the tanh approximation, which on a CPU costs five times as much as this
        # and was two fifths of a forward.
        activation_fn="gelu",
        use_additional_conditions=False,
    )
    initialise(network)
    return network


def initialise(network: nn.Module) -> None:
    """DiT's start: Xavier weights, every block the identity, and an output of zero."""
    tables = [p for name, p in network.named_parameters() if name.endswith("scale_shift_table")]
    zero = {"adaln_single.linear", "proj_out"}
    for name, each in network.named_modules():
        if isinstance(each, nn.Linear):
            nn.init.xavier_uniform_(each.weight)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
            if name in zero:
                nn.init.zeros_(each.weight)
        if isinstance(each, nn.Conv2d):
            nn.init.xavier_uniform_(each.weight.flatten(1))
    for table in tables:
        nn.init.zeros_(table)


class PromptedNetwork(nn.Module):
    """A text encoder and the network it conditions, as one module that trains them together.

    Called as (x, timestep, tokens), tokens (b, length) int64. Its parts leave for a pipeline.
    """

    def __init__(self, text_encoder: Any, network: Any) -> None:
        super().__init__()
        self.text_encoder, self.network = text_encoder, network

    @property
    def config(self) -> Any:
        """The inner network's."""
        return self.network.config

    def embed(self, tokens: Tensor) -> Tensor:
        """(b, length) tokens as (b, length, width) embeddings; padding is seen like any token."""
        return self.text_encoder(input_ids=tokens).last_hidden_state

    def forward(self, x: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        return self.network(
            x,
            encoder_hidden_states=self.embed(tokens),
            timestep=timestep,
            return_dict=False,
        )[0]


def tokens_of(tokenizer: Any, prompts: Iterable[str]) -> Tensor:
    """(n, length) int64 tokens of the prompts, padded, cut at the tokenizer's own length."""
    given = tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return torch.as_tensor(given.input_ids)
