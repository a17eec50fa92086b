"""
Does feedback from execution teach anything that more of the same demonstrations would not? From one base
model, for each seed: SFT on demonstrations, then its own answers, judged, and four ways to go on from there
with the same number of rows: more SFT on the same demonstrations (the control), SFT on the answers that
passed (rejection sampling), DPO without and with its NLL term; then a second round, on the new model's
answers. A fifth of the compositions and families have no demonstrations: only feedback covers these.

    bash run.sh                                         # the base model, out/quickstart
    python bench/feedback.py out/feedback 0,1,2         # folder, seeds; resumes where it stopped

SFT has the settings of config/quickstart_sft.py with 3 epochs; each arm has AdamW at 1e-4, fixed beforehand.
Answers are greedy; the interval is a paired bootstrap over problems, of the mean over seeds.
"""
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
from rl_controls import difference

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from parts.eval.problems import problems, to_messages                                          # noqa: E402

BASE, DEMOS, MINED, ROWS, N_TEST = 'out/quickstart', 6000, 1000, 1280, 500
JUDGE = ['--allow_code_execution=True', '--batch_size=64', '--max_new_tokens=64', '--tasks=problems']
FIXED = ['--optimizer=adamw', '--learning_rate=1e-4', '--overwrite=True']


def call(*command):
    print(' '.join(command), flush=True)
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def has_demonstrations(cell):
    return hashlib.sha256(cell.encode()).digest()[0] % 5 != 0


def test(run):
    """Greedy answers to problems of three kinds -> {task_id: (kind, passed)}"""
    if not os.path.exists(f'{run}/test/eval.json'):
        call('eval.py', f'--ckpt={run}/last.pt', *JUDGE, '--splits=variation,cell', f'--n_problems={N_TEST}',
             f'--out={run}/test/eval.json')
    with open(f'{run}/test/samples.jsonl', encoding='utf-8') as f:
        rows = [json.loads(line) for line in f]
    kind = {'cell': lambda cell: 'never seen', 'variation': lambda cell:
            'demonstrated' if has_demonstrations(cell) else 'feedback only'}
    return {row['task_id']: (kind[row['split']](row['cell']), row['outcome'] == 'passed') for row in rows}


def mine(ckpt, seed, folder):
    """Judged answers of ckpt -> folder/preference and folder/sft; `seed` decides the problems."""
    call('eval.py', f'--ckpt={ckpt}', *JUDGE, '--splits=train', f'--problems_seed={seed}', '--num_samples=8',
         f'--n_problems={MINED}', f'--out={folder}/eval.json')
    for kind in ('preference', 'sft'):
        call('prepare.py', f'--kind={kind}', f'--source={folder}/samples.jsonl', '--dedup=exact',
             f'--out_dir={folder}/{kind}')


def arms(folder, seed):
    os.makedirs(f'{folder}/demos', exist_ok=True)
    demos = [p for p in problems(DEMOS * 5 // 4 + 500, seed) if has_demonstrations(p['cell'])][:DEMOS]
    for side, some in ('train', demos), ('val', problems(200, seed, 'validation')):
        with open(f'{folder}/demos/{side}.jsonl', 'w', encoding='utf-8') as f:
            f.writelines(json.dumps({'messages': to_messages(p)}) + '\n' for p in some)
    sft, steps = f'{folder}/sft', f'--max_steps={ROWS // 32}'
    if not os.path.exists(f'{sft}/last.pt'):
        call('sft.py', 'config/quickstart_sft.py', f'--init_from={BASE}', f'--data_dir={folder}/demos',
             f'--out_dir={sft}', '--epochs=3', f'--seed={seed}')
    if not os.path.exists(f'{folder}/mined/sft/train.jsonl'):
        mine(f'{sft}/last.pt', 100 + seed, f'{folder}/mined')
    common = [*FIXED, f'--seed={seed}', f'--init_from={sft}/last.pt']
    pairs = ['--batch_size=16', f'--max_steps={ROWS // 32}']            # a pair is two rows
    runs = {
        'more': ['sft.py', *common, f'--data_dir={folder}/demos', steps],
        'rejection': ['sft.py', *common, f'--data_dir={folder}/mined/sft', steps],
        'dpo_no_nll': ['dpo.py', *common, f'--data_dir={folder}/mined/preference', *pairs, '--nll_weight=0'],
        'dpo': ['dpo.py', *common, f'--data_dir={folder}/mined/preference', *pairs]}
    for name, command in runs.items():
        if not os.path.exists(f'{folder}/{name}/test/eval.json'):
            call(*command, f'--out_dir={folder}/{name}')
    rounds = {'more_2': ['sft.py', None, steps], 'rejection_2': ['sft.py', 'sft', steps],
              'dpo_2': ['dpo.py', 'preference', *pairs]}
    for name, (script, kind, *flags) in rounds.items():                 # on the new model's answers
        mined = f'{folder}/mined_{name}'
        if kind and not os.path.exists(f'{mined}/sft/train.jsonl'):
            mine(f'{folder}/{name[:-2]}/last.pt', 200 + seed, mined)
        if not os.path.exists(f'{folder}/{name}/test/eval.json'):
            call(script, *FIXED, f'--seed={seed}', f'--init_from={folder}/{name[:-2]}/last.pt', *flags,
                 f'--data_dir={mined}/{kind}' if kind else f'--data_dir={folder}/demos',
                 f'--out_dir={folder}/{name}')
    return {name: test(f'{folder}/{name}') for name in ('sft', *runs, *rounds)}


def apart(some, others, kind):
    """some - others, the mean over the seeds, for each problem of a kind."""
    ids = [i for i, (k, _) in some[0].items() if k == kind]
    return np.mean([[a[i][1] - b[i][1] for i in ids] for a, b in zip(some, others)], axis=0)


if __name__ == '__main__':
    out, seeds = sys.argv[1], [int(s) for s in sys.argv[2].split(',')]
    found = [arms(f'{out}/{seed}', seed) for seed in seeds]
    kinds = {kind: sum(k == kind for k, _ in found[0]['sft'].values())
             for kind in ('demonstrated', 'feedback only', 'never seen')}
    print(f'\n{len(seeds)} seeds, pass@1 of one greedy answer; in brackets what it has over `more` of as '
          'many rows, and the 95 % interval\n')
    print('| | ' + ' | '.join(f'{kind}, {n}' for kind, n in kinds.items()) + ' |')
    print('|---' * (len(kinds) + 1) + '|')
    for name in found[0]:
        cells = []
        for kind in kinds:
            rate = np.mean([[p for k, p in f[name].values() if k == kind] for f in found])
            control = 'more_2' if name.endswith('_2') else 'more'               # of as many rows
            d, low, high = difference(apart([f[name] for f in found], [f[control] for f in found], kind))
            against = '' if name == control else f' ({d:+.1%}: {low:+.1%} to {high:+.1%})'
            cells.append(f'{rate:.1%}{against}')
        print(f'| {name} | ' + ' | '.join(cells) + ' |')
