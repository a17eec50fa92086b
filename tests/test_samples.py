"""Answers that eval.py has judged become what sft.py and dpo.py train on."""
import json

from conftest import mistake, ok, run

from parts.prepare.samples import from_samples


def sampled(task_id, *answers):
    asked = [{'role': 'user', 'content': f'do {task_id}'}]
    return [{'task': 'problems', 'task_id': task_id, 'messages': asked, 'completion': text,
             'outcome': outcome, 'preferred': liked} for text, outcome, liked in answers]


ONE = sampled(1, ('a', 'passed', True), ('b', 'wrong', False), ('c', 'passed', False),
              ('a', 'passed', True), ('d', 'timeout', False), ('e', 'infrastructure', False),
              ('f', 'exception', True))
ROWS = ONE[::2] + sampled(2, ('g', 'passed', True)) + sampled(3, ('h', 'wrong', False)) + ONE[1::2]


def pairs(prefer, at_most=9):
    return [(p['prompt'][0]['content'], p['chosen'], p['rejected'])
            for p in from_samples(ROWS, 'preference', at_most, prefer)]


def test_passed_answers_win_over_failed_ones_and_tasteful_ones_over_others():
    passed = pairs('passed')
    assert len(passed) == 3 == len(set(passed)) and {p for p, *_ in passed} == {'do 1'}
    assert {c for _, c, _ in passed} == set('ac') and {r for *_, r in passed} == set('bdf')
    assert pairs('taste') == [('do 1', 'a', 'c')] and pairs('both') == passed + pairs('taste')
    assert len(pairs('passed', 2)) == 2


def test_passed_answers_are_demonstrations_each_once():
    answers = lambda *how: sorted(r['messages'][-1]['content'] for r in from_samples(ROWS, 'sft', *how))
    assert answers() == ['a', 'c', 'g'] and answers(4, 'taste') == ['a', 'g'] and len(answers(1)) == 2


def prepared(folder, kind, rows):
    source = folder / 'samples.jsonl'
    source.write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    return run('prepare.py', f'--kind={kind}', f'--source={source}', f'--out_dir={folder}/{kind}',
               '--dedup=exact')


def test_prepare_turns_samples_into_data_for_both_stages(tmp_path):
    rows = [row for i in range(40) for row in sampled(
        i, (f'def f{i}(x):\n    return x + {i}', 'passed', True),
        (f'def f{i}(x):\n    return x - {i}', 'wrong', True))]
    records = {}
    for kind in ('preference', 'sft'):
        ok(prepared(tmp_path, kind, rows))
        records[kind] = [json.loads(line) for side in ('train', 'val') for line in
                         (tmp_path / kind / f'{side}.jsonl').read_text(encoding='utf-8').splitlines()]
    pairs = records['preference']
    assert len(pairs) == 40 and all('+' in p['chosen'] and '-' in p['rejected'] for p in pairs)
    assert [p['prompt'] for p in pairs if p['chosen'].startswith('def f7(')] == ['do 7']
    assert all('+' in r['messages'][1]['content'] for r in records['sft'])


def test_nothing_to_learn_from_is_one_sentence_that_says_why(tmp_path):
    rows = sampled(1, ('a', 'wrong', False)) + sampled(2, ('b', 'wrong', False), ('c', 'timeout', False))
    mistake(prepared(tmp_path, 'preference', rows), 'none of 3 samples', 'better than another')
    mistake(prepared(tmp_path, 'sft', rows), 'none of 3 samples', 'that passed')
