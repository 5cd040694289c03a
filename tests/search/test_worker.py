"""A worker over runs that train nothing: what is tried, pruned, tested, cut off and taken up."""
import json
import math
from types import SimpleNamespace

import optuna
import pytest
from fakes import EPOCHS, METRIC, Launch, make_cell, rising
from sqlalchemy import event
from sqlalchemy.engine import Engine

from mmspt.search import queue as queues
from mmspt.search import worker as workers
from mmspt.search.cell import Budget
from mmspt.search.queue import COMPLETE, FAIL, MAX_FAILURES, MAX_REPEATS, PRUNED, RUNNING, Queue, best_of, grid
from mmspt.search.space import parse_space
from mmspt.search.states import read_state
from mmspt.search.storage import open_storage
from mmspt.search.worker import Worker

LIST = ['lr=1,2,3', 'prompt_decay=0.1,0.2', 'model.flag=True,None']
LR = 'optim_wrapper.optimizer.lr'


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch):
    """No waiting, neither for runs nor for the disk."""
    def no_sync(connection, record):
        connection.execute('PRAGMA synchronous=OFF')

    monkeypatch.setattr(workers, 'INTERVAL', 0)
    monkeypatch.setattr(workers, 'IDLE', 0)
    event.listen(Engine, 'connect', no_sync)
    yield
    event.remove(Engine, 'connect', no_sync)


class Killed(BaseException):
    """kill -9, as far as a process can play it on itself."""


