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
    said = lambda *how: sorted(r['messages'][-1]['content'] for r in from_samples(ROWS, 'sft', *how))
    assert said() == ['a', 'c', 'g'] and said(4, 'taste') == ['a', 'g'] and len(said(1)) == 2


def test_prepare_turns_samples_into_data_for_both_stages(tmp_path):
    rows = [row for i in range(40) for row in sampled(
        i, (f'def f{i}(x):\n    return x + {i}', 'passed', True),
        (f'def f{i}(x):\n    return x - {i}', 'wrong', True))]
    source = tmp_path / 'samples.jsonl'
    source.write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')

    def made(kind):
        ok(run('prepare.py', f'--kind={kind}', f'--source={source}', f'--out_dir={tmp_path}/{kind}',
               '--dedup=exact'))
        return [json.loads(line) for side in ('train', 'val') for line in
                (tmp_path / kind / f'{side}.jsonl').read_text(encoding='utf-8').splitlines()]
    found = made('preference')
    assert len(found) == 40 and all('+' in p['chosen'] and '-' in p['rejected'] for p in found)
    assert [p['prompt'] for p in found if p['chosen'].startswith('def f7(')] == ['do 7']
    assert all('+' in r['messages'][1]['content'] for r in made('sft'))
    mistake(run('prepare.py', '--kind=preference', f'--source={source}', '--prefer=best'),
            'prefer', 'passed, taste, both')


def test_nothing_to_learn_from_is_one_sentence_that_says_why(tmp_path):
    rows = sampled(1, ('a', 'wrong', False)) + sampled(2, ('b', 'wrong', False), ('c', 'timeout', False))
    (tmp_path / 'samples.jsonl').write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    for kind, why in (('preference', 'better than another'), ('sft', 'that passed')):
        mistake(run('prepare.py', f'--kind={kind}', f'--source={tmp_path}/samples.jsonl',
                    f'--out_dir={tmp_path}/{kind}'), 'none of 3 samples', why)


def test_texts_that_are_all_dropped_are_counted_by_reason(tmp_path):
    rows = [{'text': f'def f{i}():\n    return {i}\n' * 9, 'license': 'GPL'} for i in range(12)]
    (tmp_path / 'x.jsonl').write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')
    mistake(run('prepare.py', f'--source={tmp_path}/x.jsonl', '--licences=mit', f'--out_dir={tmp_path}/o'),
            '0 documents', 'dropped: 12 licence gpl')
