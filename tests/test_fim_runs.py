"""train.py --fim and sample.py --suffix: runs that resume, batches that show, gaps that are filled."""
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, metrics, mistake, ok, run

from parts.prepare import fim
from parts.sample import asking
from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from tokenizer import SPECIAL_TOKENS, Tokenizer

DOCUMENT = 'def größe(x):\n    return x + 1  # grey or green\n'
FIM = ['--fim=0.5', '--dropout=0.1']


@pytest.fixture(scope='module')
def straight(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp('fim')
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={out}', *TINY, *FIM))
    return out


def test_a_run_that_was_killed_resumes_as_the_straight_run(data_dir, straight, tmp_path):
    flags = [f'--data_dir={data_dir}', f'--out_dir={tmp_path}', *TINY, *FIM]
    assert run('train.py', *flags, '--inject=kill@9', fresh=True).returncode
    assert load_checkpoint(tmp_path / 'last.pt')[1]['step'] == 8
    ok(run('train.py', *flags, '--init_from=resume'))
    steps = lambda out: {m['step']: m['loss'] for m in metrics(out) if 'loss' in m}
    assert steps(tmp_path) == steps(straight)
    a, b = (load_checkpoint(out / 'last.pt')[0].state_dict() for out in (tmp_path, straight))
    assert all((a[k] == b[k]).all() for k in a)


def test_it_changes_training_and_not_what_is_evaluated(data_dir, straight, tmp_path):
    ok(run('train.py', f'--data_dir={data_dir}', f'--out_dir={tmp_path}', *TINY, '--dropout=0.1'))
    with_fim, without = metrics(straight), metrics(tmp_path)
    assert with_fim[0]['val_loss'] == without[0]['val_loss']            # before the first step
    assert with_fim[1]['loss'] != without[1]['loss']
    assert abs(with_fim[-1]['val_loss'] - without[-1]['val_loss']) < 0.5


def test_a_batch_can_be_looked_at(data_dir, tmp_path):
    flags = f'--data_dir={data_dir}', f'--out_dir={tmp_path}/x', *TINY, '--show_batch=3'
    shown = {share: ok(run('train.py', *flags, f'--fim={share}')).split('--- step 3')[1:]
             for share in (0.0, 0.5, 1.0)}
    marked = {share: [text.count('<|fim_middle|>') > 0 for text in texts] for share, texts in shown.items()}
    assert len(shown[0.5]) == 8 and not any(marked[0.0]) and sum(marked[1.0]) >= 7
    assert 0 < sum(marked[0.5]) < 8
    assert [a for a, b in zip(shown[0.5], shown[0.0]) if '<|fim' not in a] == \
        [b for a, b in zip(shown[0.5], shown[0.0]) if '<|fim' not in a]             # the others stay


def test_a_stream_is_rearranged_too(data_dir, python_files, tmp_path):
    with open(tmp_path / 'a.jsonl', 'w', encoding='utf-8') as f:
        for path in sorted(python_files.glob('json/*')):
            f.write(json.dumps({'text': path.read_text(encoding='utf-8')}) + '\n')
    flags = [f'--data_dir={data_dir}', f'--streaming={tmp_path}/*.jsonl', *TINY]
    for share in ('0', '0.5', '0.5'):
        ok(run('train.py', *flags, f'--fim={share}', f'--out_dir={tmp_path}/{share}', '--overwrite=True'))
        shutil.copytree(tmp_path / share, tmp_path / f'{share}_before', dirs_exist_ok=True)
    first = [metrics(tmp_path / out)[1]['loss'] for out in ('0', '0.5', '0.5_before')]
    assert first[0] != first[1] == first[2]


def test_what_cannot_be_is_one_sentence(data_dir, straight, tmp_path):
    (tmp_path / 'one.txt').write_text('to be or not to be\n' * 200, encoding='utf-8')
    ok(run('prepare.py', f'--source={tmp_path}/one.txt', '--tokenizer=byte', f'--out_dir={tmp_path}/data'))
    flags = f'--out_dir={tmp_path}/run', *TINY
    mistake(run('train.py', f'--data_dir={tmp_path}/data', *flags, '--fim=0.5'), 'fim=0.5', '<|fim_prefix|>')
    mistake(run('train.py', f'--data_dir={data_dir}', *flags, '--fim=0.5', '--objective=mlm'), 'clm', 'mlm')
    mistake(run('train.py', f'--data_dir={data_dir}', *flags, '--fim=1.5'), 'fim', '[0, 1]')
    asked = f'--ckpt={straight}', '--prompt=a', '--suffix=b'
    mistake(run('sample.py', *asked, '--chat=True'), "suffix='b'")
    mistake(run('sample.py', *asked, '--sweep=0,1'), '--prompt')


@pytest.fixture(scope='module')
def filler(tmp_path_factory):
    """A tiny model that knows 12 rearrangements of one document by heart, and these."""
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    it = fim.Infilling(1, 'clm', tokenizer, 0)
    ids = np.array([tokenizer.encode(DOCUMENT) + tokenizer.begin] * 12)
    x, y = it.apply(ids[:, :-1], ids[:, 1:], 0, range(12))
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 128, 2, 2, 2, 64, 128))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.99), weight_decay=0)
    for _ in range(100):
        model(torch.from_numpy(x.copy()), torch.from_numpy(y.copy()))[1].backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp('filler')
    tokenizer.save(folder / 'tokenizer.json')
    save_checkpoint(folder / 'best.pt', model, tokenizer_hash=tokenizer.hash, config={'fim': 1.0})
    gaps = []
    for row in np.concatenate([x, y[:, -1:]], axis=1).tolist():
        a, b = row.index(it.marks[1]), row.index(it.marks[2])
        if a > 1:                               # PSM
            gaps.append([tokenizer.decode(part) for part in (row[1:a], row[b + 1:-1], row[a + 1:b])])
    return model.eval(), tokenizer, gaps, folder


