"""bench/experiments.py: its arithmetic, and one of the experiments at its smallest."""
import math
import sys
import types

import numpy as np
import pytest
import torch
from conftest import ROOT

import model

sys.path.append(str(ROOT / 'bench'))
import corpora  # noqa: E402
import experiments  # noqa: E402

CONFIG = model.GPTConfig(50, 16, 2, 4, 0, 32, 64)


@pytest.mark.parametrize('low, b, alpha', [(1.5, 20.0, 0.3), (0.0, 6.0, 0.1), (2.0, 300.0, 0.75)])
def test_the_fit_recovers_the_constants_of_a_power_law(low, b, alpha):
    n = np.array([1e5, 2e5, 4e5, 8e5, 2e6])
    found = experiments.fit_power(n, low + b * n ** -alpha)
    assert found == pytest.approx((low, b, alpha), rel=0.02, abs=0.01)
    assert found[0] + found[1] * 4e6 ** -found[2] == pytest.approx(low + b * 4e6 ** -alpha, rel=1e-3)


def test_the_fit_never_has_a_negative_floor():
    n = np.array([1e4, 2e4, 4e4, 8e4, 1.6e5])
    low, b, alpha = experiments.fit_power(n, 10 - np.log(n) / 2)        # no power law has this shape
    assert low == 0 and b > 0 and alpha > 0


def test_exposure_by_hand():
    others = -np.arange(1.0, 8.0)                       # seven candidates: 8 ranks, 3 bits
    assert experiments.exposure(0.0, others) == 3       # the likeliest
    assert experiments.exposure(-1.5, others) == 2      # second of 8
    assert experiments.exposure(-3.5, others) == 1      # fourth
    assert experiments.exposure(-9.0, others) == 0      # the least likely
    assert experiments.exposure(-1.0, others) == 2      # a tie counts against it


def test_log_probs_are_sums_over_the_tokens_of_a_row():
    network = model.GPT(CONFIG).eval()
    rows = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3]]
    for row, found in zip(rows, experiments.log_probs(network, rows)):
        p = network(torch.tensor([row]))[0][0].log_softmax(-1)
        assert found == pytest.approx(sum(p[i, token].item() for i, token in enumerate(row[1:])), abs=1e-4)


def test_interval_and_rise_by_hand():
    mean, half = experiments.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.303 / math.sqrt(3), abs=1e-3))
    assert math.isnan(experiments.interval([1.0])[1])
    assert experiments.shown([1.0, math.inf]) == 'diverged in 1 of 2'
    falling = np.linspace(6, 4, 50)
    assert experiments.largest_rise(falling) == 0
    rise = experiments.largest_rise(np.r_[falling, np.full(20, 5.5)])
    assert rise == pytest.approx(5.5 - falling[-10:].mean())


def test_secrets_are_planted_as_often_as_said_and_have_a_form_that_is_hidden():
    from parts.prepare import clean
    texts = [f'text {i} ' + 'and words ' * 40 for i in range(300)]
    documents, secrets = corpora.plant(list(texts), 200, np.random.default_rng(0))
    assert len(secrets) == 6 and len({secret for _, secret in secrets.values()}) == 6
    for (way, k), (start, secret) in secrets.items():
        holding = [text for text in documents if start + secret in text]
        assert sum(text.count(secret) for text in documents) == len(holding) == k
        assert len(set(holding)) == (1 if way == 'copied' else k)       # what deduplication can find
        assert clean.hide_pii(start + secret)[0] == f'{start} <SSN>\n'


def test_copies_take_the_share_that_is_said():
    ids = [[i] * 10 for i in range(200)]
    for share, one, times in ((0, False, 1), (0.1, False, 2), (0.5, False, 2), (0.1, True, 11)):
        found, said = corpora.with_copies(ids, 1000, share, one)
        counts = np.bincount(found, minlength=200) / 10
        assert len(found) == 1000 and said == counts[0] == times
        assert (counts[counts > 0] - 1).sum() == share * 100


def test_the_names_are_listed_and_one_prints_its_table(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['experiments.py'])
    experiments.main()
    listed = capsys.readouterr().out
    assert all(f'\n{name} ' in f'\n{listed}' for name in experiments.EXPERIMENTS)

    monkeypatch.setattr(experiments, 'FLAGS', [*experiments.FLAGS, '--n_embd=32', '--eval_tokens=1024'])
    flags = ['beta2', '--seeds=1', '--steps=2', f'--data={data_dir}', f'--out={tmp_path}']
    monkeypatch.setattr(sys, 'argv', ['experiments.py', *flags])
    experiments.main()
    rows = [line.split(' | ') for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    assert [row[0] for row in rows[1:]] == ['| beta2 0.95', '| beta2 0.99', '| beta2 0.999']
    assert all(len(row) == 7 and row[1] == rows[1][1] and 1 < float(row[2]) < 9 for row in rows[1:])
    assert len([*tmp_path.glob('*/done')]) == 3


def test_a_run_that_diverges_is_a_result_and_one_that_fails_is_not(data_dir, tmp_path):
    a = types.SimpleNamespace(data=str(data_dir), out=str(tmp_path), steps=4)
    small = ['--n_embd=32', '--eval_tokens=1024']
    out = experiments.train(a, 1, [*small, '--inject=nan@0,nan@1,nan@2'])
    assert experiments.measure(out, 4)['bits'] == math.inf
    for _ in 'ab':                                      # nor is it one the second time
        with pytest.raises(SystemExit, match='the run failed'):
            experiments.train(a, 1, [*small, '--n_head=3'])
