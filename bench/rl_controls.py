"""
Does reinforcement learning teach anything that its controls do not? From one base model, for each seed: SFT
on demonstrations, then arms that train on about the same number of tokens. Of rl's, those count that have a
gradient: of prompts whose answers differ in reward. Steps of SFT are counted with 24 tokens an answer; a
demonstration has 26.8, an answer that passed 25.5: `more` trains on 12 % more than rl, rejection on 6 % more.

    more          SFT on the same demonstrations: no feedback
    rejection     SFT on its own answers that passed, one round; rejection_2: two, of half as many tokens
    rl            rl.py: the reward is 1 if all tests pass
    weak          rl.py: the reward is 1 if the first test passes; judged by all tests: what is hacked?
    random        rl.py: the reward is a coin: what does sampling alone do?

Problems are of three kinds, see parts/eval/problems.py. Half of the prompts of rl and rejection are of the
first, half of the second; they are tested on other problems.

    demonstrated      compositions and families with demonstrations
    feedback only     compositions without demonstrations
    never shown       compositions that no arm sees

    bash run.sh                                                     # the base model, out/quickstart
    python bench/rl_controls.py out/controls 0,1,2                  # resumes where it stopped
    python bench/rl_controls.py out/short 0 --steps=40 --n_test=200 --arms=sft,more,rl

A folder keeps what it has, so --steps and --n_test need a folder of their own.

pass@1 of one greedy answer to each problem; of sft and rl, pass@8 of the first fifth of them. With weak, the
share of answers that pass the first test and fail another; they run in parts/eval/sandbox.py. The interval is
a paired bootstrap over problems, of the mean over the seeds.
Settings were chosen on the validation split, never on these problems.
"""
import collections
import json
import os
import subprocess
import sys

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from parts.eval import grading, sandbox    # noqa: E402
from parts.eval.problems import problems, to_messages                                          # noqa: E402

BASE, DEMOS, PROMPTS = 'out/quickstart', 6000, 2000
KINDS = {'demonstrated': 'variation', 'feedback only': 'feedback_variation', 'never shown': 'cell'}
ARMS = 'sft', 'more', 'rejection', 'rejection_2', 'rl', 'weak', 'random'
SAMPLED = 'sft', 'rl'
ASK = ['--allow_code_execution=True', '--batch_size=64', '--max_new_tokens=64', '--tasks=own']
COIN = """import json, random
dice = random.Random({seed})
lines = [json.loads(line) for line in open({path!r}, encoding='utf-8')]
prompts = lambda: [line['prompt'] for line in lines]
reward = lambda prompt, completion: dice.random() < 0.5
"""


