"""Draw synthetic pictures of cats and dogs: for a first run, for tests, and with known truth.

Every picture is a function of (seed, index) alone. A knob, 0 for a cat and 1 for a dog, morphs
ears, muzzle, nose, eyes, whiskers and head from one to the other. In between, the label is sampled
with `probability_of_dog(knob)`, so the true probability of every picture is known and can be
compared with a model's confidence.

Rabbits make a third class; they are not on the knob.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("cat", "dog", "rabbit")

Colour = tuple[int, int, int]
Points = npt.NDArray[np.float64]

_FURS: tuple[Colour, ...] = (
    (38, 34, 33), (92, 88, 88), (150, 146, 142), (236, 232, 224), (98, 64, 40),
    (148, 98, 56), (206, 134, 62), (222, 186, 134), (188, 158, 118), (64, 48, 42),
)  # fmt: skip
_EYES: tuple[Colour, ...] = ((126, 178, 70), (214, 178, 52), (92, 160, 186), (170, 190, 80))
_BROWN: Colour = (74, 46, 28)
_CIRCLE = np.linspace(0, 2 * math.pi, 28, endpoint=False)
_UNIT = np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], axis=1)
_CURVE = np.linspace(0, 1, 9)[:, None]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One synthetic picture with its ground truth.

    Attributes:
        image: RGB, `size` × `size` pixels.
        label: 0 for cat, 1 for dog, 2 for rabbit.
        knob: 0 (all cat) to 1 (all dog); NaN for a rabbit.
        probability: that the label is dog, given the knob, 0…1; 0 for a rabbit.
    """

    image: Image.Image
    label: int
    knob: float
    probability: float


def probability_of_dog(knob: float) -> float:
    """The true probability of "dog" at a value of the knob: 0 at 0, ½ at ½, 1 at 1.

    >>> [probability_of_dog(knob) for knob in (0, 0.5, 1)]
    [0, 0.5, 1]
    """
    return knob * knob * (3 - 2 * knob)


def label_of(index: int, seed: int = 0, morph: float = 0.0, animals: int = 2) -> tuple[int, float]:
    """The label (0 cat, 1 dog, 2 rabbit) and the knob of a picture, without drawing it.

    Args:
        index: of the picture in its series, from 0.
        seed: of the series of pictures, which has no end.
        morph: the fraction of pictures, 0…1, whose knob is uniform between cat and dog; the others
            are all cat or all dog.
        animals: number of classes, 2 or 3; with 3, morph is ignored.
    """
    if animals == 3:
        label = index % 3
        return label, (0.0, 1.0, math.nan)[label]
    if morph <= 0:  # alternating; a random number each would be slow for millions
        return index % 2, float(index % 2)
    uniform = np.random.default_rng((seed, index, 1)).random(3)
    knob = float(uniform[1]) if uniform[0] < morph else float(index % 2)
    return int(uniform[2] < probability_of_dog(knob)), knob


def draw(
    index: int, seed: int = 0, *, size: int = 64, morph: float = 0.0, animals: int = 2
) -> Drawing:
    """Draw picture number `index` of the series `seed`, `size` pixels square.

    Label and picture use separate random streams: only the knob links them.

    >>> draw(1, size=32).image.size, draw(1).label
    ((32, 32), 1)
    """
    label, knob = label_of(index, seed, morph, animals)
    image = picture(knob, np.random.default_rng((seed, index)), size)
    return Drawing(image, label, knob, 0.0 if math.isnan(knob) else probability_of_dog(knob))


def picture(knob: float, generator: np.random.Generator, size: int = 64) -> Image.Image:
    """Draw one animal.

    Args:
        knob: 0 (cat) to 1 (dog), or NaN for a rabbit.
        generator: gives everything else: pose, colours, background, light.
        size: side length of the picture, in pixels.
    """
    random = _Uniform(generator)
    canvas = Image.new("RGB", (2 * size, 2 * size))
    pen = ImageDraw.Draw(canvas)
    _background(pen, random, 2 * size)
    if math.isnan(knob):
        _Rabbit(pen, random, 0.0, 2 * size).draw()
    else:
        _Animal(pen, random, knob, 2 * size).draw()
    if random.chance(0.25):
        _in_front(pen, random, 2 * size)
    image = canvas.reduce(2)
    blur = random(-0.5, 0.9) * size / 64
    if blur > 0.1:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    return _light(image, random, generator)


