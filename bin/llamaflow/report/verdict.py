"""The first section: what came out, in words and in a few figures."""

from __future__ import annotations

from typing import Any

from llamaflow.report import Results, number, safe, section, setting, span, title_of
from llamaflow.stats import higher_is_better
from llamaflow.units import duration, memory

SIGNIFICANT = 0.05


def verdict(results: Results) -> dict[str, Any]:
    winner = results.winner
    tone = "none" if winner["trial_id"] is None else "yes" if winner["passed"] else "no"
    pill = {"yes": "Cleared for release", "no": "Held back", "none": "No result"}[tone]
    content = f"""<div class="lf-verdict lf-{tone}">
<span class="lf-pill">{pill}</span>
<div class="lf-headline">{_headline(results)}</div>
<p>{safe(winner["reason"])}</p>
{_winner_chips(results)}
<div class="lf-cards">{"".join(_cards(results))}</div>
</div>
{_how_sure(results)}"""
    return section("verdict", "Verdict", "What this run found, and what happens with it.", "html", content)


def _headline(results: Results) -> str:
    gate, winner = results.winner["gate"], results.winner
    if gate is None:
        return "No trial could be compared, so there is no winner."
    if winner["passed"]:
        return f"Fine-tuning worked: the best trial is clearly better than its base model in {title_of(gate['metric'])}."
    if gate["gain"] <= 0:
        return "Fine-tuning did not help: no trial is better than its base model."
    if gate["ci_low"] > 0 and gate["p_holm"] < SIGNIFICANT:
        return "A real improvement, but not surely as large as was asked for."
    return "No proven improvement: the best trial scores higher than its base model, but that may be luck."


def _winner_chips(results: Results) -> str:
    name = results.winner["trial_id"]
    if name is None:
        return ""
    row = results.row(name)
    shown = {"technique": row["technique"]} | {key: setting(row["hyperparameters"][key]) for key in results.varied() if key in row["hyperparameters"]}
    chips = "".join(f'<span class="lf-chip">{safe(key)} <b>{safe(value)}</b></span>' for key, value in shown.items())
    return f'<p style="margin-top:.8rem">Best trial: <span class="lf-id">{safe(name)}</span>, trained from <span class="lf-id">{safe(row["model"])}</span></p><p>{chips}</p>'


def _cards(results: Results) -> list[str]:
    gate = results.winner["gate"]
    statuses = [row["status"] for row in results.rows if row["kind"] == "trial"]
    endings = [f"{statuses.count(status)} {status}" for status in ("failed", "stopped") if status in statuses]
    slowest = sum(trial.seconds for trial in results.trials)
    cards = []
    if gate:
        row = results.row(results.winner["trial_id"])
        base = results.base_row(row["model"])
        tuned, before = row["metrics"][gate["metric"]]["value"], base["metrics"][gate["metric"]]["value"] if base else None
        direction = "higher is better" if higher_is_better(gate["metric"]) else "lower is better"
        cards += [
            _card(f"{title_of(gate['metric'])}, base → tuned", f"{number(before)} → {number(tuned)}", direction),
            _card(
                "Gain over the base",
                number(gate["gain"], sign=True),
                f"very likely between {span(gate['ci_low'], gate['ci_high'], sign=True)}".replace(" to ", " and "),
            ),
            _card("Test records", f"{gate['n']:,}", "held out: no model was trained on them"),
        ]
    cards.append(_card("Trials", str(len(statuses)), ", ".join(endings) or "all of them finished"))
    peak = max((trial.peak_memory_bytes for trial in results.trials), default=0)
    cards.append(_card("Training time, all trials", duration(slowest), f"{memory(peak)} of memory at most"))
    return cards


def _card(label: str, figure: str, note: str) -> str:
    return f'<div class="lf-card"><div class="lf-label">{label}</div><div class="lf-figure">{figure}</div><div class="lf-note">{note}</div></div>'


def _how_sure(results: Results) -> str:
    gate, winner = results.winner["gate"], results.winner
    if gate is None:
        return ""
    trials = gate["trials_compared"]
    text = f"Both models answered the same {gate['n']:,} test records, and the gain is compared record by record. "
    if trials > 1:
        text += f"The best of {trials} trials is partly the luckiest, so its interval above is made wide enough for all {trials} ({gate['confidence']:.1%} instead of 95 %). "
    if gate["min_detectable"]:
        text += f"With this many records, a gain below about {number(gate['min_detectable'])} would probably go unnoticed. "
    if winner["tied_with"]:
        tied = ", ".join(f'<span class="lf-id">{results.labels[name]}</span>' for name in winner["tied_with"])
        text += f"Among the next best, these could as well have won: {tied}."
    elif winner["runner_up"]:
        text += "It is also clearly better than the trials that come next."
    return f'<details class="lf-more"><summary>How sure is this?</summary><p style="margin:.5rem 0 0">{text}</p></details>'
