"""The things that stand in a street, each as a list of panels: vehicles, people, cycles, trees, poles.

Parts of one thing follow each other in painting order, and stand at the same distance or a little nearer.
"""

from __future__ import annotations

from ._streets_scene import (
    BICYCLE,
    BUS,
    CAR,
    MOTORCYCLE,
    PERSON,
    POLE,
    RIDER,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    TRAIN,
    TRUCK,
    VEGETATION,
    Camera,
    Colour,
    Dice,
    Panel,
    Point,
    Style,
    mixed,
)

GLASS: Colour = (0.13, 0.16, 0.19)
RUBBER: Colour = (0.07, 0.07, 0.08)
CAR_COLOURS: tuple[Colour, ...] = (
    (0.75, 0.75, 0.77),
    (0.12, 0.12, 0.14),
    (0.45, 0.46, 0.48),
    (0.55, 0.10, 0.10),
    (0.12, 0.20, 0.42),
    (0.85, 0.85, 0.83),
    (0.20, 0.30, 0.25),
)
COACH_COLOURS: tuple[Colour, ...] = (
    (0.72, 0.66, 0.30),
    (0.70, 0.70, 0.70),
    (0.55, 0.16, 0.15),
    (0.22, 0.36, 0.48),
)
CLOTHES: tuple[Colour, ...] = (
    (0.15, 0.16, 0.20),
    (0.45, 0.12, 0.14),
    (0.18, 0.26, 0.42),
    (0.60, 0.58, 0.52),
    (0.25, 0.35, 0.22),
    (0.70, 0.45, 0.15),
)
SKIN: tuple[Colour, ...] = ((0.80, 0.62, 0.52), (0.55, 0.38, 0.28), (0.35, 0.24, 0.18))
COACHES = {TRUCK: (2.5, 3.6, 9.0), BUS: (2.6, 3.2, 12.0), TRAIN: (2.7, 3.7, 14.0)}


def board(x: float, z: float, width: float, low: float, high: float, label: int, style: Style) -> Panel:
    """An upright rectangle that faces the camera, centred at `x`."""
    return Panel((x - width / 2, z), (x + width / 2, z), low, high, label, style)


def ellipse(
    x: float, z: float, width: float, low: float, high: float, label: int, style: Style, hollow: float = 0.0
) -> Panel:
    return Panel((x - width / 2, z), (x + width / 2, z), low, high, label, style, "ellipse", hollow=hollow)


def outline(x: float, z: float, corners: tuple[Point, ...], label: int, style: Style) -> Panel:
    """A polygon that faces the camera; corners in metres, across from `x` and up from the ground."""
    across, up = zip(*corners, strict=True)
    left, right, low, high = min(across), max(across), min(up), max(up)
    unit = tuple(((a - left) / (right - left), (b - low) / (high - low)) for a, b in corners)
    return Panel((x + left, z), (x + right, z), low, high, label, style, "poly", unit)


def stroke(x: float, z: float, start: Point, end: Point, width: float, label: int, style: Style) -> Panel:
    """A thick straight line; places as in `outline`."""
    (x0, y0), (x1, y1) = start, end
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    dx, dy = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
    corners = ((x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy))
    return outline(x, z, corners, label, style)


def person(dice: Dice, x: float, z: float, label: int = PERSON) -> list[Panel]:
    """Someone on foot, 1.5 to 1.9 m tall."""
    h = dice.real(1.5, 1.9)
    coat, trousers = (Style(dice.near(dice.pick(CLOTHES), 0.08), grain=0.15) for _ in range(2))
    skin, hair = Style(dice.pick(SKIN)), Style(dice.near((0.2, 0.15, 0.1), 0.1))
    step = dice.real(0.02, 0.14) * h
    left = ((-step - 0.05 * h, 0), (-step + 0.04 * h, 0), (0.02 * h, 0.5 * h), (-0.09 * h, 0.5 * h))
    right = ((step - 0.04 * h, 0), (step + 0.05 * h, 0), (0.09 * h, 0.5 * h), (-0.02 * h, 0.5 * h))
    wide = dice.real(0.1, 0.14) * h
    torso = ((-0.09 * h, 0.45 * h), (0.09 * h, 0.45 * h), (wide, 0.82 * h), (-wide, 0.82 * h))
    parts = [outline(x, z, corners, label, trousers) for corners in (left, right)]
    parts += [
        stroke(x, z, (-wide, 0.8 * h), (-wide - 0.6 * step, 0.45 * h), 0.06 * h, label, coat),
        stroke(x, z, (wide, 0.8 * h), (wide + 0.6 * step, 0.45 * h), 0.06 * h, label, coat),
        outline(x, z, torso, label, coat),
        ellipse(x, z, 0.12 * h, 0.83 * h, h, label, hair),
        ellipse(x, z, 0.09 * h, 0.82 * h, 0.95 * h, label, skin),
    ]
    return parts


