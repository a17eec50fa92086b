"""Folders of models: Hugging Face's in and out, GGUF, a longer context, another vocabulary."""
import dataclasses
import json
import random
import re
import shlex
import shutil
import sys
import textwrap
import urllib.request

import numpy as np
import pytest
import torch
from accidents import full_disk
from conftest import ROOT, contents, machine, mistake, ok, refused, run, same, save_run
from conftest import series, train
from test_model import lively

from extras import export as exports, hf_model, hf_tokenizer, lora
from extras.longer_context import changes
from extras.new_vocabulary import carried_over, carry_over
from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer, from_printable

safetensors = pytest.importorskip('safetensors.torch')
transformers = pytest.importorskip('transformers')

SOURCE = open(__file__, encoding='utf-8').read()
IDX = torch.randint(96, (3, 40), generator=torch.Generator().manual_seed(0))
# widths / 8 or so, 2 layers, V = 96, T = 64; the ratios are theirs
LLAMA = dict(model_type='llama', hidden_act='silu', rms_norm_eps=1e-05, rope_scaling=None,
             bos_token_id=0, eos_token_id=0, num_hidden_layers=2, max_position_embeddings=64,
             vocab_size=96)
SMOLLM2 = dict(LLAMA, hidden_size=72, intermediate_size=192, num_attention_heads=9,
               num_key_value_heads=3, attention_bias=False, mlp_bias=False, rope_interleaved=False,
               rope_theta=100000, tie_word_embeddings=True)
TINYLLAMA = dict(LLAMA, hidden_size=64, intermediate_size=176, num_attention_heads=8,
                 num_key_value_heads=1, tie_word_embeddings=False)
# 2.5: 896 wide, 14 heads of 64, 2 of them with keys; a bias in q, k and v
QWEN2 = dict(LLAMA, model_type='qwen2', hidden_size=112, intermediate_size=152,
             num_attention_heads=14, num_key_value_heads=2, rms_norm_eps=1e-06,
             rope_theta=1000000.0, sliding_window=32, tie_word_embeddings=True,
             use_sliding_window=False)
# 0.6B: 1,024 wide, 16 heads of 128, so twice as wide; norms of q and k
QWEN3 = dict(LLAMA, model_type='qwen3', hidden_size=64, intermediate_size=96, num_attention_heads=8,
             num_key_value_heads=4, head_dim=16, rms_norm_eps=1e-06, rope_theta=1000000,
             tie_word_embeddings=True, use_sliding_window=False)
# a context that is longer than in the first training: linear interpolation, and Llama 3.1's
LINEAR = dict(rope_type='linear', factor=4.0)
LLAMA3 = dict(rope_type='llama3', factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
# Where a key is, has changed, and it may be omitted: rope_parameters is newer than rope_scaling.
OMITTED = {key: value for key, value in TINYLLAMA.items()
           if key not in ('num_key_value_heads', 'tie_word_embeddings', 'rope_scaling')}
BASES = {'SmolLM2': SMOLLM2, 'TinyLlama': TINYLLAMA, 'Qwen2.5': QWEN2, 'Qwen3': QWEN3,
         'linear': {**TINYLLAMA, 'rope_scaling': LINEAR},
         'Llama 3.1': {**TINYLLAMA, 'rope_scaling': LLAMA3}, 'omitted': OMITTED,
         'new place': {**OMITTED, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 500.0}}}


def published(folder, config=TINYLLAMA, dtype=torch.float32, shard='1GB', **changes):
    """A model of transformers in which each weight matters, with config.json as published."""
    torch.manual_seed(0)
    config = {**config, **changes}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (folder / 'config.json').write_text(json.dumps(config))
    return model.eval()


def same_logits(theirs, ours):
    with torch.no_grad():
        a, b = theirs(IDX).logits, ours.eval()(IDX)[0][..., :theirs.config.vocab_size]
    assert a.std() > 0.3 and (a - b).abs().max() < 2e-5 * max(1, a.abs().max())


