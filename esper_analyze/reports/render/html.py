"""HTML from the templates: everything they show is escaped, cleaned and cut, unless it was made by a filter here."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from esper_analyze.reports.render.rows import Mark, spelled
from esper_analyze.terminal import cleaned
from esper_analyze.wording import many, times

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Environment
    from markupsafe import Markup
    from numpy.typing import NDArray

    from esper_analyze.reports.render.figure import Drawn

_LONGEST = 600
"""Characters of a text from a run, where the template cuts it to no other length."""


def render(template: str, **values: object) -> str:
    """Return ``template`` filled with ``values``. Raises ``jinja2.UndefinedError`` for one that is missing."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("esper_analyze.reports.render"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "base64": _base64,
        "cut": _cut,
        "grouped": "{:,}".format,
        "json": as_json,
        "many": many,
        "points": _points,
        "spelled": spelled,
        "svg": _svg,
        "times": times,
    }
    environment.globals |= {"script_source": _script_source, "plot_style": _plot_style, "scripts": scripts}
    environment.tests["mark"] = lambda value: isinstance(value, Mark)
    return environment


def _harmless(value: object) -> object:
    """Return what a template shows: markup as it is, anything else without control characters and cut."""
    return value if hasattr(value, "__html__") else cleaned(value, _LONGEST)


def _cut(value: object, longest: int) -> Markup:
    from markupsafe import escape

    return escape(cleaned(value, longest))


def _svg(drawn: Drawn) -> Markup:
    """Return a figure as markup: matplotlib has escaped the text in it."""
    from markupsafe import Markup

    return Markup(drawn.svg)


def as_json(value: object) -> Markup:
    """Return a value as the text of a script element: nothing in it ends the element."""
    from markupsafe import Markup

    plain = [asdict(one) for one in value] if isinstance(value, tuple) else value
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False, ensure_ascii=False, default=_base64)
    return Markup(text.translate({ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}))


@cache
def scripts() -> tuple[Markup, ...]:
    """Return the page's scripts, the library first."""
    from markupsafe import Markup

    folder = files("esper_analyze.reports.render")
    paths = (folder / "vendor" / "uPlot.iife.min.js", folder / "templates" / "figures.js")
    return tuple(Markup(path.read_text(encoding="utf-8").strip()) for path in paths)


@cache
def _plot_style() -> Markup:
    from markupsafe import Markup

    return Markup((files("esper_analyze.reports.render") / "vendor" / "uPlot.min.css").read_text(encoding="utf-8"))


@cache
def _script_source() -> Markup:
    """Return the part of the content security policy that lets these scripts run, and no others."""
    from markupsafe import Markup

    digests = (b64encode(sha256(script.encode()).digest()).decode() for script in scripts())
    return Markup("script-src {}; ".format(" ".join(f"'sha256-{digest}'" for digest in digests)))


def _base64(data: bytes | NDArray[np.void]) -> Markup:
    from markupsafe import Markup

    return Markup(b64encode(bytes(data)).decode())


def _points(pairs: Iterable[tuple[float, float]]) -> Markup:
    """Return coordinates as an SVG polyline has them; numbers need no escaping."""
    from markupsafe import Markup

    return Markup(" ".join(f"{x:.1f},{y:.1f}" for x, y in pairs))
