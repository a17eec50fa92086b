"""sandbox.Court: judges for programs that come one by one."""
import time

import pytest

from parts.eval import sandbox
from parts.eval.sandbox import Court, run_many


@pytest.fixture
def events(monkeypatch):
    """What happens in which order: a judge starts, a program runs. No process is started."""
    seen = []

    class Judges:
        error = ''

        def __init__(self, timeout, memory_mb):
            seen.append('judge')

        def run(self, program, tests='', entry_point=''):
            seen.append(program)
            if program == '0.001':
                self.error = 'killed'
            time.sleep(float(program or 0))
            return sandbox.Result('passed', program)

        def close(self):
            seen.append('closed')

    monkeypatch.setattr(sandbox, 'Judges', Judges)
    return seen


def test_without_a_job_there_is_no_judge(events):
    with Court(processes=3):
        pass
    assert list(run_many([])) == [] and events == []


def test_all_judges_start_with_the_first_job_before_any_program_runs(events):
    with Court(processes=3) as court:
        assert events == []
        court.submit('0').result()
        court.submit('0.0').result()
        assert events == ['judge'] * 3 + ['0', '0.0']
    assert events[5:] == ['closed'] * 3


def test_equal_jobs_run_once(events):
    with Court(processes=2) as court:
        futures = [court.submit('0', 'assert f()', 'f') for _ in range(5)]
        futures.append(court.submit('0', 'assert g()', 'g'))
        assert len({id(f.result()) for f in futures}) == 2
    assert events.count('0') == 2
    assert [r.message for r in run_many([('0',), ('0.0',), ('0',)])] == ['0', '0.0', '0']


def test_results_may_be_asked_for_in_any_order(events):
    with Court(processes=2) as court:
        slow, quick = court.submit('0.2'), court.submit('0')
        assert quick.result().message == '0' and not slow.done()
        assert slow.result().message == '0.2'


def test_who_leaves_early_waits_for_what_runs_and_starts_nothing_more(events):
    with pytest.raises(KeyboardInterrupt), Court(processes=2) as court:
        futures = [court.submit(f'0.{i}1') for i in range(1, 9)]
        raise KeyboardInterrupt
    started = [e for e in events if e not in ('judge', 'closed')]
    assert 0 < len(started) <= 3 and events.count('closed') == 2
    assert all(f.done() for f in futures)


def test_a_judge_that_was_killed_is_replaced_only_where_programs_cannot_look_into_others(monkeypatch):
    started = []

    class Judges:
        def __init__(self, *_):
            self.error = ''
            started.append(self)

        def run(self, program):
            self.error = self.error or ('killed' if program.startswith('kill') else '')
            outcome = 'infrastructure' if self.error else 'passed'
            return sandbox.Result(outcome, processes_denied=program == 'kill it')

        close = dict

    monkeypatch.setattr(sandbox, 'Judges', Judges)
    for program, after, judges in (('kill it', 'passed', 2), ('kill', 'infrastructure', 1)):
        started.clear()
        with Court(processes=1) as court:
            court.submit(program).result()
            assert court.submit('next').result().outcome == after and len(started) == judges


def test_real_programs_are_judged_one_by_one():
    with Court(processes=2) as court:
        right = court.submit('def f(): return 1', 'assert f() == 1', '')
        assert right is court.submit('def f(): return 1', 'assert f() == 1', '')
        assert [court.submit('1 / 0').result().outcome, right.result().outcome] == ['exception', 'passed']


def test_after_a_program_that_nothing_held_killed_its_judge_no_other_program_runs_here(events, monkeypatch):
    """It may be alive, and could look into the start of the next judge."""
    monkeypatch.setattr(sandbox, 'FREED', [])
    with Court(processes=1) as court:
        court.submit('0').result()
        court.submit('0.001').result()
        assert events.count('judge') == 1           # no new one starts
    before = list(events)
    with pytest.raises(ValueError, match='killed its judge'):
        list(run_many([('0',)]))
    assert events == before