# --- a folder of Hugging Face ---------------------------------------------------------------------
@pytest.mark.parametrize('name', BASES)
def test_logits_and_greedy_text_are_those_of_transformers_and_it_comes_back_bit_for_bit(
        tmp_path, name):
    """In bfloat16 and in several files, as large models are published."""
    theirs = published(tmp_path / 'in', BASES[name], torch.bfloat16, '10KB')
    assert len([*tmp_path.glob('in/*.safetensors')]) > 2
    ours = GPT.load(tmp_path / 'in')
    same_logits(theirs, ours)
    text = theirs.generate(IDX[:, :5], attention_mask=torch.ones(3, 5), do_sample=False,
                           max_new_tokens=40, eos_token_id=None, pad_token_id=0)
    assert torch.equal(text, ours.generate(IDX[:, :5], 40, temperature=0))      # with a cache

    hf_model.write(tmp_path / 'out', ours)
    load = transformers.AutoModelForCausalLM.from_pretrained
    again, report = load(tmp_path / 'out', output_loading_info=True)
    assert type(again) is type(theirs) and not any(report.values()), report
    same_logits(again.eval(), ours)
    back = GPT.load(tmp_path / 'out')
    assert back.config == ours.config and same(dict(back.state_dict()), dict(ours.state_dict()))
    assert (back.head.weight is back.embedding.weight) == ours.config.tie_embeddings


def test_a_damaged_folder_or_a_feature_that_we_lack_is_refused_by_name(tmp_path):
    published(tmp_path)
    for config, odd, words in (
            (TINYLLAMA, dict(attention_bias=True), 'attention_bias=True'),
            (TINYLLAMA, dict(hidden_act='gelu'), 'hidden_act'),
            (QWEN3, dict(model_type='qwen3_moe'), 'qwen3_moe'),
            (QWEN2, dict(use_sliding_window=True), 'use_sliding_window=True'),
            (QWEN2, dict(rope_scaling=dict(type='yarn', factor=4.0)), 'yarn'),
            (SMOLLM2, dict(quantization_config=dict(quant_method='fp8')), 'config=.*fp8'),
            (SMOLLM2, dict(rope_parameters=dict(rope_type='llama3', factor=8)), 'low_freq_factor'),
            (TINYLLAMA, dict(model_type='qwen2'), 'q_proj.bias'),
            ({}, dict(model_type='llama'), 'vocab_size')):
        (tmp_path / 'config.json').write_text(json.dumps({**config, **odd}))
        refused(words, GPT.load, tmp_path)
    (tmp_path / 'config.json').write_text('{"model_')
    refused('config.json.*JSON', GPT.load, tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps(TINYLLAMA))
    weights = tmp_path / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    refused('model.safetensors.*Safetensor', GPT.load, tmp_path)


def test_a_tokenizer_with_more_tokens_gets_rows_that_are_the_mean_row(tmp_path):
    """Tokenizer.load adds <|im_start|> and <|im_end|>. The old tokens keep their logits."""
    hf_tokenizer.write(tmp_path, Tokenizer.byte(['<|endoftext|>']), 64)
    for tied, n_rows, n_tokens in (True, 257, 259), (False, 257, 259), (False, 300, 300):
        model = published(tmp_path, tie_word_embeddings=tied, vocab_size=n_rows)
        ours = GPT.load(tmp_path)
        assert ours.config.vocab_size == len(ours.head.weight) == n_tokens
        same_logits(model, ours)
        for rows in ours.embedding.weight, ours.head.weight:
            assert torch.allclose(rows[n_rows:], rows[:n_rows].mean(0), atol=1e-6)