class Run:
    """A worker's life: what it was, and what it leaves in the storage."""

    def __init__(self, folder, cells, launch, count=1, on_look=lambda worker: None, on_end=lambda run, ended: None,
                 check=lambda cell, folder: None):
        self.queue = Queue(open_storage(str(folder / 'study.db')), 'plan')
        self.ends, self.launch = [], launch
        self.cells = list(cells)
        self.queue.register(self.cells)

        def end(running, ended):
            self.ends.append((running.job.name, ended))
            on_end(running, ended)

        self.worker = Worker(self.queue, launch, str(folder), [dict(WORKER=str(i)) for i in range(count)], end,
                             check=check)
        try:
            self.worker.work(lambda: on_look(self.worker))
        except Killed:
            raise

    @property
    def trials(self):
        return self.queue.trials(self.cells[0].key)

    def params(self, *states):
        return [trial.params[LR] for trial in self.trials if trial.state in states]

    def state(self, cell=0):
        return read_state(self.queue, self.cells[cell])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(specs, launch, trials, ...) -> Run, in the same folder every time; a kill is one: nothing is given back."""
    def die_silently(worker):
        worker.running.clear()

    def run(specs, launch, trials=100, count=1, startup=1000, seeds=0, warmup=0, curves=False, killed=False, **kwargs):
        cell = make_cell(specs, budget=Budget(trials, seeds, startup, curves), warmup=warmup)
        with monkeypatch.context() as patch:
            if killed:
                patch.setattr(Worker, 'stop', die_silently)
            return Run(tmp_path, [cell], launch, count, **kwargs)
    return run


def best_at(lr):
    """The nearer to ``lr``, the better."""
    return Launch(lambda settings: rising(90 - 10 * abs(settings[LR] - lr)))


def test_of_equals_the_best_on_the_whole():
    """Not the first that was tried: few validation images make many equals. What was pruned does not count."""
    made = [optuna.trial.create_trial(value=value, intermediate_values=dict(enumerate(values, 1)), state=state,
                                      user_attrs=dict(slot=slot))
            for slot, (value, values, state) in enumerate([
                (80., (10., 80.), COMPLETE), (90., (50., 90.), COMPLETE), (90., (70., float('nan'), 90.), COMPLETE),
                (90., (70., 90.), COMPLETE), (95., (80., 95.), PRUNED)])]
    assert best_of(made) is made[2] and best_of(made[::-1]) is made[2] and best_of(made[4:]) is None


def test_a_list_is_tried_whole_and_once(run):
    launch = best_at(2)
    done = run(LIST, launch, count=5)
    keys = [parameter.key for parameter in parse_space(LIST)]
    tried = [tuple(settings[key] for key in keys) for settings in launch.settings]
    assert sorted(tried, key=str) == sorted(
        ((lr, decay, flag) for lr in (1, 2, 3) for decay in (0.1, 0.2) for flag in (True, None)), key=str)
    assert launch.settings == grid(parse_space(LIST), 0) and tried != sorted(tried, key=str)
    assert len(set(launch.work_dirs)) == 12
    assert sorted(done.ends) == sorted((f'trial {slot}', 'finished') for slot in range(12))
    best = best_of(done.trials)
    assert best.params[LR] == 2 and best.value == 90
    assert best.intermediate_values == dict(enumerate(rising(90), 1))
    assert {e['WORKER'] for e in launch.environments} == set('01234')
    assert all(process.stopped == 1 for process in launch.runs)


@pytest.mark.parametrize(('specs', 'count'), [(LIST, 4), (['lr=0.1:10:log'], 1)])
def test_no_more_trials_than_asked_for(run, specs, count):
    """And later as many more as are asked for then; what is done is not done again."""
    launch, shown = best_at(2), []
    for trials in (5, 3, 8):
        run(specs, launch, trials, count, on_look=lambda worker: shown.append(len(worker.running)))
        assert len(launch.settings) == max(5, trials)
    assert max(shown) == min(count, 5)
    assert len({str(settings) for settings in launch.settings}) == 8


def test_fewer_settings_than_trials_end_the_search(run):
    done = run(['lr=1:4'], best_at(2), trials=50, count=2)
    assert sorted(done.params(COMPLETE)) == [1, 2, 3, 4]
    assert len(done.ends) == 4 and len(done.trials) < 50 + 2 * MAX_REPEATS
    assert done.state().text == 'done'
    assert done.state().stopped == 'no other settings' and done.state().over


def test_hopeless_runs_are_stopped(run):
    """Below the median of those that ended, from the first validation on, but not while the rate still rises."""
    launch = Launch(lambda settings: rising(80 if settings[LR] < 6 else 20))
    done = run(['lr=1,2,3,4,5,6,7,8'], launch, startup=1, warmup=2)
    bad = [trial for trial in done.trials if trial.params[LR] >= 6 and trial.number > 0]
    assert len(bad) >= 2 and {trial.state for trial in bad} == {PRUNED}
    assert {max(trial.intermediate_values) for trial in bad} == {2}  # the first that may
    assert best_of(done.trials).value == 80


@pytest.mark.parametrize(('value', 'startup'), [(math.nan, 0), (math.inf, 1000)])
def test_no_number(run, value, startup):
    """A run whose validation is no number is none that ended well, and the search goes on."""
    done = run(['lr=1,2,3'], Launch(lambda s: [50, value if s[LR] == 2 else 60]), startup=startup)
    assert sorted(ended for _, ended in done.ends) == ['finished', 'finished', 'pruned']
    assert sorted(done.params(COMPLETE)) == [1, 3]


def test_a_crash_is_left_until_the_next_call(run):
    """The others are tried; a repaired one then is."""
    launch = Launch(lambda s: rising(50), status=lambda s: int(s[LR] == 2))
    done = run(['lr=1,2,3,4'], launch)
    assert sorted(ended for _, ended in done.ends) == ['failed', 'finished', 'finished', 'finished']
    assert len(launch.runs) == 4 and done.state().failure is None and done.state().over
    launch.status = lambda settings: 0
    done = run(['lr=1,2,3,4'], launch)
    assert [ended for _, ended in done.ends] == ['finished'] and launch.settings[-1] == {LR: 2}
    assert launch.work_dirs[-1] in launch.work_dirs[:-1] and done.state().ended == 4


def test_crashes_one_after_the_other_end_a_cell(tmp_path):
    """That one; others go on. When more than one cell crashes, it is this machine, which leaves."""
    cells = [make_cell(['lr=1,2,3,4,5'], name, Budget(5, 1, 1000)) for name in ('broken', 'whole')]
    launch = Launch(lambda s: rising(50))
    real = Launch.__call__

    def launch_by_cell(job, work_dir, environment):
        process = real(launch, job, work_dir, environment)
        process.status = int(job.cell.name in broken)
        return process

    broken = ['broken']
    done = Run(tmp_path, cells, launch_by_cell)
    assert [job.cell.name for job in launch.jobs] == ['broken'] * MAX_FAILURES + ['whole'] * 6
    state = done.state()
    assert state.text == 'failed' and state.failure.endswith('ends with\nthe end of its log')
    assert done.state(1).text == 'done' and list(done.state(1).tests) == [0]
    broken.append('another')
    with pytest.raises(RuntimeError, match=r'6 runs failed one after the other; see .*which ends with\nthe end of'):
        Run(tmp_path, [cells[0], make_cell(['lr=1:10'], 'another')], launch_by_cell)


@pytest.mark.parametrize(('launch', 'seeds', 'message'), [
    (Launch(lambda settings: []), 0, "must validate and log 'accuracy/top1'"),
    (Launch(lambda s: rising(1), result=lambda job: dict(metrics=dict(recall=1., f1=2.))), 1,
     "the test has no 'accuracy/top1', only recall, f1: let test_evaluator"),
    (Launch(lambda s: rising(1), result=lambda job: dict(metrics={METRIC: 1.}, finished=False)), 1, 'without a test'),
    (Launch(lambda s: rising(1), result=lambda job: None), 1, 'without a test')])
def test_runs_that_end_without_what_they_are_for(run, launch, seeds, message):
    done = run(LIST, launch, trials=2, seeds=seeds)
    assert message in done.state().failure and done.ends[-1][1] == 'failed'


def test_what_is_missing_here_is_left_to_others(tmp_path):
    def check(cell, folder):
        if cell.name == 'a':
            raise FileNotFoundError("data folder 'x' is missing")

    launch = best_at(2)
    done = Run(tmp_path, [make_cell(LIST, name) for name in 'ab'], launch, check=check)
    assert "data folder 'x' is missing" in done.worker.skipped['a@id']
    assert {job.cell.name for job in launch.jobs} == {'b'}
    assert done.state(1).ended == 12 and done.state().failure is None and not done.state().over
    assert "FileNotFoundError: data folder 'x'" in next(iter(done.state().skipped.values()))
    again = Run(tmp_path, [make_cell(LIST, name) for name in 'ab'], launch)  # another worker has it
    assert again.state().ended == 12 and not again.state().skipped


@pytest.mark.parametrize('count', [1, 2])
def test_the_best_setting_is_tested_once_with_each_seed(run, tmp_path, count):
    launch = best_at(2)
    done = run(['lr=1,2,3'], launch, seeds=3, count=count)
    assert launch.of('test') == [{LR: 2}] * 3 and [job.slot for job in launch.jobs[3:]] == [0, 1, 2]
    assert {seed: test['metrics'][METRIC] for seed, test in done.state().tests.items()} == {0: 70., 1: 71., 2: 72.}
    assert len(set(launch.work_dirs[3:])) == 3
    summary = done.state().summary(str(tmp_path))
    assert summary['test'] == dict(by_seed={0: 70., 1: 71., 2: 72.}, mean=71., std=1.,
                                   work_dir=summary['test']['work_dir'])
    assert (tmp_path / summary['test']['work_dir'] / 'seed_2' / 'result.json').is_file()
    done = run(['lr=1,2,3'], launch, seeds=4)
    assert [job.slot for job in launch.jobs[6:]] == [3] and len(done.state().tests) == 4


def test_a_new_best_setting_is_tested_anew(run):
    launch = best_at(3)
    first = grid(parse_space(['lr=1,2,3']), 0)[0]
    run(['lr=1,2,3'], launch, trials=1, seeds=1)
    run(['lr=1,2,3'], launch, trials=3, seeds=1)
    assert launch.of('test') == [first] + [{LR: 3}] * (first != {LR: 3})


def test_curves(run):
    """The best setting trained on train with every seed, for its validations."""
    launch = best_at(2)
    done = run(['lr=1,2,3'], launch, seeds=2, curves=True)
    assert launch.of('curve') == [{LR: 2}] * 2
    assert done.state().curves == {seed: dict(enumerate(rising(90), 1)) for seed in range(2)}
    assert done.state().text == 'done'


@pytest.mark.parametrize(('specs', 'count', 'moment'), [
    (LIST, 2, 'launch'), (LIST, 2, 'end'), (['lr=0.1:10:log', 'model.n=1:5'], 1, 'look')])
def test_killed_at_any_moment(run, specs, count, moment):
    """Settings that were cut off are taken up first of all, and none is lost or done twice."""
    done, moments, kills = [], [], []
    launch = best_at(2)

    def die(name):
        moments.append(name) if name == moment else None
        if name == moment and len(moments) in (1, 4, 5, 9):
            raise Killed

    def launch_and_die(job, work_dir, environment):
        process = launch(job, work_dir, environment)
        die('launch')
        return process

    def end(running, ended):
        done.append(running.job.settings)
        die('end')

    for _ in range(5):
        begun = len(launch.settings)
        cut_off = [settings for settings in launch.settings if settings not in done]
        try:
            last = run(specs, launch_and_die, 7, count, killed=True, on_look=lambda worker: die('look'), on_end=end)
        except Killed:
            kills.append(cut_off)
        assert all(settings in cut_off for settings in launch.settings[begun:][:len({str(s) for s in cut_off})])
    assert len(kills) == (3 if moment == 'end' else 4) and any(kills) == (moment != 'end' or count > 1)
    assert last.state().ended == 7 and not last.params(RUNNING)
    assert len({json.dumps(settings) for settings in done}) == len(done) == 7


def test_killed_between_two_settings_of_a_trial(run, monkeypatch):
    """A listed trial that was asked for but had not taken its settings is not lost."""
    space = parse_space(LIST)
    real, calls = type(space[0]).suggest, [0]

    def suggest(parameter, trial):
        calls[0] += 1
        if calls[0] == 2:
            raise Killed
        return real(parameter, trial)

    monkeypatch.setattr(type(space[0]), 'suggest', suggest)
    launch = best_at(2)
    with pytest.raises(Killed):
        run(LIST, launch, killed=True)
    run(LIST, launch)
    assert launch.settings == grid(space, 0)


@pytest.mark.parametrize('killed', [True, False])
def test_a_cut_off_run_goes_on_in_its_folder(run, killed):
    """What it had validated is told again, under the new attempt; a worker that is told to leave gives it back."""
    launch = Launch(lambda settings: rising(80))
    looks = iter(range(100))

    def die(worker):
        if next(looks) == 2:
            raise Killed

    with pytest.raises(Killed):
        run(['lr=1.0:2.0'], launch, trials=1, on_look=die, killed=killed)
    done = run(['lr=1.0:2.0'], launch, trials=1)
    assert launch.work_dirs[0] == launch.work_dirs[1] and launch.settings[0] == launch.settings[1]
    assert [(t.state, t.params) for t in done.trials] == [(FAIL, launch.settings[0]), (COMPLETE, launch.settings[0])]
    assert done.trials[0].user_attrs['reason'] == ('lost' if killed else 'returned')
    assert done.ends == [('trial 0', 'finished')] and len(done.trials[1].intermediate_values) == EPOCHS


@pytest.mark.parametrize('interval', [0, 1000])
def test_a_run_that_was_given_to_another_is_stopped(run, interval):
    """A worker that stood still for too long finds that its run is another's, by its next sign of life or report, and
    tells nothing; its other run goes on."""
    launch = Launch(lambda settings: rising(80))

    def steal(worker):
        worker.queue.interval = interval
        for trial_id in [job.trial_id for job in worker.queue.jobs.values() if job.slot == 0 and len(launch.runs) == 2]:
            worker.queue.storage.set_trial_state_values(trial_id, FAIL)

    done = run(['lr=1.0:2.0'], launch, trials=2, count=2, on_look=steal)
    assert sorted(done.ends) == [('trial 0', 'finished'), ('trial 0', 'lost'), ('trial 1', 'finished')]
    assert [process.stopped for process in launch.runs] == [1, 1, 1]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 1000.

    def monotonic(self):
        return self.now


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two workers of different machines, and their clock: the first has taken a run."""
    clock = Clock()
    monkeypatch.setattr(queues.time, 'monotonic', clock.monotonic)
    monkeypatch.setattr(queues, 'machine', lambda: '')
    ours, others = (Queue(open_storage(str(tmp_path / 'study.db')), 'plan', beat) for beat in (30, 2))
    ours.register([make_cell(['lr=1'])])
    ours.beat()
    assert ours.claim().slot == 0
    return ours, others, clock


