"""Pictures of the results, as PNG files."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea", "#64748b", "#dc2626", "#0891b2")
PART_COLORS = {
    "hop": ("#7c8ba1", "#94a3b8", "#b3bfcf", "#cbd5e1", "#e2e8f0"),
    "model": ("#22a7c3", "#60a5fa", "#a5f3fc", "#c084fc", "#93c5fd"),
    "engine": ("#fde68a", "#fb923c", "#fed7aa", "#4ade80", "#f87171"),
}
"""Of a request's parts, by where they are."""


def figure_of(columns: int, title: str, subtitle: str) -> "tuple[Figure, list[Axes]]":
    """A figure of ``columns`` empty axes side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(5.6 * columns, 4.4), layout="constrained", squeeze=False)
    figure.suptitle(f"{title}\n", fontsize=13, fontweight="bold")
    figure.text(0.5, 0.925, subtitle, ha="center", fontsize=8.5, color="#475569")
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e2e8f0", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, list(axes[0])


def save(figure: "Figure", path: Path) -> Path:
    """Write the figure as a PNG file."""
    from matplotlib import pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def subtitle_of(result: Mapping[str, Any]) -> str:
    """What was measured, and on what machine."""
    machine, settings = result["hardware"], result["settings"]
    what = settings.get("shape") or settings.get("repository") or settings.get("url")
    return f"{what}, {settings.get('precision', 'as exported')} · {machine['cpu']}, {machine['cores']} cores"


def decode(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Time of a token and throughput against the rows, a line a text length, dashed without speculation."""
    figure, (left, right) = figure_of(2, "Decode engine", subtitle_of(result))
    width = result["cells"][0]["input_tokens"]
    cells = [cell for cell in result["cells"] if cell["input_tokens"] == width]
    for number, new_tokens in enumerate(sorted({cell["new_tokens"] for cell in cells})):
        for on in (True, False):
            points = [c for c in cells if c["new_tokens"] == new_tokens and c["speculation"] is on]
            style: dict[str, Any] = {
                "color": COLORS[number],
                "linestyle": "-" if on else "--",
                "marker": "o",
                "markersize": 4,
                "label": f"{new_tokens} tokens{'' if on else ', no speculation'}",
            }
            rows = [c["rows"] for c in points]
            left.plot(rows, [c["token_ms"]["median"] for c in points], **style)
            right.plot(rows, [c["tokens_per_second"]["median"] for c in points], **style)
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(ticks := sorted({cell["rows"] for cell in cells}), [str(tick) for tick in ticks])
        axis.set_xlabel("texts written together")
        axis.set_ylim(bottom=0)
    left.set_ylabel("time per token of a text (ms)")
    right.set_ylabel("tokens per second, all texts")
    left.legend(frameon=False, fontsize=8, title=f"length ({width} input tokens)", title_fontsize=8)
    return [save(figure, folder / "decode.png")]


def serve(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Latency against throughput of the closed loops, and the open loops beside them."""
    figure, (left, right) = figure_of(2, "Through Triton over gRPC", subtitle_of(result))
    points = [point for point in result["closed_loop"] if "latency_ms" in point]
    x = [point["tokens_per_second"] for point in points]
    for number, percent in enumerate(("p50", "p95", "p99")):
        left.plot(
            x,
            [point["latency_ms"][percent] for point in points],
            color=COLORS[number],
            marker="o",
            markersize=4,
            label=percent,
        )
    for point in points:
        left.annotate(
            str(point["clients"]),
            (point["tokens_per_second"], point["latency_ms"]["p50"]),
            textcoords="offset points",
            xytext=(0, -13),
            ha="center",
            fontsize=8,
            color="#475569",
        )
    left.set_xlabel("tokens per second (numbers: clients, each asks again at once)")
    left.set_ylabel("whole request (ms)")
    left.set_ylim(bottom=0)
    left.set_xlim(left=0)
    left.legend(frameon=False, fontsize=8)
    bars = [(f"{p['clients']} client{'s' if p['clients'] > 1 else ''}", p) for p in points]
    bars += [(f"Poisson\n{p['share_of_capacity']:.0%}", p) for p in result["open_loop"] if "first_piece_ms" in p]
    for number, percent in enumerate(("p50", "p95")):
        places = [i + (number - 0.5) * 0.38 for i in range(len(bars))]
        right.bar(places, [p["first_piece_ms"][percent] for _, p in bars], 0.36, color=COLORS[number], label=percent)
    right.set_xticks(range(len(bars)), [name.replace(" client", "\nclient") for name, _ in bars], fontsize=8)
    right.set_ylabel("time to first text (ms)")
    right.legend(frameon=False, fontsize=8)
    return [save(figure, folder / "serve.png")]


def trace(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """A bar for each number of clients: the parts of the mean request, one behind the other, all bars equally long."""
    figure, (axis,) = figure_of(1, "Where a request's time goes", subtitle_of(result))
    figure.set_size_inches(11.2, 4.4)
    found = result["waterfalls"]
    totals = [sum(max(part["ms"], 0.0) for part in one["parts"]) for one in found]
    colors = {where: itertools.cycle(shades) for where, shades in PART_COLORS.items()}
    ends = [0.0] * len(found)
    for number, part in enumerate(found[0]["parts"]):
        times = [max(one["parts"][number]["ms"], 0.0) for one in found]
        shares = [ms / total * 100 for ms, total in zip(times, totals, strict=True)]
        bars = axis.barh(range(len(found)), shares, 0.6, left=ends, color=next(colors[part["where"]]))
        bars.set_label(part["part"])
        shown = [f"{ms:.2g}" if ms < 10 else f"{ms:.0f}" for ms in times]
        labels = [text if share >= 3 else "" for text, share in zip(shown, shares, strict=True)]
        axis.bar_label(bars, labels, label_type="center", fontsize=8)
        ends = [end + share for end, share in zip(ends, shares, strict=True)]
    names = [f"{one['clients']} client{'s' * (one['clients'] > 1)}" for one in found]
    axis.set_yticks(range(len(found)), [f"{name}\n{ms:.0f} ms" for name, ms in zip(names, totals, strict=True)])
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("percent of the mean request through the gateway (numbers: ms)")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    return [save(figure, folder / "trace.png")]
