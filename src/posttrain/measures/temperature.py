"""Temperature scaling: the one temperature at which a policy gives validation's best answers the most likelihood.

    p_T = softmax(logits / T),    T* = argmin_T  -sum log p_T(best answers)         Guo et al. 2017, section 4.2

A policy that only grows surer of the answers it already gave, its logits a multiple of what they were, gains in samples at
temperature 1. At T* it gains nothing, as its T* is the same multiple of the other's. So samples at T* compare what
policies have learned apart from how sure they are. The untrained selector's logits are its likelihood weight times
log-likelihoods, so T* fits that weight.

T* is sought between `LEAST` and `MOST`. A policy for which all the best answers are the most probable ones has none: the
likelihood grows down to T = 0, and `LEAST` is taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq, minimize_scalar

from posttrain.core.errors import UserError
from posttrain.measures.intervals import Array
from posttrain.measures.named import DIGITS

LEAST, MOST = 0.05, 20.0
_U = np.linspace(-1.0, 1.0, 33)
# Where `fit_slopes` needs the slopes; denser near 1, where most policies' temperatures are.
GRID = MOST ** (_U * abs(_U))
_NEAR = 1e-4  # of a bound, in log T


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted temperature, and whether it is one of the bounds."""

    temperature: float
    at_bound: bool


def fit_choice(logits: Array, best: NDArray[np.bool_]) -> Fit:
    """The temperature that minimises the mean of -log sum_{k in best} softmax(logits / T)_k over the pools.

    logits, best: (N, K), with at least one best candidate in each pool. `UserError` if a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise UserError("no temperature can be fitted: the model's scores are not finite")
    scores = logits.astype(np.float64)
    inside, outside = (np.where(mask, scores, -np.inf) for mask in (best, ~best))
    if (inside.max(axis=1) > outside.max(axis=1)).all():
        return _at(np.log(LEAST))

    def loss(log_temperature: float) -> float:
        scaled = (each / np.exp(log_temperature) for each in (inside, outside))
        of_best, of_others = (np.logaddexp.reduce(each, axis=1) for each in scaled)
        return float(np.logaddexp(0.0, of_others - of_best).mean())

    found = minimize_scalar(
        loss, bounds=(np.log(LEAST), np.log(MOST)), method="bounded", options={"xatol": 1e-9}
    )
    # Where all temperatures are alike, as for equal logits, 1 stands for them.
    return _at(float(found.x) if found.fun < loss(0.0) else 0.0)


def fit_slopes(slopes: Array, curvatures: Array) -> Fit:
    """The temperature at which the slope of a negative log-likelihood is 0.

    slopes, curvatures: (G,), the first and second derivative by log T at each of `GRID`. Of one token the likelihood is
    log-concave in 1 / T, so there is at most one such temperature; between two of the grid it is that of the cubic Hermite
    spline.
    """
    places = np.log(GRID)
    if not slopes.any():
        return _at(0.0)
    rising = np.flatnonzero(slopes > 0)
    falling = np.flatnonzero(slopes < 0)
    if not falling.size:
        return _at(places[0])
    if not rising.size:
        return _at(places[-1])
    below, above = falling[-1], rising[0]
    spline = CubicHermiteSpline(places, slopes, curvatures)
    return _at(float(brentq(spline, places[below], places[above], xtol=1e-12)))


def point(temperature: float, accuracy: float, reward: float) -> dict[str, float]:
    """One point of a policy's curve over temperatures, as temperatures.json has it; 0 is the greedy answer."""
    values = {"temperature": temperature, "accuracy": accuracy, "reward": reward}
    return {name: round(float(value), DIGITS) for name, value in values.items()}


def described(fit: Fit, curve: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The content of temperatures.json: the fitted temperature, whether it is at a bound, and the curve by temperature."""
    return {
        "fitted": round(fit.temperature, DIGITS),
        "at_bound": fit.at_bound,
        "curve": sorted(curve, key=lambda one: one["temperature"]),
    }


def _at(log_temperature: float) -> Fit:
    ends = abs(log_temperature - np.log([LEAST, MOST]))
    return Fit(float(np.exp(log_temperature)), bool(ends.min() < _NEAR))