class _Uniform:
    """Uniform random numbers, generated at once: one call is cheap, a hundred are not."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._numbers: Iterator[float] = iter(generator.random(160).tolist())

    def __call__(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._numbers)

    def chance(self, probability: float) -> bool:
        return next(self._numbers) < probability

    def choice(self, colours: Sequence[Colour]) -> Colour:
        return colours[int(next(self._numbers) * len(colours))]

    def colour(self) -> Colour:
        red, green, blue = (int(self(20, 235)) for _ in range(3))
        grey = (red + green + blue) // 3
        return _mix((red, green, blue), (grey, grey, grey), 0.45)

    def near(self, colour: Colour, by: float) -> Colour:
        shift = self(-by, by)
        red, green, blue = (
            max(0, min(255, int(value + shift + self(-by, by) / 3))) for value in colour
        )
        return red, green, blue


class _Animal:
    """One animal, seen from the front: the head's half-width is the unit, y points down."""

    def __init__(self, pen: ImageDraw.ImageDraw, random: _Uniform, knob: float, size: int) -> None:
        self.pen, self.random, self.knob = pen, random, knob
        self.scale = size * random(0.2, 0.34)
        angle = math.radians(random(-28, 28))
        self.turn = random(-0.22, 0.22)
        flip = -1 if random.chance(0.5) else 1
        cos, sin = math.cos(angle), math.sin(angle)
        self.matrix = self.scale * np.array([[cos * flip, sin * flip], [-sin, cos]])
        self.centre = np.array([size * random(0.33, 0.67), size * random(0.35, 0.61)])
        self.width = self.between(1.0, 0.86) * random(0.94, 1.06)
        self.height = self.between(0.84, 1.02) * random(0.94, 1.06)
        self.fur = random.near(random.choice(_FURS), 22)
        self.second = random.near(random.choice(_FURS), 22)
        self.dark = _mix(self.fur, (12, 10, 10), 0.45)
        self.light = _mix(self.fur, (245, 240, 232), 0.5)
        self.shaggy = random(0.0, 0.06)

    def between(self, cat: float, dog: float) -> float:
        return cat + (dog - cat) * self.knob

    def draw(self) -> None:
        self.body()
        behind = self.knob < 0.5  # a cat's ears rise behind its brow, a dog's hang before its cheek
        if behind:
            self.ears()
        self.head()
        if not behind:
            self.ears()
        self.muzzle()
        self.eyes()

    def body(self) -> None:
        random = self.random
        lean, breadth = random(-0.7, 0.7), random(0.85, 1.25)
        length = random(1.2, 1.9)
        self.tail(lean, breadth, length)
        self.blob(lean, 0.5 + length, breadth, length, self.fur, self.shaggy)
        chest = random.chance(0.45)
        paws = random(0.18, 0.3)
        if chest:
            self.blob(lean * 0.7, 0.7 + length * 0.7, breadth * 0.5, length * 0.55, self.second)
        for x in (-0.4, 0.4):
            foot = 0.35 + 2 * length
            self.line([(lean + x, 0.9 + length), (lean + x * 1.1, foot)], 2 * paws, self.dark)
            self.line([(lean + x, 0.9 + length), (lean + x * 1.1, foot)], 1.7 * paws, self.fur)
            self.blob(lean + x * 1.15, foot, paws * 1.15, paws * 0.75, self.light)

    def tail(self, lean: float, breadth: float, length: float) -> None:
        reach, lift = self.between(1.5, 0.9), self.random(-0.4, 1.2)
        start = np.array([lean + breadth * 0.7, 0.2 + 1.6 * length])
        bend = start + (reach * 0.9, 0.1)
        tip = start + (reach, -0.6 - lift)
        curve = _bezier(start, bend, tip)
        self.line(curve, self.between(0.2, 0.34), _mix(self.fur, self.dark, 0.4))

    def head(self) -> None:
        random = self.random
        outline = _UNIT * (self.width, self.height)
        outline[:, 0] *= 1 + self.between(0.1, -0.08) * np.maximum(_UNIT[:, 1], 0)  # cheeks, or jaw
        wobble = 1 + self.shaggy * np.sin(_CIRCLE * 13 + random(0, 6))
        self.polygon(outline * wobble[:, None], self.fur)
        if random.chance(self.between(0.5, 0.12)):  # a tabby's brow
            for x in (-0.28, 0.0, 0.28):
                self.line([(x, -0.8 * self.height), (x * 0.7, -0.42)], 0.09, self.dark)
        if random.chance(0.4):  # a patch around one eye
            self.blob(-0.4, -0.12, 0.36, 0.36, self.second)
        if random.chance(0.35):  # a blaze down the brow
            self.polygon(
                np.array([(-0.12, -0.75), (0.12, -0.75), (0.2, 0.5), (-0.2, 0.5)]), self.light
            )

    def ears(self) -> None:
        random = self.random
        size, spread = random(0.88, 1.16), random(-0.1, 0.1)
        colour = _mix(
            self.fur, self.second if random.chance(0.3) else self.dark, random(0.15, 0.75)
        )
        pink = _mix((214, 150, 146), self.dark, random(0.1, 0.5))
        droop = random(0.8, 1.15)
        for side in (-1, 1):
            inner = np.array([self.between(0.18, 0.42), self.between(-0.72, -0.86)])
            outer = np.array([self.between(0.93, 0.9), self.between(-0.3, -0.42)])
            tip = np.array(
                [
                    self.between(0.84 + spread, 1.2 + spread),
                    self.between(-1.52 * size, 0.58 * size * droop),
                ]
            )
            # A cat's ear is a triangle; a dog's is a flap: its sides bulge and its end is round.
            bulge = self.between(0.05, 0.42)
            up = _bezier(inner, (inner + tip) / 2 + (bulge, -bulge * 0.9), tip + (bulge * 0.35, 0))
            down = _bezier(
                tip - (bulge * 0.5, -bulge * 0.2), (outer + tip) / 2 - (bulge * 0.45, 0), outer
            )
            ear = np.concatenate([up, down])
            self.polygon(ear * (side, 1), colour)
            if self.knob < 0.75:
                shrink = 0.58 * (1 - self.knob)
                middle = (inner + outer + tip) / 3
                self.polygon((middle + (ear - middle) * shrink) * (side, 1), pink)

    def muzzle(self) -> None:
        random = self.random
        y = self.between(0.38, 0.52)
        shade = _mix(self.fur, random.choice(((240, 234, 224), self.second, self.dark)), 0.55)
        out = self.turn * self.between(0.5, 1.4)  # a long muzzle swings further to the side
        wide, high = self.between(0.25, 0.42), self.between(0.2, 0.5)
        gap = self.between(0.2, 0.1)
        tongue = max(0.0, 2 * self.knob - 1) * random(-0.35, 0.45)
        if tongue > 0.06:
            self.blob(out, y + high * 0.95, 0.17, 0.12 + tongue, (206, 92, 104))
        for x in (-gap, gap):
            self.blob(x + out, y, wide, high, shade)
        nose = self.between(0.13, 0.25) * random(0.9, 1.15)
        top = y - self.between(0.12, 0.3)
        black = random.chance(self.between(0.4, 0.9))
        colour = (26, 22, 24) if black else (186, 112, 112)
        round_nose = _UNIT * (nose, nose * 0.72)
        flat_nose = round_nose.copy()
        flat_nose[:, 0] *= np.clip(0.75 - _UNIT[:, 1] * 0.7, 0, 1.3)  # a cat's is a triangle
        shape = flat_nose + (round_nose - flat_nose) * self.knob
        self.polygon(shape + (out, top), colour)
        mouth = y + high * self.between(0.55, 0.62)
        ink = (40, 28, 28)
        self.line([(out, top + nose * 0.5), (out, mouth)], 0.05, ink)
        smile = self.between(0.2, 0.34)
        self.line([(out - smile, mouth + 0.1), (out, mouth), (out + smile, mouth + 0.1)], 0.05, ink)
        length = self.between(1.0, -0.1)
        if length > 0.05:
            pale = (236, 236, 232) if sum(self.fur) < 420 else (70, 64, 62)
            for side in (-1, 1):
                for rise in (-0.22, 0.0, 0.2):
                    start = (out + side * 0.3, y + 0.02 + rise * 0.3)
                    end = (out + side * (0.3 + length), y + rise * 1.3)
                    self.line([start, end], 0.035, pale)

    def eyes(self) -> None:
        random = self.random
        brown = random(-0.6, 0.8) + self.between(0.0, 0.9)  # a husky's eyes are blue
        iris = _mix(random.choice(_EYES), _BROWN, min(1.0, max(0.0, brown)))
        wide, high = self.between(0.24, 0.165), self.between(0.2, 0.165)
        pupil = self.between(random(0.05, 0.11), 0.11)
        apart = self.between(0.42, 0.37)
        shut = random.chance(0.06)
        for side in (-1, 1):
            x, y = side * apart + self.turn * 0.5, self.between(-0.1, -0.2)
            if shut:
                self.line([(x - wide, y), (x, y + 0.08), (x + wide, y)], 0.07, (26, 20, 20))
                continue
            self.blob(x, y, wide + 0.05, high + 0.05, _mix(self.dark, (10, 8, 8), 0.4))
            self.blob(x, y, wide, high, iris)
            self.blob(x, y, pupil, high * 0.9, (8, 8, 10))
            self.blob(x + 0.05, y - 0.07, 0.045, 0.045, (250, 250, 250))

    def blob(
        self, x: float, y: float, wide: float, high: float, colour: Colour, shaggy: float = 0.0
    ) -> None:
        outline = _UNIT * (wide, high)
        if shaggy:
            outline = outline * (1 + shaggy * np.sin(_CIRCLE * 11))[:, None]
        self.polygon(outline + (x, y), colour)

    def polygon(self, points: Points, colour: Colour) -> None:
        self.pen.polygon(self._to_canvas(points), fill=colour)

    def line(
        self, points: Points | Sequence[tuple[float, float]], wide: float, colour: Colour
    ) -> None:
        mapped = self._to_canvas(np.asarray(points, dtype=np.float64))
        self.pen.line(mapped, fill=colour, width=max(1, round(wide * self.scale)), joint="curve")

    def _to_canvas(self, points: Points) -> list[float]:
        mapped: list[float] = (points @ self.matrix.T + self.centre).ravel().tolist()
        return mapped


