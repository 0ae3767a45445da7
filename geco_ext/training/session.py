"""A training run from its settings to its pictures."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

import geco_ext.data
from geco_ext.data import ImageDataset
from geco_ext.training.batches import BatchOrder, TrainingData
from geco_ext.training.bounds import WarnAtBound
from geco_ext.training.callbacks import (
    AtomicCheckpointIO,
    RecordMetrics,
    SaveCheckpoints,
    StopOnInterrupt,
)
from geco_ext.training.constraints import check_networks, is_own, without_tolerance
from geco_ext.training.evaluation import constraints_of
from geco_ext.training.held_out import EvaluateHeldOut, split_off
from geco_ext.training.loggers import build_logger, log_hyperparameters
from geco_ext.training.models import check_output, model_entry, unavailable_commands
from geco_ext.training.moved import with_changed_paths
from geco_ext.training.non_finite import StopOnNonFinite
from geco_ext.training.objectives import with_constraints_of_own
from geco_ext.training.own_code import absolute, own_call
from geco_ext.training.progress import Progress, bar_numbers
from geco_ext.training.run import build, load_part
from geco_ext.training.run_folder import RunConfiguration, RunFolder
from geco_ext.training.settings import TrainingSettings
from geco_ext.training.trainer import fit, quiet_trainer, use_threads
from geco_ext.training.training_step import ConstrainedTraining


class RunWarning(UserWarning):
    """Something was chosen for a run; its message is a line that commands show as it is."""


@dataclass
class Session:
    """All parts of a run, built and checked: what can be wrong with the input has shown before training starts."""

    folder: RunFolder
    configuration: RunConfiguration
    dataset: ImageDataset
    held_out: ImageDataset | None
    module: ConstrainedTraining
    trainer: L.Trainer
    interrupt: StopOnInterrupt
    checkpoint: Path | None
    steps_done: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether a run that is resumed has no step left."""
        return self.steps_done == self.configuration.settings.steps

    def about_data(self) -> str:
        """How many examples are trained on and how many are held out, and which, in a line."""
        settings, shape = self.configuration.settings, "x".join(map(str, self.dataset.image_shape))
        if self.held_out is None:
            held_out = "none held out: there is no test split (--validation 0.1 holds a tenth out)"
        elif settings.validation is not None:
            held_out = f"{len(self.held_out)} held out (--validation {settings.validation:g}; no test split is used)"
        else:
            every = ", every tenth" if ":" in settings.data else ""
            held_out = f"{len(self.held_out)} held out (the test split{every})"
        return f"data {settings.data}: {len(self.dataset)} examples of {shape} to train on, {held_out}"

    def train(self) -> float:
        """Train to the last step and return the seconds it took.

        Raises:
            TrainingInterrupted: on Ctrl-C, after a checkpoint was written.
        """
        settings = self.configuration.settings
        data = TrainingData(self.dataset, settings.batch_size, settings.seed)
        log_hyperparameters(self.trainer, settings.as_dict())
        torch.manual_seed(settings.seed)
        start = time.perf_counter()
        fit(self.trainer, self.module, data, self.interrupt, self.checkpoint)
        self.module.to(self.trainer.strategy.root_device)  # Lightning hands it back on the CPU
        return time.perf_counter() - start


def start(settings: TrainingSettings, path: Path, quiet: bool = False) -> Session:
    """A new run in the folder ``path``, which is made when everything else is known to be right.

    Args:
        settings: what to train.
        path: of its folder.
        quiet: show no progress.

    Raises:
        ValueError: a setting that cannot be used; a folder that is taken or cannot be written.
        FileNotFoundError: data that are not there.
    """
    folder = RunFolder(path)
    if _is_first_process():
        folder.check_free()
    entry = model_entry(settings.model)
    settings = dataclasses.replace(
        with_constraints_of_own(settings),
        size=settings.size or geco_ext.data.command_size(settings.data),
    )
    settings = with_changed_paths(settings, absolute)  # so that it can be resumed from any folder
    dataset, held_out = split_off(_training_set(settings), settings)
    settings = _with_threads(_with_fitting_batches(settings, len(dataset)), dataset)
    configuration = RunConfiguration(
        settings, dataset.image_shape, dataset.context_shape if entry.takes_context else None, len(dataset)
    )
    session = _session(folder, configuration, dataset, held_out, quiet, checkpoint=None)
    if _is_first_process():
        folder.create(configuration)
        _say_what_is_missing(session)
    return session


