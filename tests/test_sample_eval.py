"""Sampling and loss, against slow versions: no cache, no batches, one token at a time."""
import hashlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, ok, run
from preparing import RAW

from model import GPT, load_checkpoint
from parts.sample.asking import Prompt, Text, end_of
from parts.sample.decoding import Answer
from tokenizer import Tokenizer

torch.set_num_threads(1)
RULE, PROMPT = '-' * 80 + '\n', 'def f7'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """40 documents that a small model can learn by heart."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('data')
    for i in range(40):
        (source / f'{i}.py').write_text(f'def f{i}(a, b):\n    return a + 7 + b\n\n\n' * 5, encoding='utf-8')
    ok(run('prepare.py', f'--source={source}', f'--out_dir={out}', '--vocab_size=340', *RAW))
    return out


@pytest.fixture(scope='module')
def ckpt(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    ok(run('train.py', f'--data_dir={data}', f'--out_dir={out}', '--n_layer=2', '--n_head=2', '--n_embd=32',
           '--block_size=32', '--batch_size=16', '--max_steps=150', '--warmup_steps=9', '--sample_tokens=1',
           '--learning_rate=1e-2', '--eval_tokens=1024', '--dtype=float32', '--device=cpu'))
    return out


def sample(ckpt, *flags):
    """What sample.py writes after its settings: the texts, each with its prompt."""
    said = ok(run('sample.py', f'--ckpt={ckpt}', '--device=cpu', f'--prompt={PROMPT}', *flags))
    return [text.removesuffix('\n') for text in said.split(RULE)[1:-1]]     # the rule has its own line


def greedy(ckpt, prompt, n):
    """The n most probable next tokens, afresh each; the prompt's last may become a longer one (healing)."""
    model, tok = load_checkpoint(ckpt)[0].eval(), Tokenizer.load(ckpt / 'tokenizer.json')
    *ids, last = tok.special['<|endoftext|>'], *tok.encode(prompt)
    allowed = [i for i, token in enumerate(tok.vocab) if token.startswith(tok.vocab[last])]
    with torch.no_grad():
        for i in range(n + 1):
            p = model(torch.tensor([ids[-32:]]))[0][0, -1]
            ids.append(p.argmax().item() if i else max(allowed, key=p.tolist().__getitem__))
            if ids[-1] == tok.special['<|endoftext|>']:
                return tok.decode(ids[1:-1])
    return tok.decode(ids[1:])


def test_temperature_0_writes_the_most_probable_tokens_also_past_the_context(ckpt):
    expected = greedy(ckpt, PROMPT, 120)
    assert len(Tokenizer.load(ckpt / 'tokenizer.json').encode(expected)) > 80           # the context is 32
    assert sample(ckpt, '--temperature=0', '--max_new_tokens=120', '--seed=2') == [expected]


def test_samples_are_as_many_as_asked_and_follow_from_the_seed(ckpt):
    flags = ['--num_samples=4', '--temperature=2', '--top_k=0', '--max_new_tokens=30']
    texts = sample(ckpt, *flags)
    assert len(texts) == 4 == len(set(texts)) and all(text.startswith(PROMPT) for text in texts)
    assert sample(ckpt, *flags) == texts and sample(ckpt, *flags, '--seed=2') != texts


@pytest.mark.parametrize('content', [b'def f7(a, b):\r\n\treturn ', 'naïve 漢字 \n\n '.encode(), b'x' * 99])
def test_a_prompt_file_is_completed_byte_for_byte(ckpt, tmp_path, content):
    (tmp_path / 'prompt.py').write_bytes(content)
    flags = [f'--ckpt={ckpt}', f'--prompt_file={tmp_path}/prompt.py', '--temperature=0', '--max_new_tokens=3']
    result = subprocess.run([sys.executable, ROOT / 'sample.py', *flags, '--device=cpu'], capture_output=True)
    text = result.stdout.split(RULE.encode())[1][:-1]
    assert result.returncode == 0 and text.startswith(content)
    assert text.decode() == greedy(ckpt, content.decode(), 3)


def text_of(text, stop_at, last=''):
    """The Text that these bytes become, one id each, and its pieces. last: the prompt's last character."""
    answer = Answer((1,), 50, None)
    it = Text(answer, Tokenizer.byte(), Prompt([1], None, 0, last), **end_of(stop_at))
    pieces = []
    for byte in text.encode():
        if not answer.finish:
            answer.ids.append(byte)
            pieces.append(it.take())
    return it, pieces


def test_where_a_function_ends():
    for body, rest in (('  a\n\n\n', 'def g'), ('  x = (\n', '1)\n'), ('  a\n# b\n  c\n)\n]\n}\n', 'd')):
        assert text_of(body + rest, 'function')[0].text == body
        it = text_of(body, 'function')[0]
        assert it.text == body and not it.answer.finish         # the next line may be indented too
    it = text_of('abE.DcE.D', 'E.D')[0]
    assert it.text == 'ab' and it.answer.finish == 'stop'
    assert text_of('abEND', 'E.D')[0].text == 'abEND' and text_of('anything', '')[0].text == 'anything'


