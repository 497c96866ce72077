"""Where the boxes of a diagram stand and how its arrows run: nothing lies on anything else. Lengths are in px.

Boxes stand on a grid of columns and rows. Arrows run in the gaps between columns (in lanes) and between rows (in
tracks). All arrows out of one box are one net, which never shares a lane or a track with another net.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from .diagram import Arrow, Box, Diagram
from .svg import Point, text_width

LINE_PX, LABEL_PX = 11, 9
_LINE_PITCH, _BOX_MARGIN, _STACK_GAP = 14, 8, 8
# Between the box on the left and the first lane, between lanes, and what an arrow's head takes before the next box.
_STUB, _LANE_PITCH, HEAD = 7, 6, 9
_TRACK_PITCH, _CHANNEL_MARGIN = 6, 8
_PORT_PITCH, _LABELLED_PITCH = 6, 11
# What two lines at one height are moved apart by.
_APART = 2.0

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Place:
    """Where a box stands."""

    box: Box
    left: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """y of its middle, where its arrows leave."""
        return self.top + self.height / 2

    @property
    def right(self) -> float:
        """x of its right side."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """y of its lower side."""
        return self.top + self.height


@dataclass(frozen=True)
class Course:
    """How an arrow runs: from the right side of its source by horizontal and vertical lines to its target's left, or
    between two boxes of one column straight up or down.

    Attributes:
        net: the number of its source among the boxes that have arrows out of them.
    """

    arrow: Arrow
    net: int
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Layout:
    """The whole drawing, from (0, 0).

    Attributes:
        rows: rate to upper and lower end, the finest first.
    """

    places: dict[str, Place]
    courses: tuple[Course, ...]
    rows: dict[int, tuple[float, float]]
    width: float
    height: float


def lay_out(diagram: Diagram) -> Layout:
    """Place all boxes and lead all arrows."""
    grid = _Grid(diagram)
    nets = _Nets(grid, diagram.arrows)
    lefts, width = _columns(grid, nets)
    tops, tracks_top, height = _rows(grid, nets)
    places = {}
    for box in diagram.boxes:
        row = grid.row[box.name]
        top = tops[row] + grid.height[row] / 2 + grid.offset[box.name]
        size = grid.width[box.column], grid.box_height[box.name]
        places[box.name] = Place(box, lefts[box.column], top, *size)
    lane_x = {
        (net, gap): lefts[gap] - _right_of_lanes(nets, gap) - _LANE_PITCH * lane
        for (net, gap), lane in nets.lanes.items()
    }
    track_y = {(net, channel): tracks_top[channel] + _TRACK_PITCH * at for (net, channel), at in nets.tracks.items()}
    rows = {rate: (tops[at], tops[at] + grid.height[at]) for at, rate in enumerate(grid.rates)}
    return Layout(places, _Ways(nets, places, lane_x, track_y).courses(), rows, width, height)


class _Grid:
    """Sizes of boxes, columns and rows, before any arrow."""

    def __init__(self, diagram: Diagram) -> None:
        self.rates = sorted({box.rate for box in diagram.boxes})
        self.row = {box.name: self.rates.index(box.rate) for box in diagram.boxes}
        self.column = {box.name: box.column for box in diagram.boxes}
        self.columns = 1 + max(self.column.values(), default=-1)
        inputs: dict[str, list[Arrow]] = defaultdict(list)
        for arrow in diagram.arrows:
            inputs[arrow.target].append(arrow)
        self.box_height = {box.name: self._box_height(box, inputs[box.name]) for box in diagram.boxes}
        self.width = [40.0] * self.columns
        stacks: dict[tuple[int, int], list[Box]] = defaultdict(list)
        for box in diagram.boxes:
            words = max(text_width(line, LINE_PX) for line in box.lines)
            self.width[box.column] = max(self.width[box.column], words + 2 * _BOX_MARGIN)
            stacks[self.row[box.name], box.column].append(box)
        for arrow in diagram.arrows:
            if self.column[arrow.source] == self.column[arrow.target]:
                column = self.column[arrow.source]
                # A label stands beside the line, in the right half.
                self.width[column] = max(self.width[column], 2 * text_width(arrow.label, LABEL_PX) + _BOX_MARGIN)
        self.taken = set(stacks)
        self.height = [0.0] * len(self.rates)
        self.offset: dict[str, float] = {}
        for (row, _), boxes in stacks.items():
            total = sum(self.box_height[box.name] for box in boxes) + _STACK_GAP * (len(boxes) - 1)
            self.height[row] = max(self.height[row], total + 2 * _STACK_GAP)
            y = -total / 2
            for box in boxes:
                self.offset[box.name] = y
                y += self.box_height[box.name] + _STACK_GAP

    def _box_height(self, box: Box, inputs: list[Arrow]) -> float:
        """Room for the words on it, and for the arrows into it.

        One that comes along the row takes the middle; all others may then be on one side of it.
        """
        pitch = _LABELLED_PITCH if any(arrow.label for arrow in inputs) else _PORT_PITCH
        middle = any(self.row[arrow.source] == self.row[box.name] for arrow in inputs)
        slots = 2 * len(inputs) if middle else len(inputs) + 2
        return max(_LINE_PITCH * len(box.lines) + _BOX_MARGIN, pitch * slots)

    def middle(self, name: str) -> float:
        """y of a box's middle less that of its row."""
        return self.offset[name] + self.box_height[name] / 2

    def is_free(self, row: int, columns: range) -> bool:
        """Whether a line along the row meets no box there."""
        return not any((row, column) in self.taken for column in columns)