def _say_what_is_missing(session: Session) -> None:
    """What code of a user's own leaves out, which would otherwise show when training is over."""
    settings, module = session.configuration.settings, session.module
    for text, constraint in zip(settings.constraints, constraints_of(module.criterion), strict=True):
        if without_tolerance(text, constraint):
            warnings.warn(
                f"constraint {text} has kappa 0, its class's default: where it has a tolerance, give it one, "
                f"{type(constraint).__name__}=0.1 or (kappa=0.1); a kappa=0 that is given says that it is meant",
                RunWarning,
                stacklevel=2,
            )
    commands = unavailable_commands(module.model)
    if commands:
        what = ", ".join(f"geco {command} (it would call {method})" for command, method in commands.items())
        warnings.warn(f"{type(module.model).__name__} will not serve {what}", RunWarning, stacklevel=2)


def resume(path: Path, quiet: bool = False, **changes: int | str | None) -> Session:
    """A run taken up from its last checkpoint, or from one of its checkpoint files.

    A run that was interrupted before its first checkpoint begins anew.

    On the CPU, with the same number of threads and devices, it continues bit for bit as if it had never stopped; with
    another number of devices to rounding.

    Args:
        path: a run folder or a checkpoint file in it.
        quiet: show no progress.
        changes: settings that may differ from the run's: steps, accelerator, devices, threads, checkpoint_every,
            patience, logger, and root, where the data now are: those of ``folder:`` and ``npy:`` as well.

    Raises:
        FileNotFoundError: no run or no checkpoint there.
        ValueError: a damaged configuration or checkpoint, or a change that cannot be used.
    """
    folder, file = RunFolder.holding(path)
    configuration = folder.read_configuration()
    has_begun = path == file or file.is_file() or folder.periodic_checkpoints()
    checkpoint = folder.read_checkpoint(file) if has_begun else None
    steps_done = 0 if checkpoint is None else checkpoint["global_step"]
    folder.check_writable()
    settings = _with_data_at(configuration.settings, changes.pop("root", None))
    settings = dataclasses.replace(settings, **changes)  # type: ignore[arg-type]
    if settings.steps < steps_done:
        raise ValueError(f"steps must be at least the {steps_done} steps done, got {settings.steps}")
    dataset, held_out = split_off(_training_set(settings), settings)
    if configuration.examples not in (None, len(dataset)) or configuration.image_shape != dataset.image_shape:
        raise ValueError(
            f"data {settings.data!r} have changed: a resumed run keeps its {configuration.examples or len(dataset)} "
            f"training examples of shape {configuration.image_shape}, found {len(dataset)} of {dataset.image_shape}"
        )
    configuration = dataclasses.replace(configuration, settings=_with_threads(settings, dataset))
    session = _session(folder, configuration, dataset, held_out, quiet, checkpoint=file if checkpoint else None)
    session.steps_done = steps_done
    if checkpoint is not None:
        load_part(session.module.model, checkpoint["state_dict"], "model")
        load_part(session.module.criterion, checkpoint["state_dict"], "criterion")
    if _is_first_process():
        folder.write_configuration(configuration)
    return session


def _with_fitting_batches(settings: TrainingSettings, examples: int) -> TrainingSettings:
    """Batches of the usual size become as large as fewer examples allow; those of another size are refused later."""
    largest = examples // settings.devices * settings.devices
    if settings.batch_size != TrainingSettings.batch_size or not 0 < largest < settings.batch_size:
        return settings
    if _is_first_process():
        warnings.warn(
            f"there are {examples} training examples: a batch has {largest} of them", RunWarning, stacklevel=2
        )
    return dataclasses.replace(settings, batch_size=largest)


