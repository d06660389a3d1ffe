"""A figure that shows itself in a notebook, also without pyplot."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

_DPI = 110


class NotebookFigure(Figure):
    """A figure that a notebook shows as a picture: without pyplot matplotlib registers nothing that would."""

    def _repr_png_(self) -> bytes:
        sink = io.BytesIO()
        self.savefig(sink, format="png", dpi=_DPI)
        return sink.getvalue()