def test_a_worker_without_signs_of_life_is_gone(two):
    """By its own interval, five of which may be missing; who looks must have looked all the time."""
    ours, others, clock = two
    began, taken = clock.now, None
    while taken is None:
        clock.now += 1
        if clock.now <= began + 30:  # the last time
            ours.beat()
        others.beat()
        taken = others.claim()
    assert taken.slot == 0 and 5 * 30 < clock.now - began - 30 < 5 * 30 + 5
    assert [job.slot for job in ours.beat()] == [0] and not ours.jobs


def test_an_attempt_that_another_takes_meanwhile_is_no_duplicate(tmp_path):
    """While one worker looks at a stage, another queues a lost run anew and takes it."""
    first, second, lost = (Queue(open_storage(str(tmp_path / 'study.db')), 'plan') for _ in range(3))
    cell = make_cell(['lr=1'], budget=Budget(1, 0, 1000))
    first.register([cell])
    lost.claim()
    gone, taken, drop, read = set(), [], first._drop_duplicates, first.trials
    for queue in (first, second):
        queue._is_gone = lambda owner, beat: owner in gone

    def read_and_be_late(name):
        found = read(name)
        taken.append(second.claim())
        first.trials = read
        return found

    def drop_and_be_late(stage, slots):
        gone.add(lost.owner)
        second.release_lost()
        second._fill(cell, second.stages(cell)[0])
        first.trials = read_and_be_late
        drop(stage, slots)

    first._drop_duplicates = drop_and_be_late
    assert first.claim() is None
    assert [trial.state for trial in first.trials(cell.key)] == [FAIL, RUNNING]
    assert [job.trial.number for job in taken] == [1] and second.beat(True) == []


