"""Painted scenes of coloured shapes with known truth: the world that the `mini` weights know.

A scene is painted from signed distances, so its truth is exact: every object's visible mask, its tight box and its class.
The same painter made the training scenes of `mini` (`tools/`), `make demo` and the tests; it needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autodistill_grounded_sam.masks import encode_mask

FloatArray = npt.NDArray[Any]  # float32, or float64 where numpy's scalars widen it

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 40),
    "orange": (244, 134, 22),
    "yellow": (243, 220, 44),
    "green": (36, 158, 66),
    "blue": (34, 84, 206),
    "purple": (138, 54, 178),
    "white": (243, 243, 243),
    "black": (22, 22, 24),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon")

# Pairs that no training image and no training prompt of `mini` ever held. Each colour and each shape is missing once or
# twice, so both words are known from other pairs, and only their composition is new.
UNSEEN_PAIRS: tuple[tuple[str, str], ...] = (
    ("red", "star"), ("red", "moon"), ("orange", "circle"), ("orange", "ring"), ("yellow", "square"), ("yellow", "heart"),
    ("green", "triangle"), ("green", "ring"), ("blue", "cross"), ("purple", "star"), ("white", "heart"), ("black", "circle"),
)  # fmt: skip
ALL_PAIRS: tuple[tuple[str, str], ...] = tuple((c, s) for c in COLOURS for s in SHAPES)
SEEN_PAIRS: tuple[tuple[str, str], ...] = tuple(pair for pair in ALL_PAIRS if pair not in UNSEEN_PAIRS)

TRAINING_BACKGROUNDS: tuple[str, ...] = ("plain", "gradient", "cloud", "stripes", "checker")
ALL_BACKGROUNDS: tuple[str, ...] = (*TRAINING_BACKGROUNDS, "waves")


@dataclass(frozen=True)
class PainterSettings:
    """What a scene may hold. Sizes are fractions of the scene's shorter side."""

    width: int = 256
    height: int = 192
    objects: tuple[int, int] = (1, 6)
    size: tuple[float, float] = (0.16, 0.45)
    pairs: tuple[tuple[str, str], ...] = ALL_PAIRS
    backgrounds: tuple[str, ...] = TRAINING_BACKGROUNDS
    clutter: tuple[int, int] = (0, 4)
    max_hidden: float = 0.4  # an object of which more than this share is covered is taken out: nobody could name it


# Never used in training: another picture size, a background of its own, more objects and more clutter in a scene.
FRESH_SETTINGS = PainterSettings(width=288, height=216, objects=(2, 7), backgrounds=("waves", "cloud", "stripes"), clutter=(1, 5))


@dataclass(frozen=True)
class PaintedObject:
    """One object: its pair, its tight `xyxy` box in pixels and its visible `mask`, bool (height, width)."""

    colour: str
    shape: str
    xyxy: tuple[int, int, int, int]
    mask: npt.NDArray[np.bool_]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """`image_rgb` is uint8 (height, width, 3); `objects` from the lowest to the topmost."""

    image_rgb: npt.NDArray[np.uint8]
    objects: tuple[PaintedObject, ...]


def paint_scene(settings: PainterSettings, seed: int) -> Scene:
    """Paint one scene; the same settings and seed give the same pixels."""
    rng = np.random.default_rng(seed)
    canvas = _background(rng, settings)
    for _ in range(rng.integers(settings.clutter[0], settings.clutter[1] + 1)):
        _paint_clutter(canvas, rng)
    layers: list[tuple[str, str, npt.NDArray[np.bool_]]] = []
    for _ in range(rng.integers(settings.objects[0], settings.objects[1] + 1)):
        placed = _place_object(rng, settings, layers)
        if placed is None:
            continue
        colour, shape, coverage, box, covered_layers = placed
        _blend_object(canvas, rng, colour, coverage, box)
        layers = [*covered_layers, (colour, shape, _full(coverage, box, canvas) >= 0.5)]
    objects = tuple(PaintedObject(c, s, _tight_box(mask), mask) for c, s, mask in layers)
    return Scene(_photograph(canvas, rng), objects)


