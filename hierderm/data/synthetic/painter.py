"""Drawing one skin-like image: skin, lesions, camera. No labels here, only what can be seen.

The images are a test bed, not a simulation of disease: primary lesions (macule, papule, plaque, vesicle, pustule,
nodule, wheal, purpura, crust) in a configuration (solitary, grouped, scattered, linear, annular, confluent), under
nuisance that a photograph really has: skin tone, body site, hair, light, white balance, distance, blur and noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from hierderm.types import FloatArray, Floats

# The ten swatches of the Monk Skin Tone scale (Monk 2019, published as sRGB).
MONK_TONES = (
    (246, 237, 228), (243, 231, 219), (247, 234, 208), (234, 218, 186), (215, 189, 150),
    (160, 126, 86), (130, 92, 67), (96, 65, 52), (58, 49, 42), (41, 36, 32),
)  # fmt: skip

# Lesion colours multiply the skin's, as pigment and blood do, so that redness is subtler on dark skin.
TINTS = {
    "red": (1.0, 0.60, 0.58),
    "pink": (1.04, 0.78, 0.78),
    "violet": (0.80, 0.55, 0.74),
    "purple": (0.62, 0.34, 0.46),
    "brown": (0.58, 0.44, 0.36),
    "pale": (1.30, 1.32, 1.36),
    "yellow": (1.02, 0.86, 0.52),
}

SITES = ("arm", "leg", "hand", "foot", "torso", "back", "face", "neck")
LIMBS = {"arm": 0.85, "leg": 1.05, "hand": 0.95, "foot": 0.9, "neck": 1.0}  # half width of the visible band


@dataclass(frozen=True)
class Lesions:
    """What the skin shows. Lengths in half image widths, the other numbers in [0, 1] unless stated.

    `primary` is the lesion; `configuration` how several are arranged; `tint` a key of TINTS and `strength` how much
    of it; `radius` > 0; `count` >= 1; `edge` the softness of the border; `scaling` white flecks; `clearing` how
    empty the centre is; `irregularity` of the outline.
    """

    primary: str
    configuration: str
    tint: str
    strength: float
    radius: float
    count: int
    edge: float
    scaling: float
    clearing: float
    irregularity: float


@dataclass(frozen=True)
class Patient:
    """What stays the same in all images of a case: Monk tone 1 to 10, body site, hairiness in [0, 1]."""

    monk: int
    body_site: str
    hair: float


def draw_image(lesions: Lesions, patient: Patient, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One image, shape (size, size, 3), uint8 RGB."""
    x, y = _grid(size)
    skin = _skin(patient, size, rng)
    flesh, height = _paint(skin, lesions, x, y, rng)
    light = rng.uniform(-np.pi, np.pi)
    slope_y, slope_x = np.gradient(height * size / 2)
    flesh = flesh * (1 + 0.35 * (slope_x * np.cos(light) + slope_y * np.sin(light)))[..., None]
    flesh = _on_body(flesh, patient, x, y, rng)
    flesh = _hair(flesh, patient, rng)
    return _photograph(flesh, x, y, light, rng)


def _grid(size: int) -> tuple[Floats, Floats]:
    line = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = np.meshgrid(line, line)
    return x, y


def _clouds(size: int, cells: int, rng: np.random.Generator) -> Floats:
    """Smooth noise of about unit variance with `cells` bumps a side."""
    small = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))


def _skin(patient: Patient, size: int, rng: np.random.Generator) -> Floats:
    tone = np.array(MONK_TONES[patient.monk - 1], dtype=np.float32) / 255
    tone = tone * rng.uniform(0.94, 1.04, 3).astype(np.float32)
    mottling = 0.025 * _clouds(size, 3, rng) + 0.015 * _clouds(size, 9, rng)
    pores = 0.02 * rng.standard_normal((size, size)).astype(np.float32)
    redness = np.array([0.3, -0.5, -0.5], dtype=np.float32) * (0.03 * _clouds(size, 4, rng))[..., None]
    skin: Floats = tone * (1 + (mottling + pores)[..., None] + redness)
    return skin


