"""A Llama, Qwen2 or Qwen3 of Hugging Face is our model, both ways, and the card of an export is true."""
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from accidents import full_disk
from conftest import ROOT, contents, mistake, ok, read_json, refused, run, same, save_run, series
from test_model import lively

from extras import hf_model, hf_tokenizer, lora
from model import GPT, GPTConfig
from tokenizer import Tokenizer

safetensors = pytest.importorskip('safetensors.torch')
transformers = pytest.importorskip('transformers')

IDX = torch.randint(96, (3, 40), generator=torch.Generator().manual_seed(0))
# widths / 8 or so, 2 layers, V = 96, T = 64; the ratios are theirs
LLAMA = dict(model_type='llama', hidden_act='silu', rms_norm_eps=1e-05, rope_scaling=None, bos_token_id=0,
             eos_token_id=0, num_hidden_layers=2, max_position_embeddings=64, vocab_size=96)
SMOLLM2 = dict(LLAMA, hidden_size=72, intermediate_size=192, num_attention_heads=9, num_key_value_heads=3,
               attention_bias=False, mlp_bias=False, rope_interleaved=False, rope_theta=100000,
               tie_word_embeddings=True)
TINYLLAMA = dict(LLAMA, hidden_size=64, intermediate_size=176, num_attention_heads=8, num_key_value_heads=1,
                 tie_word_embeddings=False)
# 2.5: 896 wide, 14 heads of 64, 2 of them with keys; a bias in q, k and v
QWEN2 = dict(LLAMA, model_type='qwen2', hidden_size=112, intermediate_size=152, num_attention_heads=14,
             num_key_value_heads=2, rms_norm_eps=1e-06, rope_theta=1000000.0, sliding_window=32,
             tie_word_embeddings=True, use_sliding_window=False)
# 0.6B: 1,024 wide, 16 heads of 128, so twice as wide; norms of q and k
QWEN3 = dict(LLAMA, model_type='qwen3', hidden_size=64, intermediate_size=96, num_attention_heads=8,
             num_key_value_heads=4, head_dim=16, rms_norm_eps=1e-06, rope_theta=1000000,
             tie_word_embeddings=True, use_sliding_window=False)
