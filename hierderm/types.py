"""Arrays and numbers by what they hold, and the glossary of axis names used in every docstring.

Axes: `n_images` rows of a table; `n_cases` distinct cases; `n_queries`, `n_gallery` sides of a search; `n_fine`,
`n_coarse` nodes of the finest and of the top level; `n_levels` levels of the tree; `dim` length of an embedding;
`k` neighbours or clusters.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Interval

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]  # of any precision
Vectors = npt.NDArray[np.float32]  # embeddings and features
Mask = npt.NDArray[np.bool_]

# Of numbers that are read from files: see `hierderm.json_files`.
ROUNDING = 1e-6  # by which a sum of shares may be above 1
Share = Annotated[float, Interval(ge=0, le=1 + ROUNDING)]
Positive = Annotated[float, Gt(0)]
Count = Annotated[int, Ge(0)]
