"""A plan's queue in an Optuna storage: workers take runs from it, and take over those of workers that are gone.

A cell has a study for its search, one for the tests of its best setting, and one for that setting's curves if they are
asked for. A *slot* is a run that a study shall have, from 0: a setting of the search, or a seed. The trials of a slot
are attempts; all but one ended as FAIL, because their worker was gone or stopped. Whoever looks at a study queues what
it lacks, so nothing depends on who is killed when: a second attempt that was queued by two at once is dropped by whom
takes it.
"""
import itertools
import json
import math
import os
import random
import socket
import time
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any, NamedTuple
from uuid import uuid4

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.terminator import RegretBoundEvaluator
from optuna.trial import FrozenTrial, TrialState

from .cell import Budget, Cell, digest
from .space import Parameter

WAITING, RUNNING, COMPLETE, PRUNED, FAIL = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE,
                                            TrialState.PRUNED, TrialState.FAIL)
MAX_REPEATS = 50
"""Draws of settings that were tried before, after which a search ends: there are no others."""
MAX_FAILURES = 3
"""Runs of a cell that crash one after the other, after which it has failed: the settings are not what is wrong."""
BEAT = 30.
"""Seconds between two signs of life of a worker."""
MISSED = 5
"""Signs of life that a worker may miss before its runs are others'."""
MIN_TRIALS = 10
"""Finished trials before a search may be stopped by what more could gain."""
TRIAL, TEST, CURVE = 'trial', 'test', 'curve'


class Stage(NamedTuple):
    """A study of a cell as it was read: what it shall have, and what it has."""
    kind: str
    """'trial', 'test' or 'curve'."""
    study: str
    """Its name in the storage."""
    wanted: int
    """Slots that it shall have."""
    settings: dict[str, Any]
    """What its runs share; empty for a search."""
    trials: list[FrozenTrial]
    forgiven: int
    """Number of the last trial whose crash does not count any more."""

    @property
    def slots(self) -> 'Slots':
        """Its trials by slot; a test or a curve that crashes is tried a few times, a setting once."""
        return sort_slots(self.trials, self.wanted, 1 if self.kind == TRIAL else MAX_FAILURES, self.forgiven)

    @property
    def failure(self) -> str | None:
        """Why no more of its runs are worth a try."""
        return why_failed(self.slots, self.kind)

    @property
    def over(self) -> bool:
        """Whether nothing runs, and nothing is left to run."""
        slots = self.slots
        return not any(trial.state == RUNNING for trial in slots.open.values()) and (
            why_failed(slots, self.kind) is not None
            or not (slots.missing or any(slot < self.wanted for slot in slots.open)))


@dataclass
class Job:
    """A run that was taken, and by whom it is done until it is ended."""
    cell: Cell
    stage: Stage
    slot: int
    settings: dict[str, Any]
    trial: optuna.Trial
    trial_id: int
    reported: dict[int, float] = field(default_factory=dict)
    """Step -> validation, as far as the storage has it."""

    @property
    def name(self) -> str:
        """For people: 'trial 3', 'test 0' or 'curve 0', of a seed."""
        return f'{self.stage.kind} {self.slot}'


class Slots(NamedTuple):
    """The slots of a study."""
    done: dict[int, FrozenTrial]
    """Ended and not to be repeated: finished, pruned or crashed."""
    open: dict[int, FrozenTrial]
    """The attempt that waits or runs."""
    missing: dict[int, tuple[dict[str, Any], int]]
    """Settings to queue (none: to be drawn), and how often they were drawn before."""


def sort_slots(trials: Sequence[FrozenTrial], count: int, attempts: int = 1, forgiven: int = -1) -> Slots:
    """Sort the attempts of a study into its slots.

    Args:
        trials (Sequence[FrozenTrial]): All of them.
        count (int): Slots that the study shall have; further ones count if they ran.
        attempts (int): Crashes of a slot after which it is not tried again. Defaults to 1.
        forgiven (int): Number of the last trial whose crash does not count. Defaults to -1, none.
    """
    done: dict[int, FrozenTrial] = {}
    open_: dict[int, FrozenTrial] = {}
    before: dict[int, tuple[dict[str, Any], int]] = {}
    crashes: Counter[int] = Counter()
    for trial in sorted(trials, key=lambda trial: trial.number):
        slot = trial.user_attrs.get('slot')
        if slot is None:
            continue
        if crashed(trial) and trial.number > forgiven:
            crashes[slot] += 1
        if trial.state in (COMPLETE, PRUNED) or (crashes[slot] >= attempts and crashed(trial)):
            done.setdefault(slot, trial)
        elif trial.state in (WAITING, RUNNING):
            open_.setdefault(slot, trial)
        elif trial.user_attrs.get('reason') == 'repeated':
            before[slot] = {}, trial.user_attrs.get('draw', 0) + 1
        else:
            before[slot] = settings_of(trial), trial.user_attrs.get('draw', 0)
    for slot in done:
        open_.pop(slot, None)
    missing = {slot: before.get(slot, ({}, 0)) for slot in range(count) if slot not in done and slot not in open_}
    return Slots(done, open_, missing)