# --- a model.py that somebody has edited ----------------------------------------------------------
EDITS = {'hf': """
        import model, torch
        def forward(self, x):
            return self.w_down(torch.relu(self.w_gate(x)) ** 2 * self.w_up(x))
        model.SwiGLU.forward = forward""", 'gguf': """
        import model, torch
        def forward(self, x):
            return torch.nn.functional.layer_norm(x, self.weight.shape, self.weight)
        model.RMSNorm.forward = forward""", 'html': """
        import model, torch
        attend = model.attend
        def alibi(q, k, v, mask, is_causal):
            slope = 2.0 ** -torch.arange(1, q.shape[1] + 1).view(-1, 1, 1)
            far = torch.arange(k.shape[2]) - torch.arange(k.shape[2])[:, None]
            return attend(q, k, v, torch.where(far > 0, -torch.inf, slope * far), False)
        model.attend = alibi"""}


@pytest.mark.parametrize('kind', EDITS)
def test_an_export_of_another_architecture_is_refused_and_leaves_nothing(tmp_path, kind):
    """Though the model is not even trained."""
    if kind == 'gguf':
        pytest.importorskip('gguf')
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOKENIZERS['gpt2'].vocab_size, 40, 2, 2, 0, 32))
    save_run(tmp_path / 'run', model, TOKENIZERS['gpt2'])
    before = contents(tmp_path / 'run')
    result = run('sample.py', '--ckpt=run', f'--export={kind}', cwd=tmp_path,
                 before=textwrap.dedent(EDITS[kind]))
    mistake(result, 'your model.py computes something else than a llama', '--serve=8000')
    assert contents(tmp_path / 'run') == before and not (tmp_path / 'demo.html').exists()


@pytest.mark.parametrize('settings', [
    dict(tie_embeddings=False, vocab_multiple=64), dict(n_kv_head=2, head_dim=14),
    dict(qkv_bias=True), dict(qk_norm=True, n_kv_head=1), dict(rope_scaling=(3.,)),
    dict(block_size=700, rope_theta=500.), dict(rope_scaling=(8., 1., 4., 10.), rope_theta=90.),
    dict(norm_eps=0.1, dropout=0.5)], ids=str)
def test_every_shape_that_our_model_can_have_passes_the_comparison(settings):
    model = lively(0.3, **settings)
    hf_model.check(model)
    assert model.training
    for part in model.modules():        # each wrong by as little as somebody could want
        if isinstance(part, type(model.norm)):
            part.eps += 0.01
    refused('computes something else', hf_model.check, model)
    hf_model.check(lively(0.3, **settings).bfloat16())


def test_what_no_other_program_can_read_is_refused_by_name(monkeypatch):
    odd, adapted, plain = lively(), lively(), lively()
    odd.blocks[0].mlp.w_up = torch.nn.Linear(32, 48)                # somebody's own model.py
    lora.adapt(adapted, 4)
    for model, words in ((odd, 'w_up.bias: your model.py'), (adapted, 'lora_A'),
                         (lively(qkv_bias=True, qk_norm=True), 'qkv_bias and qk_norm')):
        refused(words, hf_model.check, model)
    for name, p in adapted.named_parameters():
        p.data += 0.1 * ('lora' in name)
    plain.load_state_dict(lora.merged(adapted.state_dict()))
    hf_model.check(plain)

    def windowed(q, k, v, mask, is_causal, attend=sys.modules['model'].attend):
        """Each token sees the last 300, which only long texts show."""
        T = q.shape[2]
        return attend(q, k, v, torch.ones(T, T, dtype=torch.bool).tril().triu(-299), False)

    monkeypatch.setattr('model.attend', windowed)
    hf_model.check(lively(0.3, block_size=300))
    refused('computes something else', hf_model.check, lively(0.3, block_size=1024))


