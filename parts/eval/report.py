"""
The report of `bash run.sh`: one table of all stages, and answers of each stage side by side.

    python parts/eval/report.py --minutes=8.3    # reads out/quickstart*, writes REPORT.md and report.json

Copy this file alone: it needs the standard library.
"""
import argparse, json, os, pathlib, platform, re

STAGES = {'base': 'out/quickstart', 'sft': 'out/quickstart_sft', 'dpo': 'out/quickstart_dpo',
          'rl': 'out/quickstart_rl'}
COLUMNS = {'stage': '{name}', 'bits per byte': '{val_bpb:.3f}', 'parses': '{parse_rate:.0%}',
           'pass@1, demonstrated': '{pass@1:.1%} ({low:.0%} to {high:.0%})', 'pass@8': '{pass@8:.1%}',
           'never shown: compositions': '{pass@1_cells:.1%}', 'never shown: tasks': '{pass@1_families:.1%}',
           'preferred way': '{liked}', 'minutes of training': '{minutes:.1f}'}


def read_json(path):
    return json.loads(pathlib.Path(path).read_bytes())


def read_lines(path):
    with open(path, encoding='utf-8') as f:
        return [json.loads(line) for line in f]


def stage(name, folder):
    """The row of a stage: the scores in its eval.json, and the minutes in its train.log."""
    tasks = read_json(f'{folder}/eval.json')['tasks']
    loss, split = tasks['loss']['trained'], tasks['problems']['by_split']
    new = split['variation']
    log = pathlib.Path(folder, 'train.log').read_text(encoding='utf-8')
    minutes = re.findall(r'^done in ([\d.]+) minutes', log, re.M)
    return {'name': name, 'val_bpb': loss['bits_per_byte'], 'val_nats': loss['nats'],
            'parse_rate': new['parse_rate'], 'pass@1': new['pass@1'], 'pass@8': new['pass@8'],
            'interval': new['interval'], 'pass@1_cells': split['cell']['pass@1'],
            'pass@1_families': split['family']['pass@1'], 'preferred_rate': new['preferred_rate'],
            'minutes': float(minutes[-1])}


def table(stages):
    """Lines of Markdown."""
    lines = ['| ' + ' | '.join(COLUMNS) + ' |', '|---' * len(COLUMNS) + '|']
    for row in stages:
        low, high = row['interval']
        liked = '-' if row['preferred_rate'] is None else f'{row["preferred_rate"]:.0%}'    # no answer passed
        cells = [form.format(**row, low=low, high=high, liked=liked) for form in COLUMNS.values()]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return lines


def gains(name, folder):
    """What a stage gained over SFT on the same problems, by kind, and a sentence that says it."""
    both = read_json(f'{folder}/compare.json')['tasks']['compare']
    gain = {'all': [both['b'] - both['a'], *both['interval']], **both['gain']}
    texts = [f'{kind} {difference:+.1%} ({low:+.1%} to {high:+.1%})'
             for kind, (difference, low, high) in gain.items()]
    return both['gain'], (f'{name} over SFT, pass@1 of the same {both["n"]} problems, 95 % interval: '
                          f'{", ".join(texts)}.')


def answers(n=3):
    """Lines of Markdown: the same n problems, and the first answer of each stage to them."""
    by_stage = {}
    for name, folder in STAGES.items():
        rows = [row for row in read_lines(f'{folder}/samples.jsonl') if row.get('split') == 'variation']
        by_stage[name] = {row['task_id']: row for row in reversed(rows)}        # the first of each problem
    lines = []
    for task_id in sorted(by_stage['sft'])[::max(1, len(by_stage['sft']) // n)][:n]:
        lines += ['', f'### {task_id}', '', '```', by_stage['sft'][task_id]['prompt'].rstrip()[-400:], '```']
        for name, rows in by_stage.items():
            text = rows[task_id]['completion'].strip('\n')[:300] or '(nothing)'
            lines += ['', f'{name}: {rows[task_id]["outcome"]}', '', '```', text, '```']
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--minutes', type=float, required=True, help='of the whole run')
    minutes = parser.parse_args().minutes

    stages = [stage(name, folder) for name, folder in STAGES.items()]
    untrained = read_json('out/quickstart/eval.json')['tasks']['loss']['untrained']['bits_per_byte']
    machine = f'{platform.machine()}, {os.cpu_count()} cores'
    notes = [f'Untrained: {untrained:.3f} bits per byte. {minutes:.1f} minutes in all, on {machine}.']
    for row in stages[2:]:
        gain, sentence = gains(row['name'].upper(), STAGES[row['name']])
        row['gain'] = {kind.replace(' ', '_'): numbers for kind, numbers in gain.items()}
        notes.append(sentence)
    notes.append('Bits per byte of the SFT model show how much of the standard library it forgets; sft.py '
                 '--replay=1 keeps most of it.')
    text = '\n'.join(['# quickstart', '', *table(stages), '', *(f'{note}\n' for note in notes),
                      '![dashboard](dashboard.png)', '', '## Answers', *answers(), ''])
    print(text)
    pathlib.Path('out/quickstart/REPORT.md').write_text(text, encoding='utf-8')
    report = {'stages': stages, 'untrained_bpb': untrained, 'minutes': minutes, 'machine': machine}
    pathlib.Path('out/quickstart/report.json').write_text(json.dumps(report, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