def _upper_body(dice: Dice, x: float, z: float, lean: float, seat: float, label: int) -> list[Panel]:
    coat, trousers = (Style(dice.near(dice.pick(CLOTHES), 0.08), grain=0.15) for _ in range(2))
    helmet = Style(dice.near(dice.pick(CAR_COLOURS), 0.1))
    torso = ((-0.16, seat), (0.16, seat), (lean + 0.2, seat + 0.58), (lean - 0.2, seat + 0.58))
    reach = 0.3 + lean
    return [
        stroke(x, z, (-0.08, seat), (0.12 + lean / 2, 0.25), 0.15, label, trousers),
        stroke(x, z, (0.08, seat), (lean / 2 - 0.1, 0.4), 0.15, label, trousers),
        outline(x, z, torso, label, coat),
        stroke(x, z, (lean, seat + 0.5), (reach, seat + 0.15), 0.1, label, coat),
        stroke(x, z, (lean, seat + 0.5), (2 * lean - reach, seat + 0.15), 0.1, label, coat),
        ellipse(x + lean * 1.2, z, 0.24, seat + 0.6, seat + 0.88, label, helmet),
        ellipse(x + lean * 1.2, z, 0.16, seat + 0.6, seat + 0.76, label, Style(dice.pick(SKIN))),
    ]


def bicycle(dice: Dice, x: float, z: float, sideways: bool, ridden: bool) -> list[Panel]:
    frame = Style(dice.near(dice.pick(CAR_COLOURS), 0.1), grain=0.0)
    tyre = Style(RUBBER, grain=0.0)
    if sideways:
        parts = [ellipse(x + k, z, 0.68, 0.0, 0.68, BICYCLE, tyre, hollow=0.80) for k in (-0.52, 0.52)]
        joints = {"rear": (-0.52, 0.34), "foot": (-0.08, 0.3), "seat": (-0.22, 0.9), "head": (0.36, 0.85)}
        pairs = (("rear", "foot"), ("rear", "seat"), ("foot", "seat"), ("foot", "head"), ("seat", "head"))
        parts += [stroke(x, z, joints[a], joints[b], 0.06, BICYCLE, frame) for a, b in pairs]
        parts += [
            stroke(x, z, (0.52, 0.34), (0.34, 1.02), 0.06, BICYCLE, frame),
            stroke(x, z, (0.24, 1.02), (0.46, 1.0), 0.06, BICYCLE, tyre),
            stroke(x, z, (-0.34, 0.93), (-0.1, 0.93), 0.08, BICYCLE, tyre),
        ]
    else:
        parts = [
            ellipse(x, z, 0.09, 0.0, 0.68, BICYCLE, tyre),
            board(x, z, 0.07, 0.5, 0.95, BICYCLE, frame),
            board(x, z, 0.55, 0.95, 1.02, BICYCLE, frame),
        ]
    return parts + (_upper_body(dice, x, z - 0.02, 0.25 if sideways else 0.0, 0.88, RIDER) if ridden else [])


def motorcycle(dice: Dice, x: float, z: float, sideways: bool, ridden: bool) -> list[Panel]:
    body = Style(dice.near(dice.pick(CAR_COLOURS), 0.1), grain=0.05)
    tyre, lamp = Style(RUBBER), Style((0.7, 0.1, 0.08))
    if sideways:
        tank = ((-0.85, 0.72), (-0.3, 0.7), (0.1, 0.95), (0.5, 0.85), (0.62, 0.6), (0.2, 0.3), (-0.4, 0.3))
        parts = [ellipse(x + k, z, 0.64, 0.0, 0.64, MOTORCYCLE, tyre, hollow=0.55) for k in (-0.68, 0.68)]
        parts += [
            stroke(x, z, (0.68, 0.32), (0.45, 1.0), 0.1, MOTORCYCLE, Style((0.5, 0.5, 0.52))),
            outline(x, z, tank, MOTORCYCLE, body),
            stroke(x, z, (0.3, 1.05), (0.55, 1.0), 0.08, MOTORCYCLE, tyre),
        ]
    else:
        parts = [
            ellipse(x, z, 0.2, 0.0, 0.64, MOTORCYCLE, tyre),
            ellipse(x, z, 0.5, 0.35, 1.0, MOTORCYCLE, body),
            board(x, z, 0.75, 0.98, 1.06, MOTORCYCLE, tyre),
            ellipse(x, z, 0.14, 0.62, 0.74, MOTORCYCLE, lamp),
        ]
    return parts + (_upper_body(dice, x, z - 0.02, 0.12 if sideways else 0.0, 0.78, RIDER) if ridden else [])