class _Nets:
    """Which lane of which gap, and which track of which channel, each net has.

    Gap `c` is left of column `c`, channel `r` above row `r`. Heights are counted in steps: channel `r` is 2 r, row `r`
    is 2 r + 1.
    """

    def __init__(self, grid: _Grid, arrows: tuple[Arrow, ...]) -> None:
        self.grid, self.arrows = grid, arrows
        self.number: dict[str, int] = {}
        lanes: dict[tuple[str, int], tuple[int, int]] = {}
        tracks: dict[tuple[str, int], tuple[int, int]] = {}
        for arrow in arrows:
            self.number.setdefault(arrow.source, len(self.number))
            if self.is_vertical(arrow) or self.is_straight(arrow):
                continue
            start, end = 2 * grid.row[arrow.source] + 1, 2 * grid.row[arrow.target] + 1
            first, last = grid.column[arrow.source] + 1, grid.column[arrow.target]
            channel = self.channel(arrow)
            if channel is None:
                _widen(lanes, (arrow.source, last), start, end)
                continue
            _widen(lanes, (arrow.source, first), start, 2 * channel)
            _widen(lanes, (arrow.source, last), 2 * channel, end)
            _widen(tracks, (arrow.source, channel), first, last)
        self.lanes, self.lane_count = _packed(lanes)
        self.tracks, self.track_count = _packed(tracks)

    def channel(self, arrow: Arrow) -> int | None:
        """The channel that an arrow runs along; None where it can run along its source's row."""
        grid = self.grid
        row, target = grid.row[arrow.source], grid.row[arrow.target]
        if grid.is_free(row, range(grid.column[arrow.source] + 1, grid.column[arrow.target])):
            return None
        return row + 1 if target > row else row

    def is_vertical(self, arrow: Arrow) -> bool:
        """Whether an arrow leads to a neighbour in its column."""
        return self.grid.column[arrow.source] == self.grid.column[arrow.target]

    def is_straight(self, arrow: Arrow) -> bool:
        """Whether an arrow needs neither a lane nor a track."""
        grid = self.grid
        if grid.row[arrow.source] != grid.row[arrow.target] or self.channel(arrow) is not None:
            return False
        return abs(grid.middle(arrow.source) - grid.middle(arrow.target)) < 0.1


def _widen(spans: dict[_Key, tuple[int, int]], key: _Key, one: int, other: int) -> None:
    """Let a span hold what lies between two places as well."""
    low, high = spans.get(key, (one, one))
    spans[key] = (min(low, one, other), max(high, one, other))


def _packed(spans: dict[tuple[str, int], tuple[int, int]]) -> tuple[dict[tuple[str, int], int], dict[int, int]]:
    """The first lane that is free for each (net, gap), the spans' starts in order; and how many a gap has."""
    ends: dict[int, list[int]] = defaultdict(list)
    found = {}
    for (net, gap), (low, high) in sorted(spans.items(), key=lambda item: (item[1], item[0])):
        taken = ends[gap]
        at = next((at for at, end in enumerate(taken) if end < low), len(taken))
        taken[at : at + 1] = [high]
        found[net, gap] = at
    return found, {gap: len(taken) for gap, taken in ends.items()}


def _right_of_lanes(nets: _Nets, gap: int) -> float:
    """What stands between the last lane of a gap and the boxes behind it: labels and heads."""
    here = (arrow for arrow in nets.arrows if nets.grid.column[arrow.target] == gap and not nets.is_vertical(arrow))
    return HEAD + 4 + max((text_width(arrow.label, LABEL_PX) + 4 for arrow in here if arrow.label), default=0.0)


def _columns(grid: _Grid, nets: _Nets) -> tuple[list[float], float]:
    """x of the left side of each column, and the width of it all."""
    lefts, x = [], 0.0
    for column in range(grid.columns):
        if column:
            x += _STUB + _LANE_PITCH * max(nets.lane_count.get(column, 0) - 1, 0) + _right_of_lanes(nets, column)
        lefts.append(x)
        x += grid.width[column]
    return lefts, x


