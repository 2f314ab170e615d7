"""Every model's measure with its interval, drawn as one dot and one bar a model: MultiQC has no plot with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llamaflow.report import BASE, TRIAL, WINNER, Results, meaning_of, number, section, span, title_of

WIDTH, ROW, TOP, BOTTOM = 1160, 30, 14, 34
LEFT, RIGHT = 400, 900  # the plot's sides; names stand left of it, figures right
TICKS = 6


def intervals(results: Results) -> dict[str, Any] | None:
    """The gate's measure first, the others folded."""
    if not results.metrics:
        return None
    first, *others = results.metrics
    content = _figure(results, first)
    content += "".join(
        f'<details class="lf-more"><summary>{title_of(name)}</summary><p>{meaning_of(name)}</p>{_figure(results, name)}</details>' for name in others
    )
    text = (
        f"{meaning_of(first)}. The dot is what was measured on the test records, the bar where the truth lies in 95 of 100 cases. "
        "The dashed line is the best base model: a trial whose bar stays clear of it has learnt something."
    )
    return section("intervals", "Scores with their uncertainty", text, "html", content)


def _figure(results: Results, metric: str) -> str:
    rows = [row for row in results.rows if metric in row["metrics"]]
    low, high, step = axis(min(row["metrics"][metric]["ci_low"] for row in rows), max(row["metrics"][metric]["ci_high"] for row in rows))

    def place(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - low) / (high - low)

    height = TOP + ROW * len(rows) + BOTTOM
    ticks = [low + number_of * step for number_of in range(round((high - low) / step) + 1)]
    parts = [_tick(place(value), value, step, height) for value in ticks]
    bases = [row["metrics"][metric]["value"] for row in rows if row["kind"] == "base"]
    if bases:
        best = next(row["metrics"][metric]["value"] for row in rows if row["kind"] == "base")  # rows are best first
        parts.append(f'<line x1="{place(best):.1f}" x2="{place(best):.1f}" y1="{TOP}" y2="{height - BOTTOM}" stroke="{BASE}" stroke-dasharray="4 4"/>')
    parts += [
        _row(results.labels[row["id"]], row["metrics"][metric], TOP + ROW * place_of + ROW / 2, place, _colour(results, row))
        for place_of, row in enumerate(rows)
    ]
    return f'<svg class="lf-forest" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title_of(metric)} of all models">{"".join(parts)}</svg>'


def _colour(results: Results, row: dict[str, Any]) -> str:
    return BASE if row["kind"] == "base" else WINNER if row["id"] == results.winner["trial_id"] else TRIAL


def _tick(x: float, value: float, step: float, height: float) -> str:
    decimals = max(0, -math.floor(math.log10(step)))
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}" stroke="currentColor" opacity=".12"/>'
        f'<text class="lf-dim" x="{x:.1f}" y="{height - BOTTOM + 18}" text-anchor="middle" font-size="11">{value:.{decimals}f}</text>'
    )


def _row(label: str, estimate: dict[str, Any], y: float, place: Any, colour: str) -> str:
    weight = "700" if colour == WINNER else "400"
    squeeze = f' textLength="{LEFT - 24}" lengthAdjust="spacingAndGlyphs"' if len(label) > 54 else ""
    left, dot, right = place(estimate["ci_low"]), place(estimate["value"]), place(estimate["ci_high"])
    marker = (
        f'<rect x="{dot - 5:.1f}" y="{y - 5}" width="10" height="10" fill="{colour}"/>'
        if colour == BASE
        else f'<circle cx="{dot:.1f}" cy="{y}" r="5.5" fill="{colour}"/>'
    )
    figures = f'{number(estimate["value"])} <tspan class="lf-dim">({span(estimate["ci_low"], estimate["ci_high"])})</tspan>'
    return (
        f'<text x="{LEFT - 18}" y="{y + 4}" text-anchor="end" font-weight="{weight}"{squeeze}>{label}</text>'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="4" stroke-linecap="round" opacity=".45"/>'
        f'{marker}<text x="{RIGHT + 24}" y="{y + 4}" font-weight="{weight}">{figures}</text>'
    )


def axis(low: float, high: float) -> tuple[float, float, float]:
    """Round ends and a round step (1, 2 or 5 times a power of ten) that enclose low and high."""
    if high - low < 1e-9:
        low, high = low - max(abs(low), 1e-3) * 0.1, high + max(abs(high), 1e-3) * 0.1
    raw = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def enclosed(values: Sequence[float]) -> tuple[float, float]:
    low, high, _ = axis(min(values), max(values))
    return low, high