def tree(dice: Dice, x: float, z: float, leaves: Colour, height: float) -> list[Panel]:
    """A trunk and a crown, both vegetation."""
    trunk = Style(dice.near((0.28, 0.22, 0.17), 0.05), grain=0.3)
    parts = [board(x, z, 0.05 * height, 0.0, 0.55 * height, VEGETATION, trunk)]
    for _ in range(5):
        wide, tall = dice.real(0.35, 0.6) * height, dice.real(0.35, 0.55) * height
        low = dice.real(0.3, 0.55) * height
        style = Style(dice.near(leaves, 0.06), kind="leaves", grain=0.55, scale=35, shade=dice.real(0.8, 1.1))
        start = x + dice.real(-0.2, 0.2) * height - wide / 2
        parts.append(Panel((start, z), (start + wide, z), low, low + tall, VEGETATION, style, "leaves"))
    return parts


def _side(
    x: float, z: float, size: tuple[float, float, float], low: float, label: int, style: Style, camera: Camera
) -> tuple[Panel, float]:
    """The side of a box that the camera sees, and the step in `x` that brings a part to its front."""
    width, high, length = size
    step = -0.02 if x + camera.bend * z * z > 0 else 0.02
    side = x + width / 2 if step > 0 else x - width / 2
    dark = Style(style.colour, style.second, style.kind, style.grain, style.scale, style.pitch, style.shade * 0.8)
    return Panel((side, z), (side, z + length), low, high, label, dark), step


def _on_side(side: Panel, step: float, part: tuple[float, float], low: float, high: float, style: Style) -> Panel:
    """A rectangle on a side panel, from `part[0]` to `part[1]` metres along it."""
    x, z = side.start
    return Panel((x + step, z + part[0]), (x + step, z + part[1]), low, high, side.label, style)


def _wheels(side: Panel, step: float, radius: float, places: tuple[float, ...]) -> list[Panel]:
    x, z = side.start
    return [
        Panel((x + 2 * step, z + p - radius), (x + 2 * step, z + p + radius), 0.0, 2 * radius, side.label,
              Style(RUBBER), "ellipse")
        for p in places
    ]  # fmt: skip


def car(dice: Dice, x: float, z: float, away: bool, camera: Camera) -> list[Panel]:
    """A hatchback or an estate that drives away or comes nearer."""
    width, high, length = dice.real(1.7, 1.95), dice.real(1.4, 1.75), dice.real(3.8, 4.9)
    paint = Style(dice.near(dice.pick(CAR_COLOURS), 0.06), grain=0.04)
    glass, dark = Style(GLASS, grain=0.1), Style((0.09, 0.09, 0.1))
    side, step = _side(x, z, (width, high, length), 0.18, CAR, paint, camera)
    profile: tuple[Point, ...] = ((0, 0), (1, 0), (1, 0.42), (0.94, 0.5), (0.72, 0.58), (0.56, 1), (0, 1))
    windows: tuple[Point, ...] = ((0.1, 0.6), (0.67, 0.6), (0.55, 0.93), (0.12, 0.93))
    if not away:
        profile, windows = (tuple((1 - p, q) for p, q in shape) for shape in (profile, windows))
    x_side = side.start[0]
    parts = [
        Panel(side.start, side.end, side.low, high, CAR, side.style, "poly", profile),
        Panel((x_side + step, z), (x_side + step, z + length), side.low, high, CAR, glass, "poly", windows),
        *_wheels(side, step, 0.31, (0.19 * length, 0.8 * length)),
    ]
    body = 0.18 + (high - 0.18) * 0.56
    cabin_z = z if away else z + 0.44 * length
    # The cabin of a car that comes nearer starts low, so that it fills the view above the bonnet too.
    foot, slope = (body, 0.48) if away else (0.3, 0.46)
    cabin = ((-0.5 * width, foot), (0.5 * width, foot), (slope * width, high), (-slope * width, high))
    pane = tuple((0.86 * a, (body + 0.03 if b == foot else high - 0.06)) for a, b in cabin)
    lamp = Style((0.72, 0.10, 0.08) if away else (0.92, 0.92, 0.85), grain=0.0)
    parts += [outline(x, cabin_z, cabin, CAR, paint), outline(x, cabin_z - 0.02, pane, CAR, glass)]
    parts += [board(x + k * width * 0.36, z, 0.2, 0.0, 0.4, CAR, dark) for k in (-1, 1)]
    parts += [board(x, z, width, 0.2, body, CAR, paint), board(x, z, width, 0.2, 0.38, CAR, dark)]
    parts += [board(x + k * width * 0.4, z, 0.28, body - 0.28, body - 0.12, CAR, lamp) for k in (-1, 1)]
    return [*parts, board(x, z, 0.5, 0.46, 0.57, CAR, Style((0.8, 0.8, 0.75), grain=0.0))]


