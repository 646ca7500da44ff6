"""Train a small Stable Diffusion on emoji scenes, with diffusers alone, as anybody might have.

    python scripts/train_tiny_sd.py runs/tiny-sd

Autoencoder (AutoencoderKL, 32 x 32 pixels to 8 x 8 latents), then text encoder (CLIPTextModel)
and network (UNet2DConditionModel) together, eps-prediction on SD's own noise schedule with 10% of
the captions dropped. genkit gives the pictures and nothing else: the folder is what a person brings
to `genkit train-distill --teacher runs/tiny-sd`. About 25 minutes on two cores.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from genkit.data import load

LENGTH, WIDTH = 24, 96  # tokens of a prompt, features of each
SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
}


def make_tokenizer(captions: tuple[str, ...]) -> CLIPTokenizer:
    """CLIP's tokenizer with byte pairs learned from the captions, so that their words are whole."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    start, end = "<|startoftext|>", "<|endoftext|>"
    bpe = Tokenizer(models.BPE(unk_token=end, end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[start, end], end_of_word_suffix="</w>"
    )
    bpe.train_from_iterator(captions, trainer)
    learned = json.loads(bpe.to_str())["model"]
    with TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text(json.dumps(learned["vocab"]))
        lines = [" ".join(pair) if isinstance(pair, list) else pair for pair in learned["merges"]]
        merges.write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)


def train_autoencoder(x: Tensor, steps: int, batch: int) -> AutoencoderKL:
    """An autoencoder of pictures x (n, 3, 32, 32), latents of unit deviation after scaling."""
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=32,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), 1e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in (bar := tqdm(range(steps), desc="autoencoder", mininterval=10)):
        part = x[torch.randint(len(x), (batch,))]
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(part).latent_dist
            out = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(out.float(), part) + 1e-5 * posterior.kl().float().mean() / 1024
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    with torch.no_grad():
        latents = vae.encode(x[:1000]).latent_dist.sample()
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def encode(vae: AutoencoderKL, x: Tensor) -> Tensor:
    """Scaled latents of pictures."""
    parts = [vae.encode(part).latent_dist.mean for part in x.split(250)]
    return torch.cat(parts) * vae.config["scaling_factor"]


def train_network(
    latents: Tensor, tokens: Tensor, none: Tensor, vocabulary: int, steps: int, batch: int
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Text encoder and U-Net, averaged over the last steps."""
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(96, 128),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    both = torch.nn.ModuleList([text, unet])
    averaged = torch.optim.swa_utils.AveragedModel(
        both, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )
    schedule = DDPMScheduler(**SCHEDULE)
    optimizer = torch.optim.AdamW(both.parameters(), 1e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.05)
    for _ in (bar := tqdm(range(steps), desc="network", mininterval=10)):
        rows = torch.randint(len(latents), (batch,))
        said = torch.where(torch.rand(batch, 1) < 0.1, none, tokens[rows])
        x_0, eps = latents[rows], torch.randn(batch, *latents.shape[1:])
        t = torch.randint(1000, (batch,))
        x_t = schedule.add_noise(x_0, eps, t)
        with torch.autocast("cpu", torch.bfloat16):
            out = unet(x_t, t, text(input_ids=said)[0], return_dict=False)[0]
        loss = F.mse_loss(out.float(), eps)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
        averaged.update_parameters(both)
        bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    text, unet = averaged.module
    return text.eval(), unet.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--vae-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    data, began = load("emoji-scenes"), time.monotonic()
    tokenizer = make_tokenizer(data.captions)
    read = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    tokens = tokenizer([*data.captions, ""], **read).input_ids
    vae = train_autoencoder(data.x_0, asked.vae_steps, asked.batch)
    latents = encode(vae, data.x_0)
    text, unet = train_network(
        latents, tokens[:-1], tokens[-1:], len(tokenizer), asked.steps, asked.batch
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(asked.out)
    sizes = {name: sum(p.numel() for p in each.parameters()) / 1e6
             for name, each in {"vae": vae, "text": text, "unet": unet}.items()}  # fmt: skip
    print(asked.out, {name: round(size, 2) for name, size in sizes.items()},
          f"{(time.monotonic() - began) / 60:.1f} minutes")  # fmt: skip


if __name__ == "__main__":
    main()