def settings_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's settings, or those that were queued for it and it has not taken yet."""
    return trial.system_attrs.get('fixed_params') or trial.params


def crashed(trial: FrozenTrial) -> bool:
    """Whether a trial's run ended with an error of its own."""
    return trial.state == FAIL and trial.user_attrs.get('reason') in ('crashed', 'hopeless')


def why_failed(slots: Slots, kind: str) -> str | None:
    """Return why no more runs of a study are worth a try, the message of a crash; None if they are."""
    ended = sorted(slots.done.values(), key=lambda trial: trial.number)
    broken = [trial for trial in ended if crashed(trial)]
    in_a_row = ended[-MAX_FAILURES:]
    if broken and (any(trial.user_attrs['reason'] == 'hopeless' for trial in broken) or kind != TRIAL
                   or (len(in_a_row) == MAX_FAILURES and all(map(crashed, in_a_row)))):
        return str(broken[-1].user_attrs.get('message', 'no message'))
    if ended and not (slots.open or slots.missing or any(trial.state == COMPLETE for trial in ended)):
        reasons = [trial.user_attrs.get('message') for trial in broken]
        return str(reasons[-1]) if reasons else 'no trial ran to its end: each was pruned, or gave no number'
    return None


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the best trial that ran to its end; of equals, which few validation images make, the one with the best
    validations on the whole, then the lowest slot; None if there is none."""
    def rank(trial: FrozenTrial) -> tuple[float | None, float, int]:
        values = list(filter(math.isfinite, trial.intermediate_values.values()))
        return trial.value, fmean(values) if values else -math.inf, -trial.user_attrs['slot']

    return max((trial for trial in trials if trial.state == COMPLETE), key=rank, default=None)


def grid(space: Sequence[Parameter], seed: int) -> list[dict[str, Any]]:
    """Return all combinations of listed values, shuffled; none if a setting has a range: Optuna's TPE draws then."""
    if any(parameter.choices is None for parameter in space):
        return []
    space = sorted(space, key=lambda parameter: parameter.key)
    combinations = [dict(zip((p.key for p in space), values, strict=True))
                    for values in itertools.product(*(p.choices or () for p in space))]
    random.Random(seed).shuffle(combinations)
    return combinations


class Lost(Exception):
    """A run that was given to another worker meanwhile."""