# --- a folder to publish, and a model of others: more pretraining, SFT, a chat --------------------
def test_an_export_generates_what_ours_does_and_its_card_is_true(tmp_path):
    """It names settings, step, scores, data. Nothing is replaced; a full disk leaves nothing."""
    tokenizer, sft = Tokenizer.train(SOURCE, 500), tmp_path / 'sft'
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 2, 4, 2, 32, vocab_multiple=64))
    config = {'init_from': 'out/base', 'stage': 'sft', 'data_dir': f'{tmp_path}/data'}
    save_run(sft, model, tokenizer, config=config, step=7)
    (tmp_path / 'data').mkdir()
    for path in 'sft/eval.json', 'sft/data.json', 'data/report.md':
        (tmp_path / path).write_text(path)
    export = lambda **how: run('sample.py', '--ckpt=best.pt', '--export=hf', cwd=sft, **how)
    assert 'AutoTokenizer' in ok(export())

    theirs = transformers.AutoModelForCausalLM.from_pretrained(sft / 'hf')
    assert theirs.generation_config.eos_token_id == tokenizer.stop
    assert theirs.generation_config.suppress_tokens == tokenizer.never_in_answers()
    assert len(theirs.get_input_embeddings().weight) == theirs.config.vocab_size == 500
    assert (sft / 'hf/model.safetensors').stat().st_mode & 0o777 == 0o644   # others may read it
    theirs.generation_config.eos_token_id = None
    idx = torch.tensor([[5, 70, 300]])
    text = theirs.generate(idx, max_new_tokens=30, do_sample=False)
    assert torch.equal(text, model.generate(idx, 30, temperature=0))

    card = (sft / 'hf/README.md').read_text(encoding='utf-8')
    assert all(word in card for word in ("init_from = 'out/base'", 'license: other', 'at step 7'))
    for path in 'sft/eval.json', 'sft/data.json', 'data/report.md':
        assert (sft / 'hf' / path.split('/')[1]).read_text() == path
    example = re.search('```python\n(.*?)```', card, re.S)[1].replace("'.'", repr(str(sft / 'hf')))
    exec(example.replace('max_new_tokens=100', 'max_new_tokens=5'))

    mistake(export(), 'hf is there already')
    shutil.rmtree(sft / 'hf')
    mistake(export(before=full_disk(60_000)), 'cannot write')
    assert not [*sft.glob('hf*')]


SMALL = {'prepare.py': [], 'sample.py': ['--max_new_tokens=4', '--device=cpu'],
         'train.py': ['--max_steps=8', '--warmup_steps=1', '--block_size=48', '--eval_tokens=2048',
                      '--sample_tokens=4', '--eval_interval=8', '--batch_size=8', '--device=cpu'],
         'sft.py': ['--max_steps=8', '--batch_size=8', '--sample_tokens=4', '--eval_interval=8',
                    '--device=cpu']}


def test_the_commands_of_the_page_continue_fine_tune_and_chat_and_the_card_names_base_and_license(
        tmp_path, python_files):
    """Those of docs/use.md, and what they print as the next one, with a small SmolLM2."""
    theirs = tmp_path / 'SmolLM2-135M'
    published(theirs, SMOLLM2, vocab_size=500, max_position_embeddings=256)
    hf_tokenizer.write(theirs, Tokenizer.train(SOURCE, 500), 256)
    (theirs / 'README.md').write_text('---\nlicense: apache-2.0\n---\n# SmolLM2\n')
    page = (ROOT / 'docs/use.md').read_text(encoding='utf-8')
    section = page.split('## Start from another model')[1].split('\n## ')[0]
    commands = re.findall('^python .*', section, re.M)
    assert len(commands) == 7
    for command in commands:
        if '--learning_rate' in command:
            command += ' --learning_rate=3e-3'      # for so few steps
        if '--kind=sft' in command:
            command += ' --n_examples=40'
        while command:
            _, script, *flags = shlex.split(command.replace('FILE', f'{python_files}/asyncio'))
            talk = "import io, sys; sys.stdin = io.StringIO('hi\\n')"
            said = ok(run(script, *flags, *SMALL[script], cwd=tmp_path, before=talk))
            after = re.search('^next: (python s.*)', said, re.M)        # not that of prepare.py
            command = after and after[1]
    for out in 'more', 'smol':
        losses = series(tmp_path / 'out' / out, 'val_loss')
        assert losses[-1] < losses[0] - 0.02, (out, losses)

    both = ['--init_from=out/more', '--out_dir=out/both', '--max_steps=1', '--warmup_steps=0']
    ok(run('sft.py', *both, *SMALL['sft.py'][1:], cwd=tmp_path))
    for out, *words in ('smol', 'license: apache-2.0\n', 'LoRA of rank 8'), ('both',):
        ok(run('sample.py', f'--ckpt=out/{out}', '--export=hf', cwd=tmp_path))
        card = (tmp_path / f'out/{out}/hf/README.md').read_text(encoding='utf-8')
        assert all(word in card for word in ('base_model: SmolLM2-135M\n', *words)), card
    (theirs / 'tokenizer.json').unlink()
    result = run('sample.py', '--ckpt=SmolLM2-135M', cwd=tmp_path)
    mistake(result, 'tokenizer.json is missing', 'AutoTokenizer')


