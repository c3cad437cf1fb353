"""Measures of episodes, from records of one episode each (`rollouts.record`).

    success      it ends at the goal, by the environment's own judgement
    return       the sum of the rewards of its turns
    turns        their number
    invalid      share of its turns whose action the environment did not know or could not carry out, or that had none
    cut          share of its turns that were cut off at the most tokens of an answer
    limit        it ends because its turns are used up
    error        it ends because the environment failed

An episode with an error says nothing of the policy: it counts for `error` alone. (In the comparison of policies, which
needs the same questions of all, it is one without success; above 1 % of all they end the stage.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.measures.answers import average, numbers, verdicts
from posttrain.measures.named import Columns, Row, intervals, means

RETURN = "return"  # also the one part of an episode's reward


def episode_columns(records: Sequence[Row]) -> Columns:
    """The measures of each episode that has no error; nothing if all have one."""
    kept = [record for record in records if record["end"] != "error"]
    if not kept:
        return {}
    return {
        "success": verdicts(record["end"] == "goal" for record in kept),
        RETURN: numbers(record["score"] for record in kept),
        "turns": numbers(len(record["turns"]) for record in kept),
        "invalid": numbers(_share(record, "valid") for record in kept),
        "cut": numbers(_share(record, "finished") for record in kept),
        "limit": verdicts(record["end"] == "limit" for record in kept),
    }


def episode_means(records: Sequence[Row]) -> dict[str, float]:
    """The mean of each measure over all episodes, and the share of errors."""
    return {
        name: value for part in _columns(records) if part for name, value in means(part).items()
    }


def summarise_episodes(
    records: Sequence[Row], levels: Sequence[float], resamples: int
) -> dict[str, Any]:
    """`values` of the measures over all episodes, and `intervals` of them by level: Jeffreys for rates, else bootstrap."""
    parts = _columns(records)
    return {
        "episodes": len(records),
        "values": episode_means(records),
        "intervals": {
            name: found
            for part in parts
            if part
            for name, found in intervals(part, levels, resamples).items()
        },
    }


def _columns(records: Sequence[Row]) -> list[Columns]:
    return [episode_columns(records), {"error": verdicts(r["end"] == "error" for r in records)}]


def _share(record: Row, name: str) -> float:
    """The share of an episode's turns that are not `name`."""
    return average(not turn[name] for turn in record["turns"])
