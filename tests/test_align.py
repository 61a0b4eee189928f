"""Alignment: recovers what the hand did, leaves alone what it should, never makes it worse."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from hdrcli.align import align_bracket
from hdrcli.align.models import apply, lattice
from hdrcli.color import srgb_encode
from hdrcli.frames import Bracket, Frame

SIZE = (320, 440)
PAD = 100  # pixels of scene around the picture


def scene(seed=0, size=SIZE):
    """Radiance with detail at every scale, (H + 2 PAD, W + 2 PAD, 3), around 0.06."""
    rng = np.random.default_rng(seed)
    height, width = size[0] + 2 * PAD, size[1] + 2 * PAD
    log = np.zeros((height, width, 3), np.float32)
    for step in (2, 4, 8, 16, 32, 64):
        coarse = rng.normal(size=(height // step + 2, width // step + 2, 3)).astype(np.float32)
        log += 0.12 * step**0.5 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return 0.06 * np.exp(log)


def hand(dx=0.0, dy=0.0, degrees=0.0, tilt=(0.0, 0.0), size=SIZE):
    """The homography of a hand's movement about the picture's middle."""
    middle = np.array([[1, 0, -size[1] / 2], [0, 1, -size[0] / 2], [0, 0, 1]])
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    moved = np.array([[c, -s, dx], [s, c, dy], [tilt[0] / size[1], tilt[1] / size[1], 1]])
    matrix = np.linalg.inv(middle) @ moved @ middle
    return matrix / matrix[2, 2]


def shoot(radiance, ev=0.0, moved=None, seed=0, size=SIZE, name=None):
    """Photograph the scene: warp, expose, photon and read noise, clip, sRGB, 8 bits."""
    to_scene = np.array([[1, 0, PAD], [0, 1, PAD], [0, 0, 1.0]])
    inverse = np.linalg.inv(np.eye(3) if moved is None else moved)
    seen = cv2.warpPerspective(
        radiance, to_scene @ inverse, size[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    light = np.maximum(seen, 0) * 2.0**ev
    noise = np.random.default_rng(seed).normal(size=light.shape)
    light = light + noise * np.sqrt(light / 8000 + (3 / 8000) ** 2)
    codes = np.rint(srgb_encode(np.clip(light, 0, 1)) * 255).astype(np.uint8)
    return Frame(codes, exposure=2.0**ev, name=name or f"{ev:+.1f}")


def error(frame, moved, size=SIZE):
    """How far the warp found is from the true one, mean over the picture, in pixels."""
    at = lattice(size)
    found = at if frame.warp is None else apply(frame.warp, at)
    return float(np.linalg.norm(found - apply(moved, at), axis=1).mean())


MOVES = {
    "shift": hand(41.3, -27.6),
    "large shift": hand(-58.0, 44.5),
    "rotation": hand(3.2, 5.1, degrees=2.0),
    "everything": hand(-12.4, 20.7, degrees=-1.4, tilt=(0.015, -0.02)),
    "half a pixel": hand(0.5, -0.4),
}


@pytest.mark.parametrize("ev", [-4, -2, 3])
@pytest.mark.parametrize("move", MOVES)
def test_what_the_hand_did_is_recovered(move, ev):
    radiance = scene()
    bracket = Bracket.of([shoot(radiance, 0, seed=1), shoot(radiance, ev, MOVES[move], seed=2)])
    bracket = replace(bracket, reference=int(ev < 0))
    aligned, report = align_bracket(bracket, "homography")
    assert error(aligned.frames[1 - bracket.reference], MOVES[move]) < 0.25
    found = report.frames[1 - bracket.reference]
    assert found.residual_after < 0.35
    assert found.residual_before > found.residual_after


def test_a_tripod_is_left_alone():
    radiance = scene()
    frames = [shoot(radiance, ev, seed=i) for i, ev in enumerate((-4, -2, 0, 2))]
    aligned, report = align_bracket(Bracket.of(frames))
    assert [frame.warp for frame in aligned.frames] == [None] * 4
    assert {frame.method for frame in report.frames} == {"still", "reference"}
    assert not report.warnings