def coach(
    dice: Dice, x: float, z: float, label: int, away: bool, camera: Camera, colour: Colour, glass: float
) -> list[Panel]:
    """A truck, a bus or one carriage of a train: one texture, told apart by size and surroundings."""
    width, high, length = COACHES[label]
    paint = Style(colour, mixed(colour, GLASS, glass), "coach", 0.08, pitch=1.5 if label != TRUCK else -1.5)
    side, step = _side(x, z, (width, high, length), 0.45, label, paint, camera)
    radius, dark = 0.48, Style((0.1, 0.1, 0.11))
    places = (1.2, 2.4, length - 1.6) if label == TRUCK else (2.2, length - 2.4)
    parts = [
        side,
        _on_side(side, step, (0.3, length - 0.3), 0.2, 0.45, dark),
        *_wheels(side, step, radius, places),
    ]
    plain = Style(colour, grain=0.08)
    parts += [board(x + k * 0.9, z, 0.35, 0.0, 0.5, label, dark) for k in (-1, 1)] if label != TRAIN else []
    parts += [board(x, z, width, 0.35, high, label, plain), board(x, z, width, 0.3, 0.55, label, dark)]
    if label == TRUCK and away:
        parts.append(board(x, z, 0.06, 0.6, high - 0.1, label, dark))
    elif label == TRUCK:
        cab = Style(dice.near(dice.pick(CAR_COLOURS), 0.06), grain=0.04)
        parts += [
            board(x, z, width * 0.96, 0.35, 2.75, label, cab),
            board(x, z, width, 0.35, 0.6, label, dark),
        ]
        parts.append(board(x, z, width * 0.84, 1.6, 2.5, label, Style(GLASS, grain=0.1)))
        parts.append(board(x, z, width * 0.5, 0.75, 1.3, label, dark))
    else:
        parts.append(board(x, z, width * 0.88, high * 0.45, high * 0.86, label, Style(GLASS, grain=0.1)))
    if label == BUS:
        shown = Style((0.85, 0.55, 0.12), grain=0.0)
        parts.append(board(x, z, width * 0.6, high * 0.89, high * 0.95, label, shown))
    lamp = Style((0.72, 0.10, 0.08) if away else (0.92, 0.92, 0.85), grain=0.0)
    return parts + [board(x + k * width * 0.42, z, 0.2, 0.6, 0.8, label, lamp) for k in (-1, 1)]


def crossing(dice: Dice, x: float, z: float, label: int, colour: Colour, glass: float) -> list[Panel]:
    """A vehicle seen from its side, on a street that crosses."""
    tyre = Style(RUBBER)
    if label == CAR:
        body = (
            (-2.1, 0.2),
            (2.1, 0.2),
            (2.1, 0.75),
            (1.9, 0.85),
            (1.0, 0.95),
            (0.4, 1.45),
            (-1.5, 1.45),
            (-2.1, 0.9),
        )
        pane = ((-1.7, 0.92), (0.85, 0.92), (0.35, 1.37), (-1.42, 1.37))
        style = Style(dice.near(dice.pick(CAR_COLOURS), 0.06), grain=0.04)
        parts = [outline(x, z, body, CAR, style), outline(x, z, pane, CAR, Style(GLASS))]
        return parts + [ellipse(x + k, z, 0.62, 0.0, 0.62, CAR, tyre) for k in (-1.3, 1.3)]
    _, high, length = COACHES[label]
    window = mixed(colour, GLASS, glass)
    style = Style(colour, window, "coach", 0.08, pitch=1.5 if label != TRUCK else -1.5)
    parts = [board(x, z, length, 0.4, high, label, style)]
    return parts + [ellipse(x + k * length, z, 0.95, 0.0, 0.95, label, tyre) for k in (-0.32, 0.3, 0.38)]


