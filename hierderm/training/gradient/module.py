"""One training step and one validation, for Lightning."""

from __future__ import annotations

import math
from typing import Any, cast

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hierderm.config.methods import Gradient, loss_kind
from hierderm.data.dataset import ImageDataset
from hierderm.data.sampler import make_sampler, part_of
from hierderm.data.table import CaseTable
from hierderm.evaluation.validation import validation_scores
from hierderm.model.network import Network, Outputs
from hierderm.model.tail import Tail
from hierderm.taxonomy.levels import level_weights
from hierderm.training.gradient.freezing import by_depth
from hierderm.training.losses.gathered import Gathered
from hierderm.training.losses.registry import make_classification_loss, make_contrastive_loss
from hierderm.training.ranks import averaged


class TrainingModule(lightning.LightningModule):
    """Contrastive loss at levels of the tree plus classification loss on one network.

    `features`: the backbone's vectors of (each view of train, validation) where the backbone is frozen, an epoch seeing
    one view; without it, images are read and augmented. `tail`: of the backbone, where the features are of its stem.
    """

    def __init__(
        self,
        network: Network,
        settings: Gradient,
        train: CaseTable,
        validation: CaseTable,
        features: tuple[list[Tensor], Tensor] | None = None,
        tail: Tail | None = None,
    ) -> None:
        super().__init__()
        self.tail = tail
        self.network, self.settings, self.train_table, self.validation_table = network, settings, train, validation
        self.from_features = features is not None
        tree, loss = train.taxonomy, settings.loss
        by_tree = loss_kind(loss.contrastive) == "tree"  # such a loss knows the levels and takes fine labels, once
        levels = {"fine": 1.0} if by_tree else loss.contrastive_levels
        self.contrastive_labels = [
            (weight, torch.from_numpy(train.labels(number))) for number, weight in level_weights(tree, levels).items()
        ]
        level = tree.level_number(loss.classification_level)
        self.class_labels, self.validation_labels = (torch.from_numpy(t.labels(level)) for t in (train, validation))
        first = self.contrastive_labels[0][1] if self.contrastive_labels else self.class_labels
        self.group_labels = train.labels(0) if by_tree else first.numpy()  # what the images of a batch's chunk share
        self.contrastive, self.classification = None, None
        if loss.contrastive and self.contrastive_labels:
            own = make_contrastive_loss(loss.contrastive, loss.contrastive_options, tree)
            self.contrastive = Gathered(own) if loss.gather else own
        if loss.classification:
            counts = torch.bincount(self.class_labels, minlength=tree.size(level))
            own = make_classification_loss(
                loss.classification, loss.classification_options, class_counts=counts, dim=network.dim, taxonomy=tree
            )
            self.classification = Gathered(own)
        self.embedded: list[Tensor] = []
        self.losses: dict[str, list[Tensor]] = {}  # of the epoch's batches, by name
        self.sizes: list[int] = []  # of the epoch's batches
        self.views = [FeatureRows(view) for view in features[0]] if features else []
        self.train_data, self.validation_data = (
            (self.views[0], FeatureRows(features[1])) if features else self._image_sets()
        )

    # --- data ----------------------------------------------------------------------------------------------------

    def _image_sets(self) -> tuple[Dataset[Any], Dataset[Any]]:
        settings, preprocessing = self.settings, self.network.backbone.preprocessing
        train = ImageDataset(
            self.train_table.paths,
            preprocessing,
            settings.augmentation,
            seed=settings.seed,
            cache=settings.cache_images,
        )
        return train, ImageDataset(self.validation_table.paths, preprocessing, cache=settings.cache_images)

    def train_dataloader(self) -> DataLoader[Any]:
        """This process's part of the batches of the current epoch, which follow from seed and epoch alone."""
        settings, rank, world_size = self.settings, self.trainer.global_rank, self.trainer.world_size
        if isinstance(self.train_data, ImageDataset):
            self.train_data.epoch = self.current_epoch
        elif self.views:
            self.train_data = self.views[self.current_epoch % len(self.views)]
        if settings.batch_size == 0:
            rows = part_of(np.arange(len(self.train_table)), rank, world_size)
            return self._loader(self.train_data, batch_sampler=[rows.tolist()])
        sampler = make_sampler(
            settings.sampler,
            self.group_labels,
            self.class_labels.numpy(),
            settings.batch_size,
            seed=settings.seed,
            rank=rank,
            world_size=world_size,
        )
        sampler.epoch = self.current_epoch
        return self._loader(self.train_data, batch_sampler=sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        heads_alone = self.from_features and self.tail is None  # which take little memory
        return self._loader(self.validation_data, batch_size=4096 if heads_alone else 256)

    def _loader(self, data: Dataset[Any], **batches: Any) -> DataLoader[Any]:
        """Features come from memory as whole batches, images from worker processes."""
        if isinstance(data, FeatureRows):
            return DataLoader(data, collate_fn=_whole, **batches)
        return DataLoader(data, num_workers=self.settings.workers, **batches)

    # --- steps ---------------------------------------------------------------------------------------------------

    def outputs(self, inputs: Tensor) -> Outputs:
        if not self.from_features:
            return cast(Outputs, self.network(inputs))
        return self.network.heads(self.tail(inputs) if self.tail else inputs)

    def classification_share(self) -> float:
        """The factor of the classification loss in this epoch, in [0, 1].

        Coarse-then-fine: none in the first half of the coarse epochs, then rising in a line to all of it.
        """
        loss, epochs = self.settings.loss, self.settings.epochs
        n_coarse = loss.coarse_fraction * epochs
        if loss.schedule == "joint" or self.contrastive is None or n_coarse == 0:
            return 1.0
        return min(1.0, max(0.0, 2 * self.current_epoch / n_coarse - 1))

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.settings.seed * 1_000_003 + self.current_epoch + 1009 * self.global_rank)  # dropout
        if self.settings.freeze != "full" or self.settings.init == "tree_lda":
            self.network.backbone.eval()  # statistics of batch normalisation stay those that the heads start from

    def training_step(self, batch: list[Tensor], step: int) -> Tensor:
        inputs, position = batch
        outputs, loss = self.outputs(inputs), self.settings.loss
        position = position.cpu()
        losses = []
        if self.contrastive is None:
            losses.append(outputs.projection.sum() * 0.0)  # its weights have a gradient in every epoch
        else:
            levels = [
                weight * self.contrastive(outputs.projection, labels[position].to(self.device))
                for weight, labels in self.contrastive_labels
            ]
            losses.append(torch.stack(levels).sum())
            self._note("contrastive_loss", losses[-1])
        share = self.classification_share()
        if self.classification is not None and share > 0:
            labels = self.class_labels[position].to(self.device)
            source = outputs.embedding if outputs.logits is None else outputs.logits
            classification = self.classification(source, labels)
            losses.append(share * loss.classification_weight * classification)
            self._note("classification_loss", classification)
        total = torch.stack(losses).sum()
        self._note("train_loss", total)
        self.sizes.append(len(inputs))
        return total

    def _note(self, name: str, loss: Tensor) -> None:
        """Keep the loss of a batch for the mean of the epoch: Lightning's log of each would slow down small steps."""
        self.losses.setdefault(name, []).append(loss.detach())

    def _mean_losses(self) -> dict[str, Tensor]:
        """The mean over the images of the epoch that ends."""
        sizes = torch.tensor(self.sizes, dtype=torch.float32)
        share = sizes / sizes.sum()
        means = {name: (torch.stack(own).float().cpu() * share).sum() for name, own in self.losses.items()}
        self.losses.clear()
        self.sizes.clear()
        return means

    def validation_step(self, batch: list[Tensor], step: int) -> None:
        outputs = self.outputs(batch[0])
        self.embedded.append(outputs.embedding.float().cpu())
        if self.classification is not None:
            labels = self.validation_labels[batch[1].cpu()].to(self.device)
            loss = self.classification(outputs.embedding if outputs.logits is None else outputs.logits, labels)
            self.log("validation_classification_loss", loss, on_epoch=True, batch_size=len(labels))

    def on_validation_epoch_end(self) -> None:
        embeddings = torch.cat(self.embedded).numpy()
        self.embedded.clear()
        scores = validation_scores(embeddings, self.validation_table)
        # An epoch before the classification loss has its full weight is not yet the model that was asked for: one
        # off (scores lie in [0, 1]) puts it behind all later ones, so it is chosen only where there are none.
        handicap = 0.0 if self.classification_share() == 1 else 1.0
        found = scores | {"monitor": scores[self.settings.monitor] - handicap}
        numbers = {name: torch.tensor(value, dtype=torch.float32) for name, value in found.items()}
        shared = averaged(self._mean_losses() | numbers)  # so that all processes choose and stop alike
        self.log("monitor", shared.pop("monitor"), logger=False)
        self.log_dict(shared)

    @torch.inference_mode()
    def validation_logits(self) -> Tensor:
        """The logits of the validation images, shape (n_images, n_classes)."""
        self.eval()
        batches = (self.outputs(batch[0].to(self.device)).logits for batch in self.val_dataloader())
        return torch.cat([cast(Tensor, logits).float().cpu() for logits in batches])

    # --- optimiser -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        settings = self.settings
        backbone_ids = {id(p) for p in self.network.backbone.parameters()}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in backbone_ids]
        groups = [{"params": rest, "lr": settings.learning_rate}]
        for factor, weights in by_depth(self.network.backbone, settings.layer_decay):
            groups.append({"params": weights, "lr": factor * settings.backbone_learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        n_steps = int(self.trainer.estimated_stepping_batches)
        n_rising = max(1, round(settings.warmup * n_steps))

        def share(step: int) -> float:
            if step < n_rising:
                return (step + 1) / n_rising
            return 0.5 * (1 + math.cos(math.pi * (step - n_rising) / max(1, n_steps - n_rising)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class FeatureRows(Dataset[Any]):
    """Features with their position, as ImageDataset gives images, but a whole batch at a time."""

    def __init__(self, features: Tensor) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features)

    def __getitems__(self, rows: list[int]) -> list[Tensor]:
        position = torch.tensor(rows)
        return [self.features[position], position]


def _whole(batch: list[Tensor]) -> list[Tensor]:
    """A batch that is one already."""
    return batch