def paint_dataset(
    folder: Path, count: int, settings: PainterSettings, seed: int, class_names: Sequence[str] | Mapping[str, str]
) -> Path:
    """Paint `count` scenes into `folder/images` as PNG and their truth as `folder/truth.json` (COCO, masks as RLE).

    Only objects whose name is in `class_names` are in the truth, under that name or the one that a mapping gives them; category
    ids are from 1, in order. Returns the json's path.
    """
    import json

    from PIL import Image

    class_of = class_names if isinstance(class_names, Mapping) else dict(zip(class_names, class_names, strict=True))
    classes = list(dict.fromkeys(class_of.values()))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for k in range(count):
        scene = paint_scene(settings, seed + k)
        name = f"scene_{seed + k}.png"
        Image.fromarray(scene.image_rgb).save(folder / "images" / name)
        images.append({"id": k + 1, "file_name": name, "width": settings.width, "height": settings.height})
        for item in scene.objects:
            if item.name in class_of:
                x1, y1, x2, y2 = item.xyxy
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": k + 1, "category_id": classes.index(class_of[item.name]) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1], "area": int(item.mask.sum()), "iscrowd": 0,
                        "segmentation": encode_mask(item.mask),
                    }
                )  # fmt: skip
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(classes)]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8")
    return truth


def _place_object(
    rng: np.random.Generator, settings: PainterSettings, layers: list[tuple[str, str, npt.NDArray[np.bool_]]]
) -> tuple[str, str, FloatArray, tuple[int, int, int, int], list[tuple[str, str, npt.NDArray[np.bool_]]]] | None:
    """Find a place where the new object hides no older one too much; None after several tries."""
    colour, shape = settings.pairs[rng.integers(len(settings.pairs))]
    side = min(settings.width, settings.height)
    for _ in range(8):
        radius = 0.5 * side * rng.uniform(*settings.size)
        centre_x = rng.uniform(0.8 * radius, settings.width - 0.8 * radius)
        centre_y = rng.uniform(0.8 * radius, settings.height - 0.8 * radius)
        coverage, box = _coverage(shape, centre_x, centre_y, radius, rng.uniform(0, 2 * np.pi), rng.uniform(0.88, 1.12), settings)
        top = coverage >= 0.5
        if top.sum() < 0.7 * _area_of(shape, radius):  # too much of it beyond the edge
            continue
        x1, y1, x2, y2 = box
        covered = []
        for old_colour, old_shape, mask in layers:
            visible = mask.copy()
            visible[y1:y2, x1:x2] &= ~top
            covered.append((old_colour, old_shape, visible))
        whole = [mask.sum() for *_, mask in layers]
        if all(mask.sum() >= (1 - settings.max_hidden) * area for (*_, mask), area in zip(covered, whole, strict=True)):
            return colour, shape, coverage, box, covered
    return None


def _area_of(shape: str, radius: float) -> float:
    return _UNIT_AREAS[shape] * radius * radius


def _coverage(
    shape: str, centre_x: float, centre_y: float, radius: float, angle: float, stretch: float, settings: PainterSettings
) -> tuple[FloatArray, tuple[int, int, int, int]]:
    """Antialiased coverage 0..1 of a turned shape inside its pixel box (x1, y1, x2, y2), cut at the scene's edge."""
    reach = radius * 1.15 + 2
    x1, x2 = max(0, int(centre_x - reach)), min(settings.width, int(centre_x + reach) + 1)
    y1, y2 = max(0, int(centre_y - reach)), min(settings.height, int(centre_y + reach) + 1)
    dx = (np.arange(x1, x2, dtype=np.float32) + 0.5 - centre_x)[None, :] / radius
    dy = (np.arange(y1, y2, dtype=np.float32) + 0.5 - centre_y)[:, None] / radius
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = (cos * dx + sin * dy) * np.float32(stretch), (-sin * dx + cos * dy) / np.float32(stretch)
    distance_px = _DISTANCES[shape](x, y) * np.float32(radius)
    return np.clip(0.5 - distance_px, 0, 1).astype(np.float32), (x1, y1, x2, y2)


def _full(coverage: FloatArray, box: tuple[int, int, int, int], canvas: FloatArray) -> FloatArray:
    full = np.zeros(canvas.shape[:2], np.float32)
    full[box[1] : box[3], box[0] : box[2]] = coverage
    return full


