"""What all drawings share: colours for light and dark pages, axes, and pictures that are the same whenever drawn."""

from __future__ import annotations

import io
import warnings
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = ["COLOURS", "FAINT", "INK", "PAPER", "darkened", "new_figure", "save_figure", "style"]

# By whether the page is dark. Okabe and Ito's palette, told apart by colour-blind readers.
COLOURS = {
    False: ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b4c9a", "#9c7a00"),
    True: ("#56b4e9", "#e69f00", "#3ecf9e", "#e79ac0", "#b39ddb", "#f0e442"),
}
PAPER = {False: "#ffffff", True: "#161b22"}
INK = {False: "#24292f", True: "#d7dde4"}
FAINT = {False: "#d0d7de", True: "#3a424c"}


def new_figure(width: float, height: float, dark: bool) -> Figure:
    """Return an empty figure of a size in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width, height), layout=layout, facecolor=PAPER[dark])


def style(axes: Axes, dark: bool, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes their colours, their title and their labels; none of these is read as a formula."""
    axes.set_facecolor(PAPER[dark])
    axes.tick_params(colors=INK[dark], which="both", labelsize=9, length=3)
    axes.grid(color=FAINT[dark], linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT[dark])
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK[dark], parse_math=False)
    axes.set_xlabel(x, fontsize=9, color=INK[dark], parse_math=False)
    axes.set_ylabel(y, fontsize=9, color=INK[dark], parse_math=False)


def save_figure(figure: Figure, format: Literal["png", "svg"]) -> bytes:
    """Return a figure as the bytes of a picture, the same whenever it is drawn."""
    buffer = io.BytesIO()
    # matplotlib salts the names inside an SVG at random unless told.
    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "vaekit"}):
        # A user's term may be named in a script that the font has not: an empty box then, no alarm.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
        figure.savefig(buffer, format=format, dpi=144, metadata=metadata, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def darkened(drawing: bytes) -> bytes:
    """Return an SVG that was drawn for a light page in the colours for a dark one: much cheaper than drawing it again.

    Examples:
        >>> darkened(b'<path style="fill: #ffffff; stroke: #0072b2"/>')
        b'<path style="fill: #161b22; stroke: #56b4e9"/>'
    """
    pairs = zip(*((PAPER[dark], INK[dark], FAINT[dark], *COLOURS[dark]) for dark in (False, True)), strict=True)
    for light, dark in pairs:
        drawing = drawing.replace(light.encode(), dark.encode())
    return drawing
