"""The look of the report: light and dark as the reader's system is, one column on a phone, plain on paper.

Contrast of text is at least 4.5 to 1 on its ground in both (tests compute it).
"""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f4f5f7",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "grid": "#e1e4e8",
    "rule": "#8c959f",
    "best": "#0b62b8",
    "other": "#8c959f",
    "published": "#8a4600",
    "warn": "#a4262c",
}
DARK = {
    "paper": "#14171c",
    "panel": "#1e232b",
    "ink": "#e6e9ee",
    "muted": "#a3adba",
    "grid": "#2c333d",
    "rule": "#6b7684",
    "best": "#6cb6ff",
    "other": "#7d8794",
    "published": "#f0a860",
    "warn": "#ff8f8f",
}
#: Ground of a layer in a drawing of a network, by how much smaller its map is than the picture; light, dark.
RATES = {
    2: ("#fbe8c8", "#5a4520"),
    4: ("#dcecc9", "#3b5226"),
    8: ("#cde4f7", "#224a6b"),
    16: ("#ddd6f5", "#443a70"),
    32: ("#f6d2e0", "#662d47"),
}


def _variables(colours: dict[str, str], which: int) -> str:
    named = [f"--{name}:{value}" for name, value in colours.items()]
    return ";".join([*named, *(f"--rate{rate}:{pair[which]}" for rate, pair in RATES.items())])


_PLOT_RULES = """
svg.plot { max-width: 100%; height: auto; display: block }
svg.plot text { font: 12px system-ui, "DejaVu Sans", Verdana, sans-serif; fill: var(--ink) }
svg.plot text.muted { fill: var(--muted) }
svg.plot text.small { font-size: 11px }
.grid { stroke: var(--grid); stroke-width: 1 }
.frame { fill: none; stroke: var(--rule) }
.leader { stroke: var(--rule); stroke-width: 1 }
.front { fill: none; stroke: var(--best); stroke-width: 1.5; stroke-dasharray: 5 3 }
.mark { stroke-width: 1.5 }
.best { fill: var(--best); stroke: var(--best) }
.beaten { fill: var(--paper); stroke: var(--other) }
.samples { stroke: var(--muted); stroke-width: 3.2; stroke-linecap: round; fill: none; opacity: .6 }
.box { fill: none; stroke: var(--best); stroke-width: 1.5 }
.median { stroke: var(--best); stroke-width: 3 }
.whisker { stroke: var(--best); stroke-width: 1.5 }
.roof { fill: none; stroke: var(--ink); stroke-width: 2 }
.arrow { fill: none; stroke: var(--rule); stroke-width: 1.5 }
"""
_PLOT_RULES += "".join(f".rate{rate} {{ fill: var(--rate{rate}); stroke: var(--rule) }}\n" for rate in RATES)

_COLOURS = f""":root {{ color-scheme: light dark; {_variables(LIGHT, 0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK, 1)} }} }}
"""

#: For a plot that is a file of its own.
PLOT_STYLE = f"{_COLOURS}svg {{ background: var(--paper) }}{_PLOT_RULES}"

_PAGE_RULES = """
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", Verdana, sans-serif; overflow-wrap: anywhere }
header, nav, main, footer { max-width: 66rem; margin: 0 auto; padding: 0 .8rem }
header { padding-top: 1.2rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem }
h2 { font-size: 1.3rem; margin: 2.4rem 0 .6rem; padding-top: .5rem; border-top: 1px solid var(--grid) }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem }
p, ul { margin: .5rem 0 }
ul { padding-left: 1.3rem }
a { color: var(--best) }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 3px solid var(--best); outline-offset: 2px }
.skip { position: absolute; left: -99rem }
.skip:focus { position: static; display: inline-block; padding: .4rem }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem }
.lead { color: var(--muted) }
.panel { background: var(--panel); padding: .1rem 1rem; border-radius: .5rem; margin: .8rem 0 }
.warn { color: var(--warn) }
.published { color: var(--published) }
.scroll { overflow-x: auto; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
caption { text-align: left; color: var(--muted); padding-bottom: .3rem; min-width: 14rem; max-width: min(60rem, 90vw) }
th, td { padding: .25rem .7rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid) }
th[scope=row] { font-weight: 600; overflow-wrap: break-word; min-width: 6rem; max-width: 20rem }
td { min-width: 3rem; max-width: 26rem }
td.words { min-width: 10rem }
.number { text-align: right; white-space: nowrap }
thead th, thead th.number { white-space: normal; vertical-align: bottom }
figure { margin: .8rem 0 }
figcaption { color: var(--muted); font-size: .875rem }
figure img { max-width: 100%; height: auto; display: block; image-rendering: pixelated }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr)); gap: .8rem }
.pictures img { width: 100% }
.pictures figure { margin: 0 }
.networks { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1.2rem }
.narrow { display: none }
pre { background: var(--panel); padding: .7rem; overflow-x: auto; font-size: .8125rem; white-space: pre-wrap }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .9em }
footer { padding-bottom: 3rem; color: var(--muted); font-size: .875rem }
@media (max-width: 46rem) { .wide { display: none } .narrow { display: block } h1 { font-size: 1.4rem } }
@media print {
  :root { color-scheme: light; LIGHT }
  body { font-size: 10pt } nav, .skip { display: none } .scroll { overflow: visible }
  .wide { display: block } .narrow { display: none }
  table { font-size: 6.5pt } td, th, td.words, th[scope=row] { min-width: 0; padding-right: .3rem }
  .number { white-space: normal; overflow-wrap: normal }
  figure, tr, .panel { break-inside: avoid } h2, h3 { break-after: avoid }
}
"""

#: For the whole page.
PAGE_STYLE = _COLOURS + _PLOT_RULES + _PAGE_RULES.replace("LIGHT", _variables(LIGHT, 0))