def _blend_object(
    canvas: FloatArray, rng: np.random.Generator, colour: str, coverage: FloatArray, box: tuple[int, int, int, int]
) -> None:
    x1, y1, x2, y2 = box
    paint = np.asarray(COLOURS[colour], np.float32) + rng.uniform(-14, 14, 3).astype(np.float32)
    height, width = coverage.shape
    light_angle = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(light_angle) * np.linspace(-1, 1, width)[None, :] + np.sin(light_angle) * np.linspace(-1, 1, height)[:, None]
    shade = 1 + rng.uniform(0, 0.14) * ramp
    if rng.random() < 0.3:  # a faint texture of its own
        shade = shade + rng.uniform(0.02, 0.07) * _value_noise(rng, height, width, int(rng.integers(3, 9)))
    body = paint[None, None, :] * shade[:, :, None].astype(np.float32)
    if rng.random() < 0.4:  # a soft shadow below it
        shift = int(rng.integers(1, 4))
        shadow = np.zeros_like(coverage)
        shadow[shift:, shift:] = coverage[:-shift, :-shift]
        canvas[y1:y2, x1:x2] *= (1 - 0.35 * shadow)[:, :, None]
    alpha = coverage[:, :, None]
    canvas[y1:y2, x1:x2] = canvas[y1:y2, x1:x2] * (1 - alpha) + body * alpha


def _background(rng: np.random.Generator, settings: PainterSettings) -> FloatArray:
    """A muted ground (saturation low, brightness middle), so that the eight colours stand out from it."""
    height, width = settings.height, settings.width
    kind = settings.backgrounds[rng.integers(len(settings.backgrounds))]
    first, second = _muted(rng), _muted(rng)
    yy, xx = np.meshgrid(np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij")
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * xx + np.sin(angle) * yy
    period = rng.uniform(10, 48)
    mix: FloatArray
    if kind == "plain":
        mix = np.zeros((height, width), np.float32)
    elif kind == "gradient":
        mix = (along - along.min()) / (np.ptp(along) + 1e-6)
    elif kind == "cloud":
        mix = 0.5 + 0.5 * _value_noise(rng, height, width, int(rng.integers(3, 14)))
    elif kind == "stripes":
        mix = ((along / period) % 1 > rng.uniform(0.3, 0.7)).astype(np.float32)
    elif kind == "checker":
        across = -np.sin(angle) * xx + np.cos(angle) * yy
        mix = ((np.floor(along / period) + np.floor(across / period)) % 2).astype(np.float32)
    else:  # waves
        across = -np.sin(angle) * xx + np.cos(angle) * yy
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * (along + 0.25 * period * np.sin(2 * np.pi * across / (2.3 * period))) / period)
    ground = first * (1 - mix[:, :, None]) + second * mix[:, :, None]
    return np.asarray((ground + 5 * _value_noise(rng, height, width, 24)[:, :, None]).astype(np.float32))


def _muted(rng: np.random.Generator) -> FloatArray:
    grey = rng.uniform(70, 190)
    return np.asarray((grey + rng.uniform(-22, 22, 3)).astype(np.float32))


def _paint_clutter(canvas: FloatArray, rng: np.random.Generator) -> None:
    """A muted line or blob that belongs to no class: something to be ignored."""
    height, width = canvas.shape[:2]
    x0, y0 = rng.uniform(0, width), rng.uniform(0, height)
    yy, xx = np.meshgrid(np.arange(height, dtype=np.float32) - y0, np.arange(width, dtype=np.float32) - x0, indexing="ij")
    angle = rng.uniform(0, np.pi)
    along, across = np.cos(angle) * xx + np.sin(angle) * yy, -np.sin(angle) * xx + np.cos(angle) * yy
    if rng.random() < 0.5:
        distance = np.maximum(np.abs(across) - rng.uniform(0.8, 2.5), np.abs(along) - rng.uniform(15, 90))
    else:
        half_length, half_width = rng.uniform(5, 26), rng.uniform(3, 14)
        distance = (np.sqrt((along / half_length) ** 2 + (across / half_width) ** 2) - 1) * half_width
    alpha = np.clip(0.5 - distance, 0, 1)[:, :, None].astype(np.float32) * np.float32(rng.uniform(0.5, 1))
    canvas[:] = canvas * (1 - alpha) + _muted(rng) * alpha


