"""
What does practice add where examples are scarce? All runs start from one SFT model, which saw 2,000 examples
six times, and then train for about as many seconds. Expert iteration gets 4,800 problems with tests and
without answers, half of them example tasks, half practice tasks. DPO gets 2,400 of these, and RL 2,000.

    more            SFT on the same examples again, at a third of its rate: what do the seconds alone give?
    dpo             DPO on pairs of its own answers, as in run.sh
    rl              rl.py, with Muon
    own             expert iteration: two rounds of SFT on its own answers that passed
    own_examples    the same, with the examples beside its own answers
    random          rl.py with bench/random_reward.py: what does sampling alone do?

    bash run.sh                                                     # the base model, out/quickstart
    python bench/rl_controls.py out/scarce 0,1,2                    # resumes where it stopped
    python bench/rl_controls.py out/rates 0 --split=validation --n_test=300 --runs=rl@learning_rate=1e-3
    python bench/rl_controls.py out/scarce 0,1,2 --runs=rl@optimizer=adamw@learning_rate=1e-4

A run's name may end with settings of its script. Settings were chosen with one seed, on the validation
splits. Tables go to the screen, and their figures to FOLDER/rl.json. "seconds" are those of all commands of a
run, with the start of Python; they mean something on an idle machine only.

pass@1 of one greedy answer to each problem; pass@1 and pass@8 of eight answers at temperature 0.8 to the
first fifth of them. The interval is a paired bootstrap over problems, of the mean over the seeds.
"""
import argparse, collections, json, os, pathlib, subprocess, sys, time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
from extras.problems import problems, to_messages           # noqa: E402

BASE = 'out/quickstart'
SPLITS = {      # what is tested, by --split
    'test': {'example tasks': 'variation', 'practice tasks': 'feedback_variation',
             'unseen combinations': 'cell'},
    'validation': {'example tasks': 'validation', 'practice tasks': 'feedback_validation'}}
ASK = ['--allow_code_execution=True', '--batch_size=128', '--max_new_tokens=64', '--tasks=own']
SFT = ['config/quickstart_sft.py', '--base_dir=', '--overwrite=True']
RL = ['config/quickstart_rl.py', '--allow_code_execution=True', '--overwrite=True',
      '--eval_interval=100', '--save_interval=100']
RUNS = {        # script, its settings
    'more': ('sft', '--learning_rate=1e-3 --epochs=6'),
    'dpo': ('dpo', ''),
    'rl': ('rl', '--learning_rate=3e-4 --max_steps=60'),
    'own': ('own', '--learning_rate=1e-3 --epochs=1'),
    'own_examples': ('own', '--learning_rate=1e-3 --epochs=1'),
    'random': ('rl', '--learning_rate=3e-4 --max_steps=60')}
ROUNDS, PROMPTS = 2, 2400       # of expert iteration: in each round, one answer to so many prompts
DPO_ANSWERS = 3                 # to each of as many prompts


def call(*command):
    """Runs a script of ours. Returns its seconds."""
    print(' '.join(command), flush=True)
    start = time.perf_counter()
    if subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, cwd=ROOT).returncode:
        sys.exit(2)         # it has said why
    return time.perf_counter() - start


def write(path, lines):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as f:
        f.writelines(json.dumps(line) + '\n' for line in lines)


