"""The search's loop over runs that train nothing."""
import json
import math

import pytest
from fakes import EPOCHS, Launch, rising
from sqlalchemy import event
from sqlalchemy.engine import Engine

from mmspt.search import loop
from mmspt.search.loop import MAX_FAILURES, search
from mmspt.search.space import parse_space
from mmspt.search.study import COMPLETE, FAILED, PRUNED, RUNNING, best, count, grid, open_study, take_up

METRIC = 'accuracy/top1'
LIST = ['lr=1,2,3', 'prompt_decay=0.1,0.2', 'model.flag=True,None']
LR = 'optim_wrapper.optimizer.lr'


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch):
    """No waiting, neither for runs nor for the disk."""
    def no_sync(connection, record):
        connection.execute('PRAGMA synchronous=OFF')

    monkeypatch.setattr(loop, 'INTERVAL', 0)
    event.listen(Engine, 'connect', no_sync)
    yield
    event.remove(Engine, 'connect', no_sync)


class Killed(BaseException):
    """kill -9, as far as a process can play it on itself."""


@pytest.fixture
def run(tmp_path):
    """run(specs, launch, num_trials, workers, ...) -> study, [(number, how it ended)]; the same folder every time."""
    def run(specs, launch, num_trials=100, workers=1, seed=0, startup=1000, on_change=lambda running: None,
            on_end=lambda trial, ended: None):
        space = parse_space(specs)
        study = open_study(str(tmp_path), dict(config='x'), seed, startup, 0)
        take_up(study)
        ends = []

        def end(trial, ended):
            ends.append((trial.trial.number, ended))
            on_end(trial, ended)

        search(study, space, grid(space, seed), launch, str(tmp_path / 'trials'),
               [dict(WORKER=str(i)) for i in range(workers)], num_trials, METRIC, on_change, end)
        return study, ends
    return run


def best_at(lr):
    """The nearer to ``lr``, the better."""
    return Launch(lambda settings: rising(90 - 10 * abs(settings[LR] - lr)))


def test_a_list_is_tried_whole_and_once(run):
    launch = best_at(2)
    study, ends = run(LIST, launch, workers=5)
    tried = [tuple(settings.values()) for settings in launch.settings]
    assert sorted(tried, key=str) == sorted(
        ((lr, decay, flag) for lr in (1, 2, 3) for decay in (0.1, 0.2) for flag in (True, None)), key=str)
    assert tried == [tuple(settings.values()) for settings in grid(parse_space(LIST), 0)] != sorted(tried, key=str)
    assert len(set(launch.work_dirs)) == 12
    assert sorted(ends) == [(number, 'finished') for number in range(12)]
    assert best(study).params[LR] == 2 and best(study).value == 90
    assert best(study).intermediate_values == dict(enumerate(rising(90), 1))
    assert {e['WORKER'] for e in launch.environments} == set('01234')
    assert all(process.stopped == 1 for process in launch.runs)


@pytest.mark.parametrize(('specs', 'workers'), [(LIST, 4), (['lr=0.1:10:log'], 1)])
def test_no_more_trials_than_asked_for(run, specs, workers):
    """And later as many more as are asked for then; what is done is not done again."""
    launch = best_at(2)
    shown = []
    for num_trials in (5, 3, 8):
        run(specs, launch, num_trials, workers, on_change=lambda running: shown.append(len(running)))
        assert len(launch.settings) == max(5, num_trials)
    assert max(shown) == min(workers, 5)
    assert len({str(settings) for settings in launch.settings}) == 8


def test_fewer_settings_than_trials_end_the_search(run):
    study, ends = run(['lr=1:4'], best_at(2), num_trials=50, workers=2)
    assert sorted(trial.params[LR] for trial in study.get_trials(states=(COMPLETE, ))) == [1, 2, 3, 4]
    assert len(ends) == 4 and len(study.trials) < 4 + 2 * loop.MAX_REPEATS


def test_hopeless_runs_are_stopped(run):
    """Below the median of those that ended, from the first validation on."""
    launch = Launch(lambda settings: rising(80 if settings[LR] < 6 else 20))
    study, ends = run(['lr=1,2,3,4,5,6,7,8'], launch, startup=1)
    bad = [trial for trial in study.trials if trial.params[LR] >= 6]
    assert len(bad) == 3 and dict(ends)[0] == 'finished'
    assert {t.state for t in bad if t.number > 0} == {PRUNED}
    for trial in bad:
        assert launch.runs[trial.number].stopped == 1 and launch.runs[trial.number].epoch == 1
    assert best(study).value == 80