def test_what_may_begin_a_stop_is_held_back():
    assert text_of('zabaabc', 'abX')[1] == ['z', '', '', 'ab', 'a', '', 'abc']


def test_sampling_stops_at_the_end_of_the_function(ckpt):
    whole = greedy(ckpt, PROMPT, 60)
    assert whole.startswith(PROMPT + '(a, b):\n    return a + ') and '\ndef' in whole[len(PROMPT):]
    expected = PROMPT + whole[len(PROMPT):].split('\ndef')[0] + '\n'
    for n in (1, 2):
        assert sample(ckpt, '--temperature=0', '--stop_at=function', f'--num_samples={n}') == [expected] * n


def test_nothing_of_a_stop_text_is_written_though_tokens_cut_it(ckpt):
    whole = greedy(ckpt, PROMPT, 60)
    for stop, n in (('urn a +', 1), (':\n    return a + 7 + b\n\n', 2), ('a, b', 1)):
        expected = whole[:whole.index(stop, len(PROMPT))]
        assert sample(ckpt, '--temperature=0', f'--stop_at={stop}', f'--num_samples={n}') == [expected] * n


@pytest.mark.parametrize('last, ends, text, expected', [
    ('\n', '\n', 'ab\ncd', 'ab'), ('x', 'x', 'axb', 'a'), ('x', 'xa', 'ab xa', 'ab '), ('', 'b', 'abc', 'a'),
    ('\n', 'function', 'def', ''), ('\n', 'function', '  a\nb', '  a\n'), (':', 'function', '\n  a', '\n  a'),
])
def test_the_prompts_last_character_is_no_stop_text(last, ends, text, expected):
    assert text_of(text, ends, last)[0].text == expected


def test_random_init_writes_something_else(ckpt):
    assert sample(ckpt, '--temperature=0', '--random_init=True') != sample(ckpt, '--temperature=0')


def evaluate(ckpt, data, out, *flags):
    ok(run('eval.py', f'--ckpt={ckpt}', f'--data_dir={data}', '--device=cpu', f'--out={out}', *flags))
    return json.loads(out.read_text(encoding='utf-8'))['tasks']['loss']


def test_loss_is_that_of_every_token_but_the_first_once(ckpt, data, tmp_path):
    val, model = np.fromfile(data / 'val.bin', 'uint16').astype(np.int64), load_checkpoint(ckpt)[0].eval()
    assert 100 < len(val) < 2000 and (len(val) - 1) % 32                # the last block is a short one
    torch.manual_seed(1337)
    untrained, nats = GPT(model.config).eval(), {'trained': 0.0, 'untrained': 0.0}
    with torch.no_grad():
        for name, m in (('trained', model), ('untrained', untrained)):
            for i in range(1, len(val)):    # token i, from its block's tokens before it
                context = torch.from_numpy(val[(i - 1) // 32 * 32:i])[None]
                nats[name] -= m(context)[0][0, -1].double().log_softmax(-1)[val[i]].item()
    n, tok = len(val) - 1, Tokenizer.load(data / 'tokenizer.json')
    n_bytes = sum(len(tok.decode_bytes([i])) for i in val[1:] if i not in tok.special.values())
    results = evaluate(ckpt, data, tmp_path / 'eval.json')
    for name, row in results.items():
        assert row['tokens'] == n and row['bytes'] == n_bytes
        assert row['nats'] == pytest.approx(nats[name] / n, abs=1e-5)   # float32 sums of thousands of tokens
        assert row['perplexity'] == pytest.approx(math.exp(row['nats']), rel=1e-9)
        assert row['bits_per_byte'] == pytest.approx(row['nats'] * n / n_bytes / math.log(2), rel=1e-9)
    assert abs(results['untrained']['nats'] - math.log(340)) < 0.05     # logits of spread 0.1
    assert results['trained']['nats'] < results['untrained']['nats'] / 2
    for size in (1, 16):                                                # rounding alone
        again = evaluate(ckpt, data, tmp_path / f'{size}.json', f'--batch_size={size}')['trained']['nats']
        assert again == pytest.approx(results['trained']['nats'], abs=1e-6)


def test_results_lie_beside_the_checkpoint(ckpt, data):
    ok(run('eval.py', f'--ckpt={ckpt}', f'--data_dir={data}', '--device=cpu', '--random_init=False'))
    results = json.loads((ckpt / 'eval.json').read_text(encoding='utf-8'))
    assert results['data_sha256'] == hashlib.sha256((data / 'val.bin').read_bytes()).hexdigest()
    assert results['tokenizer_hash'] == Tokenizer.load(data / 'tokenizer.json').hash
    assert list(results['tasks']['loss']) == ['trained'] and not (ckpt / 'eval.json.tmp').exists()
