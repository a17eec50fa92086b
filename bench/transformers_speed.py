"""
Training steps, and greedy generation with a cache, beside transformers' Llama of the same shape, dtype and
threads: tokens a second, and ratios of seconds and of CPU seconds.

    pip install -r bench/requirements.txt
    python bench/transformers_speed.py train            # all shapes, or those that are named
    python bench/transformers_speed.py generate nano

bfloat16 is measured where the processor has it. Elsewhere torch emulates it: a step of nano takes 10 seconds.
"""
import json
import os
import sys
import time

from peers import in_turn, median, ours_over, timed
from gpu_calls import choose, work_of
from model import GPTConfig

SHAPES = {'shakespeare_cpu': GPTConfig(65, 64, 4, 4, 0, 128, tie_embeddings=False),
          'quickstart': GPTConfig(4096, 256, 4, 4, 0, 256, tie_embeddings=False),
          'nano': GPTConfig(256, 512, 6, 8, 0, 256, 768), 'small': GPTConfig(32768, 1024, 12, 12, 0, 768)}
BATCHES = {'train': {'shakespeare_cpu': [12], 'quickstart': [8], 'nano': [2]},
           'generate': {name: [1, 16] for name in ('quickstart', 'nano', 'small')}}
ROUNDS = int(os.environ.get('ROUNDS', 3))
REPEATS = {'train': int(os.environ.get('STEPS', 10)), 'generate': 1}
NEW = int(os.environ.get('NEW', 128))


def measure(what, shape, who, dtype, batch):
    work, n_tokens = work_of(what, who, SHAPES[shape], 'cpu', int(batch), dtype, new=NEW)
    work()
    began = time.process_time()
    seconds = median([timed(work)[0] for _ in range(REPEATS[what])])
    cpu = (time.process_time() - began) / REPEATS[what]
    return {'seconds': seconds, 'cpu': cpu, 'rate': n_tokens / seconds}


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    if ':' in ''.join(sys.argv[1:]):
        print(json.dumps(measure(*sys.argv[1].split(':'))))
        sys.exit()
    if sys.argv[1:2] not in (['train'], ['generate']) or set(sys.argv[2:]) - BATCHES[sys.argv[1]].keys():
        sys.exit(print(__doc__) or 2)
    what, *shapes = sys.argv[1:]
    print(f'{"batch":>22}{"":>10}{"ours tok/s":>12}{"transformers":>14}{"ratio":>8}{"of CPU":>8}')
    for shape in shapes or BATCHES[what]:
        for batch in BATCHES[what][shape]:
            for dtype in dict.fromkeys(['float32', choose('cpu')[1]]):
                names = [f'{what}:{shape}:{who}:{dtype}:{batch}' for who in ('ours', 'theirs')]
                rows_of = in_turn(names, ROUNDS, __file__)
                if len(rows_of) < 2:
                    sys.exit(2)             # one of them failed, and a line above says why
                ours, theirs = rows_of.values()
                rates = [median([row['rate'] for row in rows]) for rows in (ours, theirs)]
                ratios = [1 / ours_over(ours, theirs, key) for key in ('seconds', 'cpu')]
                print(f'{shape:>16}{batch:>6}{dtype:>10}{rates[0]:>12,.0f}{rates[1]:>14,.0f}{ratios[0]:>8.2f}'
                      f'{ratios[1]:>8.2f}', flush=True)
