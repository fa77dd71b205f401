"""Pretrain `hierderm:tiny`, the small SigLIP that ships with the package, on built-in images and captions.

Promise: one command makes the weights in hierderm/weights/siglip-tiny from nothing but this repository.
Command: python experiments/pretrain_tiny.py
Hardware and time: 2 CPU cores; minutes and results of the last run are in hierderm/weights/siglip-tiny/README.md.

The images come from a seed and from conditions that no preset of the built-in data uses, and captions name what is
visible (lesion, colour, arrangement, site), never a condition. So the comparison on the built-in data stays fair in
the way it is fair for SigLIP on the web: the backbone has seen such images, but no label and no test image.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.nn.functional import logsigmoid

from hierderm.data.synthetic.recipe import Recipe, generate
from hierderm.model.tiny import CAPTION_LENGTH, FOLDER, random_siglip

SEEDS = range(90_001, 90_009)  # no preset and no user's seed
CONDITIONS = 480


def draw(recipe: Recipe) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[str]]:
    drawn = list(generate(recipe))
    return np.stack([one.pixels for one in drawn]), [one.caption for one in drawn]


class Pretraining(lightning.LightningModule):
    """SigLIP's sigmoid loss (Zhai et al. 2023, arXiv 2303.15343): each image-caption pair is a yes-no question."""

    def __init__(self, model: torch.nn.Module, learning_rate: float, n_steps: int) -> None:
        super().__init__()
        self.model, self.learning_rate, self.n_steps = model, learning_rate, n_steps

    def logits(self, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        images = pixels.float() / 127.5 - 1
        output = self.model(pixel_values=images, input_ids=tokens)
        logits: torch.Tensor = output.logits_per_image
        return logits

    def training_step(self, batch: list[torch.Tensor], step: int) -> torch.Tensor:
        pixels, tokens = batch
        for dims in ([2], [3]):  # flips; captions do not mention left and right
            flip = torch.rand(len(pixels)) < 0.5
            pixels[flip] = pixels[flip].flip(*(dim for dim in dims))
        logits = self.logits(pixels, tokens)
        # Equal captions are not negatives of each other: with short captions there are many in a batch.
        same = (tokens[:, None] == tokens[None]).all(dim=2)
        sign = 2 * same.float() - 1
        loss = -logsigmoid(sign * logits).sum() / len(logits)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], step: int) -> None:
        pixels, tokens = batch
        logits = self.logits(pixels, tokens)
        best = logits.argmax(dim=1)
        right = (tokens[best] == tokens).all(dim=1).float().mean()
        self.log("caption_recall_at_1", right, prog_bar=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, self.n_steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=1_600, help="cases for each of the eight seeds")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    lightning.seed_everything(0)
    start = time.monotonic()

    recipes = [Recipe(arguments.cases, CONDITIONS, label_noise=0.0, seed=seed) for seed in SEEDS]
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(draw, recipes))
    pixels = torch.from_numpy(np.concatenate([part[0] for part in parts])).permute(0, 3, 1, 2).contiguous()
    captions = [caption for part in parts for caption in part[1]]
    model = random_siglip(captions, arguments.out)
    model.set_attn_implementation("eager")  # with bfloat16 on a CPU 1.7 times as fast as sdpa at 64 tokens
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.out)
    tokens = tokenizer(
        captions, padding="max_length", max_length=CAPTION_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    held_out = len(parts[-1][0]) // 4
    data = torch.utils.data.TensorDataset(pixels, tokens)
    train = torch.utils.data.Subset(data, range(len(data) - held_out))
    test = torch.utils.data.Subset(data, range(len(data) - held_out, len(data)))
    batches = torch.utils.data.DataLoader(train, arguments.batch_size, shuffle=True, drop_last=True)
    task = Pretraining(model, arguments.learning_rate, len(batches) * arguments.epochs)
    trainer = lightning.Trainer(
        max_epochs=arguments.epochs,
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, batches, torch.utils.data.DataLoader(test, 256, drop_last=True))
    recall = float(trainer.callback_metrics["caption_recall_at_1"])
    model.half().save_pretrained(arguments.out)
    facts = {
        "images": len(train),
        "epochs": arguments.epochs,
        "held_out_images": held_out,
        "caption_recall_at_1_of_256": round(recall, 4),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "weights": sum(weight.numel() for weight in model.parameters()),
    }
    (arguments.out / "pretraining.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