def _with_data_at(settings: TrainingSettings, root: int | str | None) -> TrainingSettings:
    """The settings with another place of the data; None: the same."""
    if root is None:
        return settings
    kind, colon, _ = settings.data.partition(":")
    place = absolute(str(root))
    if colon:
        return dataclasses.replace(settings, data=f"{kind}:{place}")
    return dataclasses.replace(settings, root=place)


def _is_first_process() -> bool:
    """With several devices Lightning runs the same command again for each, after the first has made the folder."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _session(
    folder: RunFolder,
    configuration: RunConfiguration,
    dataset: ImageDataset,
    held_out: ImageDataset | None,
    quiet: bool,
    checkpoint: Path | None,
) -> Session:
    settings = configuration.settings
    if settings.patience is not None and held_out is None:
        raise ValueError(
            f"patience needs examples held out, and data {settings.data!r} has no test split; see --validation"
        )
    model, criterion = build(configuration)
    BatchOrder(len(dataset), settings.batch_size, settings.seed)  # refuses a batch larger than the data set
    module = ConstrainedTraining(
        model,
        criterion,
        learning_rate=settings.learning_rate,
        steps=settings.steps,
        takes_context=configuration.context_shape is not None,
    )
    check_networks(settings.constraints, constraints_of(criterion), dataset, settings.data)
    _check_fit(module, dataset, settings)
    interrupt = StopOnInterrupt()
    trainer = _trainer(folder, settings, held_out, interrupt, quiet)
    return Session(folder, configuration, dataset, held_out, module, trainer, interrupt, checkpoint)


def _training_set(settings: TrainingSettings) -> ImageDataset:
    return geco_ext.data.load(
        settings.data, "train", settings.root, settings.size, settings.seed, strict=settings.strict
    )


def _with_threads(settings: TrainingSettings, dataset: ImageDataset) -> TrainingSettings:
    """Apply the number of threads, and keep it: another number sums in another order and gives other last bits."""
    elements = settings.batch_size // settings.devices * math.prod(dataset.image_shape)
    use_threads(settings.threads, elements, settings.devices)
    return dataclasses.replace(settings, threads=torch.get_num_threads())


def _check_fit(module: ConstrainedTraining, dataset: ImageDataset, settings: TrainingSettings) -> None:
    """Show two examples to model and criterion, so that what does not fit is refused before a run is made."""
    examples = dataset[:2]
    module.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            output = module.reconstructed(examples)
            check_output(output, examples["x"])
        except Exception as error:  # whatever a model of a user's own raises
            if own_call(settings.model) is None:
                raise
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(
                f"model {settings.model!r} cannot be trained on images of shape {dataset.image_shape}: {reason}"
            ) from error
        probe = copy.deepcopy(module.criterion).train()  # the first training call resolves multipliers: not ours to do
        try:
            with torch.enable_grad():  # as in training
                probe(output.x_hat, examples["x"], output.kl, labels=examples["label"], weight=examples.get("weight"))
        except Exception as error:  # whatever code of a user's own raises
            own = [f"constraint {text!r}" for text in settings.constraints if is_own(text)]
            own += [f"objective {settings.objective!r}"] * settings.has_own_objective
            if not own:
                raise
            raise ValueError(f"{' or '.join(own)} fails ({type(error).__name__}: {error})") from error
    module.train()


def _trainer(
    folder: RunFolder,
    settings: TrainingSettings,
    held_out: ImageDataset | None,
    interrupt: StopOnInterrupt,
    quiet: bool,
) -> L.Trainer:
    metrics = RecordMetrics(folder)
    elsewhere = [] if held_out is None else [EvaluateHeldOut(folder, held_out, settings)]
    progress = Progress(lambda: bar_numbers(metrics.latest, *(each.latest for each in elsewhere)))
    return quiet_trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        max_steps=settings.steps,
        callbacks=[
            interrupt,
            *elsewhere,
            SaveCheckpoints(folder, settings.checkpoint_every),
            metrics,
            WarnAtBound(lambda: metrics.latest),
            StopOnNonFinite(),
            *([] if quiet else [progress]),
        ],
        enable_progress_bar=not quiet,
        plugins=[AtomicCheckpointIO()],
        precision=settings.precision,
        logger=build_logger(settings.logger, folder.path),
        default_root_dir=folder.path,
    )