# a context that is longer than in the first training: linear interpolation, and Llama 3.1's
LINEAR = dict(rope_type='linear', factor=4.0)
LLAMA3 = dict(rope_type='llama3', factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
BASES = {'SmolLM2': SMOLLM2, 'TinyLlama': TINYLLAMA, 'Qwen2.5': QWEN2, 'Qwen3': QWEN3,
         'linear': {**TINYLLAMA, 'rope_scaling': LINEAR}, 'Llama 3.1': {**TINYLLAMA, 'rope_scaling': LLAMA3}}


def published(folder, config=TINYLLAMA, dtype=torch.float32, shard='1GB', **changes):
    """A model of transformers in which each weight matters, in a folder; config.json is as published."""
    torch.manual_seed(0)
    config = {**config, **changes}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (folder / 'config.json').write_text(json.dumps(config))
    return model.eval()


def same_logits(theirs, ours):
    with torch.no_grad():
        a, b = theirs(IDX).logits, ours.eval()(IDX)[0]
    assert a.std() > 0.3 and (a - b).abs().max() < 2e-5 * max(1, a.abs().max()), (a - b).abs().max()


@pytest.fixture(scope='module', params=BASES)
def base(request, tmp_path_factory):
    """In bfloat16 and in several files, as large models are published."""
    folder = tmp_path_factory.mktemp('base')
    theirs = published(folder, BASES[request.param], torch.bfloat16, '10KB')
    assert len(list(folder.glob('*.safetensors'))) > 2
    return theirs, folder


def test_its_logits_and_its_greedy_text_are_those_of_transformers(base):
    theirs, folder = base
    ours = GPT.load(folder).eval()
    same_logits(theirs, ours)
    text = theirs.generate(IDX[:, :5], attention_mask=torch.ones(3, 5), do_sample=False, max_new_tokens=40,
                           eos_token_id=None, pad_token_id=0)
    assert torch.equal(text, ours.generate(IDX[:, :5], 40, temperature=0))      # with a cache


def test_it_leaves_as_the_same_kind_and_comes_back_bit_for_bit(base, tmp_path):
    theirs, folder = base
    ours = GPT.load(folder)
    hf_model.write(tmp_path, ours)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is type(theirs) and not any(report.values()), report
    same_logits(again.eval(), ours)
    back = GPT.load(tmp_path)
    assert back.config == ours.config and same(dict(back.state_dict()), dict(ours.state_dict()))
    assert (back.head.weight is back.embedding.weight) == ours.config.tie_embeddings


def test_keys_are_found_in_their_old_and_new_place_and_may_be_omitted(tmp_path):
    for changes, theta in (({'rope_theta': 500.0}, 500.0), ({}, 10000.0),
                           ({'rope_parameters': {'rope_type': 'default', 'rope_theta': 500.0}}, 500.0)):
        theirs = published(tmp_path, num_key_value_heads=8, **changes)
        config = read_json(tmp_path / 'config.json')
        for key in ('num_key_value_heads', 'tie_word_embeddings', 'rope_scaling'):
            config.pop(key)
        (tmp_path / 'config.json').write_text(json.dumps(config))
        ours = GPT.load(tmp_path)
        assert ours.config.rope_theta == theta and ours.config.n_kv_head == 8
        same_logits(theirs, ours)


def test_a_feature_that_we_do_not_have_is_refused_by_name(tmp_path):
    for config, change, words in (
            (TINYLLAMA, dict(attention_bias=True), 'attention_bias=True'),
            (QWEN3, dict(model_type='qwen3_moe'), 'qwen3_moe'),
            (TINYLLAMA, dict(hidden_act='gelu'), 'hidden_act'),
            (QWEN2, dict(use_sliding_window=True), 'use_sliding_window=True'),
            (SMOLLM2, dict(quantization_config=dict(quant_method='fp8')), 'quantization_config=.*fp8'),
            (QWEN2, dict(rope_scaling=dict(type='yarn', factor=4.0)), 'yarn'),
            (SMOLLM2, dict(rope_parameters=dict(rope_type='llama3', factor=8.0)), 'low_freq_factor')):
        (tmp_path / 'config.json').write_text(json.dumps({**config, **change}))
        (tmp_path / 'model.safetensors').touch()
        refused(f'config.json.*{words}', GPT.load, tmp_path)
    own, both = (GPT(GPTConfig(96, 64, 1, 2, 0, 16, qkv_bias=both, qk_norm=both)) for both in (False, True))
    own.blocks[0].mlp.w_up = torch.nn.Linear(16, 64)                        # somebody's own model.py
    for model, words in ((own, 'w_up.bias: your model.py'), (both, 'qkv_bias and qk_norm')):
        refused(words, hf_model.write, tmp_path, model)


def test_a_damaged_folder_is_one_sentence_with_the_name_of_what_is_wrong(tmp_path):
    published(tmp_path)
    weights, good = tmp_path / 'model.safetensors', json.dumps(TINYLLAMA)
    for words, config in (
            ('q_proj.bias', good.replace('"llama"', '"qwen2"')),
            ('config.json.*vocab_size', '{"model_type": "llama"}'), ('config.json.*JSON', '{"model_')):
        (tmp_path / 'config.json').write_text(config)
        refused(words, GPT.load, tmp_path)
    (tmp_path / 'config.json').write_text(good)
    weights.write_bytes(weights.read_bytes()[:-100])
    refused('model.safetensors.*Safetensor', GPT.load, tmp_path)


def test_a_tokenizer_with_more_tokens_gets_rows_that_are_the_mean_row(tmp_path):
    """Tokenizer.load adds <|im_start|> and <|im_end|>. The old tokens keep their logits."""
    tokenizers = pytest.importorskip('tokenizers')
    pre = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    ids = {letter: i for i, letter in enumerate(sorted(pre.alphabet()))}
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    theirs.pre_tokenizer, theirs.decoder = pre, tokenizers.decoders.ByteLevel()
    theirs.save(str(tmp_path / 'tokenizer.json'))
    for tied, n_rows, n_tokens in (True, 256, 258), (False, 256, 258), (False, 300, 300):
        model = published(tmp_path, tie_word_embeddings=tied, vocab_size=n_rows)
        ours = GPT.load(tmp_path)
        assert ours.config.vocab_size == len(ours.head.weight) == n_tokens
        for rows, before in ((ours.embedding.weight, model.get_input_embeddings().weight),
                             (ours.head.weight, model.get_output_embeddings().weight)):
            assert torch.equal(rows[:n_rows], before)
            assert torch.allclose(rows[n_rows:], before.mean(0).expand(n_tokens - n_rows, -1), atol=1e-6)
        a, b = model(IDX).logits, ours.eval()(IDX)[0][..., :n_rows]
        assert (a - b).abs().max() < 2e-5 * a.abs().max()


# --- a model.py that somebody has edited --------------------------------------------------------------------
ALIBI = """        slope = 2.0 ** -torch.arange(1, q.shape[1] + 1, device=x.device).view(-1, 1, 1)
        key = torch.arange(start + T, device=x.device)
        far = key - key[start:, None]
        mask, is_causal = torch.where(far > 0, -math.inf, slope * far), False
        y = attend("""
EDITS = {'relu2': ('F.silu(self.w_gate(x))', 'F.relu(self.w_gate(x)) ** 2'),
         'layer norm': ('F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps)',
                        'F.layer_norm(x.float(), self.weight.shape, self.weight.float())'),
         'alibi': ('        y = attend(', ALIBI)}


@pytest.mark.parametrize('edit, kind', [('relu2', 'hf'), ('layer norm', 'gguf'), ('alibi', 'html')])
def test_an_export_of_another_architecture_is_refused_and_leaves_nothing(tmp_path, edit, kind):
    for path in ROOT.glob('*.py'):
        shutil.copy(path, tmp_path)
    shutil.copytree(ROOT / 'extras', tmp_path / 'extras', ignore=shutil.ignore_patterns('__pycache__'))
    old, new = EDITS[edit]
    text = (ROOT / 'model.py').read_text(encoding='utf-8')
    assert text.count(old) == 1
    (tmp_path / 'model.py').write_text(text.replace(old, new), encoding='utf-8')
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(text, 340)
    save_run(tmp_path / 'run', GPT(GPTConfig(340, 40, 2, 2, 0, 32)), tokenizer)     # not even trained
    before = contents(tmp_path / 'run')
    command = [sys.executable, 'sample.py', '--ckpt=run', f'--export={kind}']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding='utf-8')
    mistake(done, 'your model.py computes something else than a llama', '--serve=8000')
    assert contents(tmp_path / 'run') == before and not (tmp_path / 'demo.html').exists()


