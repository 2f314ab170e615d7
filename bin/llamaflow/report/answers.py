"""Answers of the winner and of its base side by side, with their reference."""

from __future__ import annotations

import json
from typing import Any

from llamaflow.metrics import fold_answer
from llamaflow.report import Results, safe, section, title_of
from llamaflow.stats import higher_is_better

GROUPS = (("Where the tuned model gained most", 5), ("Where the base was better", 3), ("Ordinary cases, around the middle", 4))
LONGEST = 700  # characters of a text shown


def answers(results: Results) -> dict[str, Any] | None:
    """About twelve telling test records; None if nothing was generated."""
    pairs, metric = _pairs(results)
    if not pairs:
        return None
    groups = chosen(pairs, higher_is_better(metric))
    body = "".join(
        f'<tr class="lf-group"><td colspan="4">{title}</td></tr>' + "".join(_row(pair, metric) for pair in members)
        for (title, _), members in zip(GROUPS, groups, strict=True)
        if members
    )
    head = "".join(f"<th>{name}</th>" for name in ("Question", "Reference answer", "Base model", "Tuned model"))
    text = (
        f"{sum(map(len, groups))} of {len(pairs)} test records, chosen by the difference in {title_of(metric)}; words that also stand in the reference are shaded. "
        "Read a few: a score cannot tell whether an answer is good enough for you."
    )
    return section("answers", "Answers side by side", text, "html", f'<table class="lf-answers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def _pairs(results: Results) -> tuple[list[dict[str, Any]], str]:
    """Test records with the answers and scores of both models, and the measure that compares them."""
    name = results.winner["trial_id"]
    if name is None:
        return [], ""
    tuned = results.evaluation(name)
    base = next((found for found in results.evaluations if found.kind == "base" and found.model == tuned.model), None)
    if base is None:
        return [], ""
    ours, theirs = tuned.predictions(), {row["record_id"]: row for row in base.predictions().to_pylist()}
    scored = [column.removeprefix("score_") for column in ours.column_names if column.startswith("score_")]
    scored = [metric for metric in scored if metric != "preference_accuracy"]  # it is no score of the answer that was written
    metric = results.metric if results.metric in scored else next(iter(scored), "")
    if not metric:
        return [], ""
    pairs = [row | {"base": theirs[row["record_id"]], "tuned_score": row[f"score_{metric}"]} for row in ours.to_pylist() if row["record_id"] in theirs]
    pairs = [pair | {"base_score": pair["base"].get(f"score_{metric}")} for pair in pairs]
    return [pair for pair in pairs if pair["tuned_score"] is not None and pair["base_score"] is not None], metric


def chosen(pairs: list[dict[str, Any]], higher: bool) -> list[list[dict[str, Any]]]:
    """The biggest gains, the biggest losses, and those nearest to the median; no record twice, the same ones every time."""

    def gain(pair: dict[str, Any]) -> float:
        difference = pair["tuned_score"] - pair["base_score"]
        return float(difference if higher else -difference)

    ordered = sorted(pairs, key=lambda pair: (-gain(pair), pair["record_id"]))
    gains = [pair for pair in ordered if gain(pair) > 0][: GROUPS[0][1]]
    losses = [pair for pair in reversed(ordered) if gain(pair) < 0][: GROUPS[1][1]]
    taken = {pair["record_id"] for pair in gains + losses}
    middle = len(ordered) // 2
    by_distance = [pair for _, pair in sorted(enumerate(ordered), key=lambda place: abs(place[0] - middle))]
    return [gains, losses, [pair for pair in by_distance if pair["record_id"] not in taken][: GROUPS[2][1]]]


def _row(pair: dict[str, Any], metric: str) -> str:
    reference, difference = pair["reference"] or "", pair["tuned_score"] - pair["base_score"]
    tone = "" if not difference else "lf-up" if (difference > 0) == higher_is_better(metric) else "lf-down"
    base = f'{shaded(pair["base"]["prediction"] or "", reference)}<span class="lf-score">{title_of(metric)} {pair["base_score"]:.2f}</span>'
    tuned = f'{shaded(pair["prediction"] or "", reference)}<span class="lf-score">{title_of(metric)} {pair["tuned_score"]:.2f} <span class="{tone}">({difference:+.2f})</span></span>'
    return f"<tr><td>{safe(short(question_of(pair['prompt'] or '')))}</td><td>{safe(short(reference))}</td><td>{base}</td><td>{tuned}</td></tr>"


def question_of(prompt: str) -> str:
    """The last message of a conversation, which evaluate_model keeps as JSON; other text as it is."""
    try:
        return str(json.loads(prompt)[-1]["content"])
    except (ValueError, TypeError, LookupError):
        return prompt


def shaded(answer: str, reference: str) -> str:
    """The answer as HTML, with the words that the reference has too marked; an empty answer says so."""
    known = {fold_answer(word) for word in reference.split()} - {""}
    runs: list[tuple[bool, list[str]]] = []
    for word in short(answer).split():
        hit = fold_answer(word) in known
        if not runs or runs[-1][0] != hit:
            runs.append((hit, []))
        runs[-1][1].append(word)
    marked = (f'<span class="lf-hit">{safe(" ".join(words))}</span>' if hit else safe(" ".join(words)) for hit, words in runs)
    return " ".join(marked) or "<i>(empty)</i>"


def short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(maxsplit=1)[0] + " …"
