"""sample.py --export=hf: a folder that transformers loads, whose README.md says what the run's files say."""
import json
import re
import shutil

import pytest
import torch
from accidents import full_disk
from conftest import contents, mistake, ok, read_json, run, save_run

from model import GPT, GPTConfig, load_checkpoint
from parts.sample import model_card
from tokenizer import Tokenizer

transformers = pytest.importorskip('transformers')
pytest.importorskip('safetensors')
SOURCE = open(__file__, encoding='utf-8').read()
EVAL = {'step': 6, 'tasks': {
    'loss': {'trained': {'bits_per_byte': 1.5}},
    'problems': {'by_split': {'family': {'n': 40, 'pass@1': 0.02, 'interval': [0.0, 0.05]}}}}}
DATA = {'sources': {'stdlib': {'licences': {'psf': 731}}}}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A run on conversations with all its files, exported by the command."""
    folder = tmp_path_factory.mktemp('runs')
    (folder / 'data').mkdir()
    tokenizer = Tokenizer.train(SOURCE, 500)
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 2, 4, 2, 32, vocab_multiple=64))
    config = {'init_from': 'out/base', 'stage': 'sft', 'data_dir': f'{folder}/data'}
    save_run(folder / 'sft', model, tokenizer, config=config, step=7)
    for name, content in {'eval': EVAL, 'data': DATA}.items():
        (folder / f'sft/{name}.json').write_text(json.dumps(content))
    (folder / 'data/report.md').write_text('| rules | short: 45 |')
    assert 'AutoTokenizer' in ok(run('sample.py', '--ckpt=sft', '--export=hf', cwd=folder))
    return folder


def test_the_model_generates_what_ours_does(folder):
    model, _ = load_checkpoint(folder / 'sft')
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / 'sft/hf')
    idx = torch.tensor([[5, 70, 300]])
    tokenizer = Tokenizer.load(folder / 'sft/tokenizer.json')
    assert theirs.generation_config.eos_token_id == tokenizer.stop
    assert theirs.generation_config.suppress_tokens == tokenizer.never_in_answers()
    assert len(theirs.get_input_embeddings().weight) == theirs.config.vocab_size == 500     # none of padding
    assert (folder / 'sft/hf/model.safetensors').stat().st_mode & 0o777 == 0o644       # others may read it
    theirs.generation_config.eos_token_id = None
    text = theirs.generate(idx, max_new_tokens=30, do_sample=False)
    assert torch.equal(text, model.generate(idx, 30, temperature=0))


def test_the_card_says_what_the_files_say_and_they_lie_beside_it(folder):
    card = (folder / 'sft/hf/README.md').read_text(encoding='utf-8')
    for words in ("{'psf': 731}", "init_from = 'out/base'", 'apply_chat_template', 'license: other',
                  'family: pass@1 0.020, 95 % interval 0.000 to 0.050, n = 40', 'bits_per_byte 1.500',
                  'of step 6, these weights of step 7'):
        assert words in card, (words, card)
    assert read_json(folder / 'sft/hf/data.json') == DATA
    assert 'short: 45' in (folder / 'sft/hf/report.md').read_text(encoding='utf-8')


def test_a_full_disk_leaves_the_folder_as_it_was(folder, tmp_path):
    sft = shutil.copytree(folder / 'sft', tmp_path / 'sft')
    before = contents(sft / 'hf')
    mistake(run('sample.py', f'--ckpt={sft}', '--export=hf', before=full_disk(60_000)), 'cannot write')
    assert contents(sft / 'hf') == before and not (sft / 'hf.tmp').exists()


def test_what_others_wrote_is_not_replaced(folder, tmp_path):
    sft = shutil.copytree(folder / 'sft', tmp_path / 'sft')
    export = lambda: run('sample.py', f'--ckpt={sft}', '--export=hf')
    ok(export())                                        # our own is written anew
    for name in 'config.json', 'README.md':             # a model of theirs, or our card with a licence
        shutil.rmtree(sft / 'hf')
        (sft / 'hf').mkdir()
        (sft / 'hf' / name).write_text(model_card.CARD.replace('license: other', 'license: mit'))
        mistake(export(), 'not written here')
        assert [p.name for p in (sft / 'hf').iterdir()] == [name]


def test_the_card_of_a_bare_run_invents_nothing_and_its_example_runs(tmp_path):
    tokenizer = Tokenizer.byte(('<|endoftext|>',))
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 1, 2, 0, 16, vocab_multiple=64))
    model_card.write(tmp_path, model, tokenizer, 'hf', {})
    card = (tmp_path / 'hf/README.md').read_text(encoding='utf-8')
    assert f'python eval.py --ckpt={tmp_path}' in card and 'apply_chat_template' not in card
    example = re.search('```python\n(.*?)```', card, re.S)[1].replace("'.'", repr(str(tmp_path / 'hf')))
    exec(example.replace('max_new_tokens=100', 'max_new_tokens=5'))