@pytest.mark.parametrize('settings', [
    {}, dict(tie_embeddings=False, vocab_multiple=64), dict(n_kv_head=2, head_dim=14), dict(qkv_bias=True),
    dict(qk_norm=True, n_kv_head=1), dict(rope_scaling=(3.,)), dict(block_size=700, rope_theta=500.),
    dict(rope_scaling=(8., 1., 4., 10.), rope_theta=90.), dict(norm_eps=0.1, dropout=0.5)], ids=str)
def test_every_shape_that_our_model_can_have_passes_the_comparison(settings):
    model = lively(0.3, **settings)
    hf_model.check(model)
    assert model.training
    for part in model.modules():        # each wrong by as little as somebody could want
        if isinstance(part, type(model.norm)):
            part.eps += 0.01
    refused('computes something else', hf_model.check, model)
    hf_model.check(lively(0.3, **settings).bfloat16())


def test_a_window_that_only_long_texts_show_is_refused(monkeypatch):
    plain = sys.modules['model'].attend

    def windowed(q, k, v, mask, is_causal):     # each token sees the last 300
        T = q.shape[2]
        mask = torch.ones(T, T, dtype=torch.bool).tril().triu(-299)
        return plain(q, k, v, mask, False)

    monkeypatch.setattr('model.attend', windowed)
    hf_model.check(lively(0.3, block_size=300))
    refused('computes something else', hf_model.check, lively(0.3, block_size=1024))


def test_merged_adapters_pass_the_comparison_and_adapters_do_not():
    model = lively()
    lora.adapt(model, 4)
    for name, p in model.named_parameters():
        p.data += 0.1 * ('lora' in name)
    refused('lora_A', hf_model.check, model)
    plain = lively()
    plain.load_state_dict(lora.merged(model.state_dict()))
    hf_model.check(plain)