def call(*command):
    print(' '.join(command), flush=True)
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def write(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as f:
        f.writelines(json.dumps(line) + '\n' for line in lines)


def asked(p, tests=None):
    """A line for rl.py and for eval.py --tasks=own."""
    check = p['test'] if tests is None else '\n'.join(p['test'].split('\n')[:1 + tests])
    return {'prompt': to_messages(p)[0]['content'], 'tests': f'{check}\ncheck({p["entry_point"]})\n'}


def test(run, folder, samples=1):
    """{kind: [share of the answers that passed, ...]}, always of the same problems. One answer is greedy;
    several are drawn at temperature 0.8."""
    found = {}
    how = ['--temperature=0.8', f'--num_samples={samples}'] if samples > 1 else []
    for kind in KINDS:
        name = kind.replace(' ', '_') + ('_sampled' if samples > 1 else '')
        out = f'{run}/test/{name}'
        if not os.path.exists(f'{out}/eval.json'):
            data = f'{folder}/test/{name}.jsonl'
            call('eval.py', f'--ckpt={run}/last.pt', *ASK, *how, f'--data={data}', f'--out={out}/eval.json')
        passed = collections.defaultdict(list)
        with open(f'{out}/samples.jsonl', encoding='utf-8') as f:
            for row in map(json.loads, f):
                passed[row['task_id']].append(row['outcome'] == 'passed')
        found[kind] = list(passed.values())
    return found


def only_first(run, folder):
    """{kind: [[does the greedy answer pass the first test and fail another], ...]}: what weak pays for."""
    found = {}
    for kind in KINDS:
        name = kind.replace(' ', '_')
        with open(f'{folder}/test/{name}.jsonl', encoding='utf-8') as f:
            tests = [json.loads(line)['tests'].split('\n') for line in f]
        with open(f'{run}/test/{name}/samples.jsonl', encoding='utf-8') as f:
            rows = [json.loads(line) for line in f]
        first = ['\n'.join([*lines[:2], lines[-2]]) for lines in tests]     # def check, its first, the call
        failed = [(grading.code_in(row['completion']), test) for row, test in zip(rows, first)
                  if row['outcome'] != 'passed']
        results = sandbox.run_many(failed)
        found[kind] = [[row['outcome'] != 'passed' and next(results).outcome == 'passed'] for row in rows]
    return found


def trained_tokens(run):
    with open(f'{run}/metrics.jsonl', encoding='utf-8') as f:
        rows = [json.loads(line) for line in f]
    with open(f'{run}/config.json', encoding='utf-8') as f:
        config = json.load(f)
    answers = config['batch_size'] * config['num_samples']
    return sum(row['length'] * row['informative'] for row in rows if 'length' in row) * answers


def finished(run):
    """Whether a run reached its last step. One that was stopped leaves a last.pt, too."""
    if not os.path.exists(f'{run}/train.log'):
        return False
    with open(f'{run}/train.log', encoding='utf-8') as f:
        return any(line.startswith('done in ') for line in f.read().splitlines()[-2:])


def demonstrations(folder, seed):
    if os.path.exists(f'{folder}/coin.py'):         # the last file below
        return
    demos = problems(DEMOS, seed, 'train')
    write(f'{folder}/demos/train.jsonl', [{'messages': to_messages(p)} for p in demos])
    held_out = problems(200, seed, 'validation')
    write(f'{folder}/demos/val.jsonl', [{'messages': to_messages(p)} for p in held_out])
    both = lambda n, *splits: [p for split in splits for p in problems(n, 1000 + seed, split)]
    feedback = both(PROMPTS // 2, 'train', 'feedback')
    exam = both(100, 'validation', 'feedback_validation')
    write(f'{folder}/prompts.jsonl', [asked(p) for p in feedback])
    write(f'{folder}/weak.jsonl', [asked(p, tests=1) for p in feedback])
    write(f'{folder}/exam.jsonl', [asked(p) for p in exam])
    with open(f'{folder}/coin.py', 'w', encoding='utf-8') as f:
        f.write(COIN.format(seed=seed, path=os.path.abspath(f'{folder}/prompts.jsonl')))


def sft(out, init, data, seed, tokens):
    """SFT on about so many tokens: see the top."""
    call('sft.py', '--optimizer=adamw', '--learning_rate=1e-4', '--overwrite=True', f'--seed={seed}',
         f'--init_from={init}', f'--data_dir={data}', f'--out_dir={out}',
         f'--max_steps={int(tokens / 32 / 24)}')


def mine(folder, ckpt, seed):
    """Eight answers of ckpt to each prompt; those that pass become demonstrations."""
    prompts = f'{os.path.dirname(folder)}/prompts.jsonl'
    call('eval.py', f'--ckpt={ckpt}', *ASK, f'--data={prompts}', '--num_samples=8', f'--seed={seed}',
         '--temperature=1.0', f'--out={folder}/eval.json')
    call('prepare.py', '--kind=sft', f'--source={folder}/samples.jsonl', '--dedup=exact',
         f'--out_dir={folder}/sft')


def train(name, folder, seed, steps):
    out, start = f'{folder}/{name}', f'{folder}/sft/last.pt'
    tokens = steps * 32 * 8 * 24 * 0.4          # without rl: about what it trains on
    if finished(f'{folder}/rl'):
        tokens = trained_tokens(f'{folder}/rl')
    if finished(out):
        return
    if name == 'sft':
        demonstrations(folder, seed)
        call('sft.py', 'config/quickstart_sft.py', f'--init_from={BASE}', f'--data_dir={folder}/demos',
             f'--out_dir={out}', '--epochs=3', f'--seed={seed}', '--overwrite=True')
    elif name in ('rl', 'weak', 'random'):
        reward = {'rl': 'prompts.jsonl', 'weak': 'weak.jsonl', 'random': 'coin.py'}[name]
        call('rl.py', f'--init_from={start}', f'--reward={folder}/{reward}',
             f'--held_out={folder}/exam.jsonl', f'--out_dir={out}', f'--max_steps={steps}',
             f'--seed={seed}', '--allow_code_execution=True', '--overwrite=True')
    elif name == 'more':
        sft(out, start, f'{folder}/demos', seed, tokens)
    else:
        rounds = 2 if name == 'rejection_2' else 1
        for i in range(rounds):
            mine(f'{folder}/mined_{name}_{i}', start, seed + i)
            last = out if i == rounds - 1 else f'{out}_{i}'
            sft(last, start, f'{folder}/mined_{name}_{i}/sft', seed, tokens / rounds)
            start = f'{last}/last.pt'


def mean_over_seeds(seeds, of):
    """of() each problem's answers, the mean over the seeds: (problems,)."""
    return np.mean([[of(answers) for answers in one_seed] for one_seed in seeds], axis=0)


def table(title, found, of, beside='sft'):
    """found: {arm: for each seed {kind: [answers, ...]}}. A line for each arm; in brackets minus `beside`."""
    print(f'\n{title}; in brackets minus {beside}, 95 % interval\n')
    print('| | ' + ' | '.join(f'{kind}, {len(found["sft"][0][kind])}' for kind in KINDS) + ' |')
    print('|---' * (len(KINDS) + 1) + '|')
    for name in found:
        cells = []
        for kind in KINDS:
            each, other = (mean_over_seeds([f[kind] for f in found[arm]], of) for arm in (name, beside))
            cells.append(f'{each.mean():.1%}')
            if name != beside:
                d, low, high = difference(each - other)
                cells[-1] += f' ({d:+.1%}: {low:+.1%} to {high:+.1%})'
        print(f'| {name} | ' + ' | '.join(cells) + ' |')


def difference(each):
    """The mean over problems and its 95 % interval."""
    drawn = np.random.default_rng(0).integers(len(each), size=(5000, len(each)))
    return each.mean(), *np.percentile(each[drawn].mean(1), [2.5, 97.5])


if __name__ == '__main__':
    flags = dict(a.removeprefix('--').split('=') for a in sys.argv[3:])
    out, seeds = sys.argv[1], [int(s) for s in sys.argv[2].split(',')]
    arms, n_test = flags.get('arms', ','.join(ARMS)).split(','), int(flags.get('n_test', 1000))
    order = [name for name in ('sft', 'rl') + ARMS[1:] if name in arms]     # the others follow rl's tokens
    greedy, sampled = {name: [] for name in arms}, {name: [] for name in SAMPLED if name in arms}
    for kind, split in KINDS.items():
        path = f'{out}/test/{kind.replace(" ", "_")}.jsonl'
        if not os.path.exists(path):
            write(path, [asked(p) for p in problems(n_test, 0, split)])
        with open(path, encoding='utf-8') as f:
            write(path.replace('.jsonl', '_sampled.jsonl'), [json.loads(line) for line in f][:n_test // 5])
    for seed in seeds:
        for name in dict.fromkeys(order):
            train(name, f'{out}/{seed}', seed, int(flags.get('steps', 160)))
            greedy[name].append(test(f'{out}/{seed}/{name}', out))
            if name in SAMPLED:
                sampled[name].append(test(f'{out}/{seed}/{name}', out, samples=8))

    table(f'seeds: {len(seeds)}; pass@1 of one greedy answer', greedy, np.mean)
    if 'rl' in arms:
        table('the same', greedy, np.mean, beside='rl')
    if 'weak' in arms:
        hacked = {name: [only_first(f'{out}/{seed}/{name}', out) for seed in seeds]
                  for name in ('sft', 'rl', 'weak') if name in arms}
        table('passes the first test and fails another', hacked, np.mean)
    table('pass@1 of eight answers at temperature 0.8', sampled, np.mean)
    table('pass@8 of the same', sampled, any)