def _photograph(canvas: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Exposure, contrast, a colour cast, sometimes a slight blur, and grain."""
    image = (canvas - 128) * rng.uniform(0.85, 1.12) + 128 + rng.uniform(-14, 14)
    image = image * rng.uniform(0.95, 1.05, 3)
    if rng.random() < 0.3:
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        image = 0.5 * image + 0.125 * (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:])
    grain = rng.normal(0, rng.uniform(0.5, 6), image.shape[:2])
    return np.asarray(np.clip(image + grain[:, :, None], 0, 255).round().astype(np.uint8))


def _value_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> FloatArray:
    """Smooth noise in -1..1 with about `cells` bumps along the longer side."""
    step = max(height, width) / cells
    grid = rng.uniform(-1, 1, (int(height / step) + 3, int(width / step) + 3)).astype(np.float32)
    rows, cols = np.arange(height) / step, np.arange(width) / step
    r0, c0 = rows.astype(int), cols.astype(int)
    fr, fc = (rows - r0)[:, None], (cols - c0)[None, :]
    fr, fc = fr * fr * (3 - 2 * fr), fc * fc * (3 - 2 * fc)
    top = grid[r0][:, c0] * (1 - fc) + grid[r0][:, c0 + 1] * fc
    low = grid[r0 + 1][:, c0] * (1 - fc) + grid[r0 + 1][:, c0 + 1] * fc
    return np.asarray((top * (1 - fr) + low * fr).astype(np.float32))


def _tight_box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# Signed distances in units of the shape's outer radius, negative inside. Constructions after the usual ones for 2-D
# shapes (https://iquilezles.org/articles/distfunctions2d): unions are min, cuts are max.


def _box(x: FloatArray, y: FloatArray, half_width: float, half_height: float) -> FloatArray:
    return np.asarray(np.maximum(np.abs(x) - half_width, np.abs(y) - half_height))


def _half_planes(x: FloatArray, y: FloatArray, count: int, inner_radius: float) -> FloatArray:
    angles = np.arange(count) * 2 * np.pi / count + np.pi / 2
    return np.asarray(np.max([np.cos(a) * x + np.sin(a) * y - inner_radius for a in angles], axis=0))


def _star(x: FloatArray, y: FloatArray) -> FloatArray:
    """Five points: fold the plane into one half-point, whose edge is a single line."""
    sector = np.pi / 5
    angle = np.abs((np.arctan2(y, x) + np.pi / 2) % (2 * sector) - sector)
    radius = np.hypot(x, y)
    px, py = radius * np.cos(angle), radius * np.sin(angle)
    tip_x, tip_y = np.cos(sector), np.sin(sector)
    notch = 0.42
    normal_x, normal_y = tip_y, notch - tip_x
    length = np.hypot(normal_x, normal_y)
    return np.asarray(((px - notch) * normal_x + py * normal_y) / length)


def _heart(x: FloatArray, y: FloatArray) -> FloatArray:
    half = 0.55
    turn = np.float32(np.sqrt(0.5))
    u, v = (x + y - 0.12) * turn, (x - y + 0.12) * turn
    lobe = half
    lobes = np.minimum(np.hypot(u, v - lobe), np.hypot(u + lobe, v)) - lobe
    return np.asarray(np.minimum(_box(u, v, half, half), lobes))


_DISTANCES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.88,
    "square": lambda x, y: _box(x, y, 0.74, 0.74),
    "triangle": lambda x, y: _half_planes(x, y, 3, 0.5),
    "star": _star,
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.29), _box(x, y, 0.29, 0.95)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.72) - 0.22,
    "heart": _heart,
    "moon": lambda x, y: np.maximum(np.hypot(x, y) - 0.95, 0.78 - np.hypot(x - 0.48, y)),
}


def _unit_area(shape: str) -> float:
    axis = (np.arange(200, dtype=np.float32) - 99.5) / 80
    return float((_DISTANCES[shape](axis[None, :], axis[:, None]) < 0).mean() * (200 / 80) ** 2)


_UNIT_AREAS: dict[str, float] = {shape: _unit_area(shape) for shape in SHAPES}
