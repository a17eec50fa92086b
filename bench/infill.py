"""
Infilling: does a model that was trained with train.py --fim use the text behind the gap?

    python bench/infill.py --ckpt=out/fim --data=data/quickstart            # functions of its held-out text
    python bench/infill.py --ckpt=out/fim --data='mine/*.py'
    python bench/infill.py --ckpt=out/fim --data=HumanEval.jsonl.gz --allow_code_execution=True

Each function gets one gap of each kind: a line or several, behind their indentation, or a random span of
characters. The model fills it, given both sides (fill). The control is the same model, given the prefix alone
(left to right), and is told how long the middle is: its answer is cut after as many lines, or characters.

exact: the middle is found, to the character. passed: the program with the answer in it passes HumanEval's
tests (parts/eval/sandbox.py). ended: the model stopped by itself. A score has a 95 % interval, over the functions.
This is not a task of eval.py, because there each problem has one prompt and one verdict; here it has two.
"""
import argparse
import glob
import itertools
import json
import os

import numpy as np
import peers  # noqa: F401, puts this checkout on the path
from model import load_checkpoint
from parts.prepare import fim
from parts.train import checkpoint, records, texts
from parts.eval import benchmarks, comparison, sandbox
from parts.sample import asking
from tokenizer import Tokenizer

KINDS = 'single-line', 'multi-line', 'random-span'


def read(data, tokenizer):
    """[{text, begin, perhaps test, entry_point, task_id}]: programs, and where the part begins that may be
    hidden. Of a data folder: the functions of its validation split."""
    if data.endswith(('.jsonl', '.jsonl.gz')):
        convert = lambda record: benchmarks.to_item('humaneval', record)
        items = records.read_jsonl(data, convert, 'each line is a problem of HumanEval')
        return [item | {'text': item['reference'], 'begin': len(item['prompt'])}
                for item in benchmarks.identify('humaneval', data, items)]
    if os.path.isdir(data):
        with open(f'{data}/meta.json', encoding='utf-8') as f:
            ids = np.fromfile(f'{data}/val.bin', json.load(f)['dtype'])
        sources = tokenizer.decode(ids.tolist()).split('<|endoftext|>')
    else:
        sources = []
        for path in sorted(glob.glob(data)):
            with open(path, encoding='utf-8') as f:
                sources.append(f.read())
    found = []
    for source in sources:
        if texts.syntax_error(source) is None:
            found += [{'text': text, 'begin': begin} for text, begin in fim.functions(source)]
    return found


def choose_gaps(items, kind, n, seed):
    """[(item, prefix, middle, suffix)]: one gap in each of n items."""
    dice = np.random.default_rng([seed, KINDS.index(kind)])
    found = []
    for i in dice.permutation(len(items)):
        if gaps := fim.gaps(items[i]['text'], items[i]['begin'], kind, dice):
            found.append((items[i], *gaps[dice.integers(len(gaps))]))
    return found[:n]


def shorten(text, middle, kind):
    """As many lines of a text as the middle has, or characters."""
    if kind == 'random-span':
        return text[:len(middle)]
    return '\n'.join(text.split('\n')[:middle.count('\n') + 1])


def measure(model, tokenizer, gaps, kind, fill):
    """A row for each gap: exact, ended, program. fill: the model sees the suffix."""
    T = model.config.block_size
    prompts = [asking.between(tokenizer, prefix, suffix, T, T)[0] if fill else prefix
               for _, prefix, _, suffix in gaps]
    rows = []
    answers, _ = asking.generate(model, tokenizer, prompts, 1, T // 4, temperature=0.0, top_k=0, top_p=1.0)
    for (_, prefix, middle, suffix), [(text, ended)] in zip(gaps, answers):
        text = text if fill else shorten(text, middle, kind)
        rows.append({'exact': int(text == middle), 'ended': ended, 'program': prefix + text + suffix})
    return rows


def summarise(rows):
    """n, the shares of exact middles and of programs that pass, with intervals, and of answers that ended."""
    exact = [row['exact'] for row in rows]
    found = {'n': len(rows), 'exact': sum(exact) / len(rows), 'interval': comparison.interval(exact),
             'ended': sum(row['ended'] for row in rows) / len(rows)}
    if 'passed' in rows[0]:
        passed = [row['passed'] for row in rows]
        found |= {'passed': sum(passed) / len(rows), 'passed_interval': comparison.interval(passed)}
    return found


def between(interval):
    return '-'.join(f'{end:.3f}' for end in interval)


def print_row(name, *cells):
    line = [f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in cells]
    print(f'{name:<28}' + ''.join(f'{cell:>14}' for cell in line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--ckpt', required=True, help='a folder that train.py --fim=0.5 wrote')
    parser.add_argument('--data', required=True, help="a data folder, '*.py', or HumanEval.jsonl.gz")
    parser.add_argument('--n', type=int, default=200, help='functions, at most (200)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--allow_code_execution', default='False', choices=['True', 'False'],
                        help='of HumanEval: run what the model wrote; read the top of parts/eval/sandbox.py first')
    a = parser.parse_args()
    model, tokenizer, state = checkpoint.to_sample(a.ckpt, load_checkpoint, Tokenizer.load)
    if not state.get('config', {}).get('fim'):
        parser.error(f'{a.ckpt} was not trained with --fim=0.5')
    items = read(a.data, tokenizer)
    if not items:
        parser.error(f'{a.data} holds no Python function of several lines')
    execute = 'test' in items[0] and a.allow_code_execution == 'True'
    if execute:
        run = lambda jobs: sandbox.run_each(jobs, texts.syntax_error)
        left_out, _ = benchmarks.check_harness('humaneval', items, run)
        items = [item for item in items if item['task_id'] not in left_out]
    else:                           # so that both sides of each gap fit into the context
        fits = lambda item: len(tokenizer.encode(item['text'])) < model.config.block_size * 3 // 4
        items = [item for item in items if 'test' in item or fits(item)]

    found = {}
    print_row('', 'n', 'exact', '95 %', 'passed', '95 %', 'ended')
    for kind, fill in itertools.product(KINDS, (True, False)):
        gaps = choose_gaps(items, kind, a.n, a.seed)
        rows = measure(model.eval(), tokenizer, gaps, kind, fill)
        if execute:
            jobs = [(row['program'], gap[0]['test'], gap[0]['entry_point']) for row, gap in zip(rows, gaps)]
            for row, result in zip(rows, run(jobs)):
                row['passed'] = int(result.outcome == 'passed')
        arm = 'fill' if fill else 'left to right'
        result = found[f'{kind}, {arm}'] = summarise(rows)
        cells = [result['n'], result['exact'], between(result['interval'])]
        cells += [result['passed'], between(result['passed_interval'])] if execute else ['-', '-']
        print_row(f'{kind}, {arm}', *cells, result['ended'])
    with open(f'{a.ckpt}/infill.json', 'w', encoding='utf-8') as f:
        json.dump({'data': a.data, 'seed': a.seed, 'results': found}, f, indent=1)
    print(f'written to {a.ckpt}/infill.json')


if __name__ == '__main__':
    main()
