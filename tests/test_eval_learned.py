"""What a checkpoint has learned, at four levels: by hand, and of a model that knows its text by heart."""
import json

import pytest
from conftest import mistake, ok, run
from preparing import RAW

from model import load_checkpoint, save_checkpoint
from parts.train.texts import levels

BEGINNINGS = {'First', 'Speak', '    return', 'def', '#'}


def test_characters_and_words_by_hand():
    """Of 15 characters, 3 are white space and one is a sign; the last word may be cut."""
    row = levels(['Speak, we\nza za'], {'Speak', 'we'}, BEGINNINGS)
    assert row['space'] == pytest.approx(3 / 15) and row['punctuation'] == pytest.approx(1 / 15)
    assert row['words'] == pytest.approx(2 / 3) and row['lines'] == 1         # of Speak, we, za; of Speak
    assert row['speeches'] is None and row['python'] is None
    assert set(levels([''], set(), set()).values()) == {None}


def test_lines_begin_well_by_indentation_and_first_word():
    assert levels(['def f(x):\n    return x\n.'], set(), BEGINNINGS)['lines'] == 1
    assert levels(['def f(x):\n   return x\n\n \n#x\n.'], set(), BEGINNINGS)['lines'] == 2 / 3
    assert levels(['deft\n  return\nFirst of\n.'], set(), BEGINNINGS)['lines'] == 1 / 3


@pytest.mark.parametrize('text, speeches, python', [
    ('First Citizen:\nSpeak.\n\nAll:\nNo.\n\nA:\ncut o', 1, 0), ('all:\nSpeak.\n\nAll No:\n\nRest', 1 / 2, 0),
    ('import os\n\n\ndef f(x):\n    y = x\n\n    return y\n\n\nx = f(', 0, 1),
    ('def f(:\n    pass\n\n\nx = 1\n\n\ny', 0, 1 / 2), ('\0\n\n1 +\n\n' + '(' * 9000 + '\n\nx', 0, 0)])
def test_blocks(text, speeches, python):
    row = levels([text], set(), set())
    assert (row['speeches'], row['python']) == (speeches, python)


PLAY = ''.join(f'{name}:\nSpeak, I say: {word} the {word} of Rome.\n\n' for _ in range(40)
               for name, word in (('First Citizen', 'king'), ('ALL', 'bread'), ('MENENIUS', 'belly')))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """data, learned and hardly: a play of characters, a model that knows it by heart, one of two steps."""
    out = tmp_path_factory.mktemp('play')
    (out / 'play.txt').write_text(PLAY, encoding='utf-8')
    ok(run('prepare.py', f'--source={out}/play.txt', f'--out_dir={out}/data', '--tokenizer=char', *RAW))
    for name, steps in ('learned', 150), ('hardly', 2):
        ok(run('train.py', f'--data_dir={out}/data', f'--out_dir={out}/{name}', '--n_layer=2', '--n_head=2',
               '--n_embd=32', '--block_size=32', '--batch_size=16', f'--max_steps={steps}',
               '--warmup_steps=1', '--sample_tokens=1', '--learning_rate=1e-2', '--eval_tokens=64',
               '--device=cpu'))
    return out


def test_a_model_that_learned_its_text_stands_between_untrained_and_corpus(folder):
    flags = ['--tasks=learned', f'--ckpt={folder}/learned,{folder}/hardly', f'--data_dir={folder}/data',
             '--device=cpu', '--max_new_tokens=150']
    results = []
    for seed in 1, 1:
        said = ok(run('eval.py', *flags, f'--seed={seed}', f'--out={folder}/eval.json'))
        results.append(json.loads((folder / 'eval.json').read_text(encoding='utf-8'))['tasks']['learned'])
    assert results[0] == results[1]
    assert list(results[0]) == [f'{folder}/learned', f'{folder}/hardly', 'untrained', 'corpus']
    learned, hardly, untrained, corpus = results[0].values()
    assert (corpus['words'], corpus['lines'], corpus['speeches'], corpus['python']) == (1, 1, 1, 0)
    assert corpus['space'] == pytest.approx(sum(c.isspace() for c in PLAY) / len(PLAY), abs=0.02)
    assert corpus['punctuation'] == pytest.approx(sum(c in ':,.' for c in PLAY) / len(PLAY), abs=0.02)
    for level in 'words', 'lines':
        assert learned[level] > 0.6 > 0.4 > max(hardly[level], untrained[level]), results
    assert learned['speeches'] > 0.6 and abs(learned['space'] - corpus['space']) < 0.05
    table = [line.split() for line in said.splitlines()]
    table = [row[0][-7:] for row in table if len(row) == 7 and row[1][:2] == '0.']
    assert table == ['learned', '/hardly', 'trained', 'corpus']


def test_checkpoints_of_different_tokenizers_do_not_stand_side_by_side(folder):
    model, more = load_checkpoint(folder / 'hardly')
    (folder / 'other').mkdir()
    save_checkpoint(folder / 'other' / 'last.pt', model, **{**more, 'tokenizer_hash': 'another'})
    mistake(run('eval.py', '--tasks=learned', '--device=cpu', f'--ckpt={folder}/hardly,{folder}/other',
                f'--data_dir={folder}/data', '--max_new_tokens=2'), 'other', 'another', 'one by one')