def test_no_worker_is_gone_after_the_storage_was_away(two):
    """For all of them: what was not seen meanwhile is no evidence."""
    ours, others, clock = two
    others.beat()
    assert others.claim() is None
    clock.now += 10_000
    assert others.claim() is None and not others.beat()
    ours.beat()
    assert others.claim() is None and list(ours.jobs)


def test_a_loss_is_told_though_the_storage_fails_in_between(two, monkeypatch):
    ours, _, clock = two
    ours.storage.set_trial_state_values(next(iter(ours.jobs)), FAIL)
    clock.now += 100
    real = ours._look
    monkeypatch.setattr(ours, '_look', lambda: (_ for _ in ()).throw(OSError('away')))
    with pytest.raises(OSError, match='away'):
        ours.beat()
    monkeypatch.setattr(ours, '_look', real)
    assert [job.slot for job in ours.beat()] == [0]


def test_a_definition_that_changes_while_a_worker_runs(tmp_path):
    """Seeds that are added, and another final config: what is tested is what the plan says now."""
    queue = Queue(open_storage(str(tmp_path / 'study.db')), 'plan')
    first, then = make_cell(['lr=1'], budget=Budget(1, 0)), make_cell(['lr=1'], budget=Budget(1, 2))
    queue.register([first])
    launch = Launch(lambda settings: rising(80))
    changed = []

    def change(worker):
        if launch.runs and not changed:
            changed.append(Queue(open_storage(str(tmp_path / 'study.db')), 'plan').register([then]))

    Worker(queue, launch, str(tmp_path), [{}], lambda running, ended: None, check=lambda *_: None).work(
        lambda: change(None))
    assert len(read_state(queue, then).tests) == 2


