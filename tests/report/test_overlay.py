from __future__ import annotations

import numpy as np
from PIL import Image

from hierderm.data.preprocessing import Fit, Preprocessing
from hierderm.report.overlay import overlay, seen_box


def preprocessing(fit: Fit = "squash", fraction: float = 1.0) -> Preprocessing:
    return Preprocessing(32, (0.5,) * 3, (0.5,) * 3, "bicubic", fit, fraction)


def test_what_a_backbone_sees() -> None:
    assert seen_box((200, 100), preprocessing()) == (0, 0, 200, 100)
    assert seen_box((200, 100), preprocessing("crop")) == (50, 0, 150, 100)
    assert seen_box((200, 100), preprocessing("crop", 0.8)) == (60, 10, 140, 90)
    assert seen_box((200, 100), preprocessing("squash", 0.5)) == (50, 25, 150, 75)


def test_alike_places_stay_bright_and_the_rest_turns_dark() -> None:
    white = Image.new("RGB", (200, 100), "white")
    heat = np.array([[0.2, 0.2], [0.2, 0.9]])
    shown = np.asarray(overlay(white, heat, preprocessing("crop"), [], 200))[..., 0]
    assert shown.shape == (100, 200)
    assert shown[95, 145] == 255 and shown[5, 55] == shown[5, 5] == 64  # the last is outside of what is seen
    framed = np.asarray(overlay(white, heat, preprocessing("crop"), [(1, 1)], 200))[..., 0]
    assert framed[50, 120] == 0 or framed[51, 120] == 0  # the frame of the place from (100, 50) to (150, 100)
    assert overlay(white, np.ones((2, 2)), preprocessing(), [(0, 0)], 40).size == (40, 20)
    assert overlay(white, np.ones((2, 2)), preprocessing(), [(0, 0)], 400).size == (400, 200)  # a small image, too
