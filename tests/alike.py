"""
What sft.py, dpo.py and rl.py promise alike, asserted once. begin(out, *flags, **how) begins a run, and
goes_on(out, *flags, **how) resumes one; done is the folder of a run, which is not changed.
"""
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from accidents import accident, before, full_disk
from conftest import ROOT, contents, machine, metrics, mistake, ok, read_json, run, same, state

FILES = {'best.pt', 'last.pt', 'config.json', 'data.json', 'metrics.jsonl', 'samples.txt',
         'tokenizer.json'}
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
DEEDS = 'os.kill(os.getpid(), signal.SIGKILL)', 'raise ValueError("a bug")'


def resumed(script, *typed):
    """-> goes_on(out, *flags, **how) of a script. typed: flags that a resumed run does not know."""
    return lambda out, *flags, **how: run(script, f'--out_dir={out}', '--init_from=resume', *typed, *flags,
                                          **how)


def expect_straight(out, straight, killed, goes_on, step, last):
    """A run that was killed three times, at last with a checkpoint of this step, ends as the straight one."""
    assert [result.returncode for result in killed] == [-signal.SIGKILL] * 3, killed
    assert state(out)['step'] == step
    finished = goes_on(out)
    ok(finished)
    assert metrics(out) == metrics(straight)
    for file in ('last.pt', 'best.pt'):
        a, b = state(out, file), state(straight, file)
        assert [name for name in a if not same(a[name], b[name])] == []
    assert contents(out).keys() == contents(straight).keys()
    assert read_json(out / 'config.json')['init_from'] != 'resume'
    mistake(goes_on(out), f'max_steps={last}', f'step={last}')
    return finished


def expect_no_run_is_replaced(begin, done, copy, *short):
    """short: flags of a run of one step"""
    before = contents(done)
    mistake(begin(done), 'has a run', '--init_from=resume', '--overwrite=True')
    for start in done, done / 'last.pt':
        mistake(begin(done, f'--init_from={start}', '--overwrite=True'), 'has a run', 'elsewhere')
    assert contents(done) == before
    out = shutil.copytree(done, copy)
    for name in ('notes.md', 'lasting.pt', 'eval.json'):
        (out / name).write_text('mine', encoding='utf-8')
    ok(begin(out, '--overwrite=True', '--max_steps=1', *short))
    assert contents(out).keys() == FILES | {'notes.md', 'lasting.pt'}       # eval.json was about the old one
    assert len(metrics(out)) == 3


def expect_links_lead_nowhere(done, tmp_path, goes_on):
    out = shutil.copytree(done, tmp_path / 'linked')
    step = state(out)['step']
    flag = f'--max_steps={step + 2}'
    for name in ('metrics.jsonl', 'samples.txt', 'last.pt.tmp', 'config.json', 'tokenizer.json.tmp'):
        foreign = shutil.copytree(done, tmp_path / name)
        victim = tmp_path / f'victim_{name}'
        victim.write_bytes((done / 'config.json').read_bytes())
        (foreign / name).unlink(missing_ok=True)
        (foreign / name).symlink_to(victim)
        mistake(goes_on(foreign, flag), f'{name} is a link')
        assert victim.read_bytes() == (done / 'config.json').read_bytes()
    target = tmp_path / 'elsewhere.pt'
    (out / 'last.pt').rename(target)
    (out / 'last.pt').symlink_to(target)
    weights = target.read_bytes()
    assert goes_on(out, flag, before=accident('kill', 1)).returncode == -signal.SIGKILL
    assert state(out)['step'] == step                       # the link is still there
    ok(goes_on(out, flag))
    assert target.read_bytes() == weights and state(out)['step'] == step + 2


def expect_a_signal_names_the_save(begin, out, script, name, code, n, saved, last):
    """Update n + 1 is interrupted. The line says which step last.pt has, and its command goes on."""
    result = begin(out, before=before('clip', f'n == {n} and os.kill(os.getpid(), signal.{name})'))
    assert result.returncode == code and 'Traceback' not in result.stderr
    [line] = [line for line in result.stdout.splitlines() if line.startswith('stopped; ')]
    assert f'last.pt has step {saved}; resume: python {script} --out_dir={out}' in line
    ok(run(*shlex.split(line.partition('resume: python ')[2])))
    assert state(out)['step'] == last
    return result


def expect_nan_stays_out(begin, out, n, saved, rate, last):
    """Update n + 1 is not finite. Nothing of it reaches the weights, and the advice works."""
    result = begin(out, before=accident('nan', n))
    mistake(result, f'step {n + 1}', 'nan', f'step {saved}', f'--learning_rate={rate}')
    assert all(weight.isfinite().all() for weight in state(out)['model'].values())
    ok(run(*shlex.split(re.search('lower rate: python (.*)', result.stderr)[1])))
    assert state(out)['step'] == last


def expect_a_full_disk_leaves_the_last_checkpoint(done, out, goes_on):
    shutil.copytree(done, out)
    flag = f'--max_steps={state(out)["step"] + 2}'
    machine(goes_on(out, flag, before=full_disk(60_000)), 'disk')
    assert (out / 'last.pt').read_bytes() == (done / 'last.pt').read_bytes()


def each_death(test):
    """Parametrize a test by what ends a process, and which one."""
    return pytest.mark.parametrize('deed', DEEDS)(pytest.mark.parametrize('rank', ['0', '1'])(test))


def expect_all_end(begin, out, deed, rank):
    accident = before('clip', f"if n == 3 and os.environ['RANK'] == '{rank}': {deed}")
    result = begin(out, processes=2, timeout=60, before=accident)
    assert result.returncode != 0 and 'done' not in result.stdout


def copied(script, folder):
    """Copy a script and its three leaves into a folder. -> call(*words) there"""
    for name in (script, 'model.py', 'tokenizer.py', 'configurator.py'):
        shutil.copy(ROOT / name, folder)
    return lambda *words: subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