@pytest.mark.parametrize(('value', 'startup'), [(math.nan, 0), (math.inf, 1000)])
def test_no_number(run, value, startup):
    """A run whose validation is no number is none that ended well, and the search goes on."""
    study, ends = run(['lr=1,2,3'], Launch(lambda s: [50, value if s[LR] == 2 else 60]), startup=startup)
    assert sorted(ended for _, ended in ends) == ['finished', 'finished', 'pruned']
    assert {trial.params[LR] for trial in study.get_trials(states=(COMPLETE, ))} == {1, 3}


def test_a_failed_setting_is_left_until_the_next_call(run):
    """The others are tried; a repaired one then is."""
    launch = Launch(lambda s: rising(50), status=lambda s: int(s[LR] == 2))
    study, ends = run(['lr=1,2,3,4'], launch)
    assert sorted(ended for _, ended in ends) == ['failed', 'finished', 'finished', 'finished']
    assert len(launch.runs) == 4 and count(study) == 3
    launch.status = lambda settings: 0
    study, ends = run(['lr=1,2,3,4'], launch)
    assert [ended for _, ended in ends] == ['finished'] and launch.settings[-1] == {LR: 2}
    assert launch.work_dirs[-1] in launch.work_dirs[:-1] and count(study) == 4


def test_failures_one_after_the_other_end_the_search(run):
    launch = Launch(lambda s: [], status=lambda s: 1)
    with pytest.raises(RuntimeError, match=r'3 trials failed .*train.txt, which ends with\nthe end of its log'):
        run(['lr=1:10'], launch, workers=2)
    assert MAX_FAILURES <= len(launch.runs) <= MAX_FAILURES + 1  # the other worker's
    assert all(process.stopped for process in launch.runs)


def test_nothing_validated(run):
    with pytest.raises(RuntimeError, match="must validate and log 'accuracy/top1'"):
        run(LIST, Launch(lambda settings: []))


@pytest.mark.parametrize(('specs', 'workers', 'moment'), [
    (LIST, 2, 'launch'), (LIST, 2, 'end'), (['lr=0.1:10:log', 'model.n=1:5'], 1, 'change')])
def test_killed_at_any_moment(run, specs, workers, moment):
    """Settings that were cut off are taken up first of all, and none is lost or done twice."""
    done, moments, kills = [], [], []
    launch = best_at(2)

    def die(name):
        moments.append(name) if name == moment else None
        if name == moment and len(moments) in (2, 4, 5, 9):
            raise Killed

    def launch_and_die(settings, work_dir, environment):
        process = launch(settings, work_dir, environment)
        die('launch')
        return process

    def end(trial, ended):
        done.append(trial.settings)
        die('end')

    for _ in range(5):
        begun = len(launch.settings)
        cut_off = [settings for settings in launch.settings if settings not in done]
        try:
            study, _ = run(specs, launch_and_die, 7, workers, on_change=lambda running: die('change'), on_end=end)
        except Killed:
            kills.append(cut_off)
        assert all(settings in cut_off for settings in launch.settings[begun:][:len({str(s) for s in cut_off})])
    assert len(kills) == (3 if moment == 'end' else 4) and any(kills) == (moment != 'end' or workers > 1)
    assert count(study) == 7 and not study.get_trials(states=(RUNNING, ))
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
        run(LIST, launch)
    run(LIST, launch)
    assert launch.settings == grid(space, 0)


def test_a_cut_off_run_goes_on_in_its_folder(run):
    """What it had validated is told again, under the new trial's number."""
    launch = Launch(lambda settings: rising(80))
    looks = iter(range(100))

    def die(running):
        if next(looks) == 2:
            raise Killed

    with pytest.raises(Killed):
        run(['lr=1.0:2.0'], launch, num_trials=1, on_change=die)
    study, ends = run(['lr=1.0:2.0'], launch, num_trials=1)
    assert launch.work_dirs[0] == launch.work_dirs[1] and launch.settings[0] == launch.settings[1]
    assert [(t.state, t.params) for t in study.trials] == [(FAILED, launch.settings[0]), (COMPLETE, launch.settings[0])]
    assert ends == [(1, 'finished')] and len(study.trials[1].intermediate_values) == EPOCHS
