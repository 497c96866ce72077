"""What a street scene is made of: plain values in metres, before any pixel exists.

World: X to the right, Y up from the ground, Z ahead of the camera. Picture: `u` from 0 to 2 across and `v`
from 0 to 1 down, whatever the size in pixels, so that one scene can be painted at any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

(
    ROAD,
    SIDEWALK,
    BUILDING,
    WALL,
    FENCE,
    POLE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    VEGETATION,
    TERRAIN,
    SKY,
    PERSON,
    RIDER,
    CAR,
    TRUCK,
    BUS,
    TRAIN,
    MOTORCYCLE,
    BICYCLE,
) = range(19)
IGNORE = 255

FAR_Z = 400.0
NEAR_Z = 0.8

Colour = tuple[float, float, float]
Point = tuple[float, float]
_Option = TypeVar("_Option")


def generator(seed: int, index: int, stream: int) -> np.random.Generator:
    """The random numbers of one part of one picture; streams of one picture never overlap."""
    key = np.array([seed, index], np.uint64)
    counter = np.array([0, 0, 0, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


class Dice:
    """Choices made from uniform reals alone, the one draw whose values numpy has never changed."""

    def __init__(self, source: np.random.Generator) -> None:
        self._source = source

    def real(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(self._source.random())

    def whole(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int((high - low + 1) * self._source.random())

    def chance(self, probability: float) -> bool:
        return float(self._source.random()) < probability

    def pick(self, options: Sequence[_Option]) -> _Option:
        return options[int(len(options) * self._source.random())]

    def near(self, colour: Colour, amount: float) -> Colour:
        """`colour`, its brightness and each channel moved by up to `amount`."""
        level = self.real(-amount, amount)
        red, green, blue = (min(max(c + level + self.real(-amount, amount) / 3, 0.02), 0.98) for c in colour)
        return red, green, blue


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of `second` in `first`."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Camera:
    """A pinhole over a road that bends: at distance `z` everything is moved `bend * z**2` to the right."""

    focal: float
    centre_u: float
    horizon_v: float
    height: float
    bend: float

    def u(self, x: float, z: float) -> float:
        return self.centre_u + self.focal * (x / z + self.bend * z)

    def v(self, y: float, z: float) -> float:
        return self.horizon_v + self.focal * (self.height - y) / z


@dataclass(frozen=True)
class Style:
    """How a surface is coloured.

    Args:
        colour: its paint, 0 to 1.
        second: the colour of windows, mortar or stripes, by `kind`.
        kind: a key of the painter's table of styles.
        grain: strength of the noise texture.
        scale: noise texels a metre.
        pitch: width of one repeat, in metres.
        shade: light that falls on the surface.
    """

    colour: Colour
    second: Colour = (0.1, 0.1, 0.12)
    kind: str = "flat"
    grain: float = 0.1
    scale: float = 60.0
    pitch: float = 3.0
    shade: float = 1.0


@dataclass(frozen=True)
class Panel:
    """An upright flat shape from `(x, z)` `start` to `end`, from height `low` to `high`.

    Args:
        shape: a key of the painter's table of shapes.
        outline: for `poly`, its corners, both coordinates 0 to 1 within the panel.
        hollow: for `ellipse`, the part of the radius that is a hole.
    """

    start: Point
    end: Point
    low: float
    high: float
    label: int
    style: Style
    shape: str = "rect"
    outline: tuple[Point, ...] = ()
    hollow: float = 0.0

    @property
    def nearest(self) -> float:
        return min(self.start[1], self.end[1])


@dataclass(frozen=True)
class Segment:
    """Ground beside the road up to distance `far`: three strips, split at `inner` and `outer` metres."""

    far: float
    inner: float
    outer: float
    labels: tuple[int, int, int]


@dataclass(frozen=True)
class Shadow:
    """An ellipse of shade on the ground; `keep` is the part of the light left."""

    x: float
    z: float
    half_width: float
    half_length: float
    keep: float


@dataclass(frozen=True)
class Ground:
    """The ground: the road from `left` to `right`, segments on either side, and what is drawn on them."""

    left: float
    right: float
    left_segments: tuple[Segment, ...]
    right_segments: tuple[Segment, ...]
    colours: tuple[Colour, ...]
    grains: tuple[float, ...]
    lines: tuple[tuple[float, bool], ...]
    crossings: tuple[float, ...]
    rails: tuple[float, ...]
    paint: float
    joints: float
    shade_reach: float
    shade_left: bool
    shadows: tuple[Shadow, ...]


@dataclass(frozen=True)
class Light:
    """What the weather, the sun and the sensor do to the whole picture."""

    zenith: Colour
    horizon: Colour
    clouds: float
    tint: Colour
    contrast: float
    haze_z: float
    noise: float
    vignette: float


@dataclass(frozen=True)
class Scene:
    """One picture before it is painted; `panels` run near to far, parts of one thing in painting order."""

    camera: Camera
    ground: Ground
    light: Light
    panels: tuple[Panel, ...] = field(repr=False)
    offset: tuple[float, float]
    bonnet: float
