"""Figures as tables: rows of text, and for the terminal."""

from typing import Any

from rich.table import Table

BY_SYSTEM = {
    "ce": ("cross-entropy", 1.0, 3),
    "share_of_full_finetune_gain": ("share of gain", 100.0, 0),
    "chrf": ("chrF", 1.0, 1),
    "rouge_l": ("ROUGE-L", 100.0, 1),
    "served": ("served", 100.0, 1),
    "unchanged": ("unchanged", 100.0, 1),
    "unneeded": ("unneeded", 100.0, 1),
    "rejected": ("rejected", 100.0, 1),
    "withheld": ("withheld", 100.0, 1),
    "repetition": ("repetition", 100.0, 1),
    "self_bleu": ("self-BLEU", 1.0, 1),
    "length_ratio": ("length ratio", 1.0, 2),
    "preference_accuracy": ("prefers success", 100.0, 1),
}
"""Figures that several systems have: title, factor, digits."""

OF_THE_ADAPTER = (
    ("usage_gap", "usage gap: loss with another row's soft prompts less the own"),
    ("usage_gap_to_mean", "the same with the mean soft prompts"),
    ("effective_rank", "effective rank of the soft prompts"),
    ("intent_r2", "R² of the intent over the mean"),
    ("retrieval", "mean reciprocal rank of the own gold prompt, by the intent"),
    ("preference_by_intent", "success nearer to the intent than the failed text"),
)
WITH_RAW = {
    "retrieval": "the same by the raw embedding",
    "preference_by_intent": "success nearer to the raw embedding than the failed text",
}


RESPONSES = {
    "added": ("prompts changed", "Share of the prompts that the system changes."),
    "likelihood_gain": (
        "likelihood gain",
        "How much likelier the good answer gets with the system's prompt in place of the raw one, in nats a token "
        "(0.01 is one percent).",
    ),
    "margin_gain": ("margin gain", "The same of the good answer less the same of the bad one."),
    "good_above_bad": (
        "good above bad",
        "Share of the tasks whose good answer is likelier, a token, than the bad one.",
    ),
    "constraints_met": ("checks met", "Share of a task's checks that the answer meets."),
    "constraints_gain": ("checks gain", "The same less that of the raw prompt."),
    "wins_gain": (
        "wins less losses",
        "How often the answer to the system's prompt is found better than that to the raw prompt, less how often it is "
        "found worse; two answers are shown in both orders, and orders that disagree are a tie.",
    ),
    "wins_gain_at_like_length": (
        "the same, like lengths",
        "The same where the answers' lengths differ by a quarter at most, for judges like long answers.",
    ),
    "orders_agree": ("orders agree", "How often both orders give the same verdict."),
}
"""Figures of what prompts lead to: title, and what it means."""


def responses_rows(found: dict[str, Any], between: str = " ") -> tuple[list[str], list[list[str]]]:
    """Column titles, and a row for every system, of what prompts lead to; ``between`` stands before an interval."""
    used = [name for name in RESPONSES if name in found]
    rows = [[system, *(interval(found[name].get(system), between) for name in used)] for system in found["added"]]
    return ["system", *(RESPONSES[name][0] for name in used)], rows


def interval(found: list[float] | None, between: str = " ") -> str:
    """``[value, low, high]``; "" where there is none."""
    return "" if found is None else "{:.3f}{}({:.3f} to {:.3f})".format(found[0], between, *found[1:])


def systems_rows(figures: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column titles, and a row for every system."""
    used = {name: column for name, column in BY_SYSTEM.items() if name in figures}
    rows = [
        [system, *(cell(figures[name].get(system), scale, digits) for name, (_, scale, digits) in used.items())]
        for system in figures["chrf"]
    ]
    return ["system", *(title for title, _, _ in used.values())], rows


def adapter_rows(figures: dict[str, Any]) -> list[list[str]]:
    """What only the adapter has: title and value."""
    rows = []
    for system, found in figures["better_than"].items():
        if "ce" in found:
            rows.append([f"loss below that of: {system}", cell(found["ce"], 1.0, 3)])
        rows.append([f"chrF above that of: {system}", cell(found["chrf"], 1.0, 1)])
    for name, title in OF_THE_ADAPTER:
        if name in figures:
            rows.append([title, cell(figures[name]["adapter"], 1.0, 3)])
            if name in WITH_RAW:
                rows.append([WITH_RAW[name], cell(figures[name]["raw"], 1.0, 3)])
    return rows


def of_one(figures: dict[str, Any]) -> list[Table]:
    """Tables of one adapter beside the baselines, narrow enough for a terminal: systems side by side."""
    titles, rows = systems_rows(figures)
    table = Table(title=f"{figures['rows']} rows; {figures['form']}s; value (95 % interval); shares in %")
    for i, name in enumerate([titles[0], *(row[0] for row in rows)]):
        table.add_column(name, justify="right" if i else "left")
    for i, title in enumerate(titles[1:], start=1):
        table.add_row(title, *(row[i] for row in rows))
    ours = Table("of the adapter", "")
    for row in adapter_rows(figures):
        ours.add_row(*row)
    return [table, ours]


def of_two(figures: dict[str, Any]) -> list[Table]:
    """One table of two adapters."""
    table = Table(title=f"{figures['rows']} rows, {figures['form']}s as served; value (95 % interval); shares in %")
    for title in ("", "first", "second", "second less first", "p", "better"):
        table.add_column(title, justify="left" if not title else "right")
    for name, found in figures.items():
        if name in BY_SYSTEM:
            title, scale, digits = BY_SYSTEM[name]
            values = (cell(found[which], scale, digits) for which in ("first", "second", "difference"))
            table.add_row(title, *values, f"{found['p']:.3f}", found["better"])
    return [table]


def cell(figure: dict[str, float] | float | None, scale: float, digits: int) -> str:
    """A figure with its interval, where it has one; a dash where there is none."""
    if figure is None:
        return "–"
    if isinstance(figure, dict):
        value, low, high = (figure[name] * scale for name in ("value", "low", "high"))
        return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{figure * scale:.{digits}f}"