def pole(dice: Dice, x: float, z: float, height: float, width: float, grey: Colour) -> list[Panel]:
    return [board(x, z, width, 0.0, height, POLE, Style(dice.near(grey, 0.06), grain=0.05))]


def lamp_post(dice: Dice, x: float, z: float, grey: Colour) -> list[Panel]:
    """A street lamp whose arm reaches over the road."""
    height, reach = dice.real(6, 9), 1.6 if x < 0 else -1.6
    style = Style(dice.near(grey, 0.05), grain=0.05)
    return [
        *pole(dice, x, z, height, 0.16, grey),
        stroke(x, z, (0, height - 0.4), (reach, height), 0.1, POLE, style),
        board(x + reach, z, 0.6, height - 0.08, height + 0.1, POLE, style),
    ]


def traffic_light(dice: Dice, x: float, z: float, grey: Colour, overhead: bool) -> list[Panel]:
    """Two or three lamps in a box on a pole, and on an arm where `overhead`."""
    height, lit = (5.6 if overhead else 3.2), dice.whole(0, 2)
    reach = (3.4 if x < 0 else -3.4) if overhead else 0.0
    parts = pole(dice, x, z, height, 0.16, grey)
    if overhead:
        parts.append(board(x + reach / 2, z, abs(reach), height - 0.14, height, POLE, Style(grey, grain=0.05)))
    colours = ((0.15, 0.85, 0.45), (0.95, 0.65, 0.1), (0.95, 0.12, 0.1))
    for place, top in ((reach, height + 0.3), (0.0, 3.3)) if overhead else ((0.0, 3.4),):
        low = top - 1.05
        parts.append(board(x + place, z - 0.1, 0.42, low, top, TRAFFIC_LIGHT, Style((0.06, 0.07, 0.07))))
        for k, colour in enumerate(colours):
            lens = Style(colour if k == lit else (0.16, 0.15, 0.15), grain=0.0)
            bottom = low + 0.08 + 0.32 * k
            parts.append(ellipse(x + place, z - 0.1, 0.25, bottom, bottom + 0.25, TRAFFIC_LIGHT, lens))
    return parts


def traffic_sign(dice: Dice, x: float, z: float, grey: Colour) -> list[Panel]:
    """A disc, a triangle, a square or a board on a thin pole; some poles carry two."""
    parts = pole(dice, x, z, dice.real(2.3, 3.2), 0.09, grey)
    top, z = parts[0].high, z - 0.05
    red, blue, white = (Style(c, grain=0.03) for c in ((0.75, 0.1, 0.1), (0.1, 0.25, 0.65), (0.9, 0.9, 0.88)))
    for _ in range(dice.whole(1, 2)):
        low, kind = top - 0.7, dice.whole(0, 3)
        if kind == 0:
            parts += [ellipse(x, z, 0.7, low, top, TRAFFIC_SIGN, red)]
            parts += [ellipse(x, z, 0.46, low + 0.12, top - 0.12, TRAFFIC_SIGN, white)]
        elif kind == 1:
            for size, style in ((0.42, red), (0.24, white)):
                corners = (
                    (-size, top - 0.3 - 0.8 * size),
                    (size, top - 0.3 - 0.8 * size),
                    (0.0, top - 0.3 + 0.7 * size),
                )
                parts.append(outline(x, z, corners, TRAFFIC_SIGN, style))
        elif kind == 2:
            parts += [board(x, z, 0.66, low, top, TRAFFIC_SIGN, blue)]
            parts += [stroke(x, z, (0, low + 0.1), (0, top - 0.1), 0.14, TRAFFIC_SIGN, white)]
        else:
            yellow = Style((0.85, 0.7, 0.1), grain=0.03)
            parts += [board(x, z, 1.1, low + 0.2, top, TRAFFIC_SIGN, yellow)]
        top = low - 0.05
    return parts
