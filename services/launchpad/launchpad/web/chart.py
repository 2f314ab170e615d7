"""Losses as curves: where each point is in the picture, which a template draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from launchpad.web.history import Point, Trial

WIDTH, HEIGHT = 560, 310
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 42  # margins
MOST_POINTS = 300  # of a curve
COLOURS = 8


@dataclass(frozen=True)
class Curve:
    """A trial in the picture; dots are its measured validation losses."""

    name: str
    colour: int
    dashed: bool
    training: str
    validation: str
    dots: list[Point]
    step: int
    loss: float
    validation_loss: float | None


@dataclass(frozen=True)
class Chart:
    """Ticks are where they are and what they say."""

    curves: list[Curve]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Scale:
    """Steps from 0 to last, losses from low to high."""

    last: float
    low: float
    high: float

    def placed(self, point: Point) -> Point:
        step, loss = point
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / self.last
        return round(x, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (loss - self.low) / (self.high - self.low), 1)


def chart_of(trials: Sequence[Trial]) -> Chart | None:
    """None without trials; each has at least one loss."""
    if not trials:
        return None
    scale = _scale([point for trial in trials for point in (*trial.loss, *trial.validation)])
    names = short_names([trial.name for trial in trials])
    curves = [_curve(number, name, trial, scale) for number, (name, trial) in enumerate(zip(names, trials, strict=True))]
    across = [(scale.placed((tick, scale.low))[0], f"{tick:g}") for tick in ticks(0, scale.last, whole=True)]
    return Chart(curves, across, [(scale.placed((0, tick))[1], f"{tick:.4g}") for tick in ticks(scale.low, scale.high)])


def _scale(points: Sequence[Point]) -> Scale:
    losses = [loss for _, loss in points]
    low, high = min(losses), max(losses)
    edge = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Scale(max(1.0, max(step for step, _ in points)), low - edge, high + edge)


def _curve(number: int, name: str, trial: Trial, scale: Scale) -> Curve:
    dots = [scale.placed(point) for point in thinned(trial.validation)]
    return Curve(
        name=name,
        colour=number % COLOURS,
        dashed=number >= COLOURS,
        training=_line([scale.placed(point) for point in thinned(trial.loss)]),
        validation=_line(dots),
        dots=dots,
        step=int(trial.loss[-1][0]),
        loss=trial.loss[-1][1],
        validation_loss=trial.validation[-1][1] if trial.validation else None,
    )


def _line(points: Sequence[Point]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Evenly chosen, the last one among them."""
    every = math.ceil(len(points) / MOST_POINTS) or 1
    return points[::-1][::every][::-1]


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Three to seven round numbers between two."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short_names(names: Sequence[str]) -> list[str]:
    """Without the words that all have in common, if they are made of as many."""
    words = [name.split("-") for name in names]
    if len(names) < 2 or len({len(each) for each in words}) > 1:
        return list(names)
    differing = [place for place in range(len(words[0])) if len({each[place] for each in words}) > 1]
    return ["-".join(each[place] for place in differing) for each in words]
