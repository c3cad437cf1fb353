"""How often players without a model reach the goal."""

from __future__ import annotations

from collections.abc import Iterable

from posttrain.environments.scripted import success_rates
from posttrain.environments.webshop.game import WebShop
from posttrain.tasks import Example


def baselines(examples: Iterable[Example]) -> dict[str, float]:
    """Success of the expert, of random legal actions and of the first legal one."""
    return success_rates(WebShop(), examples)
