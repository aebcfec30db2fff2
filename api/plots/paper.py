"""What all pictures share: size, colours, texts, and how a figure becomes bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

INK: Final = "#1f2933"
QUIET: Final = "#7b8794"
GRID: Final = "#e4e7eb"
COLOURS: Final = (
    "#2f5d8c", "#d97706", "#2f855a", "#a33b5c", "#6b5ca5",
    "#0f8b8d", "#8a6d3b", "#c2410c", "#4a5568",
)  # fmt: skip
"""Told apart also by those who see red and green alike, for up to nine series."""

WIDTH: Final = 9.6
LONGEST: Final = 40
BESIDE: Final = 8
"""Other currencies that are named below a picture."""
_DPI = 150
_FONTS = (
    "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Microsoft YaHei", "SimHei", "PingFang SC",
)  # fmt: skip
_NO_TEXT = re.compile("[^ -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (production Char) does not take, and other control characters."""
_SCALES = ((1e12, "T"), (1e9, "bn"), (1e6, "M"), (1e3, "k"))


def style() -> Any:
    """Settings of matplotlib for one figure. A font for Chinese follows the usual one where the
    machine has any; in SVG texts stay texts, which the viewer's fonts show."""
    there = {font.name for font in fontManager.ttflist}
    return {
        "font.family": ["DejaVu Sans", *(name for name in _FONTS if name in there)],
        "font.size": 10,
        "text.color": INK,
        "text.parse_math": False,  # a name with dollar signs is a name
        "axes.labelcolor": INK,
        "axes.edgecolor": QUIET,
        "axes.unicode_minus": True,
        "axes.grid": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 13,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "crm-ledger",  # the same answer is the same file
    }


def rendered(draw: Any, content: Mapping[str, Any], *, png: bool) -> bytes:
    """The picture that `draw` (Figure, answer → None) makes, as PNG or SVG.

    Not to be called by two threads at once: matplotlib's settings belong to the process.
    """
    with rc_context(style()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        figure = Figure(figsize=(WIDTH, 5.4), layout=layout)
        draw(figure, content)
        figure.supxlabel(_caption(content), fontsize=7.5, color=QUIET, x=0.01, ha="left")
        out = io.BytesIO()
        if png:
            FigureCanvasAgg(figure)
            figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
        else:
            FigureCanvasSVG(figure)
            figure.savefig(out, format="svg", metadata={"Date": None})
        return out.getvalue()


def _caption(content: Mapping[str, Any]) -> str:
    parts = [f"as of {content.get('as_of')}", f"known at position {content.get('known_at')}"]
    definition = content.get("definition")
    if isinstance(definition, Mapping):
        parts += [f"definition {name} {id_}" for name, id_ in definition.items()]
    if content.get("parked"):
        parts.append(f"{content['parked']} parked keys are not in it")
    caption = " · ".join(parts)
    beside = content.get("other_currencies")
    if not beside:
        return caption
    left_out = [f"{short(amount(o['amount']))} {o['amount']['currency']}" for o in beside[:BESIDE]]
    more = ", …" if len(beside) > BESIDE else ""
    return f"not in it, in other currencies: {', '.join(left_out)}{more}\n{caption}"


def amount(money: Mapping[str, str] | None) -> float:
    """Of an answer's money; 0 where there is none."""
    return float(money["value"]) if money else 0.0


def short(value: float, _: object = None) -> str:
    """1234567 → 1.23M."""
    for scale, letter in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.3g}{letter}"
    return f"{value:.3g}"


def label(text: object) -> str:
    """A name that fits beside a bar, on one line; what is no text in SVG shows as U+FFFD."""
    line = _NO_TEXT.sub("\ufffd", " ".join(str(text).split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def money_axis(axes: Axes, currency: str, *, which: str = "x", name: str = "") -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(short))
    axis.set_major_locator(MaxNLocator(6))
    axis.set_label_text(f"{name} {currency}".strip())
    axes.grid(axis="x" if which == "x" else "y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def rows(axes: Axes, names: list[str]) -> None:
    """One row for each name, the first on top."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def nothing(figure: Figure, title: str) -> None:
    """Says that the answer is empty."""
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing to show", ha="center", va="center", color=QUIET, fontsize=12)
