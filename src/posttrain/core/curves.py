"""Training curves for `dvc plots`, and a progress bar.

DVCLive writes one tsv file per curve, at the end of the run and from its history: a run that was killed and resumed has
the same curves as one that was not.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_json

if TYPE_CHECKING:
    from posttrain.core.loop import History

TRAINING = "training.json"
SHOWN = ("loss", "reward", "kl", "val_reward")
RUNS = "runs"


def write_curves(directory: Path, history: History) -> None:
    """Write `directory`/{train,val}/KEY.tsv for each key of the rows, by "step", and `training.json`: `History.ending`."""
    from dvclive import Live  # takes 0.4 s to import

    with atomic_directory(directory) as temporary:
        live = Live(
            str(temporary / "live"),
            dvcyaml=None,  # Live() edits the project's dvc.yaml by default
            save_dvc_exp=False,
            report=None,
            monitor_system=False,
        )
        curves = {"train": history.train, "val": history.val}
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
        write_json(temporary / TRAINING, history.ending)


class Progress:
    """A progress bar with the latest statistics, on the main process; a tracker gets the same if one is configured.

    name: of the run, such as `selector/ppo/0`. tracking: none | tensorboard | wandb | mlflow, through accelerate's
    trackers, which write to `runs/`, outside everything that is hashed.
    """

    def __init__(self, name: str, tracking: str = "none") -> None:
        self.tracker = open_tracker(tracking, name) if processes.is_main() else None
        self.bar = tqdm(desc=name, unit="step", mininterval=2, disable=not processes.is_main())

    def __call__(self, done: int, total: int, stats: Mapping[str, float]) -> None:
        self.bar.total = total
        shown = {key: f"{stats[key]:.3f}" for key in SHOWN if key in stats}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(done - self.bar.n)
        if self.tracker is not None:
            self.tracker.log(dict(stats), step=done)

    def close(self) -> None:
        self.bar.close()
        if self.tracker is not None:
            self.tracker.finish()


def open_tracker(tracking: str, name: str) -> Any:
    """Accelerate's tracker for the named run, or None for `none`; `UserError` if its package is not installed."""
    if tracking == "none":
        return None
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[tracking]
    folder = {"logging_dir": RUNS} if kind.requires_logging_directory else {}
    try:
        tracker = kind(name, **folder)
        tracker.start()
    except ImportError as error:
        raise UserError(
            f"params.yaml: tracking: {tracking} needs a package: pip install {tracking}"
        ) from error
    return tracker
