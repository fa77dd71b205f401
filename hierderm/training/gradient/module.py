"""One training step and one validation, for Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from hierderm.config.settings import Config
from hierderm.data.dataset import PictureDataset
from hierderm.data.sampler import make_sampler
from hierderm.data.table import CaseTable
from hierderm.model.network import Network, Outputs
from hierderm.training.losses.registry import loss_kind, make_classification_loss, make_contrastive_loss
from hierderm.types import Vectors

Score = Callable[[Vectors, CaseTable], dict[str, float]]


class TrainingModule(lightning.LightningModule):
    """Contrastive loss at levels of the tree plus classification loss on one network.

    `features`: the backbone's vectors of (each view of train, validation) where the backbone is frozen, an epoch seeing
    one view; without it, pictures are read and augmented. `score` judges validation embeddings: it is given, as this
    folder does not evaluate.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        train: CaseTable,
        validation: CaseTable,
        score: Score,
        features: tuple[list[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.settings, self.train_table, self.validation_table = network, config, train, validation
        self.score, self.from_features = score, features is not None
        tree, loss = train.taxonomy, config.loss
        by_tree = loss_kind(loss.contrastive) == "tree"  # such a loss knows the levels and takes fine labels, once
        levels = {"fine": 1.0} if by_tree else loss.contrastive_levels
        self.contrastive_labels = [
            (weight, torch.from_numpy(train.labels(tree.level_number(level))))
            for level, weight in sorted(levels.items(), key=lambda item: tree.level_number(item[0]))
            if weight > 0
        ]
        self.class_labels = torch.from_numpy(train.labels(network.classified_level))
        first = self.contrastive_labels[0][1] if self.contrastive_labels else self.class_labels
        self.group_labels = train.labels(0) if by_tree else first.numpy()  # what the images of a batch's chunk share
        self.contrastive = (
            make_contrastive_loss(loss.contrastive, loss.contrastive_options, tree)
            if loss.contrastive and self.contrastive_labels
            else None
        )
        self.classification = None
        if loss.classification:
            counts = torch.bincount(self.class_labels, minlength=tree.size(network.classified_level))
            self.classification = make_classification_loss(
                loss.classification, loss.classification_options, class_counts=counts, dim=network.dim, taxonomy=tree
            )
        self.embedded: list[Tensor] = []
        self.views = [_numbered(view) for view in features[0]] if features else []
        self.train_data, self.validation_data = (
            (self.views[0], _numbered(features[1])) if features else self._picture_sets()
        )

    # --- data ----------------------------------------------------------------------------------------------------

    def _picture_sets(self) -> tuple[Dataset[Any], Dataset[Any]]:
        training, preprocessing = self.settings.training, self.network.backbone.preprocessing
        train = PictureDataset(
            self.train_table.paths,
            preprocessing,
            self.settings.augmentation,
            seed=training.seed,
            cache=training.cache_images,
        )
        validation = PictureDataset(self.validation_table.paths, preprocessing, cache=training.cache_images)
        return train, validation

    def train_dataloader(self) -> DataLoader[Any]:
        """The batches of the current epoch: order and augmentation follow from seed and epoch alone."""
        training = self.settings.training
        sampler = make_sampler(
            self.settings.sampler,
            self.group_labels,
            self.class_labels.numpy(),
            training.batch_size,
            seed=training.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        sampler.epoch = self.current_epoch
        if isinstance(self.train_data, PictureDataset):
            self.train_data.epoch = self.current_epoch
        elif self.views:
            self.train_data = self.views[self.current_epoch % len(self.views)]
        return DataLoader(self.train_data, batch_sampler=sampler, num_workers=training.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.validation_data, batch_size=256, num_workers=self.settings.training.workers)

    # --- steps ---------------------------------------------------------------------------------------------------

    def outputs(self, inputs: Tensor) -> Outputs:
        return cast(Outputs, self.network.heads(inputs) if self.from_features else self.network(inputs))

    def classification_share(self) -> float:
        """How much of the classification loss counts in this epoch, in [0, 1].

        Coarse-then-fine: none in the first half of the coarse epochs, then rising in a line to all of it.
        """
        loss, epochs = self.settings.loss, self.settings.training.epochs
        n_coarse = loss.coarse_fraction * epochs
        if loss.schedule == "joint" or self.contrastive is None or n_coarse == 0:
            return 1.0
        return min(1.0, max(0.0, 2 * self.current_epoch / n_coarse - 1))

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.settings.training.seed * 1_000_003 + self.current_epoch)  # dropout, for exact resume

    def training_step(self, batch: list[Tensor], step: int) -> Tensor:
        inputs, position = batch
        outputs, loss = self.outputs(inputs), self.settings.loss
        position = position.cpu()
        total = outputs.embedding.sum() * 0.0  # an epoch with no active loss must still have a gradient
        if self.contrastive is not None:
            contrastive = torch.stack(
                [
                    weight * self.contrastive(outputs.projection, labels[position].to(self.device))
                    for weight, labels in self.contrastive_labels
                ]
            ).sum()
            total = total + contrastive
            self.log("contrastive_loss", contrastive.detach(), on_step=False, on_epoch=True, batch_size=len(inputs))
        share = self.classification_share()
        if self.classification is not None and share > 0:
            labels = self.class_labels[position].to(self.device)
            source = outputs.embedding if outputs.logits is None else outputs.logits
            classification = self.classification(source, labels)
            total = total + share * loss.classification_weight * classification
            self.log(
                "classification_loss", classification.detach(), on_step=False, on_epoch=True, batch_size=len(inputs)
            )
        self.log("train_loss", total.detach(), on_step=False, on_epoch=True, batch_size=len(inputs), prog_bar=True)
        return total

    def validation_step(self, batch: list[Tensor], step: int) -> None:
        self.embedded.append(self.outputs(batch[0]).embedding.float().cpu())

    def on_validation_epoch_end(self) -> None:
        embeddings = torch.cat(self.embedded).numpy()
        self.embedded.clear()
        figures = self.score(embeddings, self.validation_table)
        self.log_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in figures.items()})
        # An epoch before the classification loss has its full weight is not yet the model that was asked for: one
        # off (figures lie in [0, 1]) puts it behind all later ones, so it is chosen only where there are none.
        handicap = 0.0 if self.classification_share() == 1 else 1.0
        self.log("monitor", figures[self.settings.training.monitor] - handicap, prog_bar=True, logger=False)

    # --- optimiser -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        training = self.settings.training
        backbone = [p for p in self.network.backbone.parameters() if p.requires_grad]
        of_backbone = {id(p) for p in backbone}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in of_backbone]
        groups = [{"params": rest, "lr": training.learning_rate}]
        if backbone:
            groups.append({"params": backbone, "lr": training.backbone_learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=training.weight_decay)
        n_steps = int(self.trainer.estimated_stepping_batches)
        n_rising = max(1, round(training.warmup * n_steps))

        def share(step: int) -> float:
            if step < n_rising:
                return (step + 1) / n_rising
            return 0.5 * (1 + math.cos(math.pi * (step - n_rising) / max(1, n_steps - n_rising)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _numbered(features: Tensor) -> Dataset[Any]:
    """Features with their position, as PictureDataset gives pictures."""
    return TensorDataset(features, torch.arange(len(features)))