def _positions(lesions: Lesions, rng: np.random.Generator) -> FloatArray:
    """Centres of the lesions, shape (count, 2)."""
    n = lesions.count
    turn = rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(-0.25, 0.25, 2)
    if lesions.configuration == "solitary":
        return centre + rng.normal(0, 0.35, (n, 2)) * (np.arange(n) > 0)[:, None]
    if lesions.configuration == "grouped":
        return centre + rng.normal(0, 1.6 * lesions.radius + 0.08, (n, 2))
    if lesions.configuration == "linear":
        along = np.linspace(-0.75, 0.75, n) + rng.normal(0, 0.04, n)
        across = 0.15 * np.sin(2 * along + turn) + rng.normal(0, 0.03, n)
        return centre / 2 + _turned(np.stack([along, across], axis=1), turn)
    if lesions.configuration == "annular":
        angle = turn + np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.normal(0, 0.08, n)
        ring = rng.uniform(0.4, 0.6)
        return centre + ring * np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.normal(1, 0.05, (n, 1))
    if lesions.configuration == "confluent":
        return centre + rng.normal(0, 0.3, (n, 2))
    return rng.uniform(-0.85, 0.85, (n, 2))


def _turned(points: FloatArray, angle: float) -> FloatArray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))


def _paint(skin: Floats, lesions: Lesions, x: Floats, y: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Skin with lesions, (size, size, 3), and the height of its surface, (size, size)."""
    size = len(x)
    flesh, height = skin.copy(), np.zeros_like(x)
    tint = 1 + lesions.strength * (np.array(TINTS[lesions.tint], dtype=np.float32) - 1)
    flecks = _clouds(size, max(size // 5, 4), rng)
    for centre_x, centre_y in _positions(lesions, rng):
        radius = lesions.radius * float(np.exp(rng.normal(0, 0.18)))
        reach = 2.2 * radius + 0.05
        columns = slice(*np.searchsorted(x[0], [centre_x - reach, centre_x + reach]))
        rows = slice(*np.searchsorted(y[:, 0], [centre_y - reach, centre_y + reach]))
        if columns.start == columns.stop or rows.start == rows.stop:
            continue
        there = (rows, columns)
        u = _distance(x[there] - centre_x, y[there] - centre_y, radius, lesions.irregularity, rng)
        softness = 0.04 + 0.3 * lesions.edge
        inside = _step((1 - u) / softness)
        body = inside * (1 - lesions.clearing * _step((0.62 - u) / 0.09))
        _LESION_PAINTERS[lesions.primary](flesh[there], height[there], u, body, tint, radius)
        white = body * lesions.scaling * _step((flecks[there] - 0.35) / 0.2)
        flesh[there] += (0.65 * white)[..., None] * (0.55 + 0.4 * skin[there] - flesh[there])
    return flesh, height


def _distance(dx: Floats, dy: Floats, radius: float, irregularity: float, rng: np.random.Generator) -> Floats:
    """Distance from the centre in radii of a wavy outline."""
    angle = np.arctan2(dy, dx)
    outline = np.ones_like(angle)
    for wave in (2, 3, 5):
        outline += irregularity * rng.normal(0, 0.35 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    distance: Floats = np.hypot(dx, dy) / (radius * np.clip(outline, 0.4, 1.8))
    return distance


def _step(t: Floats) -> Floats:
    step: Floats = 1 / (1 + np.exp(-np.clip(4 * t, -30, 30)))
    return step


def _dome(u: Floats) -> Floats:
    dome: Floats = np.sqrt(np.clip(1 - u**2, 0, None))
    return dome


def _tinted(flesh: Floats, amount: Floats, tint: Floats) -> None:
    flesh *= 1 + amount[..., None] * (tint - 1)


def _toward(flesh: Floats, amount: Floats, colour: tuple[float, float, float]) -> None:
    flesh += amount[..., None] * (np.array(colour, dtype=np.float32) - flesh)


def _flat(flesh: Floats, height: Floats, u: Floats, body: Floats, tint: Floats, r: float) -> None:
    _tinted(flesh, body, tint)


def _papule(flesh: Floats, height: Floats, u: Floats, body: Floats, tint: Floats, r: float) -> None:
    _tinted(flesh, body, tint)
    height += 0.6 * r * _dome(u)


def _plaque(flesh: Floats, height: Floats, u: Floats, body: Floats, tint: Floats, r: float) -> None:
    _tinted(flesh, body, tint)
    height += 0.05 * body


def _nodule(flesh: Floats, height: Floats, u: Floats, body: Floats, tint: Floats, r: float) -> None:
    _tinted(flesh, body, tint)
    height += 0.9 * r * _dome(u / 1.1)
    _toward(flesh, 0.35 * _step((0.2 - u) / 0.08), (1.0, 0.97, 0.95))


def _vesicle(flesh: Floats, height: Floats, u: Floats, body: Floats, tint: Floats, r: float) -> None:
    _tinted(flesh, _step((1.7 - u) / 0.4), tint)
    _toward(flesh, 0.45 * body, (0.92, 0.86, 0.76))
    _toward(flesh, 0.6 * _step((0.25 - u) / 0.1), (1.0, 1.0, 1.0))
    height += 0.7 * r * _dome(u)


def _pustule(flesh: Floats, height: Floats, u: Floats, body: Floats, tint: Floats, r: float) -> None:
    _tinted(flesh, _step((1.8 - u) / 0.4), tint)
    _toward(flesh, 0.8 * _step((0.7 - u) / 0.15), (0.93, 0.88, 0.60))
    height += 0.6 * r * _dome(u)


def _wheal(flesh: Floats, height: Floats, u: Floats, body: Floats, tint: Floats, r: float) -> None:
    _tinted(flesh, _step((1.25 - u) / 0.3), tint)
    _toward(flesh, 0.25 * _step((0.6 - u) / 0.3), (0.98, 0.90, 0.88))
    height += 0.04 * body


def _crust(flesh: Floats, height: Floats, u: Floats, body: Floats, tint: Floats, r: float) -> None:
    _tinted(flesh, _step((1.4 - u) / 0.3), np.array(TINTS["red"], dtype=np.float32))
    _toward(flesh, 0.75 * body * _step((0.85 - u) / 0.2), tuple(0.75 * tint * (0.95, 0.75, 0.45)))
    height += 0.08 * body


_LESION_PAINTERS = {
    "macule": _flat,
    "purpura": _flat,
    "papule": _papule,
    "plaque": _plaque,
    "nodule": _nodule,
    "vesicle": _vesicle,
    "pustule": _pustule,
    "wheal": _wheal,
    "crust": _crust,
}


def _on_body(flesh: Floats, patient: Patient, x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Round the limb and put cloth or a wall behind it; fold lines on hands and feet."""
    turn = rng.uniform(0, np.pi)
    across = x * np.cos(turn) + y * np.sin(turn) - rng.uniform(-0.15, 0.15)
    if patient.body_site in ("hand", "foot"):
        for _ in range(3):
            along = x * np.sin(turn) - y * np.cos(turn) - rng.uniform(-0.8, 0.8) + 0.1 * np.sin(3 * across)
            flesh = flesh * (1 - 0.18 * np.exp(-((along / 0.02) ** 2)))[..., None]
    if patient.body_site not in LIMBS:
        return flesh
    half_width = LIMBS[patient.body_site] * rng.uniform(0.9, 1.2)
    rounded = np.sqrt(np.clip(1 - (across / (1.25 * half_width)) ** 2, 0.05, 1))
    behind = rng.uniform(0.05, 0.95, 3).astype(np.float32) * (1 + 0.05 * _clouds(len(x), 6, rng))[..., None]
    visible = _step((half_width - np.abs(across)) / 0.03)[..., None]
    body: Floats = visible * flesh * (0.55 + 0.45 * rounded)[..., None] + (1 - visible) * behind
    return body


def _hair(flesh: Floats, patient: Patient, rng: np.random.Generator) -> Floats:
    n_hairs = int(rng.poisson(18 * patient.hair))
    if not n_hairs:
        return flesh
    size = len(flesh)
    canvas = Image.new("L", (2 * size, 2 * size))
    pen = ImageDraw.Draw(canvas)
    lean = rng.uniform(0, 2 * np.pi)
    for _ in range(n_hairs):
        start, angle = rng.uniform(0, 2 * size, 2), lean + rng.normal(0, 0.3)
        bend, length = rng.normal(0, 0.6), rng.uniform(0.15, 0.45) * 2 * size
        steps = np.linspace(0, 1, 8)
        way = np.stack([np.cos(angle + bend * steps), np.sin(angle + bend * steps)], axis=1)
        points = start + np.cumsum(way, axis=0) * length / 8
        pen.line([tuple(point) for point in points], fill=255, width=1)
    mask = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float32) / 255
    colour = np.array([0.12, 0.09, 0.07], dtype=np.float32) * rng.uniform(0.5, 2.5)
    hairy: Floats = flesh + (0.8 * mask)[..., None] * (colour - flesh)
    return hairy


def _photograph(flesh: Floats, x: Floats, y: Floats, light: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Uneven light, exposure, white balance, blur and sensor noise."""
    falloff = 1 + rng.uniform(0, 0.25) * (x * np.cos(light) + y * np.sin(light)) - rng.uniform(0, 0.15) * (x**2 + y**2)
    balance = rng.uniform(0.9, 1.1, 3).astype(np.float32) * rng.uniform(0.75, 1.12)
    image = flesh * falloff[..., None] * balance
    blur = rng.gamma(1.5, 0.35)
    image = gaussian_filter(image, (blur, blur, 0))
    image = image + rng.normal(0, rng.uniform(0.005, 0.03), image.shape)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
