"""Column names of the case table, and the glossary of axis names used in every docstring.

Axes: `n_images` rows of a table; `n_cases` distinct cases; `n_queries`, `n_gallery` sides of a search; `n_fine`,
`n_coarse` nodes of the finest and of the top level; `n_levels` levels of the tree; `dim` length of an embedding;
`k` neighbours or clusters.
"""

from __future__ import annotations

IMAGE_PATH = "image_path"
IMAGE_ID = "image_id"
CASE_ID = "case_id"
CONDITION = "condition"

WEIGHTS = "weights"  # a differential as JSON text: {"Eczema": 0.7, "Psoriasis": 0.3}
FITZPATRICK = "fitzpatrick"  # 1 to 6
MONK = "monk"  # 1 to 10
BODY_SITE = "body_site"
SOURCE = "source"
CAPTION = "caption"
SPLIT = "split"

REQUIRED = (IMAGE_PATH, IMAGE_ID, CASE_ID, CONDITION)
OPTIONAL = (WEIGHTS, FITZPATRICK, MONK, BODY_SITE, SOURCE, CAPTION, SPLIT)
TEXT = (IMAGE_PATH, IMAGE_ID, CASE_ID, CONDITION, WEIGHTS, BODY_SITE, SOURCE, CAPTION, SPLIT)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
