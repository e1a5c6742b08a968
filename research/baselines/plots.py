"""Pictures of the comparisons, as PNG files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro_latent_benchmarks.plots import COLORS, figure_of, save, subtitle_of
from research.baselines.systems import ENGINES, TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS_COLOR, OTHERS_COLOR = COLORS[0], "#94a3b8"


def baselines(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Bars: time of a token with one client, the same where the prompt is copied, and many clients' throughput."""
    figure, axes = figure_of(3, "Same weights, same token ids, same lengths, in turns", subtitle_of(result))
    for axis, scenario, title in (
        (axes[0], "one_client", "one client, varied text"),
        (axes[1], "copy_heavy", "one client, text that copies its prompt"),
    ):
        spreads = result["scenarios"][scenario]["per_token_ms"]
        bars = [(TITLES[name], spread, name in ENGINES) for name, spread in spreads.items()]
        _bars(axis, bars, title, "time per token (ms), shorter is better")
    if static := result.get("many_clients"):
        bars = [(name, spread, name.startswith("ours")) for name, spread in static["tokens_per_second"].items()]
        settings = result["settings"]
        title = f"{settings['clients']} clients (ours {settings.get('clients_precision', settings.get('precision'))})"
        _bars(axes[2], bars, title, "useful tokens per second, longer is better")
    return [save(figure, folder / "baselines.png")]


def _bars(axis: "Axes", bars: list[tuple[str, Mapping[str, float], bool]], title: str, label: str) -> None:
    """Horizontal bars with whiskers from p10 to p90."""
    medians = [spread["median"] for _, spread, _ in bars]
    whiskers = [
        [max(spread["median"] - spread["p10"], 0) for _, spread, _ in bars],
        [max(spread["p90"] - spread["median"], 0) for _, spread, _ in bars],
    ]
    colors = [OURS_COLOR if ours else OTHERS_COLOR for _, _, ours in bars]
    axis.barh(range(len(bars)), medians, xerr=whiskers, color=colors, ecolor="#334155", error_kw={"linewidth": 1})
    axis.set_yticks(range(len(bars)), [name for name, _, _ in bars], fontsize=8)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#e2e8f0", linewidth=0.8)
    axis.grid(axis="y", visible=False)
    for place, (median, spread) in enumerate(zip(medians, (s for _, s, _ in bars), strict=True)):
        axis.annotate(
            f"{median:.3g}" if median < 100 else f"{median:,.0f}",
            (max(spread["p90"], median), place),
            textcoords="offset points",
            xytext=(4, 0),
            va="center",
            fontsize=8,
        )
    axis.margins(x=0.14)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(label)


def training(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Records a second of each system."""
    figure, (axis,) = figure_of(1, "Training", subtitle_of(result))
    speeds = result["records_per_second"]
    medians = [spread["median"] for spread in speeds.values()]
    reach = [[s["median"] - s["p10"] for s in speeds.values()], [s["p90"] - s["median"] for s in speeds.values()]]
    colors = [OURS_COLOR, *[OTHERS_COLOR] * (len(speeds) - 1)]
    axis.bar([name.replace(", ", ",\n") for name in speeds], medians, color=colors, yerr=reach, capsize=4)
    axis.set_ylabel("records/s")
    return [save(figure, folder / "training.png")]
