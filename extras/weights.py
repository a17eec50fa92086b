"""
Several sources, each of which is read as often as its weight says.

    python prepare.py config/mix.py                 # sources = {'web': ('web/*.jsonl', 50), ...}
    python prepare.py config/mix.py --temperature=2 # without weights: more equal parts

    passes_of({'web': 900, 'books': 100}, {'web': 50, 'books': 50})    # {'web': 0.56, 'books': 5.0}

train.bin holds each source once, and an epoch reads as many tokens as it has. A weight is a
fraction of an epoch. With 900 tokens of web and 100 of books, both of weight 50, an epoch reads 500
of each: 500 / 900 = 0.56 passes over web and 500 / 100 = 5 over books. After more than four passes
a text teaches little (arXiv:2305.16264). extras/mixture.py is how train.py reads them.
"""
import math, re
from configurator import require


def check(config, set_by):
    """Refuse sources and settings that don't fit together."""
    sources = config['sources']
    if sources is not None:
        require('source' not in set_by, f'source={config["source"]} beside sources={[*sources]}: '
                'leave one of them out')
        require(sources, f'{sources=} must name a source')
    for name, value in (sources or {}).items():
        is_pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)
        require(isinstance(name, str) and re.fullmatch(r'[\w.-]+', name) and is_pair and (
            value[1] is None or type(value[1]) in (int, float) and 0 < value[1] < math.inf),
            f"sources[{name!r}]={value!r} must look like 'name': ('path', weight), with a name for "
            'a file (letters, digits, _ . -) and a positive weight or None')
    weights = [weight for _, weight in (sources or {}).values()]
    require(len({weight is None for weight in weights}) <= 1,
            f'{sources=} must give a weight to all sources, or to none')
    mixing = config['temperature'] != 1, any(weights)
    require(sum(mixing) < 2, '--temperature is for sources without weights')
    require(not any(mixing) or config['kind'] == 'text' and config['write'] == 'bins',
            'weights and --temperature need --kind=text and --write=bins')


def passes_of(n_tokens, weights):
    """Return how many passes an epoch makes over each source. n_tokens, weights: {name: number}."""
    epoch = sum(n_tokens.values()) / sum(weights.values())      # tokens that a weight of 1 reads
    return {name: round(weights[name] * epoch / n, 6) for name, n in n_tokens.items()}


def add_passes(about, sources, temperature, sizes):
    """Add the weight of each source, and the passes that follow from it, to what is known of it.
    sources: {name: (path, weight or None)}. Without weights, a temperature of 2 makes weights of
    the roots of sizes. sizes: what each bin holds, {'val_web': {'tokens': 900, ...}, ...}."""
    for name in about:
        if sizes[f'val_{name}']['tokens'] <= 256:
            print(f'{name} is too short to be measured: val_{name}.bin has fewer than 257 tokens')
    n_tokens = {name: values['tokens'] for name, values in about.items()}
    weights = {name: sources[name][1] or n ** (1 / temperature) for name, n in n_tokens.items()}
    for name, passes in passes_of(n_tokens, weights).items():
        about[name] |= {'weight': weights[name], 'passes': passes}
        if passes > 4:
            about[name]['note'] = 'more than 4 passes add little'
    if len({round(values['passes'], 3) for values in about.values()}) > 1:
        print('train.bin alone is unweighted; train.py reads each source as often as meta.json '
              'says')