# --- a folder to publish ------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A run on conversations with all its files, exported by the command."""
    folder = tmp_path_factory.mktemp('runs')
    (folder / 'data').mkdir()
    tokenizer = Tokenizer.train(open(__file__, encoding='utf-8').read(), 500)
    torch.manual_seed(0)
    model = GPT(GPTConfig(tokenizer.vocab_size, 64, 2, 4, 2, 32, vocab_multiple=64))
    config = {'init_from': 'out/base', 'stage': 'sft', 'data_dir': f'{folder}/data'}
    save_run(folder / 'sft', model, tokenizer, config=config, step=7)
    for path in 'sft/eval.json', 'sft/data.json', 'data/report.md':
        (folder / path).write_text(path)
    assert 'AutoTokenizer' in ok(run('sample.py', '--ckpt=best.pt', '--export=hf', cwd=folder / 'sft'))
    return folder


def test_the_model_generates_what_ours_does(folder):
    model = GPT.load(folder / 'sft')
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


def test_the_card_names_settings_and_step_beside_scores_and_data_and_its_example_runs(folder):
    card = (folder / 'sft/hf/README.md').read_text(encoding='utf-8')
    for words in ("init_from = 'out/base'", 'license: other', 'at step 7'):
        assert words in card, (words, card)
    for path in 'sft/eval.json', 'sft/data.json', 'data/report.md':
        assert (folder / 'sft/hf' / path.split('/')[1]).read_text() == path
    example = re.search('```python\n(.*?)```', card, re.S)[1].replace("'.'", repr(str(folder / 'sft/hf')))
    exec(example.replace('max_new_tokens=100', 'max_new_tokens=5'))


def test_nothing_is_replaced_and_a_full_disk_leaves_nothing(folder):
    export = lambda **how: run('sample.py', f'--ckpt={folder}/sft', '--export=hf', **how)
    mistake(export(), 'sft/hf is there already')
    shutil.move(folder / 'sft/hf', folder / 'hf')
    mistake(export(before=full_disk(60_000)), 'cannot write')
    assert not list(folder.glob('sft/hf*'))


# --- a model of others: more pretraining, SFT, a chat -------------------------------------------------------
SMALL = {'prepare.py': [], 'sample.py': ['--max_new_tokens=4'],
         'train.py': ['--max_steps=8', '--warmup_steps=1', '--block_size=48', '--eval_tokens=2048',
                      '--sample_tokens=4', '--eval_interval=8', '--batch_size=8'],
         'sft.py': ['--max_steps=8', '--batch_size=8', '--sample_tokens=4', '--eval_interval=8']}


def test_the_commands_of_the_page_continue_fine_tune_and_chat_and_the_card_names_base_and_license(
        tmp_path, python_files):
    """Those of docs/use.md, and what they print as the next one, with a small model of transformers."""
    theirs = tmp_path / 'SmolLM2-135M'
    tokenizer = Tokenizer.train(open(__file__, encoding='utf-8').read(), 500)
    published(theirs, SMOLLM2, vocab_size=500, max_position_embeddings=256)
    hf_tokenizer.write(theirs, tokenizer, 256)
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
            device = [] if script == 'prepare.py' else ['--device=cpu']
            talk = "import io, sys; sys.stdin = io.StringIO('hi\\n')"
            said = run(script, *flags, *SMALL[script], *device, cwd=tmp_path, before=talk)
            ok(said)
            after = re.search('^next: (python s.*)', said.stdout, re.M)     # not that of prepare.py
            command = after and after[1]
    for out in 'more', 'smol':
        losses = series(tmp_path / 'out' / out, 'val_loss')
        assert losses[-1] < losses[0] - 0.02, (out, losses)

    export = lambda name, **how: run('sample.py', f'--ckpt={name}', '--export=hf', cwd=tmp_path, **how)
    ok(export('out/smol'))
    card = (tmp_path / 'out/smol/hf/README.md').read_text(encoding='utf-8')
    for words in 'base_model: SmolLM2-135M\n', 'license: apache-2.0\n', 'LoRA of rank 8':
        assert words in card, card
    ok(run('sft.py', '--init_from=out/more', '--out_dir=out/both', *SMALL['sft.py'], cwd=tmp_path))
    ok(export('out/both'))
    assert 'base_model: SmolLM2-135M\n' in (tmp_path / 'out/both/hf/README.md').read_text(encoding='utf-8')
    (theirs / 'tokenizer.json').unlink()
    advice = 'tokenizer.json is missing', 'AutoTokenizer'
    mistake(run('sample.py', '--ckpt=SmolLM2-135M', cwd=tmp_path), *advice)
