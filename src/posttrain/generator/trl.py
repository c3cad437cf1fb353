"""TRL's trainers as `sft`, `grpo`, `rloo` and `dpo` use them, run so that they can be killed and resumed.

* An optimizer step is one batch of the configuration, in passes of at most `batch_size` rows (`passes`) that the
  processes share evenly; accelerate wraps the model in DistributedDataParallel.
* The learning rate warms up linearly from a tenth and falls to a tenth along a cosine, as in the selector's training.
* `Watch` validates at evenly spaced steps, keeps the best trainable weights, and asks for checkpoints. It does so only
  after whole rollout batches: TRL does not save a buffered one, so a run resumed inside it would sample anew and end
  elsewhere.
* `best.safetensors` (best weights, validations so far) is written last into a checkpoint, and shows that it is whole;
  `last_whole` removes a half-written checkpoint and takes the one before.
* The model is returned with its best weights and without the additions of TRL.

The reference of GRPO and RLOO is the model as it comes in, the SFT policy. TRL itself would load the base, by the name
in the model's configuration.

Left out: resuming within an evaluation.
"""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl.trainer import utils
from trl.trainer.utils import add_fused_lm_head, split_tensor_dict

from posttrain.core import processes
from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.errors import UserError
from posttrain.core.loop import (
    SAVES,
    Best,
    History,
    Stats,
    at_step,
    check_finite,
    check_weights,
    choose_kernels,
    device,
    evenly,
    validated,
)
from posttrain.core.settings import Optimization
from posttrain.generator import shared
from posttrain.generator.run import Run
from posttrain.generator.settings import OnPolicy
from posttrain.models.precision import autocasts
from posttrain.models.sharding import check_trainable, distribute
from posttrain.models.tokens import tokenize_prompts
from posttrain.rollouts.groups import all_equal
from posttrain.rollouts.sampling import complete, end_tokens

BEST = "best"
REFERENCE = "ref"  # TRL's name for the frozen copy of an adapter
# Columns of the training curve, with TRL's names for them.
COLUMNS = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "token_accuracy": "mean_token_accuracy",
    "reward": "reward",
    "reward_std": "reward_std",
    "equal_rewards": "equal_rewards",  # share of the groups
    "kl": "kl",
    "entropy": "entropy",
    "clip_fraction": "clip_ratio/region_mean",
    "completion_tokens": "completions/mean_length",
    "unfinished": "completions/clipped_ratio",
    "correct": "correct",
    "wrong": "wrong",
    "unparseable": "unparseable",
    "unscorable": "unscorable",
    "reward_chosen": "rewards/chosen",
    "reward_rejected": "rewards/rejected",
    "margin": "rewards/margins",
    "pair_accuracy": "rewards/accuracies",
}

# Without Triton, TRL scores the positions without a label too, lest a graph be compiled again for each number of
# positions. Nothing is compiled here, and most positions belong to prompts.
utils._use_triton = lambda device: True  # type: ignore[attr-defined]


def passes(rows: int, batch_size: int, what: str = "rows") -> tuple[int, int]:
    """(rows per pass, passes) of each process for one optimizer step over `rows`: the largest equal passes that fit.

    A pass has at most `batch_size` rows. `UserError`, which calls the rows `what`, if the processes cannot share them
    evenly.
    """
    own = even_share(rows, what)
    size = next(size for size in range(min(own, batch_size), 0, -1) if own % size == 0)
    return size, own // size


def at_most(wanted: int, there: int) -> int:
    """`wanted` rows, or where fewer are there, as many of them as the processes can share evenly."""
    return wanted if wanted <= there else there - there % processes.count()


def even_share(number: int, what: str) -> int:
    """`number` divided by the number of processes; `UserError` if that is not a positive integer."""
    own, rest = divmod(number, processes.count())
    if rest or not own:
        raise UserError(
            f"{what}: {number} cannot be shared evenly by {processes.count()} processes; "
            "change the one or the other (num_processes in the file that launch names)"
        )
    return own


def seed_epoch(generator: torch.Generator, seed: int, epoch: int) -> None:
    """Let the order of the rows in an epoch derive from (seed, epoch), as the trainer asks for it with `set_epoch`."""
    generator.manual_seed(random.Random(f"epoch/{seed}/{epoch}").getrandbits(48))


