"""
New text, and three ways to a model of it at equal compute: from scratch, continued pretraining (a re-warmed
rate, a fifth of the tokens old), fine-tuning (a tenth of the rate, the new text alone). Bits per byte on
held-out text, new and old, show the gain and the forgetting.

    bash run.sh                                         # the base model, out/quickstart
    python bench/three_arms.py FOLDER_OF_NEW_TEXT [STEPS]
"""
import json
import os
import subprocess
import sys

BASE, OLD, NEW = 'out/quickstart', 'data/quickstart', 'data/three_arms'


def call(*command):
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def bits(ckpt, data):
    call('eval.py', f'--ckpt={ckpt}', f'--data_dir={data}', '--random_init=False', '--out=out/arms.json',
         '--loss_tokens=40_000')
    with open('out/arms.json', encoding='utf-8') as f:
        return json.load(f)['tasks']['loss']['trained']['bits_per_byte']


if __name__ == '__main__':
    source, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    if not os.path.exists(f'{NEW}/meta.json'):
        call('prepare.py', f'--source={source}', f'--out_dir={NEW}', f'--tokenizer={BASE}/tokenizer.json')
    common = ['train.py', 'config/quickstart.py', '--optimizer=adamw', f'--data_dir={NEW}',
              f'--max_steps={steps}', '--overwrite=True', f'--eval_interval={steps}',
              f'--save_interval={steps}']
    arms = {'scratch': ['--learning_rate=1.5e-3'],
            'continued': [f'--init_from={BASE}', f'--replay_dir={OLD}', '--replay=0.2',
                          '--learning_rate=1e-3'],
            'fine-tuned': [f'--init_from={BASE}', '--learning_rate=1.5e-4']}
    print(f'| {steps} steps | bits per byte, new text | old text |\n|---|---|---|')
    print(f'| the base model | {bits(BASE, NEW):.3f} | {bits(BASE, OLD):.3f} |')
    for arm, flags in arms.items():
        out = f'out/arm_{arm}'
        call(*common, f'--out_dir={out}', *flags)
        print(f'| {arm} | {bits(out, NEW):.3f} | {bits(out, OLD):.3f} |', flush=True)
