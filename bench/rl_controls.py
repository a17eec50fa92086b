"""
Does reinforcement learning teach anything that its controls do not? Every arm starts from the same SFT, and
writes about the same number of answers, or trains on about as many tokens. SFT sees examples. rl practices
half of these problems, and half of compositions that no example has. All are tested on both, and on
compositions that no arm sees.

    sft             where the others start
    more            SFT on more answers, without a model's own
    rejection       SFT on its own answers that passed, one round; rejection_2: two, of half as many answers
    rl              rl.py: the reward is 1 if all tests pass
    weak            rl.py: the reward is 1 if the first test passes; judged by all tests: what is hacked?
    random          rl.py: the reward is a coin: what does sampling alone do?

    bash run.sh                                                     # the base model, out/quickstart
    python bench/rl_controls.py out/kinds 0,1,2                     # resumes where it stopped
    python bench/rl_controls.py out/short 0 --steps=40 --n_test=200 --arms=more,rl@clip_high=0.28

An arm's name may end with settings of rl.py. A folder keeps what it has, so --steps and --n_test need a
folder of their own. Tables go to the screen, and their figures to FOLDER/rl.json. (LOG.md's study of chains
of two, three and four steps was a second one here, until 97e99de.)

pass@1 of one greedy answer to each problem; pass@1 and pass@8 of eight answers at temperature 0.8 to the
first fifth of them. The interval is a paired bootstrap over problems, of the mean over the seeds.
Settings were chosen on validation splits, never on these problems.
"""
import argparse, collections, json, os, pathlib, subprocess, sys

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from parts.eval.problems import problems, to_messages           # noqa: E402

BASE = 'out/quickstart'
KINDS = {'example tasks': 'variation', 'practice tasks': 'feedback_variation',
         'unseen combinations': 'cell'}     # what is tested, and its split
ARMS = ['sft', 'more', 'rejection', 'rejection_2', 'rl', 'weak', 'random']
ASK = ['--allow_code_execution=True', '--batch_size=128', '--max_new_tokens=96', '--tasks=own']
RL = ['config/quickstart_rl.py', '--allow_code_execution=True', '--overwrite=True', '--max_new_tokens=96',
      '--expect=None']
PROMPTS, SAMPLES = 16, 8                                # of a step of config/quickstart_rl.py
COIN = """import json, random
dice = random.Random({seed})
lines = [json.loads(line) for line in open({path!r}, encoding='utf-8')]
prompts = lambda: [line['prompt'] for line in lines]
reward = lambda prompt, completion: dice.random() < 0.5
"""


def call(*command):
    print(' '.join(command), flush=True)
    if subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, cwd=ROOT).returncode:
        sys.exit(2)         # it has said why


