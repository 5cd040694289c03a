"""How far a plan is: what each cell has, lacks, cost and found."""
import os.path as osp
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial

from .cell import Cell
from .queue import COMPLETE, CURVE, PRUNED, RUNNING, TEST, TRIAL, Queue, Stage, best_of, crashed
from .summary import seconds_of, summarize
from .worker import final_folder


@dataclass
class State:
    """A cell as the storage has it."""
    cell: Cell
    trials: list[FrozenTrial]
    """Of its search, attempts of all kinds."""
    best: FrozenTrial | None = None
    tests: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Seed -> fields of :class:`mmspt.evaluation.Result`."""
    curves: dict[int, dict[int, float]] = field(default_factory=dict)
    """Seed -> step -> validation."""
    failure: str | None = None
    """Why it has failed."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Machine -> why the cell cannot be run there."""
    stopped: str | None = None
    """Why it has fewer trials than it might."""
    running: int = 0
    left: dict[str, int] = field(default_factory=dict)
    """Kind -> runs that have not ended."""
    seconds: float = 0.
    """Spent so far, lost attempts counted."""
    each: dict[str, list[float]] = field(default_factory=dict)
    """Kind -> seconds of its ended runs."""

    @property
    def ended(self) -> int:
        """Trials that finished or were pruned."""
        return sum(trial.state in (COMPLETE, PRUNED) for trial in self.trials)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return not any(self.left.values())

    @property
    def text(self) -> str:
        """In some words."""
        if self.failure is not None:
            return 'failed'
        if self.left.get(TRIAL):
            return f'{self.ended}/{self.ended + self.left[TRIAL]} trials' if self.ended or self.running else 'waits'
        if self.left.get(TEST):
            return f'{len(self.tests)}/{self.cell.budget.seeds} tests'
        return f'{len(self.curves)}/{self.cell.budget.seeds} curves' if self.left.get(CURVE) else 'done'

    def summary(self, folder: str) -> dict[str, Any]:
        """Return :func:`mmspt.search.summary.summarize` of it.

        Args:
            folder (str): Work directory of the plan.
        """
        own = osp.join(folder, self.cell.name)
        final = self.best and self.cell.final_config and osp.relpath(
            final_folder(self.cell, self.best.params, folder), own)
        return summarize(self.cell, self.trials, {seed: test['metrics'] for seed, test in self.tests.items()},
                         final or None, self.curves)


def read_state(queue: Queue, cell: Cell) -> State:
    """Read a cell's state."""
    stages, attributes = queue.stages(cell), queue.attributes(cell.key)
    state = State(cell, stages[0].trials, best_of(stages[0].trials))
    state.failure = next(filter(None, (stage.failure for stage in stages)), None)
    state.skipped = attributes.get('skipped') or {}
    stopped = attributes.get('stopped') or {}
    state.stopped = stopped.get('why') if stopped.get('trials') == cell.budget.trials else None
    expected = {TEST: cell.budget.seeds * (cell.final_config is not None),
                CURVE: cell.budget.seeds * cell.budget.curves}
    state.left = {kind: count for kind, count in expected.items() if count}
    for stage in stages:
        _add_stage(state, stage)
    if state.failure is not None:
        state.left = {}
    return state


def _add_stage(state: State, stage: Stage) -> None:
    slots = stage.slots
    state.running += sum(trial.state == RUNNING for trial in slots.open.values())
    state.left[stage.kind] = len(slots.missing) + sum(
        slot < stage.wanted or trial.state == RUNNING for slot, trial in slots.open.items())
    state.seconds += sum(map(seconds_of, stage.trials))
    ended = [trial for slot, trial in sorted(slots.done.items())
             if not crashed(trial) and (slot < stage.wanted or stage.kind == TRIAL)]
    state.each[stage.kind] = [seconds_of(trial) for trial in ended]
    if stage.kind == TEST:
        state.tests = {_slot(trial): trial.user_attrs['result'] for trial in ended}
    if stage.kind == CURVE:
        state.curves = {_slot(trial): trial.intermediate_values for trial in ended}


def _slot(trial: FrozenTrial) -> int:
    return int(trial.user_attrs['slot'])


def estimate(states: Iterable[State]) -> float | None:
    """Return the seconds of runs that are left, as others of the same cell took, or of the same task and backbone, or
    all; None if nothing has ended yet."""
    states = list(states)
    known: dict[tuple, list[float]] = defaultdict(list)
    for state in states:
        for kind, seconds in state.each.items():
            for key in _keys(state.cell, kind):
                known[key] += seconds
    total = 0.
    for state in states:
        for kind, count in state.left.items():
            taken = next((known[key] for key in _keys(state.cell, kind) if known[key]), None)
            if count and taken is None:
                return None
            total += count * fmean(taken or [0.])
    return total


def _keys(cell: Cell, kind: str) -> Sequence[tuple]:
    """From what is most alike to what is least."""
    where = cell.row['task'], cell.row['arch']
    return (cell.key, kind), (*where, kind), (*where, ), (kind, ), ()


def budgets(states: Sequence[State]) -> str:
    """Say what cells may cost, and whether all may cost the same."""
    def text(cell: Cell) -> str:
        budget = cell.budget
        parts = [f'{budget.trials} trials (seed {cell.seed})', f'pruned after {budget.prune_after}',
                 f'{budget.seeds} seeds (0 to {budget.seeds - 1})' if budget.seeds else 'no test']
        return ', '.join([*parts, *([f'stopped within {budget.stop_within}'] if budget.stop_within else [])])

    found: dict[str, list[str]] = defaultdict(list)
    for state in states:
        found[text(state.cell)].append(state.cell.name)
    if len(found) == 1:
        return f'Every cell: {next(iter(found))}.'
    return 'Budgets differ: ' + '; '.join(f'{budget}: {", ".join(names)}' for budget, names in found.items()) + '.'


def plain_states(states: Sequence[State], folder: str) -> list[dict[str, Any]]:
    """Return all that is known of the cells, for JSON."""
    return [dict(cell=state.cell.name, row=dict(state.cell.row), recipe=state.cell.recipe, state=state.text,
                 failure=state.failure, skipped=state.skipped, stopped=state.stopped,
                 hours=round(state.seconds / 3600, 4),
                 **state.summary(folder)) for state in states]

