"""Measures against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lazyneg.sweep.measuring import mse, outside, ssim

BLACK = np.zeros((16, 32, 3), np.uint8)
WHITE = np.full_like(BLACK, 255)
EVERYWHERE = outside(BLACK.shape, ())


def test_mse_is_one_from_black_to_white() -> None:
    assert mse(WHITE, BLACK, EVERYWHERE) == 1
    assert mse(WHITE, WHITE, EVERYWHERE) == 0
    half = WHITE.copy()
    half[:, :16] = 0
    assert mse(half, BLACK, EVERYWHERE) == 0.5
    assert mse(half, BLACK, outside(BLACK.shape, [(0.5, 0, 1, 1)])) == 0
    # One channel of three, by 51 of 255.
    red = BLACK.copy()
    red[..., 0] = 51
    assert mse(red, BLACK, EVERYWHERE) == pytest.approx(0.2**2 / 3)


def test_ssim_of_even_pictures_compares_their_brightness() -> None:
    # (2 * 0 * 255 + c) / (0 + 255**2 + c) with c = (0.01 * 255)**2
    c = 2.55**2
    assert ssim(WHITE, BLACK, EVERYWHERE) == pytest.approx(c / (255**2 + c))
    assert ssim(BLACK, BLACK, EVERYWHERE) == 1


def test_ssim_does_not_see_what_is_left_out() -> None:
    noise = np.random.default_rng(0).integers(0, 256, BLACK.shape, np.uint8)
    changed = noise.copy()
    changed[4:8, 8:16] = 255 - changed[4:8, 8:16]
    elsewhere = outside(BLACK.shape, [(0.25, 0.25, 0.5, 0.5)])
    assert ssim(changed, noise, elsewhere) == 1
    assert ssim(changed, noise, EVERYWHERE) < 0.95


def test_pictures_smaller_than_a_window() -> None:
    small = np.zeros((4, 8, 3), np.uint8)
    assert ssim(small, small, outside(small.shape, ())) == 1


def test_regions_are_rounded_outwards_and_add_up() -> None:
    mask = outside((10, 10), [(0.11, 0.2, 0.29, 0.31), (0.9, 0.9, 1, 1)])
    left_out = {(int(y), int(x)) for y, x in np.argwhere(~mask)}
    assert left_out == {(2, 1), (2, 2), (3, 1), (3, 2), (9, 9)}
