"""The page itself: its head, its parts in order, and what it was made of."""

from __future__ import annotations

from collections.abc import Sequence

from searchkit import __version__

from ..measurement import Measurement, Protocol
from ..protocol import Scalar
from . import roofline, sections
from .architecture import anatomy_of, draw
from .content import Content
from .fronts import labels_of
from .label_maps import LabelMaps, Picture
from .markup import Child, Markup, bullets, el, joined, table, words
from .sources import Place
from .style import PAGE_STYLE, RATES


def page(content: Content, maps: LabelMaps, command: str) -> str:
    """The whole report as one HTML file.

    Args:
        command: what makes it again.
    """
    parts = (
        ("summary", "Summary", sections.summary_section(content)),
        ("front", "Accuracy against latency", sections.fronts_section(content)),
        ("headline", "SSR against FasterSeg", sections.headline_section(content)),
        ("figures", "All figures", sections.table_section(content)),
        ("latency", "How the latencies spread", sections.distribution_section(content)),
        ("roofline", "What the device could do", roofline.section(content)),
        ("networks", "The networks", _networks(content)),
        ("maps", "Label maps", _maps(maps)),
        ("machine", "Machine, protocol, warnings", _machines(content)),
        ("again", "How to make this report again", _again(content, command)),
    )
    body = [
        el("a", "Skip to the report", href="#report", class_="skip"),
        el("header", el("h1", content.title), el("p", _lead(content), class_="lead")),
        el("nav", el("ul", *(el("li", el("a", title, href=f"#{id_}")) for id_, title, _ in parts)), aria_label="Parts"),
        el("main", *(_part(id_, title, inner) for id_, title, inner in parts), id="report"),
        el("footer", f"Made by searchkit {__version__}. This file loads nothing from anywhere."),
    ]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", content.title),
        el("style", Markup(PAGE_STYLE)),
    )
    return f"<!DOCTYPE html>\n{el('html', head, el('body', *body), lang='en')}\n"


def _part(id_: str, title: str, inner: Markup) -> Markup:
    return el("section", el("h2", title, id=f"{id_}-title"), inner, id=id_, aria_labelledby=f"{id_}-title")


def _lead(content: Content) -> str:
    machines = list(dict.fromkeys(place.name for place in content.places))
    where = f"Measured on {' and on '.join(machines)}. " if machines else ""
    return f"{where}Published figures are marked and never mixed with measured ones."


def _networks(content: Content) -> Markup:
    """A drawing of each genotype among the networks; the same digest, so surely the same network."""
    from searchkit.networks import resolve, shipped_genotypes

    figures, others = [], []
    facts = {m.network.name: m.network for m in reversed(content.sources.measurements)}
    for name in content.networks:
        found = resolve(name) if name in shipped_genotypes() else None
        same = found is not None and found.with_classes(facts[name].classes).digest == facts[name].digest
        anatomy = anatomy_of(found.genotype) if found and found.genotype and same else None
        if anatomy is None:
            others.append(name)
            continue
        caption = f"{name}: {facts[name].params / 1e6:.2f} M parameters"
        figures.append(el("figure", el("figcaption", caption), draw(anatomy, f"Drawing of {name}")))
    rates = ", ".join(f"1/{rate}" for rate in RATES)
    intro = (
        f"Each row is a layer, from the picture down to the labels. The fraction, {rates}, is the height and width of "
        "its map over the picture's; the last number is its channels."
    )
    parts: list[Child] = [el("p", intro), el("div", *figures, class_="networks")] if figures else []
    if others:
        parts.append(el("p", f"Not drawn, as they are no shipped genotypes: {', '.join(others)}."))
    return joined(parts) if parts else el("p", "No network was measured.")


def _maps(maps: LabelMaps) -> Markup:
    rows = [el("div", *(_picture(picture) for picture in row), class_="pictures") for row in maps.rows]
    return joined([*(el("p", remark) for remark in maps.remarks), *rows])


def _picture(picture: Picture) -> Markup:
    size = {"width": picture.size.width, "height": picture.size.height}
    return el("figure", el("img", src=picture.uri, alt=picture.words, **size), el("figcaption", picture.words))


def _machines(content: Content) -> Markup:
    if not content.places:
        return el("p", "No file of measurements was given.")
    return joined(_machine(place) for place in content.places)


def _machine(place: Place) -> Markup:
    results = place.results
    machine = table(f"Machine of {place.title}", ("what", "value"), _facts(results.machine), text_columns=2)
    parts: list[Child] = [el("h3", place.name), machine, *_protocols(results.measurements)]
    labelled = list(zip(labels_of(results.measurements), results.measurements, strict=True))
    warned = [joined([el("b", label), ": ", "; ".join(m.warnings)]) for label, m in labelled if m.warnings]
    parts += [el("h4", "Warnings"), bullets(warned) if warned else el("p", "None.")]
    failed = [
        f"{cell.network} on {cell.backend}:{cell.mode} in {cell.precision}: {cell.problem}" for cell in results.failures
    ]
    parts += [el("h4", "Failures"), bullets(failed) if failed else el("p", "None.")]
    return joined(parts)


def _facts(machine: dict[str, Scalar]) -> list[tuple[Child, ...]]:
    return [(key.replace("_", " "), "not known" if value is None else value) for key, value in machine.items()]


def _protocols(measurements: Sequence[Measurement]) -> list[Markup]:
    """What was timed and how, and on which runtimes; each said once."""
    if not measurements:
        return []
    timed = dict.fromkeys(m.timed.text for m in measurements)
    ways = [_protocol(protocol) for protocol in dict.fromkeys(m.protocol for m in measurements)]
    runtimes = dict.fromkeys(
        f"{m.runtime} {m.session.version} on {m.session.device} ({m.session.provider}): "
        + ", ".join(f"{key} {option}" for key, option in m.session.options.items())
        for m in measurements
    )
    weights = dict.fromkeys(m.weights for m in measurements)
    return [
        el("h4", "Protocol"),
        bullets([*ways, *(f"Timed: {text}." for text in timed), *(f"Weights: {text}." for text in weights)]),
        el("h4", "Runtimes"),
        bullets(runtimes),
    ]


def _protocol(protocol: Protocol) -> str:
    whole = f"; at least {protocol.min_runs} runs and {protocol.min_ms:g} ms in all" if protocol.min_runs else ""
    return (
        f"{protocol.name}: {protocol.rounds} rounds, each at least {protocol.round_ms:g} ms and "
        f"{protocol.min_runs_per_round} runs; warm-up of at least {protocol.warmup_ms:g} ms{whole}."
    )


def _again(content: Content, command: str) -> Markup:
    notes = [
        joined([el("b", place.title), f": {len(place.results.measurements)} measurements"]) for place in content.places
    ]
    notes += [joined([el("b", roof.file), ": a roofline"]) for roof in content.sources.rooflines]
    pre = el("pre", el("code", words(command)), tabindex="0", aria_label="Command")
    return joined([el("p", "From these files:"), bullets(notes), pre])