@pytest.mark.parametrize('specs', [['lr=1,2,3,4', 'prompt_decay=1,2'], ['prompt_decay=1,2', 'lr=1,2,3,4']])
def test_another_seed_or_order_of_the_space_tries_the_rest(run, tmp_path, specs):
    launch = best_at(2)
    Run(tmp_path, [make_cell(['lr=1,2,3,4', 'prompt_decay=1,2'], budget=Budget(4, 0))], launch)
    done = Run(tmp_path, [make_cell(specs, budget=Budget(8, 0), seed=1)], launch)
    assert len(launch.settings) == len({str(sorted(settings.items())) for settings in launch.settings}) == 8
    assert done.state().ended == 8


def test_a_cell_whose_trials_are_all_no_number_has_failed(run):
    state = run(['lr=1,2'], Launch(lambda settings: [math.nan]), seeds=2).state()
    assert 'no trial ran to its end' in state.failure and state.over


def test_a_test_that_crashes_is_tried_again(run):
    """A setting is not: it is what is tried."""
    launch = Launch(lambda settings: rising(80))
    real, crashes = Launch.__call__, []

    def launch_and_crash(job, work_dir, environment):
        process = real(launch, job, work_dir, environment)
        if job.stage.kind == 'test' and job.slot == 1 and len(crashes) < 2:
            crashes.append(job)
            process.status, process.result = 1, None
        return process

    done = run(['lr=1'], launch_and_crash, seeds=3)
    assert list(done.state().tests) == [0, 1, 2] and len(crashes) == 2


