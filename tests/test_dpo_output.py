"""What dpo.py shows and leaves behind, and which folders it does not touch."""
import json
import shutil

import pytest
import torch
from conftest import mistake, ok, run
from test_dpo_log_probs import TOKENIZER, pair
from test_dpo_mistakes import contents, dpo, make_pairs, make_sft, write

from model import GPT, load_checkpoint
from tokenizer import SPECIAL_TOKENS, Tokenizer


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp('dpo')
    make_sft(folder / 'sft')
    make_pairs(folder / 'pairs')
    return folder


@pytest.fixture(scope='module')
def finished(home):
    ok(dpo(home, '--max_steps=4', out='finished'))
    return home / 'finished'


def test_show_batch_marks_the_answers_and_im_end(home, tmp_path):
    said = ok(dpo(home, '--show_batch=3', out=tmp_path / 'none'))
    records = list(map(json.loads, open(home / 'pairs/train.jsonl', encoding='utf-8')))
    wanted = {f'{TOKENIZER.decode(prompt)}[[{TOKENIZER.decode(answer[:-1])}]]'
              for r in records for prompt, answer in pair(r['prompt'], r['chosen'], r['rejected'])}
    shown = said.split('--- step 3, pair ')[1:]
    assert len(shown) == 16 and not (tmp_path / 'none').exists() and '<|im_end|>]]' in shown[0]
    assert {text.split('\n', 1)[1].strip('\n') for text in shown} <= wanted


def test_what_a_run_leaves_is_complete(home, tmp_path):
    for kind in ('dpo', 'rm'):
        out = tmp_path / kind
        ok(dpo(home, f'--loss_type={kind}', out=f'{out}/'))
        ok(dpo(home, f'--loss_type={kind}', '--max_steps=13', init='resume', out=f'{out}/'))
        names = {'last.pt', 'last-1.pt', 'best.pt', 'tokenizer.json', 'data.json', 'config.json',
                 'train.log', 'metrics.jsonl'}
        assert {p.name for p in out.iterdir()} == names | ({'samples.txt'} if kind == 'dpo' else set())
        loaded, rest = load_checkpoint(out)
        assert isinstance(loaded, GPT) and not any('reward' in k for k in loaded.state_dict())
        assert rest['tokenizer_hash'] == TOKENIZER.hash and rest['config']['stage'] == 'dpo'
        assert rest['pairs'] == load_checkpoint(out / 'last.pt')[1]['pairs']        # the card compares it
        assert kind == 'dpo' or (rest['reward_head'].shape == (1, 32) and rest['reward_head'].any())
    assert '<|im_start|>assistant' in (tmp_path / 'dpo/samples.txt').read_text(encoding='utf-8')
    assert '-' * 80 in ok(run('sample.py', f'--ckpt={tmp_path}/dpo', '--prompt=a', '--max_new_tokens=4'))


def test_a_thumb_for_a_prompt_as_long_as_the_context_is_no_accident(home, tmp_path):
    shutil.copytree(home / 'sft', tmp_path / 'sft')
    for side in ('train', 'val'):
        write(tmp_path / f'pairs/{side}.jsonl',
              [{'prompt': 'x' * 200, 'completion': 'ab', 'label': i % 2 == 1} for i in range(8)])
    assert 'cut to 96 tokens: 8' in ok(dpo(tmp_path, '--loss_type=kto', '--max_steps=2'))


def test_equal_answers_are_counted_and_left_out(home, tmp_path):
    shutil.copytree(home / 'sft', tmp_path / 'sft')
    make_pairs(tmp_path / 'pairs', n=8)
    with open(tmp_path / 'pairs/train.jsonl', 'a', encoding='utf-8') as f:
        f.write(json.dumps({'prompt': 'q', 'chosen': 'same', 'rejected': 'same'}) + '\n')
    said = ok(dpo(tmp_path, '--max_steps=1'))
    assert '8 pairs, 32 held out; the same answer twice: 1' in said and 'cut to 96 tokens: 0' in said


def test_a_folder_with_a_run_is_not_written_over(home, finished):
    before = contents(finished)
    mistake(dpo(home, out='finished'), 'already holds a run', '--init_from=resume', '--overwrite=True')
    assert contents(finished) == before
    before = contents(home / 'sft')     # neither is the model that it all starts from
    mistake(dpo(home, '--overwrite=True', out='sft'), 'starts from')
    assert contents(home / 'sft') == before


def test_a_run_goes_on_with_its_own_pairs_and_loss_or_not_at_all(home, finished):
    make_pairs(home / 'others', n=40)
    before, others = contents(finished), contents(home / 'others')
    mistake(dpo(home, init='resume', out='finished', data='others'), 'others=[', '--init_from=')
    mistake(dpo(home, '--loss_type=simpo', init='resume', out='finished'), "loss_type='dpo'", 'simpo')
    assert contents(finished) == before and contents(home / 'others') == others
    make_sft(home / 'was_sft')
    shutil.copy(home / 'was_sft/best.pt', home / 'was_sft/last.pt')
    mistake(dpo(home, init='resume', out='was_sft'), 'pairs=None')
    mistake(dpo(home, init='resume', out='nothing'), 'last.pt does not exist')


def test_files_that_cannot_be_used(home, tmp_path):
    for name in ('sft', 'pairs'):
        shutil.copytree(home / name, tmp_path / name)
    (tmp_path / 'pairs/val.jsonl').write_bytes(b'\xff\xfe\n')
    mistake(dpo(tmp_path), 'val.jsonl, line 1', 'utf-8')
    write(tmp_path / 'pairs/val.jsonl', [{'prompt': 'q', 'chosen': 'a', 'rejected': 'a'}])
    mistake(dpo(tmp_path), 'val.jsonl', 'no pair of two different answers')
    (tmp_path / 'pairs/val.jsonl').unlink()
    mistake(dpo(tmp_path), 'val.jsonl', 'does not exist')
    make_sft(tmp_path / 'plain', special=())
    mistake(dpo(tmp_path, init='plain'), '<|im_start|>')
    state = torch.load(make_sft(tmp_path / 'judge') / 'best.pt', weights_only=True)
    torch.save(state | {'reward_head': torch.zeros(1, 32)}, tmp_path / 'judge/best.pt')
    mistake(dpo(tmp_path, init='judge'), 'judge', 'is a reward model')
    make_sft(tmp_path / 'mlm', causal=False)
    mistake(dpo(tmp_path, init='mlm'), 'cannot answer')
    Tokenizer.byte(SPECIAL_TOKENS[:9]).save(tmp_path / 'sft/tokenizer.json')
    mistake(dpo(tmp_path), 'was made with the tokenizer')
    assert not (tmp_path / 'out').exists()
