"""A training run, from config to result."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bahdanau_jax.data.load import load_dataset
from bahdanau_jax.runs.environment import return_freed_memory
from bahdanau_jax.runs.preemption import Stopped
from bahdanau_jax.training.compile import compile_ahead
from bahdanau_jax.training.finish import finish, validate
from bahdanau_jax.training.inputs import tokenize
from bahdanau_jax.training.monitor import Monitor
from bahdanau_jax.training.schedule import Schedule
from bahdanau_jax.training.session import Session, check_config
from bahdanau_jax.training.sharding import shard_batches
from bahdanau_jax.training.start import restore_or_fit, show_start
from bahdanau_jax.training.state import build_state


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains the config's model and evaluates it. Resumes from the latest checkpoint in `workdir`.

    A resumed run ends with the same bits as an uninterrupted one. Four rules make it so:

    - Figures are written before the checkpoint that counts on them. A resumed run repeats what came after its
      checkpoint, and nothing before it.
    - A checkpoint holds everything that a step reads: parameters, optimizer, rng streams, the position in the
      data, and the sums of steps whose figures are not written yet.
    - Data and vocabulary must have the digests with which the run began.
    - All processes decide alike. Each calls `schedule.after` once per step; only the first one writes files,
      apart from checkpoints.

    The test split is read once, at the end.

    Args:
      config: as a file of `experiments/` makes it.
      workdir: the run's folder. A folder that holds a run of another config is refused.

    Returns:
      the result, as written to `workdir/result.json`.

    Raises:
      InputError: something that the user can fix, in one line.
      DataNotFound: the data set is neither prepared nor reachable.
      Stopped: by SIGTERM or SIGINT; the step was finished and saved.
    """
    with Session(check_config(config), workdir) as run:
        if run.finished is not None:
            return run.finished
        dataset = load_dataset(
            run.config.data.model_dump(),
            seed=run.config.seed,
            tokenizer=run.config.tokenizer.name,
            say=run.say,
        )
        setup = build_state(run, dataset)  # model, optimizer, warm start
        compiled = compile_ahead(run, setup)  # in a thread, while text becomes ids
        data = tokenize(run, dataset, setup.unlabelled)
        batches = data.train_batches()
        state, progress, notes = restore_or_fit(run, setup, data, batches)
        show_start(run, setup, compiled, data, progress, notes)
        compiled.meet()
        monitor, schedule = Monitor(run, setup, data, progress), Schedule(run, setup)

        progress.clock.start()
        for batch in run.until_stopped(monitor.timed(shard_batches(batches, run.mesh))):
            state, report = compiled.train_step(state, batch)
            progress.step += 1
            monitor.add(report)
            due = schedule.after(progress.step)
            monitor.after(log=due.log, save=due.save)
            if due.log:
                return_freed_memory()
            if due.validate:
                state = validate(run, setup, compiled, data, progress, state)
            if due.save:
                monitor.settle()
                with progress.clock.saving():
                    run.checkpoints.save(
                        progress.step,
                        state,
                        batches,
                        progress.to_json(),
                        best_step=progress.best_step,
                    )
                schedule.saved()
            if due.stop:
                run.checkpoints.wait()
                raise Stopped(
                    f"stopped by {due.stop} after step {progress.step} of {setup.total_steps}"
                )
        return finish(run, setup, compiled, data, progress, state)