def test_two_plans_of_one_name(tmp_path):
    """Of other cells and another folder; in its own folder a plan may change wholly."""
    address = str(tmp_path / 'study.db')
    Queue(open_storage(address), 'plan').register([make_cell(name='a')], '/one')
    with pytest.raises(ValueError, match="a plan 'plan' of other cells, with the work directory '/one'"):
        Queue(open_storage(address), 'plan').register([make_cell(name='b')], '/two')
    for cells in ([make_cell(name='b')], [make_cell(name='c')]):
        Queue(open_storage(address), 'plan').register(cells, '/one')


def test_a_search_stops_when_its_best_cannot_change_by_more(run, tmp_path):
    """And says so; with more trials in the plan it goes on."""
    cell = make_cell(['lr=0.9:1.1'], budget=Budget(40, 0, 1000, stop_within=5.))
    done = Run(tmp_path, [cell], Launch(lambda s: rising(80 + (s[LR] - 1)**2)))
    assert 10 <= done.state().ended < 40 and 'can change by' in done.state().stopped
    assert done.state().text == 'done'


@pytest.mark.parametrize('amp', [None, 'bfloat16'])
def test_mixed_precision_is_looked_at_in_the_tool(amp, tmp_path, monkeypatch):
    """What a run warns of stands in its own log alone."""
    warned = []
    monkeypatch.setattr(workers, 'warn_of_slow_bfloat16', lambda: warned.append(True))
    monkeypatch.setattr(workers, 'TrainProcess', lambda command, log, environment: command)
    job = SimpleNamespace(cell=SimpleNamespace(name='cell', recipe='job', trial_config='', amp=amp),
                          stage=SimpleNamespace(kind='trial'), settings={'lr': 1.}, slot=0)
    command = workers.Launcher('train.py', str(tmp_path), 1)(job, str(tmp_path), {})
    assert ('--amp=bfloat16' in command) == bool(warned) == bool(amp)
