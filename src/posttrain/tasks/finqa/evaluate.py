"""Score a predictions file in the FinQA paper's format against a split.

    python -m posttrain.tasks.finqa.evaluate PREDICTIONS SPLIT_JSON [--json]

PREDICTIONS is `[{"id": ..., "predicted": ["add(", "1", "2", ")", "EOF"]}, ...]`, SPLIT_JSON a file of the data set.
Execution and program accuracy are the paper's (official.py), once over the predictions, which is the paper's
denominator, and once over the whole split, where a missing prediction is wrong. A row without a list of tokens, such as
one of a failed request (`null`, or no `predicted` at all), is wrong; how many there are stands on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import iterate_json_array
from posttrain.tasks.finqa.official import official_verdict


def evaluate(
    predictions: Sequence[dict[str, Any]], split: Sequence[dict[str, Any]]
) -> dict[str, int | float | None]:
    """Counts and accuracies of predictions (from `read_predictions`) on a split (from `read_split`).

    Keys: predictions, without_tokens (those whose `predicted` is no list), split, {execution,program}_correct,
    {execution,program}_accuracy (over the predictions; None if there are none) and {execution,program}_accuracy_split.
    `UserError` for an id that is not in the split.
    """
    rows = {row["id"]: row for row in split}
    execution = program = without = 0
    for number, prediction in enumerate(predictions):
        row = rows.get(prediction["id"])
        if row is None:
            raise UserError(f"prediction {number}: id {prediction['id']!r} is not in the split")
        qa = row["qa"]
        tokens = prediction.get("predicted")
        without += not isinstance(tokens, list)
        verdict = official_verdict(tokens, qa["program"], qa["exe_ans"], row["table"])
        execution += verdict[0]
        program += verdict[1]
    count, size = len(predictions), len(rows)
    return {
        "predictions": count,
        "without_tokens": without,
        "split": size,
        "execution_correct": execution,
        "program_correct": program,
        "execution_accuracy": execution / count if count else None,
        "program_accuracy": program / count if count else None,
        "execution_accuracy_split": execution / size,
        "program_accuracy_split": program / size,
    }


def read_predictions(path: str) -> list[dict[str, Any]]:
    """The predictions of a file, each with an `id`; `UserError`, with file and row, if something else is wrong.

    A row without tokens is kept, but a file without any is refused if it has no `predicted` or texts in their place.
    """
    rows = _read_rows(path, ("id",))
    found = [row["predicted"] for row in rows if "predicted" in row]
    if rows and not found:
        raise UserError(f"{path}: row 0: missing field predicted, as in all rows")
    if not any(isinstance(tokens, list) for tokens in found):
        for number, row in enumerate(rows):
            if isinstance(row.get("predicted"), str):
                raise UserError(
                    f"{path}: row {number} ({row['id']}): predicted is not a list of tokens, nor is any other"
                )
    return rows


def read_split(path: str) -> list[dict[str, Any]]:
    """The rows of a split; `UserError`, with file and row, if something is missing or wrong."""
    rows = _read_rows(path, ("id", "table", "qa"))
    if not rows:
        raise UserError(f"{path}: the split has no rows")
    for number, row in enumerate(rows):
        for field in ("program", "exe_ans"):
            if not isinstance(row["qa"], dict) or field not in row["qa"]:
                raise UserError(f"{path}: row {number} ({row['id']}): missing field qa.{field}")
    return rows


def _read_rows(path: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    rows = list(iterate_json_array(path))
    seen: set[str] = set()
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number}: expected an object, found {type(row).__name__}")
        for field in fields:
            if field not in row:
                raise UserError(f"{path}: row {number}: missing field {field}")
        if not isinstance(row["id"], str):
            raise UserError(f"{path}: row {number}: id is not text")
        if row["id"] in seen:
            raise UserError(f"{path}: row {number}: duplicate id {row['id']!r}")
        seen.add(row["id"])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the accuracies and return 0; for bad input, one line on standard error and 1."""
    parser = argparse.ArgumentParser(prog="python -m posttrain.tasks.finqa.evaluate")
    parser.add_argument("predictions", help='JSON: [{"id", "predicted": [..., "EOF"]}, ...]')
    parser.add_argument("split", help="JSON file of the data set, such as dev.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args(arguments)
    try:
        result = evaluate(read_predictions(options.predictions), read_split(options.split))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if result["without_tokens"]:
        print(
            f"note: {result['without_tokens']} of {result['predictions']} predictions are no list of "
            'tokens such as ["add(", "1", "2", ")", "EOF"], and count as wrong',
            file=sys.stderr,
        )
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    print(f"{'':22}{'correct':>9}{'of predictions':>17}{'of the split':>15}")
    print(f"{'rows':22}{'':>9}{result['predictions']:>17}{result['split']:>15}")
    for name in ("execution", "program"):
        accuracy = result[f"{name}_accuracy"]
        shown = "n/a" if accuracy is None else f"{accuracy:.4%}"
        whole = f"{result[f'{name}_accuracy_split']:.4%}"
        print(f"{name + ' accuracy':22}{result[f'{name}_correct']:>9}{shown:>17}{whole:>15}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
