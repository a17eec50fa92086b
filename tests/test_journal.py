"""The files of a run, what it says at its beginning and its end, the lock on its folder."""
import math
import os

import pytest
import torch
from conftest import mistake, ok, refused, train

from parts.train import journal

CONFIG = {'init_from': 'scratch', 'save_interval': 250, 'eval_interval': 100, 'a': 1}


@pytest.fixture
def log(tmp_path):
    return journal.Journal(str(tmp_path / "a b'c [1]"), True)


def test_restarts_are_counted_and_changes_said(log, capsys):
    log.begin(CONFIG, {}, 0, 300)
    said = capsys.readouterr().out
    assert log.restarts == 0 and f'torch {torch.__version__}' in said and 'commit ' in said
    with open(log.path('train.log'), encoding='utf-8') as f:
        assert f.read() == said
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


@pytest.mark.parametrize('figures, name, words', [
    ({'val_loss': 4.09}, 'val_loss', 'as expected'), ({'val_loss': 4.31}, 'val_loss', '0.18 too high'),
    ({'val_reward': 4}, 'val_reward', '0.05 too low'), ({'val_loss': math.nan}, 'val_loss', 'not a number'),
    ({'val_loss': 4, 'val_ppl': 9}, 'val_bpb', 'measured: val_loss, val_ppl')])
def test_the_last_line_compares_with_what_the_config_expects(log, capsys, figures, name, words):
    log.begin(CONFIG | {'expect': {name: (4.05, 4.13)}}, {}, 0, 10)
    log.evaluation(10, 10, figures, by_source={})
    for step in (9, 10):            # a run that stopped earlier has nothing to compare
        log.end(step, 10, 1.0, 2.0, [])
        assert (words in capsys.readouterr().out) == (step == 10)


def test_a_range_is_two_numbers(log):
    for ends in (3, (2, 1), (1, 2, 3), ('1', '2')):
        config = CONFIG | {'expect': {'a': ends}}
        refused('expect: a=.* must be .lowest, highest.', log.begin, config, {}, 0, 10)


MADE = {'source': 'stdlib', 'tokenizer': 'bpe', 'vocab_size': 4096, 'dedup': 'minhash'}


@pytest.mark.parametrize('changed, prepared, speaks', [
    ({}, MADE, True), ({'out_dir': 'a', 'seed': 2, 'log_interval': 1}, MADE, True),
    ({'data_dir': 'data/elsewhere'}, MADE, True), ({'data_dir': 'data/chats'}, None, False),
    ({'init_from': 'resume'}, MADE, True), ({'init_from': 'out/other'}, MADE, False),
    ({'max_steps': 9}, MADE, False), ({}, MADE | {'vocab_size': 400}, False),
    ({}, MADE | {'sources': {'mine': ['mine', 1]}}, False), ({}, MADE | {'dedup': 'none'}, False),
    ({}, MADE | {'num_workers': 2}, True),
    ({'expect': {'val_loss': (0, 9)}, 'max_steps': 9}, MADE | {'source': 'mine'}, True)])
def test_what_a_config_expects_is_silent_about_other_settings_and_other_data(changed, prepared, speaks):
    config = {'expect': {'val_loss': (4.05, 4.13)}, 'init_from': 'scratch', 'data_from': 'python prepare.py '
              '--source=stdlib --tokenizer=bpe --vocab_size=4096 --out_dir=data/quickstart'} | changed
    by = dict.fromkeys(config, 'config/quickstart.py') | dict.fromkeys(changed, 'command line')
    meta = prepared and {'config': prepared, 'set': [k for k, v in prepared.items() if v != MADE.get(k)]}
    assert journal.expected(config, by, meta) == (config['expect'] if speaks else None)


def test_a_run_needs_room_for_its_checkpoints(log):
    refused('MB free, the checkpoints need 1,000,000,000,000.0', log.begin, CONFIG, {}, 0, 10, 10 ** 18)


def test_two_runs_do_not_write_to_one_folder(data_dir, tmp_path):
    log = journal.Journal(str(tmp_path), True)
    log.begin(CONFIG, {}, 0, 300)
    before = (tmp_path / 'train.log').read_bytes()
    mistake(train(data_dir, tmp_path, '--overwrite=True'), 'another run', str(tmp_path), '--out_dir')
    assert (tmp_path / 'train.log').read_bytes() == before
    log.lock.close()                                    # as the system does when a process ends
    flags = ['--max_steps=4', '--overwrite=True', '--expect={"val_loss": (1, 99)}']
    assert ': as expected (1 to 99)' in ok(train(data_dir, tmp_path, *flags))
