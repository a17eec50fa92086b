"""sft.py --replay: base text in every step, all of it trained, whatever the number of processes."""
import json

import numpy as np
import pytest
from conftest import metrics, mistake, ok, run
from test_sft_data import TOKENIZER
from test_sft_mistakes import FLAGS, make_base, sft, sums, write

from model import load_checkpoint


@pytest.fixture(scope='module')
def start(tmp_path_factory):
    """Flags of a run that starts from an untrained model, with text of the base beside the conversations."""
    folder = tmp_path_factory.mktemp('replay')
    data, base = write(folder / 'data', sums(60, 1), sums(20, 2)), make_base(folder / 'base')
    ids = np.array(TOKENIZER.encode('Is it so? yo.\n' * 300), dtype=np.uint16)
    for side in ('train', 'val'):
        ids.tofile(data / f'{side}.bin')
    tokens = {'train': len(ids), 'val': len(ids)}
    meta = {'dtype': 'uint16', 'tokens': tokens, 'tokenizer_hash': TOKENIZER.hash}
    (data / 'meta.json').write_text(json.dumps(meta), encoding='utf-8')
    return [*FLAGS.split(), f'--init_from={base}', f'--data_dir={data}', f'--base_dir={data}']


def test_with_replay_the_base_text_is_learned_beside_the_answers(start, tmp_path):
    found = {}
    for replay in (0, 2):
        ok(sft(*start, f'--out_dir={tmp_path}/{replay}', f'--replay={replay}'))
        found[replay] = [row for row in metrics(tmp_path / str(replay)) if 'val_loss' in row]
    assert found[2][-1]['base_bpb'] < found[0][-1]['base_bpb'] - 0.5
    assert found[2][-1]['val_loss'] < found[2][0]['val_loss'] - 1       # the answers are learned, too
    a, b = ([row['trained'] for row in metrics(tmp_path / run) if 'trained' in row] for run in '02')
    assert [y - x for x, y in zip(a, b)] == [2 * 128] * len(a)      # every token of two sequences counts


def test_processes_and_accumulation_change_nothing_and_a_resumed_run_is_the_straight_run(start, tmp_path):
    flags = [*start, '--replay=2', '--dropout=0', '--max_steps=9']
    ok(sft(*flags, f'--out_dir={tmp_path}/1'))
    ok(sft(*flags, f'--out_dir={tmp_path}/4', '--micro_batch_size=2'))
    ok(run('sft.py', *flags, f'--out_dir={tmp_path}/2', '--micro_batch_size=2', processes=2))
    one, *others = (load_checkpoint(tmp_path / n / 'last.pt')[0].state_dict() for n in '142')
    assert max((one[k] - other[k]).abs().max() for other in others for k in one) < 1e-5
    ok(sft(*flags, f'--out_dir={tmp_path}/r'))
    (tmp_path / 'r/last.pt').unlink()                               # the one before: step 5
    ok(sft(*flags, f'--out_dir={tmp_path}/r', '--init_from=resume'))
    again = load_checkpoint(tmp_path / 'r/last.pt')[0].state_dict()
    assert all((again[k] == one[k]).all() for k in one)


def test_replay_needs_a_base_and_a_share_for_each_process(start, tmp_path):
    mistake(sft(*start[:-1], f'--out_dir={tmp_path}/a', '--replay=2'), 'replay=2', '--base_dir')
    mistake(run('sft.py', *start, f'--out_dir={tmp_path}/a', '--replay=-1'), 'replay=-1')
