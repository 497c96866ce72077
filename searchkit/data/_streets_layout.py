"""Lays out a street: which surfaces, buildings, vehicles, people and small things there are, and where.

Every part of a scene has its own stream of random numbers, so that one part never shifts another.
"""

from __future__ import annotations

from dataclasses import replace

from . import _streets_things as things
from ._streets_scene import (
    BUILDING,
    BUS,
    CAR,
    FENCE,
    ROAD,
    SIDEWALK,
    TERRAIN,
    TRAIN,
    TRUCK,
    VEGETATION,
    WALL,
    Camera,
    Colour,
    Dice,
    Ground,
    Light,
    Panel,
    Point,
    Scene,
    Segment,
    Shadow,
    Style,
    generator,
    mixed,
)

NOISE_STREAM = 0
_CAMERA, _LIGHT, _PAINT, _ROAD, _LEFT, _RIGHT, _TRAFFIC, _PEOPLE, _POLES, _BACKDROP = range(1, 11)
_LENGTH = 150.0
_PLASTER: tuple[Colour, ...] = (
    (0.66, 0.58, 0.46),
    (0.56, 0.40, 0.33),
    (0.70, 0.69, 0.66),
    (0.52, 0.50, 0.48),
    (0.62, 0.52, 0.50),
)
_OWN: dict[int, tuple[Colour, float]] = {
    ROAD: ((0.29, 0.29, 0.31), 0.12),
    SIDEWALK: ((0.58, 0.55, 0.53), 0.10),
    TERRAIN: ((0.40, 0.46, 0.22), 0.34),
    WALL: ((0.56, 0.50, 0.45), 0.14),
    FENCE: ((0.36, 0.38, 0.38), 0.10),
}
_GREY: Colour = (0.36, 0.37, 0.38)


class _Builder:
    """One scene while it is laid out; `objects` holds the panels of each thing."""

    def __init__(self, seed: int, index: int, difficulty: float) -> None:
        self.seed, self.index, self.difficulty = seed, index, difficulty
        dice = self.dice(_CAMERA)
        self.camera = Camera(
            focal=dice.real(1.0, 1.45),
            centre_u=dice.real(0.8, 1.2),
            horizon_v=dice.real(0.38, 0.47),
            height=dice.real(1.35, 1.75),
            bend=dice.real(-0.0006, 0.0006),
        )
        self.offset = (dice.real(0, 512), dice.real(0, 512))
        self.bonnet = dice.real(0.04, 0.08) if dice.chance(0.2) else 0.0
        self.objects: list[list[Panel]] = []
        self.shadows: list[Shadow] = []
        dice = self.dice(_PAINT)
        # What surfaces share: the harder the picture, the less their own colour and grain give them away.
        self.overlap = difficulty * dice.real(0.7, 0.95)
        self.common = dice.near((0.46, 0.45, 0.43), 0.08)
        self.leaves = dice.near((0.24, 0.34, 0.14), 0.06)
        self.sun_left = dice.chance(0.5)
        self.sun = dice.real(0.2, 0.4 + 0.2 * difficulty)

    def dice(self, stream: int) -> Dice:
        return Dice(generator(self.seed, self.index, stream))

    def surface(self, dice: Dice, own: Colour, grain: float) -> tuple[Colour, float]:
        """The colour and grain of a surface in this picture."""
        share = self.overlap
        return mixed(dice.near(own, 0.05), self.common, share), grain + (0.15 - grain) * share

    def facing(self, left: bool) -> float:
        """Light on a surface on the left or right of the street; the sun shines from one side."""
        return 1.08 if left != self.sun_left else 1.08 - self.sun

    def add(self, parts: list[Panel], shadow: tuple[float, float, float] | None = None) -> None:
        """A thing, and the ellipse of shade under it: centre distance, half width and half length.

        A thing with a shadow is left out where another already stands.
        """
        if shadow is not None:
            z, half_width, half_length = shadow
            x = (min(p.start[0] for p in parts) + max(p.end[0] for p in parts)) / 2
            for other in self.shadows:
                apart = abs(x - other.x) / (half_width + other.half_width)
                if apart < 0.85 and abs(z - other.z) < half_length + other.half_length:
                    return
            self.shadows.append(Shadow(x, z, half_width, half_length, 0.6))
        self.objects.append(parts)


