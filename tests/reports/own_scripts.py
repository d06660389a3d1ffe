"""The scripts that the page carries itself, to look at the rest of it for others."""

from __future__ import annotations

import re

from esper_analyze.reports.render.html import scripts

_DATA = re.compile(r'<script type="application/json"[^<>]*>[^<>&]*</script>')
"""Numbers that no browser runs; no text in them can end the element."""


def without_own_scripts(page: str) -> str:
    """Return the page without its figures' numbers and the two scripts that draw them, each of which it has once."""
    for script in scripts():
        whole = f"<script>{script}</script>"
        assert page.count(whole) == 1
        page = page.replace(whole, "")
    return _DATA.sub("", page)
