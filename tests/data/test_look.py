from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hierderm.data.look import LEAST, N_LOOK, look, looks_of


def test_a_chessboard_by_hand() -> None:
    """Squares of one pixel of 64, black and white: all detail is at the finest scale, and there are two colours."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    found = look(Image.fromarray(board.astype(np.uint8)))
    assert found.shape == (N_LOOK,) and found.dtype == np.float32
    np.testing.assert_allclose(found[:3], [0.5, 0, 0], atol=1e-6)
    nothing = np.log(LEAST)
    deviations = [[np.log(0.5 + LEAST), nothing, nothing]] * 2 + [[nothing] * 3] * 3
    np.testing.assert_allclose(found[3:18], np.ravel(deviations), atol=1e-5)
    np.testing.assert_allclose(found[18:], [0, 1, np.log(0.01), np.log(0.5), np.log(3)], atol=1e-5)


def test_a_colour_by_hand() -> None:
    found = look(np.full((1, 1, 3), (255, 102, 0), dtype=np.uint8))
    np.testing.assert_allclose(found[:3], [7 / 15, 0.6, 0.7], atol=1e-6)
    np.testing.assert_allclose(found[3:18], np.log(LEAST), atol=1e-6)
    np.testing.assert_allclose(found[18:], [7 / 15, 7 / 15, np.log(1.01), 0, np.log(2)], atol=1e-5)


def test_detail_is_found_at_its_scale() -> None:
    """Squares of four pixels of 64 vanish in means over squares of eight, and not before."""
    squares = (np.indices((64, 64)) // 4).sum(axis=0) % 2 * 255
    details = look(squares.astype(np.uint8))[6:18].reshape(4, 3)[:, 0]
    assert details.argmax() == 2 and details[2] == pytest.approx(np.log(0.5 + LEAST), abs=1e-5)


def test_size_matters_little() -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).resize(
        (128, 128), Image.Resampling.BICUBIC
    )
    np.testing.assert_allclose(look(small.resize((512, 512), Image.Resampling.BICUBIC)), look(small), atol=0.1)


def test_files_and_images_look_alike(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    found = looks_of([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"])
    np.testing.assert_array_equal(found[0], look(image))
    assert np.isnan(found[1:]).all() and found.shape == (3, N_LOOK)
    assert looks_of([]).shape == (0, N_LOOK)
