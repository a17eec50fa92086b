"""What a run says at its beginning and its end: what is not usual, on what it runs, the next command."""
import os
import shlex

import numpy as np
import pytest
import torch

from model import GPT, GPTConfig
from parts.train import adapters, guards, journal, objectives, records
from tokenizer import SPECIAL_TOKENS, Tokenizer

CONFIG = {'init_from': 'scratch', 'save_interval': 250, 'eval_interval': 100, 'a': 1}


@pytest.fixture
def log(tmp_path):
    return journal.Journal(str(tmp_path / "a b'c [1]"), True)


def test_intervals_longer_than_the_run_are_said(log, capsys):
    log.begin(CONFIG, {}, 0, 200)
    said = capsys.readouterr().out
    assert 'note     save_interval=250, max_steps=200' in said and 'eval_interval' not in said
    assert f'torch {torch.__version__}' in said and 'commit ' in said       # on what it ran
    with open(log.path('train.log'), encoding='utf-8') as f:
        assert f.read() == said


def test_restarts_are_counted_and_changes_said(log, capsys):
    log.begin(CONFIG, {}, 0, 300)
    assert log.restarts == 0 and 'note' not in capsys.readouterr().out
    for time in (1, 2, 3):
        log.lock.close()
        log = journal.Journal(log.out_dir, True)
        log.begin({**CONFIG, 'a': 2}, {'config': CONFIG}, 5, 300)
        assert log.restarts == time
    assert 'changed  a: 1 before, 2 now' in capsys.readouterr().out


def test_a_new_run_deletes_what_is_known_of_the_run_before_but_no_file_of_others(log):
    known = {'eval.json', 'samples.jsonl', 'data.json', 'best.pt', 'metrics.jsonl'}
    os.makedirs(log.out_dir)
    of_others = {'data.json', 'eval.json', 'samples.jsonl'}
    for state, left in (({}, of_others), ({'config': {}}, known), ({}, set())):
        for name in known:
            open(log.path(name), 'w').close()
        log.begin(CONFIG, state, 0, 300)        # at first no run is there, only files of these names
        assert {*os.listdir(log.out_dir)} == left | {'train.log', 'config.json'}
        log.lock.close()


def test_the_next_command_can_be_pasted(log, capsys):
    log.begin(CONFIG, {}, 0, 10)
    log.end(10, 10, 1.0, 2.0, ['sample.py', f'--ckpt={log.out_dir}', '--prompt=<|mask|> x'])
    command = capsys.readouterr().out.splitlines()[-1].removeprefix('next: ')
    assert shlex.split(command) == ['python', 'sample.py', f'--ckpt={log.out_dir}', '--prompt=<|mask|> x']


def test_little_room_is_said_in_figures_that_are_not_0(log, monkeypatch):
    monkeypatch.setattr(journal.shutil, 'disk_usage', lambda path: type('', (), {'free': 160_000}))
    with pytest.raises(ValueError, match='has 0.2 MB free, the checkpoints need 0.4'):
        log.need_space(400_000)


@pytest.mark.parametrize('lengths, share', [
    ([4, 4, 8], 16 / 16), ([1], 1 / 4), ([9], 9 / 12), ([5, 3, 4], 12 / 16), ([2] * 100, 200 / 400)])
def test_what_packing_saves_counted_by_hand(lengths, share):
    """Documents of so many tokens, <|endoftext|> at their ends, in sequences of 4."""
    tok = Tokenizer.byte(SPECIAL_TOKENS[:4])
    task = objectives.Objective('clm', False, tok, 4, seed=0)
    ids = [id for n in lengths for id in [65] * (n - 1) + [tok.special['<|endoftext|>']]]
    line, = task.packing(np.array(ids, np.uint16))
    assert f'of its own, {share:.1%} would' in line
    assert task.packing(np.array([65] * 99, np.uint16)) == []           # one text without documents
    assert task.packing(np.array(ids + [65] * 3)) == [line]             # one that is cut counts for nothing


@pytest.mark.parametrize('n, rate, rows, epochs, words', [
    (2e8, 2e-5, 5000, 2, []), (2e8, 6e-5, 5000, 2, ['learning_rate=6e-05', '1e-05 to 5e-05']),
    (2e8, 1e-6, 5000, 2, ['learning_rate=1e-06']), (1e6, 3e-3, 5000, 3, []), (1e6, 3e-3, 5000, 4, ['epochs']),
    (1e6, 3e-3, 5000, 0.5, ['fewer miss rows']), (1e6, 3e-3, 40, 1, ['40 rows']),
    (1e6, 3e-3, 500_000, 1, ['500,000 rows'])])
def test_what_is_not_usual_in_fine_tuning_is_said(n, rate, rows, epochs, words):
    class Model:
        def parameters(self):
            return [torch.empty(int(n), device='meta', requires_grad=True)]
    found = list(records.unusual(Model(), rate, 1e-5, 5e-5, rows, epochs))
    assert len(found) == (1 if words else 0) and all(word in found[0] for word in words)


def test_the_rate_of_lora_is_judged_by_what_it_trains():
    with torch.device('meta'):
        model = GPT(GPTConfig(49152, 64, 30, 9, 3, 576, 1536))          # SmolLM2-135M
    assert [*records.unusual(model, 3e-4, 1e-5, 5e-5, 5000, 2)]
    model.requires_grad_(False)
    adapters.swap(model, torch.nn.Linear, lambda linear: adapters.Adapted(linear, 8, None))
    assert 2e6 < sum(p.numel() for p in model.parameters() if p.requires_grad) < 3e6
    assert not [*records.unusual(model, 3e-4, 1e-5, 5e-5, 5000, 2)]



@pytest.mark.parametrize('shape, total', [
    ((49152, 2048, 30, 9, 3, 576, 1536, True), 134_515_008),            # SmolLM2-135M
    ((32000, 2048, 22, 32, 4, 2048, 5632, False), 1_100_048_384)])      # TinyLlama
def test_their_parameter_counts(shape, total):
    V, T, L, H, kv, C, F, tied = shape
    with torch.device('meta'):
        model = GPT(GPTConfig(V, T, L, H, kv, C, F, tie_embeddings=tied))
    assert sum(p.numel() for p in model.parameters()) == total


def test_the_update_after_a_third_skip_is_told_where_to_resume():
    guard = guards.Guard({}, lambda *_: None)
    assert guard.allows(0, 3.0, 1.0)
    for step in (1, 2, 3):
        assert not guard.trouble and not guard.allows(step, float('nan'), 1.0)
    assert 'resume' in guard.trouble and 'step 3' in guard.trouble