class _Rabbit(_Animal):
    """A rabbit: the body of a cat, long ears, eyes at the sides, teeth, and a short tail."""

    def tail(self, lean: float, breadth: float, length: float) -> None:
        radius = 0.26 * self.random(0.8, 1.2)
        self.blob(lean + breadth * 0.95, 0.3 + 1.7 * length, radius, radius, self.light, 0.12)

    def ears(self) -> None:
        random = self.random
        length, wide = random(1.35, 1.8), random(0.2, 0.27)
        pink = _mix((222, 160, 156), self.dark, random(0.0, 0.35))
        lop = random.chance(0.25)  # one ear hangs down
        for side in (-1, 1):
            lean = random(0.02, 0.3)
            root = np.array([0.34 * side, -0.6])
            tip = root + (lean * length * side, -length)
            if lop and side > 0:
                tip = root + (length * 0.85, 0.15)
            along = (tip - root) / 2
            across = np.array([-along[1], along[0]]) / math.hypot(*along)
            for scale, colour in ((1.0, self.fur), (0.6, pink)):
                ear = (
                    root
                    + along
                    + _UNIT[:, :1] * along * (0.9 + 0.1 * scale)
                    + _UNIT[:, 1:] * across * wide * scale
                )
                self.polygon(ear, colour)

    def muzzle(self) -> None:
        random = self.random
        out, y = self.turn * 0.6, 0.42
        for x in (-0.2, 0.2):
            self.blob(x + out, y, 0.29, 0.26, self.light)
        for x in (-0.065, 0.065):
            self.blob(x + out, y + 0.33, 0.06, 0.13, (250, 248, 240))
        nose = _UNIT * (0.12, 0.07) * random(0.9, 1.15)
        self.polygon(nose + (out, y - 0.14), (206, 132, 132))
        self.line([(out, y - 0.1), (out, y + 0.2)], 0.05, (60, 40, 40))

    def eyes(self) -> None:
        random = self.random
        iris = _mix(_BROWN, (120, 60, 50), random(0, 1))
        for side in (-1, 1):
            x, y = side * 0.6 + self.turn * 0.3, -0.18
            self.blob(x, y, 0.19, 0.23, _mix(self.dark, (10, 8, 8), 0.4))
            self.blob(x, y, 0.15, 0.19, iris)
            self.blob(x, y, 0.1, 0.14, (8, 8, 10))
            self.blob(x + 0.04, y - 0.07, 0.045, 0.045, (250, 250, 250))