def common_arguments(run: Run, settings: Optimization) -> dict[str, Any]:
    """The training arguments of all four trainers."""
    model = run.model
    check_trainable(model, "the generator")
    cuda = device().type == "cuda"
    if cuda and processes.count() == 1 and torch.cuda.device_count() > 1:
        raise UserError(
            f"launch: one process sees {torch.cuda.device_count()} GPUs; use accelerate launch --config_file "
            "launch/gpus.yaml for all of them, or launch/one-gpu.yaml"
        )
    return {
        "output_dir": str(run.work),
        "seed": run.seed,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine_warmup_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.1},
        "warmup_steps": min(settings.warmup, 0.999),  # below 1 it is a share of the steps
        "optim": "adamw_torch_fused" if cuda else "adamw_torch",
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "use_cpu": not cuda,
        "bf16": model.dtype == torch.bfloat16 or autocasts(model),
        "activation_checkpointing": False,  # switched on in the model itself, where wanted
        "dataloader_pin_memory": cuda,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "ddp_find_unused_parameters": False,  # there are none
        # Buffers are constant, and processes that score different numbers of groups would wait for each other.
        "ddp_broadcast_buffers": False,
        "disable_tqdm": True,  # `report` shows the progress
        "save_strategy": "no",  # `Watch` says when
        "save_total_limit": 2,  # the one before too, should the last stay half-written
    }


def rollout_arguments(run: Run, settings: OnPolicy, questions: int) -> dict[str, Any]:
    """The training arguments of GRPO and RLOO.

    A step samples `samples` completions of each of `prompts_per_step` prompts (of all `questions`, if there are fewer),
    and takes `inner_epochs` optimizer steps on all of them. A process has all completions of its prompts.
    """
    own = even_share(at_most(settings.prompts_per_step, questions), "prompts_per_step")
    size, count = passes(own * settings.samples * processes.count(), run.batch_size)
    return {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": count,
        "steps_per_generation": count,
        "num_generations": settings.samples,
        "num_iterations": settings.inner_epochs,
        "max_steps": settings.steps * settings.inner_epochs,
        "temperature": settings.temperature,
        "max_completion_length": run.max_new_tokens,
    }


class Watch(TrainerCallback):  # type: ignore[misc]
    """Validates, keeps the best weights, asks for checkpoints and reports progress.

    best_by: the key of `run.evaluate`'s result by which the best weights are chosen. window: optimizer steps per
    rollout batch. Steps are counted in rollout batches everywhere outside the trainer. patience: the training ends earlier,
    at a plateau of that many validations (`Best.plateau`).
    """

    def __init__(
        self,
        run: Run,
        best_by: str,
        evaluations: int,
        window: int = 1,
        patience: int | None = None,
    ) -> None:
        self.best = Best(run.model, run.evaluate, best_by, patience)
        self.evaluations = evaluations
        self.report = run.report
        self.deterministic = run.deterministic
        self.window = window

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.steps = state.max_steps // self.window
        self.evaluate_at = evenly(self.steps, self.evaluations)
        self.save_at = evenly(self.steps, SAVES) - {self.steps}
        if not self.best.val:
            self.best.validate(0)
        self.report(state.global_step // self.window, self.steps, {})

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        step, inside = divmod(state.global_step, self.window)
        if inside:
            return
        if step in self.evaluate_at | self.save_at:
            check_weights(self.best.model, step)
        if step in self.evaluate_at:
            self.best.validate(step)
        # A checkpoint of a training that has ended would be resumed by a further step.
        control.should_training_stop |= bool(self.best.plateau)
        control.should_save = step in self.save_at and not self.best.plateau

    def on_log(self, args: Any, state: Any, control: Any, logs: Stats, **others: Any) -> None:
        if "loss" in logs:  # the summary at the end has none
            step, inside = divmod(state.global_step, self.window)
            finite: Stats = {name: logs[name] for name in ("loss", "grad_norm") if name in logs}
            check_finite(finite, step + bool(inside))
            found = {name: float(logs[key]) for name, key in COLUMNS.items() if key in logs}
            self.report(step, self.steps, found | validated(self.best.val))

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        processes.wait()  # each writes its own random state
        if processes.is_main():
            CheckpointFile(BEST, directory).save(self.best.weights, {"val": self.best.val})

    def restore(self, checkpoint: Path) -> None:
        """Take over the best weights and the validations of a whole checkpoint."""
        saved = CheckpointFile(BEST, checkpoint).load()
        if saved is not None:
            self.best.weights, self.best.val = saved.tensors, saved.state["val"]


class Quiet:
    """A trainer without telemetry and model cards, which reports a full disk and trains adapters on sharded weights.

    The order of the rows in an epoch is the same after a resume, on one process and on several.
    """

    args: Any
    accelerator: Any

    def _send_telemetry(self) -> None: ...

    def create_model_card(self, *arguments: Any, **others: Any) -> None: ...

    def floating_point_ops(self, inputs: Any) -> int:
        """None are counted: nobody reads the number, and counting walks through the model at every step."""
        return 0

    def _wrap_model(self, model: Any, training: bool = True, **others: Any) -> Any:
        if training and processes.sharded() and processes.count() > 1:
            # Only the mixed precision of `prepare_model` is still needed.
            self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
            return distribute(model)
        inherited: Any = super()
        return inherited._wrap_model(model, training, **others)

    def _run_epoch(
        self, model: Any, epoch: int, train_dataloader: Any, *rest: Any, **others: Any
    ) -> Any:
        # With several processes, neither transformers nor accelerate tells the sampler of a resumed run.
        batches = train_dataloader.batch_sampler
        while hasattr(batches, "batch_sampler"):
            batches = batches.batch_sampler
        batches.sampler.set_epoch(epoch)
        inherited: Any = super()
        return inherited._run_epoch(model, epoch, train_dataloader, *rest, **others)

    def _save_checkpoint(self, *arguments: Any, **others: Any) -> None:
        inherited: Any = super()
        try:
            inherited._save_checkpoint(*arguments, **others)
        # Raised on a full disk by Python, torch and safetensors.
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"cannot write a checkpoint in {self.args.output_dir}: {reason}"
            ) from error


