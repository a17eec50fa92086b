"""sample.py --export=hf leaves a folder that transformers loads with nothing of ours, and its README.md says
what the run's own files say."""
import json
import random

import pytest
import torch
from conftest import mistake, ok, run

from model import GPT, GPTConfig, load_checkpoint, save_checkpoint
from tokenizer import Tokenizer

transformers = pytest.importorskip('transformers')
pytest.importorskip('safetensors')
SOURCE = open(__file__, encoding='utf-8').read()
PIECES = [' ', '    ', '\n', '\r\n', '\t', '\n\n        ', 'def f', '):\n    ', "'s", "'LL", '12345', '_x',
          'é', '漢字', '🙂', 'ﬁ', 'ſ', 'İ', 'ا', 'e\u0301', '३', 'Ⅷ', '\xa0', '\u2003', '\u2028', '\u200d',
          '((', '\ufeff', '\0', '\x1c', '\x85', '\r', '<|endoftext|>', '<|im_end|>', '<|im_start|>', '-->']
EVAL = {'step': 6, 'decontaminated': None, 'tasks': {
    'loss': {'trained': {'bits_per_byte': 1.5, 'bytes': 9}, 'untrained': {'bits_per_byte': 2.75, 'bytes': 9}},
    'problems': {'n': 120, 'pass@1': 0.336, 'interval': [0.26, 0.41],
                 'by_split': {'family': {'n': 40, 'pass@1': 0.02, 'interval': [0.0, 0.05]}}}}}
DATA = {'sources': {'stdlib': {'documents': 569, 'tokens': 2331849, 'licences': {'psf': 731}}},
        'sha256': {'train': 'ab' * 32, 'val': 'cd' * 32}, 'config': {'dedup': 'minhash', 'pii': True}}


def texts(n):
    """A third from the pieces above, a third of any characters there are, a third cut from this file."""
    dice = random.Random(0)
    planes = [(32, 127), (160, 0xd800), (0xe000, 0x10000), (0x10000, 0x11000), (0x1f300, 0x1fa00)]
    any_one = lambda: chr(dice.randrange(*dice.choice(planes)))
    of = [lambda: dice.choice(PIECES), any_one, lambda: SOURCE[(a := dice.randrange(len(SOURCE))):a + 9]]
    return [''.join(of[i % 3]() for _ in range(dice.randint(1, 20))) for i in range(n)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A run on conversations with all its files, exported by the command."""
    folder = tmp_path_factory.mktemp('runs')
    (folder / 'sft').mkdir()
    (folder / 'data').mkdir()
    tokenizer = Tokenizer.train([SOURCE, ''.join(PIECES) * 9], 800)
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 2, 4, 2, 32, vocab_multiple=64))
    config = {'init_from': 'out/base', 'stage': 'sft', 'data_dir': f'{folder}/data', 'seed': 5}
    save_checkpoint(folder / 'sft/best.pt', model, tokenizer_hash=tokenizer.hash, config=config, step=7)
    tokenizer.save(folder / 'sft/tokenizer.json')
    for name, content in {'eval': EVAL, 'data': DATA}.items():
        (folder / f'sft/{name}.json').write_text(json.dumps(content))
    (folder / 'data/report.md').write_text('# data\n\n| stage | dropped |\n|---|---|\n| rules | short: 45 |')
    assert 'AutoTokenizer' in ok(run('sample.py', '--ckpt=sft', '--export=hf', cwd=folder))
    return folder


def test_the_ids_of_10_000_texts_are_ours(folder):
    ours, theirs = Tokenizer.load(folder / 'sft/tokenizer.json'), \
        transformers.AutoTokenizer.from_pretrained(folder / 'sft/hf')
    many = texts(10_000)
    fast = theirs.backend_tokenizer
    fast.encode_special_tokens = True
    found = [e.ids for e in fast.encode_batch(many)]
    assert theirs(many[:99], split_special_tokens=True)['input_ids'] == found[:99]
    assert found == [ours.begin + ids for ids in ours.encode_batch(many)]
    assert len({id for ids in found for id in ids}) > 500
    assert theirs.special_tokens_map['eos_token'] == '<|endoftext|>'
    assert json.loads((folder / 'sft/hf/special_tokens_map.json').read_text())['pad_token'] == '<|pad|>'


def test_a_chat_is_rendered_to_our_ids_unless_a_message_begins_with_a_blank(folder):
    ours, theirs = Tokenizer.load(folder / 'sft/tokenizer.json'), \
        transformers.AutoTokenizer.from_pretrained(folder / 'sft/hf')
    asked = ['Write mean(values).', 'Complete:\ndef f(x):\n    """Do."""', '漢字\n\n', '12', '', '</s>', "'s"]
    for text in asked + [t for t in texts(2000) if t[0].strip() and '<|' not in t]:
        chat = [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': text}]
        found = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert found == ours.render(chat, True)[0], text
    chat = [{'role': 'user', 'content': '  indented'}]
    assert theirs.apply_chat_template(chat, return_dict=False) != ours.render(chat)[0]      # docs say so


def test_the_model_generates_what_ours_does(folder):
    model, _ = load_checkpoint(folder / 'sft')
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / 'sft/hf')
    idx = torch.tensor([[5, 70, 300]])
    assert theirs.generation_config.eos_token_id == Tokenizer.load(folder / 'sft/tokenizer.json').stop
    theirs.generation_config.eos_token_id = None
    found = theirs.generate(idx, max_new_tokens=30, do_sample=False)
    assert torch.equal(found, model.generate(idx, 30, temperature=0))


def test_the_card_says_what_the_files_say_and_they_lie_beside_it(folder):
    card = (folder / 'sft/hf/README.md').read_text(encoding='utf-8')
    for words in (
            "stdlib: {'psf': 731}", "init_from = 'out/base'", 'seed = 5', 'apply_chat_template',
            'license: other',
            'problems: pass@1 0.336, 95 % interval 0.260 to 0.410, n = 120',
            'problems by_split family: pass@1 0.020, 95 % interval 0.000 to 0.050, n = 40',
            'loss trained: bits_per_byte 1.500', 'loss untrained: bits_per_byte 2.750',
            'The scores of eval.json are of step 6, these weights of step 7'):
        assert words in card, (words, card)
    assert json.loads((folder / 'sft/hf/data.json').read_text(encoding='utf-8')) == DATA
    assert 'short: 45' in (folder / 'sft/hf/report.md').read_text(encoding='utf-8')


def test_a_full_disk_and_a_broken_file_are_one_sentence_and_leave_the_folder_as_it_was(folder, tmp_path):
    for name in ('best.pt', 'tokenizer.json'):
        (tmp_path / name).write_bytes((folder / 'sft' / name).read_bytes())
    (tmp_path / 'hf').mkdir()
    (tmp_path / 'hf/mine.txt').write_text('kept')
    full = 'import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); ' \
           'resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))'
    mistake(run('sample.py', f'--ckpt={tmp_path}', '--export=hf', before=full), 'cannot write', 'unchanged')
    (tmp_path / 'eval.json').write_text('{"tasks')
    mistake(run('sample.py', f'--ckpt={tmp_path}', '--export=hf'), 'eval.json is not as our scripts', 'JSON')
    assert [p.name for p in (tmp_path / 'hf').iterdir()] == ['mine.txt']
    assert not (tmp_path / 'hf.tmp').exists()