def _background(pen: ImageDraw.ImageDraw, random: _Uniform, size: int) -> None:
    """A wall, a floor, and a few shapes."""
    wall, floor = random.colour(), random.colour()
    horizon = int(size * random(0.3, 0.95))
    pen.rectangle((0, 0, size, horizon), fill=wall)
    pen.rectangle((0, horizon, size, size), fill=floor)
    for _ in range(4):
        colour = random.near(random.colour(), 20)
        x, y = random(0, size), random(0, size)
        wide, high = random(0.05, 0.4) * size, random(0.05, 0.4) * size
        box = (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
        kind = random(0, 3)
        if kind < 1:
            pen.rectangle(box, fill=colour)
        elif kind < 2:
            pen.ellipse(box, fill=colour)
        else:  # pointed like ears, so that a point alone is no evidence
            pen.polygon(
                (x, y - high / 2, x + wide / 2, y + high / 2, x - wide / 2, y + high / 2), colour
            )


def _in_front(pen: ImageDraw.ImageDraw, random: _Uniform, size: int) -> None:
    """A bar that hides a part of the animal."""
    x, y = random(0, size), random(0, size)
    reach = random(0.5, 1.2) * size
    angle = random(0, math.pi)
    dx, dy = math.cos(angle) * reach, math.sin(angle) * reach
    width = int(size * random(0.02, 0.07))
    pen.line((x - dx, y - dy, x + dx, y + dy), fill=random.colour(), width=width)


def _light(image: Image.Image, random: _Uniform, generator: np.random.Generator) -> Image.Image:
    """A gradient of light, the camera's exposure, and its noise."""
    size = image.width
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    slope_x, slope_y = random(-0.5, 0.5), random(-0.5, 0.5)
    gain = random(0.7, 1.15) + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    offset = random(-18, 26)
    tint = np.array([random(0.9, 1.1), 1.0, random(0.9, 1.1)], dtype=np.float32)
    pixels = np.asarray(image, dtype=np.float32) * (gain[:, :, None] * tint)
    pixels += offset
    noise = random(0, 14)
    pixels += np.float32(noise) * generator.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _bezier(start: Points, bend: Points, end: Points) -> Points:
    curve: Points = (1 - _CURVE) ** 2 * start + 2 * _CURVE * (1 - _CURVE) * bend + _CURVE**2 * end
    return curve


def _mix(one: Colour, other: Colour, fraction: float) -> Colour:
    red, green, blue = (int(a + (b - a) * fraction) for a, b in zip(one, other, strict=True))
    return red, green, blue