def lay_out(seed: int, index: int, difficulty: float) -> Scene:
    """The scene of one picture, in metres; the same for the same arguments."""
    build = _Builder(seed, index, difficulty)
    dice = build.dice(_ROAD)
    left = -(5.25 + 3.5 * (1 if dice.chance(0.35) else 0)) - dice.pick((0.0, 2.2))
    right = 1.75 + 3.5 * (1 if dice.chance(0.25) else 0) + dice.pick((0.0, 2.2))
    sides = [_lay_side(build, left, True), _lay_side(build, right, False)]
    _lay_backdrop(build)
    rails = _lay_traffic(build, left, right)
    _lay_people(build, left, right)
    _lay_poles(build, left, right)
    ground = _lay_ground(build, (left, right), sides, rails)
    order = sorted(build.objects, key=lambda parts: min(part.nearest for part in parts))
    panels = tuple(part for parts in order for part in parts)
    return Scene(build.camera, ground, _lay_light(build), panels, build.offset, build.bonnet)


def _lay_light(build: _Builder) -> Light:
    dice, d = build.dice(_LIGHT), build.difficulty
    zenith, horizon = dice.pick(
        (((0.35, 0.52, 0.80), (0.78, 0.84, 0.90)), ((0.62, 0.66, 0.70), (0.82, 0.84, 0.85)),
         ((0.45, 0.50, 0.66), (0.90, 0.78, 0.66)))
    )  # fmt: skip
    exposure = dice.real(0.92 - 0.42 * d, 1.06 + 0.14 * d)
    warm = dice.real(-1, 1) * (0.03 + 0.13 * d)
    tint = (exposure * (1 + warm), exposure, exposure * (1 - warm))
    return Light(
        zenith=zenith,
        horizon=horizon,
        clouds=dice.real(0.1, 0.8),
        tint=tint,
        contrast=dice.real(-0.25, 0.35) * (0.4 + d),
        haze_z=dice.real(1500 - 1250 * d, 2500 - 1200 * d),
        noise=1.0 + dice.real(4, 12) * d,
        vignette=dice.real(0.0, 0.12 + 0.1 * d),
    )


def _lay_ground(
    build: _Builder, edges: tuple[float, float], sides: list[tuple[Segment, ...]], rails: tuple[float, ...]
) -> Ground:
    dice = build.dice(_PAINT + 100)
    left, right = edges
    colours, grains = [build.common] * 19, [0.12] * 19
    for label, (own, grain) in _OWN.items():
        colours[label], grains[label] = build.surface(dice, own, grain)
    middles = [(-1.75, True)] + [(-1.75 - 3.5 * k, True) for k in (1,) if left < -7]
    if right > 5:
        middles.append((1.75, True))
    reach = dice.real(0.2, 0.7) * (right - left) if dice.chance(0.3 + 0.4 * build.difficulty) else -9.0
    return Ground(
        left=left,
        right=right,
        left_segments=sides[0],
        right_segments=sides[1],
        colours=tuple(colours),
        grains=tuple(grains),
        lines=tuple(middles) if dice.chance(0.85) else (),
        crossings=(dice.real(8, 30),) if dice.chance(0.35) else (),
        rails=rails,
        paint=1.9 - 0.6 * build.difficulty * dice.real(),
        joints=0.2 * (1 - build.overlap),
        shade_reach=reach,
        shade_left=build.sun_left,
        shadows=tuple(build.shadows),
    )