def read(path):
    with open(path, encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def asked(p):
    """A line for rl.py and for eval.py --tasks=own."""
    return {'prompt': to_messages(p)[0]['content'],
            'tests': f'{p["test"]}\ncheck({p["entry_point"]})\n'}


def write_data(folder, seed, n_examples):
    """What the runs of one seed are given. The last file says that all are there."""
    if os.path.exists(f'{folder}/rl_prompts.jsonl'):
        return

    def of_both(n, seed, *splits):
        return [p for pair in zip(*(problems(n, seed, split) for split in splits)) for p in pair]

    exam = of_both(100, seed, 'validation', 'feedback_validation')
    for side, some in ('train', problems(n_examples, seed)), ('val', exam):
        write(f'{folder}/examples/{side}.jsonl', [{'messages': to_messages(p)} for p in some])
    write(f'{folder}/exam.jsonl', [asked(p) for p in exam])
    prompts = [asked(p) for p in of_both(ROUNDS * PROMPTS // 2, seed, 'review', 'feedback')]
    write(f'{folder}/prompts.jsonl', prompts)
    write(f'{folder}/rl_prompts.jsonl', prompts[:2000])     # rl.py first tries the tests of all of them


def sft(start, data, out, seed, *flags):
    """Trains on conversations. Returns the seconds."""
    return call('sft.py', *SFT, f'--init_from={start}', f'--data_dir={data}', f'--out_dir={out}',
                f'--seed={seed}', *flags)


def ask(start, mined, prompts, seed, n_answers):
    """Has a model answer prompts, and runs the tests. Returns the seconds."""
    write(f'{mined}/prompts.jsonl', prompts)
    return call('eval.py', f'--ckpt={start}/last.pt', *ASK, f'--data={mined}/prompts.jsonl',
                f'--num_samples={n_answers}', f'--seed={seed}', '--temperature=1.0',
                f'--out={mined}/eval.json')


def dpo(folder, out, seed, flags):
    """Makes pairs of the model's own answers, and trains on them. Returns the seconds."""
    mined = f'{out}_mined'
    prompts = read(f'{folder}/prompts.jsonl')[:PROMPTS]
    seconds = ask(f'{folder}/sft', mined, prompts, seed, DPO_ANSWERS)
    seconds += call('prepare.py', '--kind=preference', f'--source={mined}/samples.jsonl', '--prefer=both',
                    '--dedup=exact', f'--out_dir={mined}/pairs')
    return seconds + call('dpo.py', 'config/quickstart_dpo.py', '--overwrite=True',
                          f'--init_from={folder}/sft', f'--data_dir={mined}/pairs', f'--out_dir={out}',
                          f'--seed={seed}', *flags)


def expert_iteration(folder, out, seed, with_examples, flags):
    """Rounds of SFT on the model's own answers that passed. Returns the seconds."""
    start, seconds = f'{folder}/sft', 0
    prompts = read(f'{folder}/prompts.jsonl')
    for i in range(ROUNDS):
        mined = f'{out}_round_{i}'
        seconds += ask(start, mined, prompts[i * PROMPTS:(i + 1) * PROMPTS], seed + i, 1)
        lines = [{'messages': [*row['messages'], {'role': 'assistant', 'content': row['completion']}]}
                 for row in read(f'{mined}/samples.jsonl') if row['outcome'] == 'passed']
        if with_examples:
            lines += read(f'{folder}/examples/train.jsonl')
        write(f'{mined}/data/train.jsonl', lines)
        write(f'{mined}/data/val.jsonl', read(f'{folder}/examples/val.jsonl'))
        last = out if i == ROUNDS - 1 else f'{mined}/model'
        seconds += sft(start, f'{mined}/data', last, seed, *flags)
        start = last
    return seconds


def train(name, folder, seed, n_examples, epochs):
    """Trains a run, unless it is there. Writes its seconds beside it when it is complete."""
    out = f'{folder}/{name}'
    if os.path.exists(f'{out}/seconds'):
        return
    kind, *more = name.split('@')
    if kind == 'sft':
        write_data(folder, seed, n_examples)
        seconds = sft(BASE, f'{folder}/examples', out, seed, f'--epochs={epochs}')
    else:
        script, settings = RUNS[kind]
        flags = [*settings.split(), *(f'--{flag}' for flag in more)]
        if script == 'sft':
            seconds = sft(f'{folder}/sft', f'{folder}/examples', out, seed, *flags)
        elif script == 'dpo':
            seconds = dpo(folder, out, seed, flags)
        elif script == 'rl':
            reward = 'bench/random_reward.py' if kind == 'random' else f'{folder}/rl_prompts.jsonl'
            seconds = call('rl.py', *RL, f'--init_from={folder}/sft', f'--reward={reward}',
                           f'--held_out={folder}/exam.jsonl', f'--out_dir={out}', f'--seed={seed}', *flags)
        else:
            seconds = expert_iteration(folder, out, seed, kind == 'own_examples', flags)
    pathlib.Path(out, 'seconds').write_text(f'{seconds:.0f}')


def test(run, folder, splits, samples=1):
    """{kind: for each problem whether its answers passed}. One answer is greedy; several are drawn at
    temperature 0.8, to the first fifth of the problems."""
    passed = {}
    how = ['--temperature=0.8', f'--num_samples={samples}'] if samples > 1 else []
    for kind, split in splits.items():
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
    """Prints a line for each run: of() each problem's answers, the mean over seeds and problems; in brackets
    minus `beside`. measured: {run: for each seed {kind: answers of each problem}}. Returns the same for
    pictures: {run: for each kind [share, difference, low, high]}, in percent."""
    def shares(run, kind):      # (problems,)
        return np.mean([[of(answers) for answers in one_seed[kind]] for one_seed in measured[run]], axis=0)

    kinds = measured[beside][0]
    start = {kind: shares(beside, kind) for kind in kinds}
    print(f'\n{title}; in brackets minus {beside}, 95 % interval\n')
    print('| | ' + ' | '.join(f'{kind}, {len(answers)}' for kind, answers in kinds.items()) + ' |')
    print('|---' * (len(kinds) + 1) + '|')
    figures = {}
    for run in measured:
        figures[run] = []
        for kind in kinds:
            passed = shares(run, kind)
            figures[run].append([100 * float(x) for x in (passed.mean(), *difference(passed - start[kind]))])
        cells = [f'{share:.1f} ({gain:+.1f}: {low:+.1f} to {high:+.1f})'
                 for share, gain, low, high in figures[run]]
        print(f'| {run} | ' + ' | '.join(cells) + ' |', flush=True)
    return figures


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('folder')
    parser.add_argument('seeds', help='0,1,2')
    parser.add_argument('--examples', type=int, default=2000, help='of SFT (2000)')
    parser.add_argument('--epochs', type=float, default=6, help='of SFT (6)')
    parser.add_argument('--split', default='test', choices=SPLITS, help='validation: to choose settings')
    parser.add_argument('--n_test', type=int, default=500, help='problems of each kind (500)')
    parser.add_argument('--runs', default=','.join(RUNS), help='rl,own@epochs=2,... only; empty: SFT')
    args = parser.parse_args()
    runs = args.runs.split(',') if args.runs else []
    if unknown := {run.split('@')[0] for run in runs} - {*RUNS}:
        parser.error(f'--runs: there is no {", ".join(unknown)}; there are {", ".join(RUNS)}')
    if not os.path.exists(f'{ROOT}/{BASE}/last.pt'):
        parser.error(f'{BASE} has no model to start from; make it: bash run.sh')
    splits = SPLITS[args.split]
    for split in splits.values():
        path = f'{args.folder}/test/{split}'
        if not os.path.exists(f'{path}.jsonl'):
            lines = [asked(p) for p in problems(args.n_test, 0, split)]
            write(f'{path}_sampled.jsonl', lines[:args.n_test // 5])
            write(f'{path}.jsonl', lines)

    greedy, sampled, seconds = {}, {}, collections.defaultdict(list)
    seeds = [int(seed) for seed in args.seeds.split(',')]
    for seed in seeds:
        for name in ['sft', *runs]:
            run = f'{args.folder}/{seed}/{name}'
            train(name, f'{args.folder}/{seed}', seed, args.examples, args.epochs)
            seconds[name].append(float(pathlib.Path(run, 'seconds').read_text()))
            greedy.setdefault(name, []).append(test(run, args.folder, splits))
            if args.split == 'test':
                sampled.setdefault(name, []).append(test(run, args.folder, splits, samples=8))
    greedily = 'pass@1 of one greedy answer'
    tables = {'greedy': table(greedily, greedy, np.mean)}
    for control in [run for run in ('more', 'rl') if run in greedy]:
        tables[f'greedy, minus {control}'] = table(greedily, greedy, np.mean, beside=control)
    if sampled:
        tables |= {'sampled': table('pass@1 of eight answers at temperature 0.8', sampled, np.mean),
                   'pass@8': table('pass@8 of the same', sampled, any)}
    print('\nseconds: ' + ', '.join(f'{name} {np.mean(some):.0f}' for name, some in seconds.items()))
    setup = vars(args) | {'seeds': seeds, 'kinds': [*splits], 'seconds': seconds}
    with open(f'{args.folder}/rl.json', 'w', encoding='utf-8') as f:
        json.dump(setup | tables, f, indent=1)


if __name__ == '__main__':
    main()
