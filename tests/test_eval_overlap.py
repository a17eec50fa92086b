"""What a score may owe to: benchmarks in the training data, words shared with the reference; bad files."""
import csv
import json
import math
import random

import numpy as np
import pytest
from conftest import TINY, mistake, ok, run
from preparing import RAW

from parts.prepare.duplicates import word_hashes, word_ngrams
from parts.eval.grading import bleu
from parts.train.texts import text_pieces
from tokenizer import Tokenizer

YES = '--allow_code_execution=True'
RNG = random.Random(0)
WORDS = [''.join(RNG.choices('abcdefghij', k=RNG.randint(1, 9))) for _ in range(400)]


def write(path, rows):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows), encoding='utf-8')
    return path


def words(start, n):
    return ' '.join(WORDS[start:start + n])


@pytest.mark.parametrize('size', [1, 2, 7, 50, 4096])
def test_every_n_words_in_a_row_are_in_some_piece_and_no_others(size):
    """Words longer than a piece, many separators, Chinese without any; a token may end within a character."""
    rng = random.Random(size)
    text = ''.join(rng.choice(['return', 'x' * 60, ' ', '\n\n   ', ' = (', '漢字', 'é', '==' * 30, '0'])
                   for _ in range(300))
    for tok in Tokenizer.byte(), Tokenizer.train([text], 340):
        ids, n = np.array(tok.encode(text), np.uint16), rng.choice([1, 2, 5])
        pieces = list(text_pieces(ids, tok, n, size))
        long = [word_ngrams(piece, n) for piece in pieces if len(word_hashes(piece)) >= n]
        assert {*np.concatenate(long).tolist()} == {*word_ngrams(text, n).tolist()}
        assert size >= 50 or len(pieces) > 20


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    """A training text of 400 words that holds the 20 words from 100 on, among others."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('data')
    (source / 'a.txt').write_text(words(0, 300) + '\n' + 'the end ' * 400, encoding='utf-8')
    ok(run('prepare.py', f'--source={source}/a.txt', f'--out_dir={out}', '--vocab_size=340', *RAW))
    return out


def test_problems_that_were_seen_are_listed_and_the_score_told_without_them(corpus, tmp_path):
    """A copy in upper case, 12 of 13 words, an answer that was seen, a new one, one too short."""
    items = [{'question': words(100, 20).upper(), 'answer': '#### 1'},
             {'question': words(30, 12) + ' other ' + words(60, 12), 'answer': '#### 2'},
             {'question': 'Why?', 'answer': words(200, 13) + ' #### 3'},
             {'question': words(350, 30), 'answer': '#### 4'}, {'question': 'How?', 'answer': '#### 5'}]
    answers = [{'task_id': f'gsm8k/{i}', 'completion': x} for i, x in enumerate('12399')]
    files = f'--data={write(tmp_path / "q.jsonl", items)}', f'--completions={write(tmp_path / "c", answers)}'
    said = ok(run('eval.py', '--tasks=gsm8k', *files, '--overlap=13', f'--data_dir={corpus}',
                  f'--out={tmp_path}/eval.json'))
    result = json.loads((tmp_path / 'eval.json').read_text(encoding='utf-8'))['tasks']['gsm8k']
    assert result['overlap'] == {'words': 13, 'seen': ['gsm8k/0', 'gsm8k/2'], 'with': 0.6, 'too_short': 1,
                                 'without': pytest.approx(1 / 3)}
    assert '2 of 5 problems have 13 words in a row in the training data' in said and 'gsm8k/0 gsm8k/2' in said


def test_training_data_of_another_tokenizer(corpus, data_dir, tmp_path):
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}', *TINY, '--max_steps=4'))
    path = write(tmp_path / 'q.jsonl', [{'question': words(0, 30), 'answer': '#### 1'}])
    flags = [f'--ckpt={tmp_path}', '--tasks=gsm8k', f'--data={path}', '--max_new_tokens=2']
    mistake(run('eval.py', *flags, '--overlap=13', f'--data_dir={corpus}'), str(corpus), '--tokenizer=')
    assert 'longer than the context of 32 tokens' in ok(run('eval.py', *flags))     # the prompt is cut
    assert '"prompts_cut": 1' in (tmp_path / 'eval.json').read_text(encoding='utf-8')


def slow_bleu(answer, reference):
    """Lin & Och's smoothed sentence BLEU over lists, with nothing of collections' arithmetic."""
    product = 1.0
    for n in range(1, 5):
        a, b = ([tuple(x[i:i + n]) for i in range(len(x) - n + 1)] for x in (answer, reference))
        left, hits = list(b), 0
        for gram in a:
            if gram in left:
                left.remove(gram)
                hits += 1
        product *= (hits + (n > 1)) / (len(a) + (n > 1)) if hits + (n > 1) else 0
    return product ** 0.25 * min(1, math.exp(1 - len(reference) / len(answer)))


def test_bleu_is_that_of_a_slow_version():
    rng = random.Random(0)
    for _ in range(300):
        x, y = (rng.choices('abcd', k=rng.randint(1, 12)) for _ in 'xy')
        assert bleu(' '.join(x), ' '.join(y)) == pytest.approx(slow_bleu(x, y))
    assert bleu('return a * b', 'return a * b') == 1 and bleu('', 'a') == 0 and bleu('a', 'b') == 0
    assert bleu('a*b', 'a * b') == 1


def test_bleu_does_not_tell_right_from_wrong(tmp_path):
    """Two prompts of a lesson: of four areas one is right, of four means all are. Then new names, all right,
    and a copy with one change, which is wrong."""
    def problem(id, given, solution, tests):
        return {'task_id': id, 'prompt': f'import math\nimport numpy as np\n\ndef {id}({given}):\n',
                'entry_point': id, 'canonical_solution': f'    {solution}\n',
                'test': f'def check(candidate):\n    assert {tests}\n'}

    items = [problem('area_of_rectangle', 'a: float, b: float', 'return a * b',
                     'candidate(3.0, 5.0) == 15.0 and candidate(2.0, 7.0) == 14.0'),
             problem('mean', 'a', 'return np.mean(a)', 'abs(candidate([1.0, 2.0, 6.0]) - 3.0) < 1e-9'),
             problem('product', 'pair', 'a, b = pair\n    s = a + b\n    d = a - b\n    return s * d',
                     'candidate([5, 2]) == 21')]
    answers = [['return a * b', 'return math.sqrt(a * b)', 'return a * b / 2.0', 'return a * b / a'],
               ['return np.mean(a)', 'return float(np.mean(a))', 'return sum(a) / len(a)',
                'total = 0\n    for x in a:\n        total += x\n    return total / len(a)'],
               ['one, two = pair\n    total = one + two\n    rest = one - two\n    return total * rest',
                'a, b = pair\n    s = a + b\n    d = b - a\n    return s * d']]
    given = write(tmp_path / 'c.jsonl', [{'task_id': p['task_id'], 'completion': f'    {x}\n'}
                                         for p, each in zip(items, answers) for x in each])
    said = ok(run('eval.py', '--tasks=humaneval', f'--data={write(tmp_path / "p.jsonl", items)}', YES,
                  f'--completions={given}', f'--out={tmp_path}/eval.json', '--memory_mb=4000', '--timeout=5'))
    rows = [json.loads(x) for x in (tmp_path / 'samples.jsonl').read_text(encoding='utf-8').splitlines()]
    assert [row['outcome'] for row in rows] == ['passed'] + ['wrong'] * 3 + ['passed'] * 5 + ['wrong']
    x = [row['bleu'] for row in rows]
    assert x == pytest.approx([1, 0.270, 0.435, 0.604, 1, 0.584, 0.240, 0.121, x[8], x[9]], abs=1e-3)
    assert max(x[6:8]) < min(x[1:4])        # two right means share less than any of the wrong areas
    assert x[8] < 0.35 < 0.75 < x[9]
    result = json.loads((tmp_path / 'eval.json').read_text('utf-8'))['tasks']['humaneval']
    assert result['pass@1'] == pytest.approx((1 / 4 + 4 / 4 + 1 / 2) / 3) and "{'bleu': " in said
    assert result['bleu'] == {'passed': pytest.approx((x[0] + sum(x[4:9])) / 6),
                              'failed': pytest.approx((sum(x[1:4]) + x[9]) / 4)}


def test_votes_and_questions_that_are_not_what_they_should_be(tmp_path):
    for side in 'ab':
        (tmp_path / side).mkdir()
        row = {'task': 't', 'prompt': 'p', 'outcome': 'wrong', 'completion': side}
        write(tmp_path / side / 'samples.jsonl', [{**row, 'task_id': i} for i in range(3)])
    for header, cell in ('id,choice', '0'), ('id,vote', 'zero'), ('id,vote', '7'):
        with open(tmp_path / 'v.csv', 'w', encoding='utf-8', newline='') as f:
            csv.writer(f).writerows([header.split(','), [cell, 'left']])
        said = run('eval.py', '--tasks=compare', f'--ckpt={tmp_path}/a', f'--compare={tmp_path}/b',
                   f'--votes={tmp_path}/v.csv', f'--out={tmp_path}/o/eval.json')
        mistake(said, 'v.csv', 'sheet.csv', '0 to 2')
    for task, bad in [
            ('judge', [{'turns': 'Why?'}]), ('judge', []), ('own', [{'prompt': 'x', 'regex': '('}]),
            ('own', [{'prompt': 'x', 'rules': [{'kind': 'min_words', 'value': '3'}]}])]:
        path = write(tmp_path / 'bad.jsonl', bad)
        graded = ['--judge=none'] if task == 'judge' else []
        said = run('eval.py', f'--tasks={task}', f'--data={path}', f'--completions={path}', YES, *graded)
        mistake(said, 'bad.jsonl', 'line 1' if bad else 'no problem')