def _lay_side(build: _Builder, edge: float, left: bool) -> tuple[Segment, ...]:
    """One side of the street, from the road outwards, segment after segment along it."""
    dice = build.dice(_LEFT if left else _RIGHT)
    out = -1.0 if left else 1.0
    walk = dice.real(2.0, 5.0)
    urban = dice.real(0.1, 0.8)
    segments, z = [], 0.0
    while z < _LENGTH:
        far = z + dice.real(8, 20)
        if z > 20 and dice.chance(0.12):
            far = z + dice.real(6, 9)
            segments.append(Segment(far, 0.5, 1.0, (ROAD, ROAD, ROAD)))
            if dice.chance(0.6):
                _cross_traffic(build, dice, edge + out * dice.real(3, 8), (z + far) / 2)
        elif dice.chance(urban):
            setback = walk if dice.chance(0.55) else walk + dice.real(1.5, 5)
            segments.append(Segment(far, walk, setback + 0.01, (SIDEWALK, TERRAIN, SIDEWALK)))
            _building(build, dice, edge + out * setback, (z, far), left)
            if setback > walk + 1 and dice.chance(0.6):
                _barrier(build, dice, edge + out * (walk + 0.3), (z, far), left)
        else:
            verge = dice.real(0.8, 2.0) if dice.chance(0.35) else 0.0
            strips = (TERRAIN, SIDEWALK, TERRAIN) if verge else (SIDEWALK, TERRAIN, TERRAIN)
            segments.append(Segment(far, verge or walk, verge + walk, strips))
            _open_land(build, dice, edge + out * (verge + walk), (z, far), left)
        z = far
    return tuple(segments)


def _masonry(build: _Builder, dice: Dice, own: Colour, grain: float, shade: float) -> Style:
    colour, grain = build.surface(dice, own, grain)
    joint = mixed(colour, (0.8, 0.78, 0.74) if dice.chance(0.4) else (0.2, 0.2, 0.2), 0.4)
    return Style(colour, joint, "masonry" if dice.chance(0.5) else "flat", grain, 45, shade=shade)


def _building(build: _Builder, dice: Dice, x: float, span: Point, left: bool) -> None:
    """A front along the street and the end that faces the camera."""
    high = 3.0 * dice.whole(2, 6) + dice.real(0.6, 1.6)
    out = -1.0 if left else 1.0
    near, far = span[0] + (dice.real(0.3, 2.5) if dice.chance(0.3) else 0.0), span[1]
    blank = _masonry(build, dice, dice.pick(_PLASTER), 0.08, build.facing(left))
    glass = mixed((0.2, 0.24, 0.29), blank.colour, 0.6 * build.difficulty * dice.real())
    front = blank
    if not dice.chance(0.12 + 0.25 * build.difficulty):
        front = replace(blank, second=glass, kind="facade", pitch=dice.real(1.8, 3.4))
    end = replace(blank, shade=0.82)
    depth = dice.real(8, 14)
    build.add(
        [
            Panel((x, near), (x, far), 0.0, high, BUILDING, front),
            Panel((x, near), (x + out * depth, near), 0.0, high, BUILDING, end),
        ]
    )


def _barrier(build: _Builder, dice: Dice, x: float, span: Point, left: bool) -> None:
    """A wall, a fence or a hedge along the street."""
    kind = dice.pick((WALL, FENCE, VEGETATION))
    shade = build.facing(left)
    if kind == WALL:
        style = _masonry(build, dice, _OWN[WALL][0], _OWN[WALL][1], shade)
        build.add([Panel((x, span[0]), (x, span[1]), 0.0, dice.real(1.4, 3.2), WALL, style)])
    elif kind == FENCE:
        colour, grain = build.surface(dice, *_OWN[FENCE])
        style = Style(colour, grain=grain, pitch=dice.real(0.25, 0.6), shade=shade)
        build.add([Panel((x, span[0]), (x, span[1]), 0.0, dice.real(1.0, 2.0), FENCE, style, "bars")])
    else:
        style = Style(dice.near(build.leaves, 0.05), kind="leaves", grain=0.45, scale=35, shade=shade)
        build.add([Panel((x, span[0]), (x, span[1]), 0.0, dice.real(0.7, 1.8), VEGETATION, style, "hedge")])


