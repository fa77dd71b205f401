"""Column names of the case table."""

from __future__ import annotations

IMAGE_PATH = "image_path"
IMAGE_ID = "image_id"
CASE_ID = "case_id"
CONDITION = "condition"

WEIGHTS = "weights"  # a differential as JSON text: {"Eczema": 0.7, "Psoriasis": 0.3}
FITZPATRICK = "fitzpatrick"  # 1 to 6
MONK = "monk"  # 1 to 10
SKIN_TONE = "skin_tone"  # a published group of them, such as "I-II"
BODY_SITE = "body_site"
SOURCE = "source"
CAPTION = "caption"
SPLIT = "split"
IMAGE_HASH = "image_hash"  # of the file, twelve hex digits of its SHA-256; written by every check of a table

REQUIRED = (IMAGE_PATH, CASE_ID, CONDITION)
TEXT = (
    IMAGE_PATH, IMAGE_ID, CASE_ID, CONDITION, WEIGHTS, SKIN_TONE, BODY_SITE, SOURCE, CAPTION, SPLIT, IMAGE_HASH,
)  # fmt: skip

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