class Rollouts(Quiet):
    """GRPO or RLOO on our token ids and sampling. `run` must be set before training.

    The completions of a prompt share its prefill, in sampling and in scoring. The seed of a rollout derives from (seed,
    step), so a resumed run samples the same completions as an uninterrupted one.

    rounding: advantages up to this are 0 in a group of equal rewards, where TRL's are the rounding of the group's mean.
    """

    rounding: float

    args: Any
    state: Any
    model: Any
    processing_class: Any
    num_iterations: int
    run: Run
    _step: int
    _buffered_inputs: Any
    _metrics: Any
    _equal: Tensor  # whether the rewards of a group are equal, of the groups of all processes

    def _get_train_sampler(self, *arguments: Any) -> Any:
        """TRL's sampler, whose order would begin anew where a run is resumed in a later epoch than the first."""
        inherited: Any = super()
        sampler = inherited._get_train_sampler(*arguments)
        sampler.set_epoch = partial(seed_epoch, sampler.generator, self.args.seed)
        return sampler

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return tokenize_prompts(prompts, self.processing_class), None, {}

    def draw(self, prompt_ids: Sequence[list[int]]) -> list[list[int]]:
        """Completion ids, with EOS where they ended; `prompt_ids` has each prompt `num_generations` times.

        The processes sample for all their prompts together, and each keeps the completions of its own.
        """
        count = self.args.num_generations
        own = list(prompt_ids[::count])
        with at_step(1 + self.state.global_step // self.num_iterations):
            groups = self.run.sample(
                self.model,
                self.processing_class,
                processes.collect(own),
                temperatures=[self.args.temperature] * count,
                max_new_tokens=self.args.max_completion_length,
                top_p=1.0,
                seed=random.Random(f"{self.args.seed}/{self.state.global_step}").getrandbits(48),
                batch_size=self.run.in_flight,
            )
        first = processes.index() * len(own)
        return [
            completion.ids for group in groups[first : first + len(own)] for completion in group
        ]

    def _calculate_rewards(self, *arguments: Any) -> Tensor:
        inherited: Any = super()
        rewards: Tensor = inherited._calculate_rewards(
            *arguments
        )  # (completions of all processes, 1)
        self._equal = all_equal(rewards.view(-1, self.args.num_generations))
        self._metrics["train"]["equal_rewards"].append(float(self._equal.float().mean()))
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        inherited: Any = super()
        scored: dict[str, Any] = inherited._generate_and_score_completions(inputs)
        advantages: Tensor = scored["advantages"]
        equal = self._equal.repeat_interleave(self.args.num_generations)
        own = equal[processes.index() * len(advantages) :][: len(advantages)]
        scored["advantages"] = advantages.masked_fill(
            own & (advantages.abs() <= self.rounding), 0.0
        )
        return scored

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """The rows of one pass, in the order sampled.

        TRL shuffles them first, which would separate the completions of a prompt. All passes over a rollout batch
        belong to one optimizer step, so their order does not matter.
        """
        count = self.args.steps_per_generation
        if self._step % (count * self.num_iterations) == 0 or self._buffered_inputs is None:
            scored = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(scored, count)
        inputs: dict[str, Any] = self._buffered_inputs[self._step % count]
        return inputs

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities and entropies (B, C) of the last C = `logits_to_keep` tokens, 0 on pads.

        Each prompt is read once; TRL reads it once per completion and, without Triton, scores its positions as well.
        """
        if not shared.reads_once(self.model, input_ids.shape[1]):
            inherited: Any = super()
            return inherited._get_per_token_logps_and_entropies(  # type: ignore[no-any-return]
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                **others,
            )
        real = attention_mask.bool()
        stop = input_ids.shape[1] - logits_to_keep
        prompts = input_ids.masked_fill(~real, -1)[:, :stop]
        _, counts = torch.unique_consecutive(prompts, dim=0, return_counts=True)
        firsts = counts.cumsum(0) - counts
        starts = (stop - real[firsts, :stop].sum(dim=1)).tolist()
        groups = [shared.Group(n, at, stop) for n, at in zip(counts.tolist(), starts, strict=True)]
        written = real & (torch.arange(input_ids.shape[1], device=real.device) >= stop)
        found = shared.scores(model, input_ids, written, groups)
        log_probs = found["log_probs"][:, stop:]
        entropies = found["entropy"][:, stop:] if compute_entropy else None
        return log_probs, entropies, None


def reward_of(run: Run) -> Callable[..., list[float]]:
    """`run.reward` of completions read as everywhere else; TRL's own texts leave out special tokens within them."""
    ends = end_tokens(run.model, run.tokenizer)

    def reward(completion_ids: Sequence[list[int]], **others: Any) -> list[float]:
        texts = [complete(ids, ends, run.tokenizer).text for ids in completion_ids]
        return run.reward(**{**others, "completions": texts})

    return reward


def reference_of(model: Any, kl_coef: float) -> Any:
    """A frozen copy of a model that is trained whole; None where TRL copies the adapter, or there is no KL penalty."""
    if kl_coef == 0 or _is_peft(model):
        return None
    return copy.deepcopy(model).eval().requires_grad_(False)


def refer_to(trainer: Any, reference: Any, kl_coef: float) -> None:
    """Give a trainer built with beta = 0 a penalty on the KL to `reference`, if there is one."""
    if reference is not None:
        add_fused_lm_head(reference, temperature=trainer.temperature)
        trainer.beta = kl_coef
        trainer.ref_model = trainer.accelerator.prepare_model(reference, evaluation_mode=True)


def train(trainer: Any, watch: Watch) -> History:
    """Train from the start or from the last whole checkpoint; the model ends with its best weights."""
    choose_kernels(watch.deterministic)
    logging.disable_progress_bar()
    trainer.remove_callback(PrinterCallback)
    checkpoint = _resume_from(Path(trainer.args.output_dir))
    if checkpoint is not None:
        watch.restore(checkpoint)
    with _walked_once(trainer.model):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    best = watch.best
    best.put_back()
    _release(best.model)
    rows = _curve(trainer.state.log_history, watch.window)
    return History(rows, best.val, best.by, best.plateau)


@contextmanager
def _walked_once(model: Any) -> Iterator[None]:
    """The model's modules are walked through once, and not several times at each step: adapters add thousands."""
    parameters = list(model.parameters())

    def found(recurse: bool = True) -> Iterator[nn.Parameter]:
        return iter(parameters) if recurse else type(model).parameters(model, False)

    def train(mode: bool = True) -> Any:
        return model if model.training is mode else type(model).train(model, mode)

    model.parameters, model.train = found, train
    try:
        yield
    finally:
        del model.parameters, model.train


def _resume_from(work: Path) -> Path | None:
    """`last_whole`, the same for all processes; the main one removes half-written checkpoints."""
    found = [last_whole(work)] if processes.is_main() else []
    (checkpoint,) = processes.collect(found)
    return checkpoint


def last_whole(work: Path) -> Path | None:
    """The newest checkpoint written to its end, or None; newer ones, half-written, are removed."""
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for directory in reversed(found):
        if CheckpointFile(BEST, directory).load() is not None:
            return directory
        shutil.rmtree(directory)
    return None


def _curve(log: Sequence[Stats], window: int) -> list[Stats]:
    """One row per rollout batch: means over its optimizer steps."""
    totals: dict[int, dict[str, list[float]]] = {}
    for entry in log:
        if "loss" in entry:
            row = totals.setdefault(-(-int(entry["step"]) // window), {})
            for name, key in COLUMNS.items():
                if entry.get(key) is not None:
                    row.setdefault(name, []).append(float(entry[key]))
    rows = [
        {"step": float(step), **{name: sum(v) / len(v) for name, v in row.items()}}
        for step, row in sorted(totals.items())
    ]
    # TRL's KL is a mean over tokens; PPO's and the selector's are those of a whole answer.
    return [
        row | {"kl": row["kl"] * row["completion_tokens"]} if "kl" in row else row for row in rows
    ]


def _release(model: Any) -> None:
    """Remove the forward that TRL and accelerate put on the model, and TRL's copy of the adapter."""
    if _is_peft(model) and REFERENCE in model.peft_config:
        model.delete_adapter(REFERENCE)
    for module in (model, model.get_base_model() if _is_peft(model) else model):
        for name in ("forward", "_original_forward"):
            module.__dict__.pop(name, None)


def _is_peft(model: Any) -> bool:
    return hasattr(model, "peft_config")