def _open_land(build: _Builder, dice: Dice, x: float, span: Point, left: bool) -> None:
    """Grass or bare earth with trees, often behind a wall or a fence."""
    out = -1.0 if left else 1.0
    if dice.chance(0.75):
        _barrier(build, dice, x + out * dice.real(0.1, 0.8), span, left)
    for _ in range(dice.whole(1, 3)):
        z, height = dice.real(*span), dice.real(5, 11)
        build.add(things.tree(dice, x + out * dice.real(2, 12), z + 0.5, build.leaves, height))
    if dice.chance(0.5):
        _building(build, dice, x + out * dice.real(12, 20), span, left)


def _lay_backdrop(build: _Builder) -> None:
    """Far houses and trees that close the view."""
    dice = build.dice(_BACKDROP)
    for k in range(-9, 10):
        x, z = 18.0 * k + dice.real(-6, 6), _LENGTH + dice.real(5, 60)
        if dice.chance(0.4):
            style = _masonry(build, dice, dice.pick(_PLASTER), 0.08, 0.95)
            high = dice.real(6, 22)
            build.add([things.board(x, z, dice.real(14, 30), 0.0, high, BUILDING, replace(style, kind="facade"))])
        style = Style(dice.near(build.leaves, 0.05), kind="leaves", grain=0.5, scale=8)
        wide = dice.real(18, 34)
        build.add([Panel((x - wide, z - 3), (x + wide, z - 3), -6.0, dice.real(4, 12), VEGETATION, style, "leaves")])


def _coach_look(build: _Builder, dice: Dice) -> tuple[Colour, float]:
    """Paint and how clearly windows stand out; both the same for trucks, buses and trains."""
    return dice.near(dice.pick(things.COACH_COLOURS), 0.06), dice.real(1 - 0.6 * build.difficulty, 1)


def _cross_traffic(build: _Builder, dice: Dice, x: float, z: float) -> None:
    label = dice.pick((CAR, CAR, CAR, BUS, TRUCK))
    half_length = 2.2 if label == CAR else things.COACHES[label][2] / 2
    build.add(things.crossing(dice, x, z, label, *_coach_look(build, dice)), (z, half_length, 1.0))


def _lay_traffic(build: _Builder, left: float, right: float) -> tuple[float, ...]:
    """Vehicles in lanes and along the kerbs; returns where rails lie."""
    dice, d = build.dice(_TRAFFIC), build.difficulty
    lanes = [(0.0, True), (-3.5, False)]
    lanes += [(-7.0, False)] if left < -8 else []
    lanes += [(3.5, True)] if right > 5 else []
    driven = [x for x, _ in lanes]
    rails: tuple[float, ...] = ()
    if dice.chance(0.35):
        track = lanes.pop(2)[0] if len(lanes) > 2 and not lanes[2][1] else lanes.pop(1)[0]
        rails = (track - 0.72, track + 0.72)
        z, look, away = dice.real(7, 35), _coach_look(build, dice), dice.chance(0.5)
        for k in range(dice.whole(2, 3)):
            start = z + 14.6 * k
            build.add(things.coach(dice, track, start, TRAIN, away, build.camera, *look), (start + 7, 1.7, 7.5))
    for x, away in lanes:
        z = dice.real(6, 26) if x else dice.real(8, 30)
        while z < 90:
            z += _vehicle(build, dice, x + dice.real(-0.3, 0.3), z, away) + dice.real(3, 42 - 26 * d)
    for x, away in ((left + 1.05, False), (right - 1.05, True)):
        free = all(abs(x - lane) > 1.9 for lane in driven)
        z = dice.real(3, 14)
        while free and z < 70:
            if dice.chance(0.25 + 0.45 * d):
                build.add(things.car(dice, x, z, away, build.camera), (z + 2.2, 1.15, 2.6))
            z += dice.real(5.4, 7.5)
    return rails


