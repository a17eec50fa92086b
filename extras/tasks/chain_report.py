"""
Write the report of run.sh: the scores of each stage, and its gains over SFT.

    python -m extras.tasks.chain_report --minutes=8.3         # reads out/quickstart*

This command writes REPORT.md and report.json to out/quickstart.
"""
import argparse, json, os, pathlib, platform, re, runpy, subprocess
import torch
from extras.tasks.answers import read_rows
from extras.training.muon import is_native

# {name in report.json, which other programs read: (name in REPORT.md, folder)}
STAGES = {'base': ('base', 'out/quickstart'), 'sft': ('SFT', 'out/quickstart_sft'),
          'dpo': ('DPO with an SFT term', 'out/quickstart_dpo'), 'rl': ('RL', 'out/quickstart_rl'),
          'control rejection sampling': ('rejection sampling', 'out/quickstart_rejection')}
# {kind: its split}
KINDS = {'example tasks': 'example', 'practice tasks': 'practice', 'unseen combinations': 'unseen'}
LEGEND = """Each number is the percentage of greedy answers that pass all their tests, with a 95%
interval. README.md, under "What you will see", says what the three kinds of problems are.
- preferred: the percentage of passing answers that are a single return statement.
- bits per byte: the loss on the first 16,384 held-out tokens of the base model's corpus.
- usual range: the final values of our runs with several seeds, for the preset of a stage.
- over SFT: the gain in percentage points. If its 95% interval contains 0, it may be chance."""


def read_json(path):
    return json.loads(pathlib.Path(path).read_bytes())


def machine():
    """Describe the GPU or CPU, its cores, the dtype of matrix products and the versions."""
    kind, name = 'cpu', platform.machine()
    if torch.cuda.is_available():
        kind, name = 'cuda', torch.cuda.get_device_name()
    elif os.path.exists('/proc/cpuinfo'):
        text = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8')
        name = ''.join(re.findall(r'^model name\s*: (.*)', text, re.M)[:1]) or name
    dtype = 'bfloat16' if is_native(torch.device(kind)) else 'float32'
    return (f'{name}, {torch.get_num_threads()} threads on {os.cpu_count()} cores, {dtype}, '
            f'Python {platform.python_version()}, torch {torch.__version__}')


def commit():
    found = subprocess.run('git rev-parse --short HEAD', shell=True, capture_output=True, text=True,
                           cwd=pathlib.Path(__file__).parent)
    return found.stdout.strip() or 'unknown'


def as_expected(folder):
    """Return {metric: (last value, low, high)} for the metrics in _expect of a run's preset."""
    preset = read_json(f'{folder}/config.json')['preset']
    path = pathlib.Path(__file__).parents[2] / 'config' / preset
    ranges = runpy.run_path(str(path)).get('_expect', {}) if path.is_file() else {}
    last = {}
    for row in read_rows(f'{folder}/metrics.jsonl'):
        last |= row
    return {name: (last[name], *limits) for name, limits in ranges.items() if name in last}


def verdict(name, numbers):
    """('val_loss', (3.918, 3.85, 4.2)) -> 'val_loss 3.918 is in the usual range, 3.85 to 4.2'"""
    value, low, high = numbers
    where = 'in' if low <= value <= high else 'outside'
    advice = '; see "My numbers differ" in docs/trouble.md' if where == 'outside' else ''
    return f'{name} {value:.4g} is {where} the usual range, {low:g} to {high:g}{advice}'


def stage(name):
    """Return the results of a stage, from the files in its folder."""
    _, folder = STAGES[name]
    tasks = read_json(f'{folder}/eval.json')['tasks']
    split = tasks['problems']['by_split']
    passed = [row for row in read_rows(f'{folder}/samples.jsonl')
              if row['split'] == 'example' and row['outcome'] == 'passed']
    # A trainer writes tokenizer.json when it starts or resumes, and last.pt when it finishes. A run
    # that is resumed after its last step doesn't write last.pt again.
    began, ended = (os.path.getmtime(f'{folder}/{file}') for file in ('tokenizer.json', 'last.pt'))
    return {'name': name, 'val_bpb': tasks['loss']['trained']['bits_per_byte'],
            'minutes': max(0, ended - began) / 60, 'expect': as_expected(folder),
            'kinds': {kind: [split[of]['pass@1'], *split[of]['interval']]
                      for kind, of in KINDS.items()},
            'failures': tasks['problems']['failures'],
            'preferred_rate': sum(row['preferred'] for row in passed) / max(1, len(passed)),
            'pass@1': split['example']['pass@1'],
            'pass@1_practice': split['practice']['pass@1'],
            'pass@1_unseen': split['unseen']['pass@1']}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, required=True, help='duration of the full run')
    minutes = parser.parse_args().minutes
    stages = [stage(name) for name in STAGES]
    lines = ['# quickstart', '',
             f'| stage | {" | ".join(KINDS)} | preferred | bits per byte | minutes |',
             '|---|---|---|---|---|---|---|']
    for row in stages:
        cells = [f'{mean:.1%} ({low:.0%} to {high:.0%})'
                 for mean, low, high in row['kinds'].values()]
        lines.append(f'| {STAGES[row["name"]][0]} | {" | ".join(cells)} | '
                     f'{row["preferred_rate"]:.0%} | {row["val_bpb"]:.3f} | {row["minutes"]:.1f} |')
    lines += ['', LEGEND, '']
    for row in stages:
        title, folder = STAGES[row['name']]
        causes = ', '.join(f'{cause} {n}' for cause, n in row['failures'].items())
        lines.append(f'- {title}, why answers fail: {causes}')
        lines += [f'- {title}: {verdict(*item)}' for item in row['expect'].items()]
        if row['name'] not in ('base', 'sft'):
            row['gain'] = read_json(f'{folder}/compare.json')['gain']
            for kind in KINDS:
                gain = '{:+.1f} ({:+.1f} to {:+.1f})'.format(*(100 * x for x in row['gain'][kind]))
                lines.append(f'- {title} over SFT, {kind}: {gain}')
    where = machine()
    lines += ['', '![dashboard](dashboard.png)', '',
              f'{minutes:.1f} minutes on {where}, commit {commit()}']
    text = '\n'.join(lines) + '\n'
    print(text)
    folder = pathlib.Path('out/quickstart')
    (folder / 'REPORT.md').write_text(text, encoding='utf-8')
    report = {'stages': stages, 'minutes': minutes, 'machine': where}
    (folder / 'report.json').write_text(json.dumps(report, indent=1), encoding='utf-8')
