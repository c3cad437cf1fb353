"""Training curves for `dvc plots`, and a progress bar for the person who waits.

DVCLive writes one tsv file per curve. They are written when the run ends, from the run's own
history: a run that was killed and resumed then has the same curves as one that was not.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from posttrain.core import processes
from posttrain.core.files import atomic_directory

Row = dict[str, float]


def write_curves(directory: Path, curves: dict[str, Sequence[Row]]) -> None:
    """Write `directory`/NAME/KEY.tsv for each key of each curve's rows, "step" on the x axis."""
    from dvclive import Live  # takes 0.4 s, and is needed once, at the end

    with atomic_directory(directory) as temporary:
        live = Live(
            str(temporary / "live"),
            dvcyaml=None,  # Live() edits the project's dvc.yaml by default
            save_dvc_exp=False,
            report=None,
            monitor_system=False,
        )
        for name, rows in curves.items():
            for row in rows:
                live.step = int(row["step"])
                for key, value in row.items():
                    if key != "step":
                        live.log_metric(f"{name}/{key}", value)
        live.end()
        for path in sorted((temporary / "live" / "plots" / "metrics").iterdir()):
            path.rename(temporary / path.name)
        shutil.rmtree(temporary / "live")


class Progress:
    """A tqdm bar of steps that shows the newest statistics, on the main process."""

    def __init__(self, name: str) -> None:
        self.bar = tqdm(desc=name, unit="step", mininterval=2, disable=not processes.is_main())

    def __call__(self, done: int, total: int, shown: Mapping[str, float]) -> None:
        self.bar.total = total
        self.bar.set_postfix({key: f"{value:.3f}" for key, value in shown.items()}, refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        self.bar.close()