def _vehicle(build: _Builder, dice: Dice, x: float, z: float, away: bool) -> float:
    """Puts one vehicle into a lane and returns its length."""
    kind = dice.real()
    if kind < 0.6:
        build.add(things.car(dice, x, z, away, build.camera), (z + 2.2, 1.15, 2.6))
        return 4.5
    if kind < 0.85:
        label = dice.pick((TRUCK, BUS))
        parts = things.coach(dice, x, z, label, away, build.camera, *_coach_look(build, dice))
        length = things.COACHES[label][2]
        build.add(parts, (z + length / 2, 1.6, length / 2 + 0.6))
        return length
    make = things.motorcycle if kind < 0.94 else things.bicycle
    build.add(make(dice, x, z, False, True), (z + 0.5, 0.4, 1.1))
    return 2.0


def _lay_people(build: _Builder, left: float, right: float) -> None:
    dice, d = build.dice(_PEOPLE), build.difficulty
    for _ in range(dice.whole(2, 4 + round(14 * d))):
        z = 5 + 55 * dice.real() ** 1.3
        x = dice.pick((left - dice.real(0.4, 3), right + dice.real(0.4, 3)))
        build.add(things.person(dice, x, z), (z, 0.35, 0.3))
    if dice.chance(0.4):
        z = dice.real(8, 35)
        build.add(things.person(dice, dice.real(left, right), z), (z, 0.35, 0.3))
    for make, chance in ((things.bicycle, 0.75), (things.motorcycle, 0.5)):
        for _ in range(2 + round(2 * d)):
            if not dice.chance(chance):
                continue
            ridden, z = dice.chance(0.5), 5 + 35 * dice.real() ** 1.2
            x = dice.real(left + 0.4, left + 1.6) if dice.chance(0.4) else right - dice.real(0.4, 1.2)
            if not ridden:
                x = dice.pick((left - dice.real(0.4, 1.0), right + dice.real(0.4, 1.0)))
            build.add(make(dice, x, z, dice.chance(0.5), ridden), (z, 0.5, 0.4))


def _lay_poles(build: _Builder, left: float, right: float) -> None:
    """Lamp posts, traffic lights, signs, bare poles and street trees at the kerbs."""
    dice, d = build.dice(_POLES), build.difficulty
    grey = build.surface(dice, _GREY, 0.05)[0]
    for x in (left - 0.5, right + 0.5):
        z, gap, planted = dice.real(6, 14), dice.real(14, 26), dice.chance(0.35)
        while z < 110:
            build.add(things.lamp_post(dice, x, z, grey))
            if planted:
                height = dice.real(4.5, 8)
                build.add(things.tree(dice, x, z + gap / 2, build.leaves, height), (z + gap / 2, 1.8, 1.8))
            z += gap
    for _ in range(dice.whole(2, 4 + round(5 * d))):
        x, z = dice.pick((left - dice.real(0.3, 0.8), right + dice.real(0.3, 0.8))), dice.real(7, 50)
        build.add(things.traffic_sign(dice, x, z, grey))
    for _ in range(dice.whole(0, 2 + round(4 * d))):
        x, z = dice.pick((left - 0.3, right + 0.3)), dice.real(5, 40)
        build.add(things.pole(dice, x, z, dice.real(0.9, 1.2), 0.12, grey))
    if dice.chance(0.65):
        z = dice.real(10, 34)
        for x in (left - 0.4, right + 0.4):
            build.add(things.traffic_light(dice, x, z, grey, dice.chance(0.5)))
