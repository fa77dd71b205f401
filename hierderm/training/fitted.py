"""What every method of training returns."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from hierderm.model.network import Network


@dataclass(frozen=True)
class Fitted:
    """A model and how it was chosen.

    `history`: a row for each epoch, or for each setting that was tried, with its validation scores. `chosen`: the row,
    from 0, of the epoch or setting that `network` has. `by`: the score it was chosen by, '' where nothing was chosen.
    """

    network: Network
    history: pd.DataFrame
    chosen: int
    by: str = ""
