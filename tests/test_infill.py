"""bench/infill.py: who knows the middles passes, who does not fails, and the control sees less."""
import json
import sys

import pytest
from conftest import ROOT

from model import GPT, GPTConfig, save_checkpoint
from tokenizer import SPECIAL_TOKENS, Tokenizer

sys.path.insert(0, str(ROOT / 'bench'))
import infill                                                                                   # noqa: E402

PROBLEM = {'prompt': 'def f{i}(x):\n    """Twice, and {i}."""\n',
           'canonical_solution': '    y = 2 * x\n    return y + {i}\n',
           'test': 'def check(f):\n    assert f(3) == 6 + {i} and f(4) == 8 + {i}\n', 'entry_point': 'f{i}'}


@pytest.fixture
def arguments(tmp_path):
    tokenizer = Tokenizer.byte(SPECIAL_TOKENS)
    tokenizer.save(tmp_path / 'tokenizer.json')
    model = GPT(GPTConfig(tokenizer.vocab_size, 256, 1, 2, 0, 16))
    save_checkpoint(tmp_path / 'best.pt', model, tokenizer_hash=tokenizer.hash, config={'fim': 0.5})
    with open(tmp_path / 'problems.jsonl', 'w', encoding='utf-8') as f:
        for i in range(3):
            f.write(json.dumps({key: text.replace('{i}', str(i)) for key, text in PROBLEM.items()}) + '\n')
    return [f'--ckpt={tmp_path}', f'--data={tmp_path}/problems.jsonl', '--allow_code_execution=True']


def test_true_middles_pass_and_wrong_ones_fail(arguments, tmp_path, monkeypatch, capsys):
    """The model is replaced by one that knows all when it is shown both sides, and nothing otherwise."""
    known = {}
    choose = infill.choose_gaps

    def remember(*a):
        gaps = choose(*a)
        known['middles'] = [middle for _, _, middle, _ in gaps]
        return gaps

    def generate(model, tokenizer, prompts, *a, **more):
        known.setdefault('asked', []).append(prompts)
        both = not isinstance(prompts[0], str)
        return [[(middle if both else '0\n  # and on', both)] for middle in known['middles']], 0

    monkeypatch.setattr(infill, 'choose_gaps', remember)
    monkeypatch.setattr(infill.asking, 'generate', generate)
    monkeypatch.setattr(sys, 'argv', ['infill.py', *arguments])
    infill.main()
    with open(tmp_path / 'infill.json', encoding='utf-8') as f:
        results = json.load(f)['results']
    assert len(results) == 6 and 'random-span, left to right' in capsys.readouterr().out
    for name, row in results.items():
        right = 'fill' in name
        assert row['n'] == 3 and row['exact'] == row['passed'] == right == row['ended'], name
        low, high = row['interval']
        assert (low, high) == tuple(row['passed_interval']) and high - low > 0.4
    for fill, control in zip(known['asked'][::2], known['asked'][1::2]):
        assert all(isinstance(prompt, str) and prompt.startswith('def f') for prompt in control)
        assert all(258 < max(prompt.ids) for prompt in fill)            # its marks


def test_the_control_is_cut_to_the_length_of_the_middle():
    assert infill.shorten('a\nb\nc', 'x', 'single-line') == 'a'
    assert infill.shorten('a\nb\nc', 'x\ny', 'multi-line') == 'a\nb'
    assert infill.shorten('abcdef', 'xyz', 'random-span') == 'abc'


def test_held_out_functions_come_from_the_validation_split(data_dir):
    tokenizer = Tokenizer.load(data_dir / 'tokenizer.json')
    items = infill.read(str(data_dir), tokenizer)
    assert len(items) > 10 and all(item['text'].lstrip().startswith('def ') for item in items)
    held_out = tokenizer.decode(infill.np.fromfile(data_dir / 'val.bin', 'uint16').tolist())
    assert all(item['text'] in held_out for item in items)
    for kind in infill.KINDS:
        gaps = infill.choose_gaps(items, kind, 8, 0)
        assert len(gaps) == 8 and gaps == infill.choose_gaps(items, kind, 8, 0)
        assert all(parts[1] and ''.join(parts) == item['text'] for item, *parts in gaps)


def test_a_model_without_fim_is_refused(arguments, tmp_path, monkeypatch, capsys):
    save_checkpoint(tmp_path / 'best.pt', GPT(GPTConfig(320, 16, 1, 2, 0, 16)), config={})
    monkeypatch.setattr(sys, 'argv', ['infill.py', *arguments])
    with pytest.raises(SystemExit) as left:
        infill.main()
    assert left.value.code == 2 and 'was not trained with --fim=0.5' in capsys.readouterr().err
