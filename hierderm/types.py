"""Arrays by what they hold, and the glossary of axis names used in every docstring.

Axes: `n_images` rows of a table; `n_cases` distinct cases; `n_queries`, `n_gallery` sides of a search; `n_fine`,
`n_coarse` nodes of the finest and of the top level; `n_levels` levels of the tree; `dim` length of an embedding;
`k` neighbours or clusters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]  # of any precision
Vectors = npt.NDArray[np.float32]  # embeddings and features
Mask = npt.NDArray[np.bool_]