def _rows(grid: _Grid, nets: _Nets) -> tuple[list[float], list[float], float]:
    """y of the upper side of each row, of the first track of each channel, and the height of it all."""
    tops, tracks, y = [], [], 0.0
    for row in range(len(grid.rates) + 1):
        count = nets.track_count.get(row, 0)
        tracks.append(y + _CHANNEL_MARGIN)
        y += 2 * _CHANNEL_MARGIN + _TRACK_PITCH * (count - 1) if count else _CHANNEL_MARGIN
        if row < len(grid.rates):
            tops.append(y)
            y += grid.height[row]
    return tops, tracks, y


@dataclass(frozen=True)
class _Ways:
    """How arrows run, once boxes, lanes (net, gap) and tracks (net, channel) have their places."""

    nets: _Nets
    places: dict[str, Place]
    lane_x: dict[tuple[str, int], float]
    track_y: dict[tuple[str, int], float]

    def courses(self) -> tuple[Course, ...]:
        ports = self._ports()
        return tuple(
            Course(arrow, self.nets.number[arrow.source], self._points(arrow, ports.get(arrow, 0.0)))
            for arrow in self.nets.arrows
        )

    def _points(self, arrow: Arrow, port: float) -> tuple[Point, ...]:
        source, target = self.places[arrow.source], self.places[arrow.target]
        start, end = (source.right, source.middle), (target.left, port)
        if self.nets.is_vertical(arrow):
            middle, down = source.left + source.width / 2, source.top < target.top
            return (middle, source.bottom if down else source.top), (middle, target.top if down else target.bottom)
        if self.nets.is_straight(arrow):
            return start, end
        last = self.lane_x[arrow.source, target.box.column]
        channel = self.nets.channel(arrow)
        if channel is None:
            return start, (last, source.middle), (last, port), end
        first, y = self.lane_x[arrow.source, source.box.column + 1], self.track_y[arrow.source, channel]
        return start, (first, source.middle), (first, y), (last, y), (last, port), end

    def _ports(self) -> dict[Arrow, float]:
        """y at which each arrow meets its target: those from above over those from below, without needless crossings.

        The middle is for one that runs straight, as what leaves the box before may do so at the same height.
        """
        inputs: dict[str, list[Arrow]] = defaultdict(list)
        for arrow in self.nets.arrows:
            if not self.nets.is_vertical(arrow):
                inputs[arrow.target].append(arrow)
        found: dict[Arrow, float] = {}
        for name, arrows in inputs.items():
            place, bent = self.places[name], [arrow for arrow in arrows if not self.nets.is_straight(arrow)]
            found |= {arrow: place.middle for arrow in arrows if arrow not in bent}
            above = [arrow for arrow in bent if self._comes_from(arrow) < place.middle]
            below = [arrow for arrow in bent if arrow not in above]
            above.sort(key=lambda arrow: -self.lane_x[arrow.source, place.box.column])
            below.sort(key=lambda arrow: self.lane_x[arrow.source, place.box.column])
            leaving = self._heights_of_leaving(place)
            for arrow, y in _spread(place, above, below, middle_is_taken=len(bent) < len(arrows)):
                near = next((other for other in leaving if abs(other - y) < _APART), None)
                found[arrow] = y if near is None else near + _APART * (1 if y > near else -1)
        return found

    def _heights_of_leaving(self, place: Place) -> list[float]:
        """Where other nets come into the gap in front of a box, out of the boxes before it in its row."""
        grid, row, column = self.nets.grid, self.nets.grid.row[place.box.name], place.box.column
        return [
            self.places[source].middle
            for source, gap in self.nets.lanes
            if (gap, grid.row[source]) == (column, row) and grid.is_free(row, range(grid.column[source] + 1, column))
        ]

    def _comes_from(self, arrow: Arrow) -> float:
        """y of the last horizontal line before the target's gap."""
        channel = self.nets.channel(arrow)
        return self.places[arrow.source].middle if channel is None else self.track_y[arrow.source, channel]


def _spread(
    place: Place, above: list[Arrow], below: list[Arrow], *, middle_is_taken: bool
) -> Iterator[tuple[Arrow, float]]:
    """y on the left side of a box for arrows from above and from below; never its middle."""
    if middle_is_taken:
        half = place.height / 2
        for top, side in ((place.top, above), (place.middle, below)):
            yield from ((arrow, top + half * (at + 1) / (len(side) + 1)) for at, arrow in enumerate(side))
        return
    # An even number of slots has none in the middle.
    slots = (len(above) + len(below) + 1) // 2 * 2
    first_below = slots - len(below)
    for at, arrow in [*enumerate(above), *enumerate(below, first_below)]:
        yield arrow, place.top + place.height * (at + 1) / (slots + 1)
