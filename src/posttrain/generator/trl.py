"""What `sft`, `grpo`, `rloo` and `dpo` share: TRL's trainers, run so that a kill costs nothing.

* One optimizer step is one batch of the configuration, in passes of `batch_size` rows (`passes`), shared evenly by the
  processes; accelerate wraps the model in DistributedDataParallel.
* Learning rate: linear warm-up from a tenth, cosine to a tenth, as in the selector's training.
* `Watch` validates at evenly spaced steps with a function from outside, keeps the best trainable weights, and asks for
  checkpoints, only where a rollout batch has been used up: TRL does not save a buffered one, and a run resumed inside
  would draw it anew and end elsewhere.
* A checkpoint is whole once `best.safetensors` (best weights, validations so far) lies in it, which is written last;
  `last_whole` removes a half-written one and takes the one before.
* The model is handed back with its best weights and without what TRL hung on it.

The reference of GRPO and RLOO is the model as it comes in, the SFT policy. TRL itself would load it anew from the
name in the model's configuration, which is the base.

Left out: resuming within an evaluation.
"""

from __future__ import annotations

import copy
import random
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import DynamicCache, PrinterCallback, TrainerCallback
from transformers.utils import logging
from trl.trainer.utils import add_fused_lm_head, split_tensor_dict

from posttrain.core import processes
from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.errors import UserError
from posttrain.core.params import Optimization
from posttrain.core.training import History, Stats, device, evaluating
from posttrain.models.architecture import recomputes
from posttrain.models.sharding import check_trainable, distribute
from posttrain.models.tokens import tokenize_prompts
from posttrain.rollouts.sampling import Sampler, can_share

Evaluate = Callable[[Any], Mapping[str, float]]
Report = Callable[[int, int, Stats], None]

BEST = "best"
REFERENCE = "ref"  # TRL's name for the frozen copy of an adapter
# Columns of the training curve, and what TRL calls them.
COLUMNS = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "token_accuracy": "mean_token_accuracy",
    "reward": "reward",
    "reward_std": "reward_std",
    "zero_advantage": "frac_reward_zero_std",
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


def passes(rows: int, batch_size: int, what: str = "rows") -> tuple[int, int]:
    """(rows per pass, passes) of each process for one optimizer step over `rows` in all: the largest equal passes that
    fit `batch_size`. `UserError`, which calls the rows `what`, when the processes cannot share them evenly.
    """
    own = even_share(rows, what)
    size = next(size for size in range(min(own, batch_size), 0, -1) if own % size == 0)
    return size, own // size


def even_share(number: int, what: str) -> int:
    """`number` divided by the processes; `UserError` when that leaves a rest."""
    own, rest = divmod(number, processes.count())
    if rest or not own:
        raise UserError(
            f"{what}: {number} cannot be shared evenly by {processes.count()} processes; "
            "change the one or the other (num_processes in the file that launch names)"
        )
    return own


def common_arguments(config: Optimization, model: Any, seed: int, work: Path) -> dict[str, Any]:
    """Training arguments that all four trainers get."""
    check_trainable(model, "the generator")
    cuda = device().type == "cuda"
    if cuda and processes.count() == 1 and torch.cuda.device_count() > 1:
        raise UserError(
            f"launch: one process sees {torch.cuda.device_count()} GPUs; use accelerate launch --config_file "
            "launch/gpus.yaml for all of them, or launch/one-gpu.yaml"
        )
    return {
        "output_dir": str(work),
        "seed": seed,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine_warmup_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.1},
        "warmup_steps": min(config.warmup, 0.999),  # below 1 it is a share of the steps
        "optim": "adamw_torch",
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "use_cpu": not cuda,
        "bf16": model.dtype == torch.bfloat16,
        "fp16": model.dtype == torch.float16,
        "activation_checkpointing": False,  # the model comes with it where it is wanted
        "dataloader_pin_memory": cuda,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "ddp_find_unused_parameters": False,  # there are none
        # They are constants; and where a process scores more groups than another, they would wait for each other.
        "ddp_broadcast_buffers": False,
        "disable_tqdm": True,  # `report` shows the progress
        "save_strategy": "no",  # `Watch` says when
        "save_total_limit": 2,  # the one before, should this one stay half-written
    }