# --- a GGUF file, as the package gguf reads it ----------------------------------------------------
TOKENIZERS = {'ours': Tokenizer.train(SOURCE, 600), 'byte': Tokenizer.byte(SPECIAL_TOKENS),
              **{name: Tokenizer.train(SOURCE, 600, pattern=pattern)
                for name, pattern in zip(('gpt2', 'cl100k', 'possessive'), exports.NAMES)}}


def a_run(folder, tokenizer, **settings):
    """The folder of a run, with random weights."""
    small = dict(block_size=64, n_kv_head=2, n_embd=64, n_ffn=96, vocab_multiple=64)
    model = lively(0.3, **small, vocab_size=tokenizer.vocab_size, **settings)
    save_run(folder, model, tokenizer)
    return model


@pytest.fixture
def gguf():
    return pytest.importorskip('gguf')


def halves_again(array, D=16):
    """Row by row: what llama.cpp turns as the pair 2i, 2i + 1 of a head, we turn as i, i + D/2."""
    back = np.empty_like(array)
    for row in range(len(array)):
        head, j = divmod(row, D)
        back[head * D + j // 2 + (j % 2) * D // 2] = array[row]
    return back


@pytest.mark.parametrize('name', TOKENIZERS)
def test_a_gguf_file_has_the_tensors_bit_for_bit_and_a_vocabulary_whose_ends_are_ours(
        name, tmp_path, gguf):
    """The tensors are those that transformers gets, by the names that the package gguf gives them.
    The run `ours` was trained on conversations."""
    tokenizer, is_chat = TOKENIZERS[name], name == 'ours'
    model = a_run(tmp_path / 'run', tokenizer, tie_embeddings=name == 'byte')
    model.saved = {'config': {'stage': 'sft'}} if is_chat else {}
    said = exports.publish_gguf(tmp_path / 'run', model, tokenizer)
    assert ('--pattern=cl100k' in said) == is_chat, said
    reader = gguf.GGUFReader(tmp_path / 'run/model-f32.gguf')
    get = lambda key: getattr(reader.get_field(key), 'contents', lambda: None)()

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    hf_model.write(tmp_path / 'hf', model)
    theirs = safetensors.load_file(tmp_path / 'hf/model.safetensors')
    wanted = {names.get_name(key, ('.weight',)): w.numpy() for key, w in theirs.items()}
    arrays = {t.name: t.data for t in reader.tensors}
    assert arrays.keys() == wanted.keys()
    for key, w in wanted.items():
        turned = 'attn_q' in key or 'attn_k' in key
        assert np.array_equal(halves_again(arrays[key]) if turned else arrays[key], w), key
        assert not turned or not np.array_equal(arrays[key], w)
    for key, n in {'attention.head_count': 4, 'attention.head_count_kv': 2, 'context_length': 64,
                   'attention.key_length': 16, 'attention.value_length': 16}.items():
        assert get(f'llama.{key}') == n, key

    tokens, types = get('tokenizer.ggml.tokens'), get('tokenizer.ggml.token_type')
    assert len(tokens) == len(types) == model.config.vocab_size
    for id, (token, kind) in enumerate(zip(tokens, types)):
        as_it_is = kind in (3, 4)           # special, or cut out of a text before the pattern acts
        assert (token.encode() if as_it_is else from_printable(token)) == tokenizer.all_bytes[id]
        assert (kind == 3) == (id in tokenizer.special.values())
        assert (kind == 4) == (is_chat and b'\n' in tokenizer.all_bytes[id])
    assert {key: get(f'tokenizer.{key}') for key in (
        'ggml.pre', 'ggml.bos_token_id', 'ggml.eos_token_id', 'ggml.eot_token_id',
        'ggml.suppress_tokens', 'ggml.add_bos_token', 'chat_template')} == {
        'ggml.pre': 'llama-bpe' if name in ('ours', 'cl100k') else 'gpt-2',
        'ggml.bos_token_id': tokenizer.begin[0], 'ggml.eos_token_id': tokenizer.stop[0],
        'ggml.eot_token_id': tokenizer.stop[1], 'ggml.add_bos_token': not is_chat,
        'ggml.suppress_tokens': tokenizer.never_in_answers(),
        'chat_template': hf_tokenizer.CHAT_TEMPLATE if is_chat else None}


def test_llama_3_s_frequencies_are_divided_by_the_numbers_in_the_gguf_file(tmp_path, gguf):
    scaled = dict(rope_scaling=(8., 1., 4., 24.), rope_theta=500.)
    model = a_run(tmp_path / 'run', TOKENIZERS['byte'], **scaled)
    exports.publish_gguf(tmp_path / 'run', model, TOKENIZERS['byte'])
    reader = gguf.GGUFReader(tmp_path / 'run/model-f32.gguf')
    assert reader.get_field('llama.rope.scaling.type') is None      # that would scale a second time
    factors, = (t.data for t in reader.tensors if t.name == 'rope_freqs.weight')
    angle = 5 * 500. ** (-np.arange(0, 16, 2) / 16) / factors
    assert np.allclose(np.cos(angle), model.cos[5], atol=1e-5)
    assert np.allclose(np.sin(angle), model.sin[5], atol=1e-5)


def test_the_command_writes_gguf_and_what_cannot_be_is_one_sentence(tmp_path, gguf):
    a_run(tmp_path / 'run', TOKENIZERS['cl100k'])
    export = lambda name='run', **how: run('sample.py', f'--ckpt={tmp_path}/{name}',
                                           '--export=gguf', **how)
    assert 'model-f32.gguf' in ok(export())
    before = (tmp_path / 'run/model-f32.gguf').read_bytes()
    machine(export(before=full_disk(100_000)), 'the disk is full', 'what was saved stays')
    assert (tmp_path / 'run/model-f32.gguf').read_bytes() == before
    assert not [*tmp_path.rglob('*.tmp')]
    mistake(export(before="sys.modules['gguf'] = None"), 'pip install gguf')
    hf_model.write(tmp_path / 'hf', GPT(GPTConfig(600, 64, 1, 2, 0, 16)), TOKENIZERS['cl100k'])
    mistake(export('hf'), 'convert_hf_to_gguf.py')
    for other in {'qkv_bias': True}, {'qk_norm': True}:
        refused('a plain Llama, but', exports.publish_gguf, tmp_path, lively(**other),
                TOKENIZERS['byte'])


@pytest.mark.slow
def test_llama_cpp_continues_as_we_do(tmp_path, gguf):
    xllamacpp = pytest.importorskip('xllamacpp')
    tokenizer = Tokenizer.train((ROOT / 'tokenizer.py').read_text(encoding='utf-8'), 700)
    model = a_run(tmp_path, tokenizer, rope_scaling=(4.0,), rope_theta=500.0).eval()
    model.head.weight.data[tokenizer.special['<|span_3|>']] *= 9        # neither may draw it
    exports.publish_gguf(tmp_path, model, tokenizer)
    p = xllamacpp.CommonParams()
    p.model.path = str(tmp_path / 'model-f32.gguf')
    p.n_ctx, p.n_parallel = 64, 1
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(p)
    never = torch.tensor(tokenizer.never_in_answers(model.config.vocab_size))
    best = lambda logits, rows, t: logits.index_fill(1, never, -torch.inf).argmax(-1)
    for seed in range(6):
        ids = random.Random(seed).choices(range(600), k=30)
        asked = dict(prompt=ids, n_predict=30, temperature=0, return_tokens=True,
                     cache_prompt=False)
        answer = urllib.request.urlopen(f'{server.listening_address}/completion',
                                        json.dumps(asked).encode())
        ours = model.stream(torch.tensor([ids]), 30, best, tokenizer.stop)
        assert json.load(answer)['tokens'] == [token.item() for token in ours]


# --- a longer context -----------------------------------------------------------------------------
longer = lambda *flags: run('extras.longer_context', *flags)


def test_a_second_extension_counts_from_the_first_context():
    config = vars(GPTConfig(96, 32, 2, 2, 0, 32, rope_theta=500.0))
    for before, block_size in ((), 32), ((2.0,), 64), ((4.0, 1.0, 4.0, 32), 64):    # as Llama 3.1
        old = {**config, 'block_size': block_size, 'rope_scaling': before}
        assert changes(old, 256, 'linear')['rope_scaling'] == (8.0,), before
        assert changes(old, 256, 'llama3')['rope_scaling'] == (8.0, 1.0, 4.0, 32), before
        assert changes(old, 256, 'none', 9e3) == {'block_size': 256, 'rope_scaling': before,
                                                  'rope_theta': 9e3}


def test_a_longer_context_is_a_folder_from_which_train_py_goes_on(base_run, data_dir, tmp_path):
    out, flags = tmp_path / 'longer', ['--block_size=128', '--rope_theta=5e4']
    said = ok(longer(f'--init_from={base_run}/last.pt', f'--out_dir={out}', *flags))
    assert f'python train.py --init_from={out} --block_size=128' in said
    old, new = GPT.load(base_run / 'last.pt'), GPT.load(out)
    stretched = dict(block_size=128, rope_scaling=(4.0, 1.0, 4.0, 32.0), rope_theta=5e4)
    assert new.config == dataclasses.replace(old.config, **stretched)
    assert same(dict(new.state_dict()), dict(old.state_dict()))
    assert new.saved['config']['objective'] == 'clm'
    assert contents(out)['tokenizer.json'] == contents(base_run)['tokenizer.json']
    short = ['--max_steps=1', '--warmup_steps=0', '--block_size=128']
    ok(train(data_dir, tmp_path / 'a', f'--init_from={out}', *short))
    assert GPT.load(tmp_path / 'a').config == new.config
    mistake(train(data_dir, tmp_path / 'b', f'--init_from={base_run}', '--block_size=128'),
            'python -m extras.longer_context')


def test_what_cannot_become_longer_is_one_sentence_and_nothing_is_written(base_run, tmp_path):
    model, tokenizer = GPT.load(base_run), Tokenizer.load(base_run / 'tokenizer.json')
    save_run(tmp_path / 'reward', model, tokenizer, reward_head=torch.zeros(1, 32))
    save_run(tmp_path / 'foreign', model, tokenizer, tokenizer_hash='another')
    before = {*tmp_path.iterdir()}
    for name, flag, words in (
            (base_run, '--block_size=32', ['--block_size=32', '32 tokens']),
            (base_run, '--rope_scaling=yarn', ['rope_scaling', 'yarn', 'llama3']),
            (base_run, f'--out_dir={tmp_path}/reward', ['--out_dir', 'already']),
            ('.', '', ['--init_from', 'no best.pt']), ('reward', '', ['reward model']),
            (base_run / 'metrics.jsonl', '', ['--init_from', 'metrics.jsonl']),
            ('foreign', '', ['tokenizer'])):
        flags = f'--out_dir={tmp_path}/out', f'--init_from={tmp_path / name}', *flag.split()
        mistake(longer(*flags), *words)
    assert {*tmp_path.iterdir()} == before


# --- another vocabulary ---------------------------------------------------------------------------
def test_another_vocabulary_starts_near_where_the_old_one_was(data_dir, python_files, tmp_path):
    base, data, carried = tmp_path / 'a', tmp_path / 'data', tmp_path / 'carried'
    once = ['--max_steps=60', '--learning_rate=3e-3', '--eval_interval=60', '--save_interval=60']
    ok(train(data_dir, base, *once))
    ok(run('prepare.py', f'--source={python_files}/json', f'--out_dir={data}', '--vocab_size=640'))
    carry = lambda *flags: run('extras.new_vocabulary', *flags)
    said = ok(carry(f'--init_from={base}', f'--data_dir={data}', f'--out_dir={carried}'))
    assert 'of 640 tokens keep' in said and f'--init_from={carried} --data_dir={data}' in said
    flags = ['--max_steps=1', '--warmup_steps=0', '--eval_interval=1']
    ok(train(data, tmp_path / 'b', *flags, f'--init_from={carried}'))
    ok(train(data, tmp_path / 'c', *flags))
    old, [extended, *_], [untrained, *_] = (series(out, 'val_bpb') for out in (
        base, tmp_path / 'b', tmp_path / 'c'))
    assert extended < (old[-1] + untrained) / 2
    mistake(carry(f'--init_from={base}', f'--data_dir={tmp_path}', f'--out_dir={tmp_path}/x'),
            'tokenizer.json')
    assert not (tmp_path / 'x').exists()


def test_rows_are_kept_or_means_of_what_spells_them_and_padding_is_in_no_mean():
    old = Tokenizer.train(['low lower lowest'] * 9, 256 + 3, [])
    new = Tokenizer.train(['low lower lowest slow'] * 9, 256 + 6 + len(SPECIAL_TOKENS))
    odd = Tokenizer.train(['éèéè'] * 9, 256 + 1, [])
    weight = torch.randn(old.vocab_size, 5)
    rows = carry_over(weight, old, new)
    assert rows.shape == (new.vocab_size, 5) and (rows[:256] == weight[:256]).all()
    for i, token in enumerate(new.vocab[256:], 256):
        assert torch.allclose(rows[i], weight[old.encode(token.decode())].mean(0))
    assert torch.allclose(rows[new.special['<|mask|>']], weight.mean(0))
    assert odd.vocab[256] == b'\xa9\xc3'                # no text: by its bytes
    assert torch.allclose(carry_over(weight, old, odd)[256], weight[[0xa9, 0xc3]].mean(0))

    for tied in True, False:
        model = lively(vocab_size=256, tie_embeddings=tied, vocab_multiple=96)
        model.embedding.weight.data[256:] = 1000.0
        copy = carried_over(model, Tokenizer.byte(), Tokenizer.byte(SPECIAL_TOKENS[:3]))
        assert copy.config.vocab_size == 259
        for rows, before in ((copy.embedding.weight, model.embedding.weight),
                             (copy.head.weight, model.head.weight)):
            assert torch.equal(rows[:256], before[:256])
            assert len(rows) == 288 and rows[256:].abs().max() < 1
        assert (copy.head.weight is copy.embedding.weight) == tied