def write(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as f:
        f.writelines(json.dumps(line) + '\n' for line in lines)


def read(path):
    with open(path, encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def asked(p, tests=None):
    """A line for rl.py and for eval.py --tasks=own."""
    check = p['test'] if tests is None else '\n'.join(p['test'].split('\n')[:1 + tests])
    return {'prompt': to_messages(p)[0]['content'], 'tests': f'{check}\ncheck({p["entry_point"]})\n'}


def write_examples(folder, seed, steps):
    """What the arms of one seed are given. The last file says that all are there."""
    if os.path.exists(f'{folder}/coin.py'):
        return
    both = lambda n, seed, end='': [p for pair in zip(problems(n, seed, end or 'review'),
                                                      problems(n, seed, f'feedback{end and "_"}{end}'))
                                    for p in pair]
    exam = both(100, seed, 'validation')
    for side, some in ('train', problems(5000, seed)), ('val', exam):
        write(f'{folder}/demos/{side}.jsonl', [{'messages': to_messages(p)} for p in some])
    write(f'{folder}/exam.jsonl', [asked(p) for p in exam])
    practice = both(PROMPTS * steps // 2, 1000 + seed)
    write(f'{folder}/prompts.jsonl', [asked(p) for p in practice])
    write(f'{folder}/weak.jsonl', [asked(p, tests=1) for p in practice])
    with open(f'{folder}/coin.py', 'w', encoding='utf-8') as f:
        f.write(COIN.format(seed=seed, path=os.path.abspath(f'{folder}/prompts.jsonl')))


def finished(run):
    """Whether a run reached its last step. One that was stopped leaves a last.pt, too."""
    settings = pathlib.Path(run, 'config.json')
    if not settings.exists() or not pathlib.Path(run, 'last.pt').exists():
        return False
    max_steps = json.loads(settings.read_text(encoding='utf-8'))['max_steps']
    return read(f'{run}/metrics.jsonl')[-1]['step'] == max_steps


def trained_tokens(run):
    """Of a run of rl.py: those with a gradient. A row of the log stands for the steps around it."""
    rows = [row for row in read(f'{run}/metrics.jsonl') if 'used' in row]
    return rows[-1]['step'] * PROMPTS * SAMPLES * np.mean([row['length'] * row['used'] for row in rows])


def sft(out, init, data, seed, tokens):
    """SFT on about so many tokens, 25 an answer."""
    call('sft.py', '--optimizer=adamw', '--learning_rate=1e-4', '--overwrite=True', f'--seed={seed}',
         f'--init_from={init}', f'--data_dir={data}', f'--out_dir={out}',
         f'--max_steps={int(tokens / 32 / 25)}')


def mine(folder, ckpt, seed, first, last):
    """SAMPLES answers of ckpt to some of the prompts; those that pass become examples."""
    prompts = read(f'{os.path.dirname(folder)}/prompts.jsonl')[first:last]
    write(f'{folder}/prompts.jsonl', prompts)
    call('eval.py', f'--ckpt={ckpt}', *ASK, f'--data={folder}/prompts.jsonl', f'--num_samples={SAMPLES}',
         f'--seed={seed}', '--temperature=1.0', f'--out={folder}/eval.json')
    call('prepare.py', '--kind=sft', f'--source={folder}/samples.jsonl', '--dedup=exact',
         f'--out_dir={folder}/sft')


def train(arm, folder, seed, steps):
    out, start = f'{folder}/{arm}', f'{folder}/sft/last.pt'
    name, *flags = arm.split('@')
    if finished(out):
        return
    if name == 'sft':
        write_examples(folder, seed, steps)
        call('sft.py', 'config/quickstart_sft.py', f'--init_from={BASE}', f'--data_dir={folder}/demos',
             f'--out_dir={out}', f'--seed={seed}', '--epochs=2', '--overwrite=True', '--expect=None')
    elif name in ('rl', 'weak', 'random'):
        reward = {'rl': 'prompts.jsonl', 'weak': 'weak.jsonl', 'random': 'coin.py'}[name]
        call('rl.py', *RL, f'--init_from={folder}/sft', f'--reward={folder}/{reward}', f'--out_dir={out}',
             f'--held_out={folder}/exam.jsonl', f'--max_steps={steps}', f'--seed={seed}',
             *(f'--{flag}' for flag in flags))
    elif name == 'more':
        sft(out, start, f'{folder}/demos', seed, trained_tokens(f'{folder}/rl'))
    else:
        rounds = 2 if name == 'rejection_2' else 1
        n = PROMPTS * steps // rounds
        tokens = trained_tokens(f'{folder}/rl') / rounds
        for i in range(rounds):
            mine(f'{folder}/mined_{name}_{i}', start, seed + i, i * n, (i + 1) * n)
            last = out if i == rounds - 1 else f'{out}_{i}'
            sft(last, start, f'{folder}/mined_{name}_{i}/sft', seed, tokens)
            start = f'{last}/last.pt'


def test(run, folder, samples=1):
    """{kind: for each problem whether its answers passed}. One answer is greedy; several are drawn at
    temperature 0.8, to the first fifth of the problems."""
    passed = {}
    how = ['--temperature=0.8', f'--num_samples={samples}'] if samples > 1 else []
    for kind, split in KINDS.items():
        name = split + ('_sampled' if samples > 1 else '')
        out = f'{run}/test/{name}'
        if not os.path.exists(f'{out}/eval.json'):
            call('eval.py', f'--ckpt={run}/last.pt', *ASK, *how, f'--data={folder}/test/{name}.jsonl',
                 f'--out={out}/eval.json')
        answers = collections.defaultdict(list)
        for row in read(f'{out}/samples.jsonl'):
            answers[row['task_id']].append(row['outcome'] == 'passed')
        passed[kind] = list(answers.values())
    return passed


def difference(each):
    """The mean over problems and its 95 % interval."""
    samples = np.random.default_rng(0).integers(len(each), size=(5000, len(each)))
    return each.mean(), *np.percentile(each[samples].mean(1), [2.5, 97.5])


def table(title, measured, of, beside='sft'):
    """Prints a line for each arm: of() each problem's answers, the mean over seeds and problems; in brackets
    minus `beside`. measured: {arm: for each seed {kind: answers of each problem}}. Returns the same for
    pictures: {arm: for each kind [share, difference, low, high]}, in percent."""
    def shares(arm, kind):      # (problems,)
        return np.mean([[of(answers) for answers in one_seed[kind]] for one_seed in measured[arm]], axis=0)

    kinds = measured[beside][0]
    start = {kind: shares(beside, kind) for kind in kinds}
    print(f'\n{title}; in brackets minus {beside}, 95 % interval\n')
    print('| | ' + ' | '.join(f'{kind}, {len(answers)}' for kind, answers in kinds.items()) + ' |')
    print('|---' * (len(kinds) + 1) + '|')
    figures = {}
    for arm in measured:
        figures[arm] = []
        for kind in kinds:
            passed = shares(arm, kind)
            figures[arm].append([100 * float(x) for x in (passed.mean(), *difference(passed - start[kind]))])
        cells = [f'{share:.1f} ({gain:+.1f}: {low:+.1f} to {high:+.1f})'
                 for share, gain, low, high in figures[arm]]
        print(f'| {arm} | ' + ' | '.join(cells) + ' |')
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('folder')
    parser.add_argument('seeds', help='0,1,2')
    parser.add_argument('--steps', type=int, default=100, help='of rl.py (100)')
    parser.add_argument('--n_test', type=int, default=1000, help='problems of each kind (1000)')
    parser.add_argument('--arms', default=','.join(ARMS), help='sft,rl,...; without it all')
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(',')]
    arms = args.arms.split(',')
    if unknown := {arm.split('@')[0] for arm in arms} - {*ARMS}:
        parser.error(f'--arms: there is no arm {", ".join(unknown)}; there are {", ".join(ARMS)}')
    if not os.path.exists(f'{ROOT}/{BASE}/last.pt'):
        parser.error(f'{BASE} has no model to start from; make it: bash run.sh')
    for split in KINDS.values():
        path = f'{args.folder}/test/{split}'
        if not os.path.exists(f'{path}.jsonl'):
            lines = [asked(p) for p in problems(args.n_test, 0, split)]
            write(f'{path}_sampled.jsonl', lines[:args.n_test // 5])
            write(f'{path}.jsonl', lines)

    greedy, sampled = {}, {}
    for seed in seeds:
        for arm in dict.fromkeys(['sft', 'rl', *arms]):     # the others train on as many tokens as rl
            run = f'{args.folder}/{seed}/{arm}'
            train(arm, f'{args.folder}/{seed}', seed, args.steps)
            greedy.setdefault(arm, []).append(test(run, args.folder))
            sampled.setdefault(arm, []).append(test(run, args.folder, samples=8))
    how = f'seeds: {len(seeds)}, {args.steps} steps'
    tables = {'greedy': table(f'{how}; pass@1 of one greedy answer', greedy, np.mean),
              'greedy, minus rl': table('the same', greedy, np.mean, beside='rl'),
              'sampled': table('pass@1 of eight answers at temperature 0.8', sampled, np.mean),
              'pass@8': table('pass@8 of the same', sampled, any)}
    setup = {'seeds': seeds, 'steps': args.steps, 'n_test': args.n_test, 'kinds': [*KINDS]}
    with open(f'{args.folder}/rl.json', 'w', encoding='utf-8') as f:
        json.dump(setup | tables, f, indent=1)


if __name__ == '__main__':
    main()
