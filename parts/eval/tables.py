"""
Tables: how results are printed.

    print_table('loss', {'trained': {'nats': 1.25}, 'untrained': {'nats': 5.5}})

A result is that of a set of answers: n problems, samples, score or pass@1 with its 95 % interval, perhaps
pass@k for larger k, parse_rate, step, caution; outcomes. Copy this file alone: it needs nothing.
"""


def print_row(name, *cells, width=26):
    texts = [f'{cell:.4f}' if isinstance(cell, float) else str(cell) for cell in cells]
    print(f'{name:<{width}}' + ''.join(f' {text:>11}' for text in texts))


def print_table(title, rows):
    """rows: {name: {head of the column: cell}}, all with the same columns."""
    columns = next(iter(rows.values()))
    width = max(map(len, [*rows, ' ' * 26]))
    print()
    print_row(title, *columns, width=width)
    for name, row in rows.items():
        print_row(name, *row.values(), width=width)


def print_results(title, result, labels):
    """A table of a result, and above it of each split of the problems. labels: {split: what kind it is}."""
    by_split = result.get('by_split', {})
    rows = {f'{labels.get(name, "split")}: {name}': shown(group) for name, group in by_split.items()}
    print_table(title, rows | {'all': shown(result)})
    if 'caution' in result:
        print('caution:', result['caution'])


def shown(result):
    """What is shown of a result: {head of the column: cell}."""
    first, *others = [key for key in result if key == 'score' or key.startswith('pass@')]
    low, high = result['interval']
    cells = {'step': result['step']} if 'step' in result else {}
    cells |= {'n': result['n'], 'samples': result['samples'], first: result[first]}
    cells |= {'95 % from': low, 'to': high} | {key: result[key] for key in others}
    if 'parse_rate' in result:
        cells['parses'] = result['parse_rate']
    return cells | {'outcomes': ', '.join(f'{name} {n}' for name, n in result['outcomes'].items())}