def test_a_model_that_knows_a_document_fills_its_middle_and_stops(filler):
    model, tokenizer, gaps, _ = filler
    assert len(gaps) >= 3 and len({prefix for prefix, _, _ in gaps}) == len(gaps)
    for prefix, middle, suffix in gaps:
        prompt, most = asking.between(tokenizer, prefix, suffix, 128, 200)
        assert most == 32 and len(prompt.ids) + most <= 128
        [[answer]], _ = asking.generate(model, tokenizer, [prompt], 1, most, temperature=0.0)
        assert answer == (middle, True)
        [[control]], _ = asking.generate(model, tokenizer, [prefix], 1, most, temperature=0.0)
        assert control != (middle, True)        # nothing tells it where to stop


def test_sample_prints_the_whole_with_the_middle(filler):
    _, _, gaps, folder = filler
    prefix, middle, suffix = gaps[0]
    flags = f'--ckpt={folder}', f'--prompt={prefix}', '--temperature=0', '--device=cpu'
    line = '-' * 80
    said = ok(run('sample.py', *flags, f'--suffix={suffix}'))
    assert f'{line}\n{prefix}{middle}{suffix}\n{line}\n' in said
    said = ok(run('sample.py', *flags, f'--suffix={suffix}', '--num_samples=2'))
    assert said.count(f'{prefix}{middle}{suffix}\n{line}\n') == 2
    state = torch.load(folder / 'best.pt', weights_only=True)
    torch.save(state | {'config': {}}, folder / 'plain.pt')
    refused = run('sample.py', f'--ckpt={folder}/plain.pt', *flags[1:], f'--suffix={suffix}')
    mistake(refused, '--fim', '--suffix')


def test_a_question_that_is_too_long_loses_its_far_ends():
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    for before, after in ((10, 90), (90, 10), (90, 90), (0, 90), (30, 30)):
        text = ''.join(map(chr, range(33, 123)))
        prompt, most = asking.between(tokenizer, text[:before], text[:after], 100, 20)
        begin, suffix, middle = (prompt.ids.index(tokenizer.special[f'<|fim_{name}|>'])
                                 for name in ('prefix', 'suffix', 'middle'))
        assert len(prompt.ids) <= 80 and most == 20 and begin == 0 and middle == len(prompt.ids) - 1
        kept = [tokenizer.decode(prompt.ids[1:suffix]), tokenizer.decode(prompt.ids[suffix + 1:middle])]
        assert text[:before].endswith(kept[0]) and text[:after].startswith(kept[1])
        assert len(prompt.ids) == min(80, before + after + 3)
        assert min(map(len, kept)) >= min(before, after, 38)