class Queue:
    """A worker's view of a plan; every method may be called again where the storage was away in between.

    Args:
        storage (BaseStorage): Of :func:`mmspt.search.storage.open_storage`.
        plan (str): Name of the plan, the first part of its studies' names.
        beat (float): Seconds between two signs of life. Defaults to :data:`BEAT`.
    """

    def __init__(self, storage: BaseStorage, plan: str, beat: float = BEAT) -> None:
        self.storage, self.plan, self.interval = storage, plan, beat
        self.owner = f'{socket.gethostname()}:{machine()}:{process_name(os.getpid())}:{uuid4().hex[:8]}'
        self.jobs: dict[int, Job] = {}
        """Trial id -> run in hand."""
        self.over: set[str] = set()
        """Keys of the cells that need nothing more."""
        self.generation: Any = None
        """Of the plan's last call that was seen here."""
        self._beats, self._last_beat, self._looked = 0, -math.inf, -math.inf
        self._seen: dict[str, tuple[Any, float]] = {}
        self._cells: dict[str, Cell] = {}
        self._studies: dict[str, optuna.Study] = {}
        self._ids: dict[str, int] = {}
        self._grids: dict[str, list[dict[str, Any]]] = {}

    # ---------------------------------------------------------------- the plan

    def register(self, cells: Sequence[Cell], folder: str = '', title: str = '') -> None:
        """Set the plan's cells and their order; what was run of a cell that is defined as before counts.

        Runs that crashed are tried again.

        Args:
            cells (Sequence[Cell]): Of different names.
            folder (str): Work directory of the plan. Defaults to ''.
            title (str): Of its tables. Defaults to ''.

        Raises:
            ValueError: The storage has a plan of this name with other cells and another folder.
        """
        before = self.attributes('')
        keys, names = {cell.key for cell in cells}, self._study_names()
        if before.get('folder', folder) != folder and not keys & {key for key, _ in before['cells']}:
            raise ValueError(f"plans in one storage must have names of their own, but it has a plan '{self.plan}' of "
                             f"other cells, with the work directory '{before['folder']}': rename the file of this one, "
                             'or take another --storage')
        for name in names:
            if name.partition('@')[0] + '@' + name.partition('@')[2].partition('/')[0] in keys:
                trials = self.trials(name)
                if any(map(crashed, trials)):
                    self.study(name).set_user_attr('forgiven', trials[-1].number)
        for cell in cells:
            study = self.study(cell.key)
            content = json.loads(json.dumps(cell.to_json()))
            for key, value in dict(cell=content, skipped={}).items():
                if study.user_attrs.get(key) != value:  # a journal keeps all that is written
                    study.set_user_attr(key, value)
        plan = self.study('')
        plan.set_user_attr('folder', folder)
        plan.set_user_attr('title', title)
        plan.set_user_attr('cells', [[cell.key, list(asdict(cell.budget).values())] for cell in cells])
        plan.set_user_attr('generation', uuid4().hex)

    def cells(self) -> list[Cell]:
        """Return the plan's cells in their order, as they are now.

        Raises:
            ValueError: The storage has no such plan.
        """
        attributes = self.attributes('')
        if 'cells' not in attributes:
            known = sorted(study.study_name[:-1] for study in self.storage.get_all_studies()
                           if study.study_name.endswith('/'))
            raise ValueError(f"a plan must be begun before workers join it, but this storage has no '{self.plan}'; it "
                             f'has {", ".join(known) or "none"}: name one, or begin it with tools/benchmark.py PLAN')
        if attributes.get('generation') != self.generation:
            self.generation = attributes.get('generation')
            self.over.clear()
            self._cells.clear()
            self._grids.clear()
        for key, budget in attributes['cells']:
            if key not in self._cells:
                self._cells[key] = replace(Cell.from_json(self.attributes(key)['cell']), budget=Budget(*budget))
        return [self._cells[key] for key, _ in attributes['cells']]

    def title(self) -> str:
        """Return the plan's title."""
        return self.attributes('').get('title') or self.plan

    def begun(self) -> set[str]:
        """Return the keys of all cells that the plan ever had."""
        return {name for name in self._study_names() if name and '/' not in name.rpartition('@')[2]}

    def _study_names(self) -> list[str]:
        """Names of the plan's studies, without the plan's; those of tests and curves go on after the cell's key."""
        names = [study.study_name for study in self.storage.get_all_studies()]
        return [name.removeprefix(f'{self.plan}/') for name in names if name.startswith(f'{self.plan}/')]

    # ---------------------------------------------------------------- runs

    def claim(self, skip: Collection[str] = ()) -> Job | None:
        """Take the next run, of the first cell that has one; None if there is none now.

        Args:
            skip (Collection[str]): Keys of cells that cannot be run here.
        """
        for cell in self.cells():
            if cell.key not in self.over and cell.key not in skip:
                stages = self.stages(cell)
                for stage in stages:
                    job = self._take(cell, stage)
                    if job is not None:
                        return job
                if all(stage.over for stage in self.stages(cell)):
                    self.over.add(cell.key)
        return None

    def stages(self, cell: Cell) -> list[Stage]:
        """Read the studies of a cell that can be worked on: its search, and once that is over what follows."""
        attributes = self.attributes(cell.key)
        search = Stage(TRIAL, cell.key, self._count(cell, attributes), {}, self.trials(cell.key),
                       attributes.get('forgiven', -1))
        found = best_of(search.trials) if search.over and not search.failure else None
        if found is None:
            return [search]
        settings = {parameter.key: found.params[parameter.key] for parameter in cell.space}
        names = {TEST: f'{cell.key}/test-{digest(settings, cell.final_identity)}',
                 CURVE: f'{cell.key}/curve-{digest(settings)}'}
        wanted = [TEST] * (cell.final_config is not None) + [CURVE] * cell.budget.curves
        return [search, *(Stage(kind, names[kind], cell.budget.seeds, settings, self.trials(names[kind]),
                                self.attributes(names[kind]).get('forgiven', -1)) for kind in wanted)]

    def _read(self, cell: Cell, stage: Stage) -> Stage:
        """Read a stage anew."""
        wanted = self._count(cell, self.attributes(cell.key)) if stage.kind == TRIAL else stage.wanted
        return stage._replace(trials=self.trials(stage.study), wanted=wanted)

    def _count(self, cell: Cell, attributes: Mapping[str, Any]) -> int:
        """Slots of a cell's search: its trials, or as many as there are settings or sense."""
        combinations = self._grid(cell)
        count = min(cell.budget.trials, len(combinations)) if combinations else cell.budget.trials
        stopped = attributes.get('stopped') or {}
        return min(count, stopped['slots']) if stopped.get('trials') == cell.budget.trials else count

    def _grid(self, cell: Cell) -> list[dict[str, Any]]:
        if cell.key not in self._grids:
            self._grids[cell.key] = grid(cell.space, cell.seed)
        return self._grids[cell.key]

    def _take(self, cell: Cell, stage: Stage) -> Job | None:
        """Take a run of a stage."""
        while True:
            if self._release_lost(stage) or stage.slots.missing:
                self._fill(cell, self._read(cell, stage))
            stage = self._read(cell, stage)
            slots = stage.slots
            self._drop_duplicates(stage, slots)
            waiting = [(slot, trial) for slot, trial in sorted(slots.open.items())
                       if trial.state == WAITING and slot < stage.wanted]
            if not waiting or stage.failure is not None:
                return None
            for slot, trial in waiting:
                trial_id = self._id(stage.study, trial.number)
                if not self._begin(trial_id):
                    continue  # another worker was faster
                stage = self._read(cell, stage)
                ours = stage.slots.open.get(slot)
                if ours is None or ours.number != trial.number:
                    self._end(trial_id, FAIL, reason='duplicate')
                    continue
                job = self._start(cell, stage, slot, trial, trial_id)
                if job is not None:
                    self.jobs[trial_id] = job
                    return job
                break

    def _drop_duplicates(self, stage: Stage, slots: Slots) -> None:
        """End the attempts that were queued by two workers at once; one that another took meanwhile is left to it."""
        for trial in self.trials(stage.study):
            slot = trial.user_attrs.get('slot')
            if trial.state == WAITING and slot is not None and (
                    slot in slots.done or trial.number > slots.open.get(slot, trial).number):
                trial_id = self._id(stage.study, trial.number)
                if self._begin(trial_id):
                    self._end(trial_id, FAIL, reason='duplicate')

    def _fill(self, cell: Cell, stage: Stage) -> None:
        """Queue an attempt for every slot that has none."""
        study, slots = self.study(stage.study), stage.slots
        taken = [settings_of(trial) for trial in (*slots.done.values(), *slots.open.values())]
        taken += [settings for settings, _ in slots.missing.values()]
        free = iter([settings for settings in self._grid(cell) if settings not in taken])
        for slot, (settings, draw) in slots.missing.items():
            attributes = dict(slot=slot) | (dict(draw=draw) if draw else {})
            if stage.kind != TRIAL:
                settings = {}
            elif not settings and self._grid(cell):
                settings = next(free, {})
            study.enqueue_trial(settings, user_attrs=attributes)

    def _start(self, cell: Cell, stage: Stage, slot: int, frozen: FrozenTrial, trial_id: int) -> Job | None:
        """Give a trial that is ours its settings; None if all that could be drawn were tried before."""
        study = self.study(stage.study)
        if stage.kind != TRIAL:
            return Job(cell, stage, slot, stage.settings, optuna.Trial(study, trial_id), trial_id)
        draw = frozen.user_attrs.get('draw', 0)
        # a seed of its own for each: the sampler's state is not stored, and workers must not draw the same numbers
        study.sampler = optuna.samplers.TPESampler(seed=cell.seed + slot + 10_000 * draw, constant_liar=True)
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=cell.budget.prune_after,
                                                   n_warmup_steps=cell.warmup)
        trial = optuna.Trial(study, trial_id)
        settings = {parameter.key: parameter.suggest(trial) for parameter in cell.space}
        slots = self._read(cell, stage).slots
        others = [other.params for other in (*slots.done.values(), *slots.open.values())
                  if other.number != frozen.number and other.state != WAITING]
        if settings not in others:
            return Job(cell, stage, slot, settings, trial, trial_id)
        self._end(trial_id, FAIL, reason='repeated')
        if draw >= MAX_REPEATS:
            self._stop(cell, len(slots.done) + sum(o.state == RUNNING for o in slots.open.values()) - 1,
                       'no other settings')
        return None

    def _stop(self, cell: Cell, slots: int, why: str) -> None:
        """Let a cell's search end with as many slots."""
        self.study(cell.key).set_user_attr('stopped', dict(trials=cell.budget.trials, slots=slots, why=why))

    def report(self, job: Job, values: Mapping[int, float]) -> bool:
        """Tell the storage each validation (step -> value) once; return whether there was a new one.

        Raises:
            Lost: The run is another worker's.
        """
        new = sorted(values.keys() - job.reported.keys())
        for step in new:
            try:
                job.trial.report(values[step], step)
            except optuna.exceptions.UpdateFinishedTrialError as error:
                self.jobs.pop(job.trial_id, None)
                raise Lost(job.name) from error
            job.reported[step] = values[step]
        return bool(new)

    def should_prune(self, job: Job) -> bool:
        """Whether a trial is behind the median of those that ended."""
        return job.stage.kind == TRIAL and job.trial.should_prune()

    def finish(self, job: Job, value: float, seconds: float, **attributes: Any) -> bool:
        """End a run with its value; False if it was given to another worker meanwhile."""
        ended = self._end(job.trial_id, COMPLETE, value, seconds=seconds, **attributes)
        if ended and job.stage.kind == TRIAL and job.cell.budget.stop_within is not None:
            self._stop_if_decided(job.cell, job.cell.budget.stop_within)
        return ended

    def prune(self, job: Job, seconds: float) -> bool:
        """End a trial that is behind."""
        return self._end(job.trial_id, PRUNED, seconds=seconds)

    def fail(self, job: Job, message: str, seconds: float = 0., hopeless: bool = False) -> bool:
        """End a run that crashed; if it is hopeless, its cell, too."""
        return self._end(job.trial_id, FAIL, reason='hopeless' if hopeless else 'crashed', message=message,
                         seconds=seconds)

    def give_back(self, job: Job, seconds: float = 0.) -> bool:
        """End an attempt that others shall take up."""
        return self._end(job.trial_id, FAIL, reason='returned', seconds=seconds)

    def skip(self, job: Job, message: str) -> None:
        """Give back a run whose cell cannot be run on this machine, and say why."""
        self.give_back(job)
        skipped = self.attributes(job.cell.key).get('skipped') or {}
        self.study(job.cell.key).set_user_attr('skipped', skipped | {socket.gethostname(): message})

    def _stop_if_decided(self, cell: Cell, bound: float) -> None:
        """End a search whose best cannot change by more than ``bound``, as Optuna's bound on the regret says."""
        finished = [trial for trial in self.trials(cell.key) if trial.state == COMPLETE]
        if len(finished) < MIN_TRIALS:
            return
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Optuna's, that it is experimental
            evaluator = RegretBoundEvaluator(min_n_trials=MIN_TRIALS, seed=0)
            regret = evaluator.evaluate(finished, StudyDirection.MAXIMIZE)
        if regret < bound:
            slots = self.stages(cell)[0].slots
            running = sum(trial.state == RUNNING for trial in slots.open.values())
            self._stop(cell, len(slots.done) + running, f'the best can change by {regret:.2f} at most')

    # ---------------------------------------------------------------- workers

    def beat(self, now: bool = False) -> list[Job]:
        """Give a sign of life and look at the others', if that is due or asked for; return the runs in hand that are
        others' now, and forget them."""
        if not now and time.monotonic() - self._last_beat < self.interval:
            return []
        self._beats += 1
        self.study('').set_user_attr(f'beat:{self.owner}', [self._beats, self.interval])
        for name, beat in self._look().items():
            if name.startswith('beat:'):
                self._see(name.removeprefix('beat:'), beat)
        lost = [job for trial_id, job in self.jobs.items() if self.storage.get_trial(trial_id).state != RUNNING]
        for job in lost:
            del self.jobs[job.trial_id]
        self._last_beat = time.monotonic()
        return lost

    def leave(self) -> None:
        """Give back all runs in hand, and say that this worker is gone."""
        for job in list(self.jobs.values()):
            self.give_back(job)
        self.study('').set_user_attr(f'beat:{self.owner}', -1)

    def release_lost(self, alone: bool = False) -> int:
        """End the running attempts whose worker is gone, of all cells; return their number.

        Args:
            alone (bool): Whether no other worker can be at work, whatever signs of life there are. Defaults to False.
        """
        return sum(self._release_lost(stage, alone) for cell in self.cells() for stage in self.stages(cell))

    def _release_lost(self, stage: Stage, alone: bool = False) -> int:
        """End the running attempts of a stage whose worker is gone; return their number."""
        running = {self._id(stage.study, trial.number): trial.user_attrs.get('owner') for trial in stage.trials
                   if trial.state == RUNNING}
        others = {trial_id: owner for trial_id, owner in running.items() if trial_id not in self.jobs}
        attributes = self._look() if others else {}
        return sum(self._end(trial_id, FAIL, reason='lost') for trial_id, owner in others.items()
                   if alone or self._is_gone(owner or f'nobody:{trial_id}', attributes.get(f'beat:{owner}')))

    def _look(self) -> dict[str, Any]:
        """Read the plan's attributes, with the signs of life; after a while without a look, what was seen is no
        evidence: the storage may have been away for the others, too."""
        attributes, now = self.attributes(''), time.monotonic()
        if now - self._looked > 2 * self.interval:
            self._seen.clear()
        self._looked = now
        return attributes

    def _see(self, owner: str, beat: Any) -> float:
        """Return how long ago a worker's last sign of life was seen first."""
        now = time.monotonic()
        if owner not in self._seen or self._seen[owner][0] != beat:
            self._seen[owner] = beat, now
        return now - self._seen[owner][1]

    def _is_gone(self, owner: str, beat: Any) -> bool:
        """Whether a worker left, is no process of this machine any more, or gave no sign of life for too long."""
        _, where, process, *_ = [*owner.split(':'), '', '']
        if owner == self.owner or beat == -1:
            return True  # ours, but not in hand: it was taken while the storage went away
        if where and where == machine():
            return process == process_name(os.getpid()) or process != process_name(int(process.partition('@')[0]))
        return self._see(owner, beat) > MISSED * (beat[1] if beat else self.interval)

    # ---------------------------------------------------------------- the storage

    def _begin(self, trial_id: int) -> bool:
        try:
            ours = self.storage.set_trial_state_values(trial_id, RUNNING)
            if ours:
                self.storage.set_trial_user_attr(trial_id, 'owner', self.owner)
        except optuna.exceptions.UpdateFinishedTrialError:  # others took this worker for gone in between
            return False
        return ours

    def _end(self, trial_id: int, state: TrialState, value: float | None = None, **attributes: Any) -> bool:
        """End a trial; False if it had ended otherwise before."""
        values = None if value is None else [value]
        try:
            for name, attribute in attributes.items():
                self.storage.set_trial_user_attr(trial_id, name, attribute)
            self.storage.set_trial_state_values(trial_id, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            trial = self.storage.get_trial(trial_id)
            ended = (trial.state, trial.values) == (state, values)
        else:
            ended = True
        self.jobs.pop(trial_id, None)
        return ended

    def study(self, name: str) -> optuna.Study:
        if name not in self._studies:
            self._studies[name] = optuna.create_study(
                storage=self.storage, study_name=f'{self.plan}/{name}', direction='maximize', load_if_exists=True)
        return self._studies[name]

    def _study_id(self, name: str) -> int | None:
        if name not in self._ids:
            try:
                self._ids[name] = self.storage.get_study_id_from_name(f'{self.plan}/{name}')
            except KeyError:
                return None
        return self._ids[name]

    def attributes(self, name: str) -> dict[str, Any]:
        study_id = self._study_id(name)
        return {} if study_id is None else self.storage.get_study_user_attrs(study_id)

    def trials(self, name: str) -> list[FrozenTrial]:
        study_id = self._study_id(name)
        return [] if study_id is None else self.storage.get_all_trials(study_id, deepcopy=False)

    def _id(self, name: str, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._ids[name], number)


def machine() -> str:
    """Return a name of this machine's set of process numbers since it was started; '' where Linux does not tell."""
    try:
        with open('/proc/sys/kernel/random/boot_id', encoding='utf-8') as file:
            return digest(file.read().strip(), os.stat('/proc/self/ns/pid').st_ino)
    except OSError:
        return ''


def process_name(pid: int) -> str:
    """Return '<number>@<start>' of a process of this machine; '' if there is none, or it has ended."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
            fields = file.read().rpartition(')')[2].split()
    except OSError:
        return ''
    return '' if fields[0] in 'ZX' else f'{pid}@{fields[19]}'
