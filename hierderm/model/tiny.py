"""The small SigLIP of our own: its shape and its tokenizer. Weights are made by experiments/pretrain_tiny.py."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

IMAGE_SIZE = 96  # pixels a side
CAPTION_LENGTH = 16  # tokens; captions are padded to it, as SigLIP's are to 64
FOLDER = Path(__file__).parents[1] / "weights" / "siglip-tiny"


def siglip_config(
    *,
    vocabulary: int,
    image_size: int = IMAGE_SIZE,
    patch_size: int = 12,
    width: int = 128,
    depth: int = 6,
    text_depth: int = 2,
) -> SiglipConfig:
    """A SigLIP of `width` in both towers; the defaults are `hierderm:tiny`, 1.9 million weights."""
    tower = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": 4}
    return SiglipConfig(
        vision_config={**tower, "num_hidden_layers": depth, "image_size": image_size, "patch_size": patch_size},
        text_config={
            **tower,
            "num_hidden_layers": text_depth,
            "vocab_size": vocabulary,
            "max_position_embeddings": CAPTION_LENGTH,
            "projection_size": width,
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": None,
        },
    )


def caption_tokenizer(captions: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word of `captions`; other words are `<unk>`."""
    words = sorted({word for caption in captions for word in caption.lower().split()})
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(["<pad>", "<unk>", *words])}, unk_token="<unk>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", model_max_length=CAPTION_LENGTH
    )


def random_siglip(captions: Iterable[str], folder: Path, **shape: int) -> SiglipModel:
    """Save an untrained SigLIP with its tokenizer and preprocessing to `folder`, in the layout of the hub."""
    from transformers import SiglipImageProcessor

    tokenizer = caption_tokenizer(captions)
    config = siglip_config(vocabulary=len(tokenizer), **shape)
    size = shape.get("image_size", IMAGE_SIZE)
    model = SiglipModel(config)
    # transformers draws these two at random; SigLIP begins at 10 and -10 (arXiv 2303.15343, section 3.2).
    torch.nn.init.constant_(model.logit_scale, math.log(10.0))
    torch.nn.init.constant_(model.logit_bias, -10.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    SiglipImageProcessor(size={"height": size, "width": size}, image_mean=half, image_std=half).save_pretrained(folder)
    return model