def rollout_arguments(
    prompts: int, samples: int, batch_size: int, inner_epochs: int, steps: int
) -> dict[str, Any]:
    """Training arguments of GRPO and RLOO: each step draws `samples` completions of `prompts` prompts, and makes
    `inner_epochs` optimizer steps on all of them. A process has all completions of its prompts."""
    own = even_share(prompts, "prompts_per_step")
    size, count = passes(own * samples * processes.count(), batch_size)
    return {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": count,
        "steps_per_generation": count,
        "num_generations": samples,
        "num_iterations": inner_epochs,
        "max_steps": steps * inner_epochs,
    }


class Watch(TrainerCallback):  # type: ignore[misc]
    """Validates, keeps the best weights, asks for checkpoints and reports progress.

    best_by: the key of `evaluate`'s result by which weights are the best; of equals the later ones.
    window: optimizer steps per rollout batch. Steps are counted in rollout batches everywhere outside the trainer.
    """

    def __init__(
        self,
        model: Any,
        evaluate: Evaluate,
        best_by: str,
        evaluations: int,
        report: Report,
        window: int = 1,
    ) -> None:
        self.model = model
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.evaluate = evaluate
        self.best_by = best_by
        self.evaluations = evaluations
        self.report = report
        self.window = window
        self.val: list[Stats] = []
        self.best: dict[str, Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.steps = state.max_steps // self.window
        self.evaluate_at = _evenly(self.steps, self.evaluations)
        self.save_at = _evenly(self.steps, 10) - {self.steps}
        if not self.val:
            self._validate(0)
        self.report(state.global_step // self.window, self.steps, {})

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        step, inside = divmod(state.global_step, self.window)
        if inside:
            return
        if step in self.evaluate_at:
            self._validate(step)
        control.should_save = step in self.save_at

    def on_log(self, args: Any, state: Any, control: Any, logs: Stats, **others: Any) -> None:
        if "loss" in logs:  # the summary at the end has none
            shown = {key: logs[key] for key in logs if key in ("loss", "reward")}
            shown["val"] = self.val[-1][self.best_by]
            self.report(state.global_step // self.window, self.steps, shown)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        processes.wait()  # each writes its own random state
        if processes.is_main():
            CheckpointFile(BEST, directory).save(self.best, {"val": self.val})

    def restore(self, checkpoint: Path) -> None:
        """Take up best weights and validations of a whole checkpoint."""
        saved = CheckpointFile(BEST, checkpoint).load()
        if saved is not None:
            self.best, self.val = saved.tensors, saved.state["val"]

    def put_back(self) -> None:
        """Give the model its best weights."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.best[name])

    def _validate(self, step: int) -> None:
        devices = [torch.cuda.current_device()] if device().type == "cuda" else []
        # Whatever it draws, training draws the same.
        with evaluating(self.model), torch.random.fork_rng(devices=devices):
            result = dict(self.evaluate(self.model))
        if self.best_by not in result:
            raise UserError(f"the validation names no {self.best_by!r}, only {sorted(result)}")
        self.val.append({"step": float(step), **result})
        # The start is on the curve, but it is not a result of this training.
        trained = [row[self.best_by] for row in self.val if row["step"] > 0]
        if trained and trained[-1] >= max(trained):
            self.best = {
                name: parameter.detach().to("cpu", copy=True).contiguous()
                for name, parameter in self.parameters.items()
            }


class Quiet:
    """A trainer that neither calls home nor writes a model card into each checkpoint, that names a full disk, and that
    trains adapters on sharded weights.
    """

    args: Any
    accelerator: Any

    def _send_telemetry(self) -> None: ...

    def create_model_card(self, *arguments: Any, **others: Any) -> None: ...

    def _wrap_model(self, model: Any, training: bool = True, **others: Any) -> Any:
        if training and processes.sharded() and processes.count() > 1:
            # What remains of `prepare_model` then: the mixed precision that is asked for.
            self.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
            return distribute(model)
        inherited: Any = super()
        return inherited._wrap_model(model, training, **others)

    def _save_checkpoint(self, *arguments: Any, **others: Any) -> None:
        inherited: Any = super()
        try:
            inherited._save_checkpoint(*arguments, **others)
        # What Python, torch and safetensors raise.
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"cannot write a checkpoint in {self.args.output_dir}: {reason}"
            ) from error


class Rollouts(Quiet):
    """GRPO or RLOO on our token ids and our sampling; the completions of a prompt share its prefill when they are drawn
    and when they are scored.

    The seed of a rollout derives from (seed, step), so that a resumed run draws what the whole one would have drawn.
    """

    args: Any
    state: Any
    model: Any
    processing_class: Any
    num_iterations: int
    sample: Sampler
    in_flight: int
    _step: int
    _buffered_inputs: Any
    _generate_and_score_completions: Callable[[Any], dict[str, Any]]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return tokenize_prompts(prompts, self.processing_class), None, {}

    def draw(self, prompt_ids: Sequence[list[int]]) -> list[list[int]]:
        """Completion ids, with EOS where they ended; `prompt_ids` names each prompt `num_generations` times.

        The prompts of all processes are drawn for together, and each process keeps the completions of its own.
        """
        count = self.args.num_generations
        own = list(prompt_ids[::count])
        groups = self.sample(
            self.model,
            self.processing_class,
            processes.collect(own),
            count=count,
            max_new_tokens=self.args.max_completion_length,
            temperature=self.args.temperature,
            top_p=1.0,
            seed=random.Random(f"{self.args.seed}/{self.state.global_step}").getrandbits(48),
            batch_size=self.in_flight,
        )
        first = processes.index() * len(own)
        return [
            completion.ids for group in groups[first : first + len(own)] for completion in group
        ]

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """The rows of one pass. TRL shuffles them first, which would part the completions of a prompt; all passes
        over a rollout batch are in one optimizer step, so their order is free.
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
        """What TRL computes, with each prompt read once: log-probabilities and entropies (B, C) of the last
        C = `logits_to_keep` tokens, 0 on pads.

        TRL reads the prompt once per completion and, where there is no Triton, scores its positions as well.
        """
        whole = not processes.sharded() and not recomputes(self.model)
        if not (whole and can_share(self.model.config, input_ids.shape[1])):
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
        prompts = input_ids.masked_fill(~real, -1)[:, :-logits_to_keep]
        _, counts = torch.unique_consecutive(prompts, dim=0, return_counts=True)
        ends = counts.cumsum(0).tolist()
        parts = [
            shared_scores(model, input_ids[start:end], real[start:end], logits_to_keep)
            for start, end in zip([0, *ends], ends, strict=False)
        ]
        log_probs, entropies = zip(*parts, strict=True)
        return torch.cat(log_probs), torch.cat(entropies) if compute_entropy else None, None


def shared_scores(
    model: Any, ids: Tensor, real: Tensor, width: int
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and entropies (B, C) of B completions of one prompt, 0 on pads.

    ids, real: (B, P + C), the prompt padded on the left and each completion of at most C = `width` tokens on the
    right. model: with TRL's fused head, which may be asked for no entropies.
    """
    prompt = ids[:1, :-width][real[:1, :-width]][None]
    completions, written = ids[:, -width:], real[:, -width:]
    cache = DynamicCache()
    if prompt.shape[1] > 1:
        model(input_ids=prompt[:, :-1], past_key_values=cache, use_cache=True, logits_to_keep=1)
    # What is read at an action is the token before it: the prompt's last one once per completion, then its own. They
    # stand in one row without pads, and each sees the prompt and the earlier tokens of its own completion.
    before = torch.cat([prompt[:, -1:].expand(len(ids), 1), completions[:, :-1]], dim=1)
    row, place = written.nonzero(as_tuple=True)
    own = (row[:, None] == row) & (place[:, None] >= place)
    allowed = torch.cat([own.new_ones(len(row), prompt.shape[1] - 1), own], dim=1)
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(allowed.shape, dtype=dtype, device=ids.device)
    output = model(
        input_ids=before[written][None],
        attention_mask=mask.masked_fill(~allowed, torch.finfo(dtype).min)[None, None],
        position_ids=(prompt.shape[1] - 1 + place)[None],
        past_key_values=cache,
        shift_labels=completions[written][None],
        fused_lm_head=True,
    )

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(written.shape).masked_scatter(written, values)

    entropies = None if output.entropy is None else spread(output.entropy)
    return spread(output.log_probs), entropies


def reference_of(model: Any, kl_coef: float) -> Any:
    """A frozen copy of a model that trains in full; None where TRL copies the adapter, or nothing is asked."""
    if kl_coef == 0 or _is_peft(model):
        return None
    return copy.deepcopy(model).eval().requires_grad_(False)


def refer_to(trainer: Any, reference: Any, kl_coef: float) -> None:
    """Let the trainer, built with beta = 0, keep a KL to `reference`."""
    if reference is not None:
        add_fused_lm_head(reference, temperature=trainer.temperature)
        trainer.beta = kl_coef
        trainer.ref_model = trainer.accelerator.prepare_model(reference, evaluation_mode=True)


def run(trainer: Any, watch: Watch, work: Path) -> History:
    """Train from the start or the last whole checkpoint in `work`; the model ends with its best weights."""
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    # Filling new tensors with NaN shows who reads them too early, and costs a third of a small model's step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    logging.disable_progress_bar()
    # The only name that TrainingArguments have for it.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    trainer.remove_callback(PrinterCallback)
    checkpoint = _resume_from(work)
    if checkpoint is not None:
        watch.restore(checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    watch.put_back()
    _release(watch.model)
    return History(_curve(trainer.state.log_history, watch.window), watch.val)


def _resume_from(work: Path) -> Path | None:
    """`last_whole`, the same one for all processes; the main one removes what is half-written."""
    found = [last_whole(work)] if processes.is_main() else []
    (checkpoint,) = processes.collect(found)
    return checkpoint


def last_whole(work: Path) -> Path | None:
    """The newest checkpoint that was written to its end; newer ones, half-written, are removed."""
    found = sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for directory in reversed(found):
        if CheckpointFile(BEST, directory).load() is not None:
            return directory
        shutil.rmtree(directory)
    return None


def _evenly(steps: int, count: int) -> set[int]:
    return {max(1, round(steps * (i + 1) / count)) for i in range(count)}


def _curve(log: Sequence[Stats], window: int) -> list[Stats]:
    """One row per rollout batch: means over its optimizer steps."""
    totals: dict[int, dict[str, list[float]]] = {}
    for entry in log:
        if "loss" in entry:
            row = totals.setdefault(-(-int(entry["step"]) // window), {})
            for name, key in COLUMNS.items():
                if entry.get(key) is not None:
                    row.setdefault(name, []).append(float(entry[key]))
    return [
        {"step": float(step), **{name: sum(v) / len(v) for name, v in row.items()}}
        for step, row in sorted(totals.items())
    ]


def _release(model: Any) -> None:
    """Take off the forward that TRL and accelerate put on the model, and TRL's copy of the adapter."""
    if _is_peft(model) and REFERENCE in model.peft_config:
        model.delete_adapter(REFERENCE)
    for module in (model, model.get_base_model() if _is_peft(model) else model):
        for name in ("forward", "_original_forward"):
            module.__dict__.pop(name, None)


def _is_peft(model: Any) -> bool:
    return hasattr(model, "peft_config")
