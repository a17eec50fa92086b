"""
The report of `bash run.sh`: what each stage can do, what it gained, and answers of all stages side by side.

    python -m parts.eval.chain_report --minutes=8.3     # reads out/quickstart*, writes REPORT.md, report.json
"""
import argparse, json, os, pathlib, platform
from parts.train import runs

STAGES = {'base': 'out/quickstart', 'sft': 'out/quickstart_sft', 'dpo': 'out/quickstart_dpo',
          'rl': 'out/quickstart_rl'}
KINDS = {'demonstrated': 'variation', 'feedback only': 'feedback_variation', 'never shown': 'cell'}   # splits
LEGEND = """Shares of answers that pass their tests, at temperature 0.8, with 95 % intervals over problems.
demonstrated: new problems of compositions that SFT showed. feedback only: compositions of which RL saw
prompts and tests, and no stage an answer. never shown: compositions that no stage saw."""


def read_json(path):
    return json.loads(pathlib.Path(path).read_bytes())


def stage(name, folder, eight):
    """What the files of a stage say. eight: scores of eight answers to a problem."""
    tasks = read_json(f'{folder}/eval.json')['tasks']
    loss, split = tasks['loss']['trained'], tasks['problems']['by_split']
    new = split['variation']
    last = {}           # of each metric, the last number
    for line in pathlib.Path(folder, 'metrics.jsonl').read_text(encoding='utf-8').splitlines():
        last |= json.loads(line)
    return {'name': name, 'val_bpb': loss['bits_per_byte'], 'val_nats': loss['nats'],
            'parse_rate': new['parse_rate'], 'pass@1': new['pass@1'], 'pass@8': eight['variation']['pass@8'],
            'interval': new['interval'], 'pass@1_feedback': split['feedback_variation']['pass@1'],
            'pass@1_cells': split['cell']['pass@1'], 'pass@1_families': eight['family']['pass@1'],
            'preferred_rate': new['preferred_rate'], 'minutes': last['uptime_s'] / 60,
            'expected': [*runs.compared(last, read_json(f'{folder}/config.json')['expect'] or {})],
            'kinds': {kind: [split[of]['pass@1'], *split[of]['interval']] for kind, of in KINDS.items()}}


def table(stages):
    lines = [f'| stage | {" | ".join(KINDS)} | minutes |', '|---' * (len(KINDS) + 2) + '|']
    for row in stages:
        cells = [f'{share:.1%} ({low:.0%} to {high:.0%})' for share, low, high in row['kinds'].values()]
        lines.append(f'| {row["name"]} | {" | ".join(cells)} | {row["minutes"]:.1f} |')
    return lines


def gains(name, folder):
    """What a stage gained over SFT on the same problems, by kind, and sentences that say it."""
    both = read_json(f'{folder}/compare.json')['tasks']['compare']
    gain = {kind: both['gain'][kind] for kind in KINDS}
    return gain, [f'{name} over SFT, {kind}: {100 * difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})'
                  for kind, (difference, low, high) in gain.items()]


def answers():
    """Lines of Markdown: of each kind the first problem on which SFT and RL differ, and the first answers."""
    by_stage = {}
    for name, folder in STAGES.items():
        rows = map(json.loads, reversed(pathlib.Path(folder, 'samples.jsonl').read_bytes().splitlines()))
        by_stage[name] = {row['task_id']: row for row in rows}          # the first of each problem
    lines = ['## The first problem of each kind on which SFT and RL differ']
    for kind, split in KINDS.items():
        problems = [row for row in by_stage['sft'].values() if row['split'] == split]
        problems.sort(key=lambda row: int(row['task_id'].rpartition('/')[2]))
        differ = [row for row in problems if row['outcome'] != by_stage['rl'][row['task_id']]['outcome']]
        first = (differ or problems)[0]
        lines += ['', f'### {kind}', '', '```python', first['prompt'].rstrip(), '```']
        for name, rows in by_stage.items():
            row = rows[first['task_id']]
            mark = '🟢' if row['outcome'] == 'passed' else '🔴'
            text = row['completion'].strip('\n')[:300] or '(nothing)'
            lines += ['', f'{mark} {name}: {row["outcome"]}', '', '```python', text, '```']
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--minutes', type=float, required=True, help='of the whole run')
    minutes = parser.parse_args().minutes

    series = read_json('out/quickstart/eight/eval.json')['tasks']['problems']['series']
    eight = {row['ckpt']: row['by_split'] for row in series}
    stages = [stage(name, folder, eight[folder]) for name, folder in STAGES.items()]
    untrained = read_json('out/quickstart/eval.json')['tasks']['loss']['untrained']['bits_per_byte']
    machine = f'{platform.machine()}, {os.cpu_count()} cores'
    notes = []
    for row in stages[2:]:
        gain, sentences = gains(row['name'].upper(), STAGES[row['name']])
        row['gain'] = {kind.replace(' ', '_'): numbers for kind, numbers in gain.items()}
        notes += sentences
    base, sft, dpo, _ = stages
    notes += [f'{row["name"]}: {line}' for row in stages for line in row['expected']]
    notes += [f'In the preferred way (a single return statement): SFT {sft["preferred_rate"] or 0:.0%}, '
              f'DPO {dpo["preferred_rate"] or 0:.0%} of the answers that pass',
              f'Base: {base["val_bpb"]:.3f} bits per byte of held-out text; untrained {untrained:.3f}',
              f'{minutes:.1f} minutes in all, on {machine}']
    notes = [f'- {note}' for note in notes]
    text = '\n'.join(['# quickstart', '', *table(stages), '', LEGEND, '', *notes, '',
                      '![dashboard](dashboard.png)', '', *answers(), ''])
    print(text)
    pathlib.Path('out/quickstart/REPORT.md').write_text(text, encoding='utf-8')
    report = {'stages': stages, 'untrained_bpb': untrained, 'minutes': minutes, 'machine': machine}
    pathlib.Path('out/quickstart/report.json').write_text(json.dumps(report, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
