"""Paints a street scene at a size: a depth buffer, a label map and a picture, in bands of rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ..sizes import Size
from ._streets_scene import (
    FAR_Z,
    IGNORE,
    NEAR_Z,
    ROAD,
    SIDEWALK,
    SKY,
    Camera,
    Colour,
    Ground,
    Light,
    Panel,
    Point,
    Scene,
    Segment,
    generator,
)

_BAND_PX = 1 << 20
_TILE_BITS = 9
_TILE = 1 << _TILE_BITS
_TEXTURE_KEY = 0x5EED

Surface = tuple[np.ndarray, np.ndarray]


@lru_cache(maxsize=2)
def _tile(shortest: int) -> np.ndarray:
    """Seamless smooth noise (512 * 512, float32, about -1 to 1) with waves from `shortest` to 128 texels."""
    total = np.zeros((_TILE, _TILE))
    weight = 0.0
    wave = shortest
    while wave <= 128:
        lattice = generator(_TEXTURE_KEY, wave, 0).random((_TILE // wave, _TILE // wave)) * 2 - 1
        strength = wave**0.25
        total += strength * _stretched(_stretched(lattice, wave).T, wave).T
        weight += strength**2
        wave *= 2
    return np.ascontiguousarray(total / weight**0.5 * 1.4, np.float32).ravel()


def _stretched(lattice: np.ndarray, wave: int) -> np.ndarray:
    """Rows repeated `wave` times and smoothed between, the last row running into the first."""
    part = (np.arange(wave) / wave)[None, :, None]
    part = part * part * (3 - 2 * part)
    between = lattice[:, None, :] * (1 - part) + np.roll(lattice, -1, 0)[:, None, :] * part
    return between.reshape(-1, lattice.shape[1])


def _noise(rows: np.ndarray, columns: np.ndarray, shortest: int = 4) -> np.ndarray:
    """Noise at texel coordinates that broadcast together."""
    down = (rows.astype(np.int32) & (_TILE - 1)) << _TILE_BITS
    return _tile(shortest).take(down | (columns.astype(np.int32) & (_TILE - 1)))


def _rgb(colour: Colour) -> np.ndarray:
    return np.array(colour, np.float32)


class _Band:
    """Rows `first` to `last` of the picture while they are painted."""

    def __init__(self, scene: Scene, size: Size, first: int, last: int) -> None:
        self.scene, self.size, self.first, self.last = scene, size, first, last
        shape = (last - first, size.width)
        self.v = ((np.arange(first, last) + 0.5) / size.height).astype(np.float32)
        self.u = ((np.arange(size.width) + 0.5) * (2.0 / size.width)).astype(np.float32)
        self.image = np.empty((*shape, 3), np.float32)
        self.labels = np.full(shape, SKY, np.uint8)
        self.depth = np.full(shape, FAR_Z, np.float32)

    def rows(self, top_v: float, bottom_v: float) -> slice:
        low, high = (_first_centre(v, self.size.height) - self.first for v in (top_v, bottom_v))
        return slice(min(max(low, 0), len(self.v)), min(max(high, 0), len(self.v)))

    def columns(self, left_u: float, right_u: float) -> slice:
        low, high = (_first_centre(u / 2, self.size.width) for u in (left_u, right_u))
        return slice(min(max(low, 0), len(self.u)), min(max(high, 0), len(self.u)))


def _first_centre(place: float, side: int) -> int:
    """Index of the first pixel whose centre is at or after `place`, 0 to 1 along the side."""
    return -int(-(min(max(place, -2.0), 3.0) * side - 0.5) // 1)


def paint(scene: Scene, size: Size, noise: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The picture (H x W x 3, uint8) and the labels (H x W, uint8) of `scene`.

    Bands keep the memory of a large picture near that of its result; they leave no trace in it.
    """
    image = np.empty((*size, 3), np.uint8)
    labels = np.empty(tuple(size), np.uint8)
    step = max(1, _BAND_PX // size.width)
    for first in range(0, size.height, step):
        band = _Band(scene, size, first, min(first + step, size.height))
        _paint_sky(band)
        _paint_ground(band)
        for panel in scene.panels:
            _paint_panel(band, panel)
        _paint_bonnet(band)
        _finish(band, noise, image[band.first : band.last])
        labels[band.first : band.last] = band.labels
    return image, labels


def _paint_sky(band: _Band) -> None:
    light, camera = band.scene.light, band.scene.camera
    rows = band.rows(-1.0, camera.horizon_v)
    v = band.v[rows, None]
    share = np.clip(v / camera.horizon_v, 0, 1)[:, :, None] ** 2
    sky = _rgb(light.zenith) * (1 - share) + _rgb(light.horizon) * share
    down, across = band.scene.offset
    cloud = _noise(down + v * 420 / (1.15 - v), across + band.u[None, :] * 180, 16)
    cloud = np.clip(cloud * 1.2 + light.clouds - 0.5, 0, 1)[:, :, None]
    band.image[rows] = sky + (np.float32(0.93) - sky) * cloud * np.float32(0.8)


def _paint_ground(band: _Band) -> None:
    ground, camera = band.scene.ground, band.scene.camera
    rows = band.rows(camera.horizon_v, 3.0)
    v = band.v[rows].astype(np.float64)
    if not len(v):
        return
    z = np.minimum(camera.focal * camera.height / np.maximum(v - camera.horizon_v, 1e-6), FAR_Z)
    z = z.astype(np.float32)[:, None]
    x = (band.u[None, :] - camera.centre_u) * (z / camera.focal) - camera.bend * z * z
    labels = np.full(x.shape, ROAD, np.uint8)
    _label_side(labels, ground.left - x, z, ground.left_segments)
    _label_side(labels, x - ground.right, z, ground.right_segments)
    colours = np.array(ground.colours, np.float32).take(labels, axis=0)
    down, across = band.scene.offset
    grain = np.array(ground.grains, np.float32).take(labels) * _noise(down + z * 45, across + x * 45)
    gain = 1 + grain / (1 + z / 40)
    gain *= _ground_marks(ground, labels, x, z)
    colours *= gain[:, :, None]
    band.image[rows] = colours
    band.labels[rows] = labels
    band.depth[rows] = z + np.float32(0.05)


def _label_side(labels: np.ndarray, out: np.ndarray, z: np.ndarray, segments: tuple[Segment, ...]) -> None:
    """Writes the labels beside the road; `out` is the distance from its edge in metres, positive outside."""
    which = np.searchsorted([segment.far for segment in segments[:-1]], z[:, 0])
    table = np.array([(s.inner, s.outer, *s.labels) for s in segments], np.float32)[which]
    inner, outer, *strips = (table[:, k : k + 1] for k in range(5))
    beyond = np.where(out < inner, strips[0], np.where(out < outer, strips[1], strips[2]))
    np.copyto(labels, beyond.astype(np.uint8), where=out > 0)


def _ground_marks(ground: Ground, labels: np.ndarray, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Brightness of paint, kerbs, joints, rails and shade on the ground."""
    gain = np.ones(x.shape, np.float32)
    road = labels == ROAD
    inside = (x > ground.left) & (x < ground.right)
    for place, dashed in ground.lines:
        line = np.abs(x - place) < 0.08
        gain[line & inside & (z % 9 < 4) if dashed else line & inside] = ground.paint
    for near in ground.crossings:
        gain[inside & (z > near) & (z < near + 3) & (x % 1.0 < 0.5)] = ground.paint
    for place in ground.rails:
        gain[np.abs(x - place) < 0.05] = 0.6
    paved = labels == SIDEWALK
    if ground.joints > 0:
        joint = (x % 0.8 < 0.05) | (z % 0.8 < 0.05)
        gain[paved & joint & (z < 25)] = 1 - ground.joints
    kerb = paved & ((np.abs(x - ground.left) < 0.18) | (np.abs(x - ground.right) < 0.18))
    gain[kerb] = 1.25
    gain[road & ((np.abs(x - ground.left) < 0.25) | (np.abs(x - ground.right) < 0.25))] *= 0.85
    edge = ground.shade_reach + 0.6 * _noise(z * 6, z * 0.5, 16)
    shaded = x - ground.left < edge if ground.shade_left else ground.right - x < edge
    gain[shaded] *= 0.62
    for shadow in ground.shadows:
        near, far = (int(np.searchsorted(-z[:, 0], -(shadow.z + k * shadow.half_length))) for k in (1, -1))
        part = slice(near, far)
        across = (x[part] - shadow.x) / shadow.half_width
        along = (z[part] - shadow.z) / shadow.half_length
        gain[part][across * across + along * along < 1] *= shadow.keep
    return gain


def _clipped(panel: Panel) -> tuple[Point, Point, float, float] | None:
    """The ends in front of the camera and how far along the panel, in metres, each of them is."""
    (x0, z0), (x1, z1) = panel.start, panel.end
    length = ((x1 - x0) ** 2 + (z1 - z0) ** 2) ** 0.5
    if max(z0, z1) <= NEAR_Z:
        return None
    first = max(0.0, (NEAR_Z - z0) / (z1 - z0)) if z0 < NEAR_Z else 0.0
    last = min(1.0, (NEAR_Z - z0) / (z1 - z0)) if z1 < NEAR_Z else 1.0
    ends = [(x0 + (x1 - x0) * part, z0 + (z1 - z0) * part) for part in (first, last)]
    return ends[0], ends[1], first * length, last * length


def _paint_panel(band: _Band, panel: Panel) -> None:
    camera = band.scene.camera
    ends = _clipped(panel)
    if ends is None:
        return
    (x0, z0), (x1, z1), s0, s1 = ends
    u0, u1 = camera.u(x0, z0), camera.u(x1, z1)
    if u0 > u1:
        u0, u1, z0, z1, s0, s1 = u1, u0, z1, z0, s1, s0
    columns = band.columns(u0, u1)
    tops, bottoms = ([camera.v(y, z) for z in (z0, z1)] for y in (panel.high, panel.low))
    rows = band.rows(min(tops), max(bottoms))
    if columns.start >= columns.stop or rows.start >= rows.stop:
        return
    part = (band.u[columns].astype(np.float64) - u0) / (u1 - u0)
    inverse = 1 / z0 + (1 / z1 - 1 / z0) * part
    z = (1 / inverse).astype(np.float32)
    s = (s0 + (s1 - s0) * part / z1 / inverse).astype(np.float32)
    y = camera.height - ((band.v[rows] - camera.horizon_v) / camera.focal)[:, None] * z[None, :]
    seen = (y >= panel.low) & (y <= panel.high) & (z[None, :] <= band.depth[rows, columns])
    down, across = np.nonzero(seen)
    if len(down):
        _fill(band, panel, (down + rows.start, across + columns.start), (s[across], y[down, across]), z[across])


def _fill(band: _Band, panel: Panel, where: Surface, surface: Surface, z: np.ndarray) -> None:
    """Colours the pixels `where` at metres `surface` (along, up) of the panel, those within its shape."""
    inside = _SHAPES[panel.shape](panel, *surface, z)
    if inside is not None:
        where = where[0][inside], where[1][inside]
        surface = surface[0][inside], surface[1][inside]
        z = z[inside]
    band.image[where] = _STYLES[panel.style.kind](panel, *surface, z) * np.float32(panel.style.shade)
    band.labels[where] = panel.label
    band.depth[where] = z


def _length(panel: Panel) -> float:
    return float(np.hypot(panel.end[0] - panel.start[0], panel.end[1] - panel.start[1]))


def _unit(panel: Panel, s: np.ndarray, y: np.ndarray) -> Surface:
    return s / _length(panel), (y - panel.low) / (panel.high - panel.low)


def _shape_rect(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    return None


def _shape_ellipse(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    p, q = _unit(panel, s, y)
    radius = (2 * p - 1) ** 2 + (2 * q - 1) ** 2
    return (radius < 1) & (radius >= panel.hollow**2)


def _shape_leaves(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    p, q = _unit(panel, s, y)
    ragged = _noise(y * 30 + panel.start[0] * 97, s * 30 + panel.start[1] * 61)
    return (2 * p - 1) ** 2 + (2 * q - 1) ** 2 < 0.85 + 0.35 * ragged


def _shape_hedge(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    _, q = _unit(panel, s, y)
    return q < 0.88 + 0.12 * _noise(y * 30, s * 30 + panel.start[1] * 61)


def _shape_bars(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Bars and two rails; far away the gaps close, as they do for an eye."""
    _, q = _unit(panel, s, y)
    solid = np.minimum(0.3 + z / 80, 1.0)
    return (s / panel.style.pitch % 1.0 < solid) | (q > 0.9) | (np.abs(q - 0.15) < 0.05)


def _shape_poly(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    p, q = _unit(panel, s, y)
    inside = np.zeros(p.shape, bool)
    for (p0, q0), (p1, q1) in zip(panel.outline, panel.outline[1:] + panel.outline[:1], strict=True):
        if q0 != q1:
            inside ^= ((q0 > q) != (q1 > q)) & (p < p0 + (q - q0) * ((p1 - p0) / (q1 - q0)))
    return inside


def _grained(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    style = panel.style
    noise = _noise(y * style.scale + panel.start[1] * 89, s * style.scale + panel.start[0] * 53)
    return 1 + style.grain * noise / (1 + z / 60)


def _style_flat(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _grained(panel, s, y, z)[:, None] * _rgb(panel.style.colour)


def _style_masonry(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Courses of blocks; the joints fade away with the distance."""
    joint = (y % 0.6 < 0.05) | ((s + 0.5 * (y // 0.6)) % 1.2 < 0.05)
    colour = _style_flat(panel, s, y, z)
    weight = (joint * np.float32(0.8) / (1 + z / 25))[:, None]
    return colour + (_rgb(panel.style.second) - colour) * weight


def _style_facade(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Floors of three metres with a window every `pitch` metres, a cornice and a darker base."""
    pitch = panel.style.pitch
    colour = _style_flat(panel, s, y, z)
    across, up = s / pitch % 1.0, y / 3.0 % 1.0
    window = (across > 0.27) & (across < 0.73) & (up > 0.3) & (up < 0.82)
    window &= (s < _length(panel) // pitch * pitch) & (y < panel.high - 0.8)
    frame = window & ((np.abs(across - 0.5) < 0.02) | (up < 0.34))
    pane = 1 + 0.5 * _noise(y // 3.0 * 37 + panel.start[1] * 11, s // pitch * 41 + panel.start[0] * 7)
    np.copyto(colour, _rgb(panel.style.second) * pane[:, None], where=window[:, None])
    colour[frame] *= 0.75
    colour[(y > panel.high - 0.5) | (y < 0.6)] *= 0.84
    return colour


def _style_coach(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Sheet metal in panels with a waist stripe; a window band where `pitch` is positive."""
    _, q = _unit(panel, s, y)
    colour = _style_flat(panel, s, y, z)
    pitch = abs(panel.style.pitch)
    seam = (s / pitch % 1.0 < 0.04) | (np.abs(q - 0.32) < 0.025) | (q < 0.06)
    colour[seam] *= 0.72
    if panel.style.pitch > 0:
        window = (np.abs(q - 0.66) < 0.17) & (s / pitch % 1.0 > 0.1)
        colour[window] = _rgb(panel.style.second)
    return colour


def _style_leaves(panel: Panel, s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    _, q = _unit(panel, s, y)
    light = _grained(panel, s, y, z) * (0.62 + 0.5 * q)
    return light[:, None] * _rgb(panel.style.colour)


_SHAPES: dict[str, Callable[..., np.ndarray | None]] = {
    "rect": _shape_rect,
    "ellipse": _shape_ellipse,
    "leaves": _shape_leaves,
    "hedge": _shape_hedge,
    "bars": _shape_bars,
    "poly": _shape_poly,
}
_STYLES: dict[str, Callable[..., np.ndarray]] = {
    "flat": _style_flat,
    "masonry": _style_masonry,
    "facade": _style_facade,
    "coach": _style_coach,
    "leaves": _style_leaves,
}


def _paint_bonnet(band: _Band) -> None:
    """The camera car's own bonnet, which no label set counts."""
    height = band.scene.bonnet
    if height <= 0:
        return
    edge = 1 - height * (1 - (band.u - 1) ** 2 / 1.3)
    bonnet = band.v[:, None] > edge[None, :]
    shine = (0.10 + 0.5 * np.clip(band.v[:, None] - edge[None, :], 0, 1))[bonnet]
    band.image[bonnet] = shine[:, None] * _rgb((0.9, 0.95, 1.0))
    band.labels[bonnet] = IGNORE
    band.depth[bonnet] = NEAR_Z


def _finish(band: _Band, noise: np.random.Generator, out: np.ndarray) -> None:
    """Haze, tint, contrast, vignette and sensor noise, then bytes."""
    light: Light = band.scene.light
    camera: Camera = band.scene.camera
    haze = np.where(band.labels == SKY, 0, band.depth / (band.depth + light.haze_z))[:, :, None]
    image = band.image
    image += (_rgb(light.horizon) - image) * haze.astype(np.float32)
    np.clip(image, 0, 1, out=image)
    image += np.float32(light.contrast) * image * (1 - image)
    fall = (band.u[None, :] - camera.centre_u) ** 2 + (2 * band.v[:, None] - 1) ** 2
    image *= (1 - light.vignette * np.minimum(fall, 2.0))[:, :, None] * _rgb(light.tint)
    raw = np.frombuffer(noise.bytes(2 * image.size), np.uint8).reshape(*image.shape, 2)
    grain = raw[..., 0].astype(np.float32) + raw[..., 1] - 255
    image *= 255
    image += grain * np.float32(light.noise / 104)
    np.clip(image + np.float32(0.5), 0, 255, out=image)
    out[...] = image
