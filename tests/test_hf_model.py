"""Folders of models: Hugging Face's in and out, GGUF, longer context, another vocabulary, LoRA."""
import json
import re
import shlex
from pathlib import Path

import torch
from accidents import SHORT_SAMPLES
from conftest import ROOT, fill, mistake, ok, refused, run, same, save_run
from conftest import series, table, train, with_each
from safetensors.torch import load_file, save_file
from test_model import lively
from transformers import AutoConfig, AutoModelForCausalLM

from extras.models import hf_model, hf_tokenizer
from extras.training import lora
from model import GPT, GPTConfig
from tokenizer import SPECIAL_TOKENS, Tokenizer

theirs_in = AutoModelForCausalLM.from_pretrained

SOURCE = open(__file__).read()
IDX = torch.randint(96, (3, 40), generator=torch.Generator().manual_seed(0))
# widths / 8 or so, 2 layers, V = 96, T = 64; the ratios are theirs
LLAMA = json.loads('''{"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-05,
"vocab_size": 96, "bos_token_id": 0, "eos_token_id": 0, "num_hidden_layers": 2,
"max_position_embeddings": 64, "hidden_size": 64, "intermediate_size": 176,
"num_attention_heads": 8}''')
# What they change. Qwen2.5: 896 wide, 14 heads of 64, 2 of them with keys; a bias in q, k and v.
# Qwen3: 0.6B, 1,024 wide, 16 heads of 128, so twice as wide; norms of q and k. Llama 3.1: a longer
# context than in the first training; at this theta, the pairs of a head are fast, between, slow and
# slow. omitted: linear interpolation, where transformers 5 has put it; other keys may be omitted.
BASES = json.loads('''{
"SmolLM2": {"hidden_size": 72, "num_attention_heads": 9, "num_key_value_heads": 3,
            "attention_bias": false, "rope_interleaved": false, "rope_theta": 100000,
            "tie_word_embeddings": true},
"Qwen2.5": {"model_type": "qwen2", "hidden_size": 112, "num_attention_heads": 14,
            "num_key_value_heads": 2, "sliding_window": 32, "use_sliding_window": false,
            "tie_word_embeddings": true},
"Qwen3": {"model_type": "qwen3", "num_key_value_heads": 4, "head_dim": 16},
"Llama 3.1": {"num_key_value_heads": 1, "rope_theta": 50.0, "rope_scaling": {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32}},
"omitted": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}}''')
BASES = {name: LLAMA | config for name, config in BASES.items()}
SMOLLM2 = BASES['SmolLM2']


def published(folder, config=LLAMA, dtype=torch.float32, shard='1GB'):
    """A model of transformers in which each weight matters, with config.json as published."""
    folder = Path(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    (folder / 'config.json').write_text(json.dumps(config))
    return theirs_in(folder, dtype=torch.float32).eval()


@torch.no_grad()
def same_logits(theirs, ours):
    a, b = theirs(IDX).logits, ours.eval()(IDX)[0][..., :theirs.config.vocab_size]
    assert a.std() > 0.3 and (a - b).abs().max() < 2e-5 * max(1, a.abs().max())


# --- a folder of Hugging Face ---------------------------------------------------------------------
@with_each('name', BASES)
def test_logits_and_greedy_text_are_those_of_transformers_and_it_comes_back_bit_for_bit(out, name):
    """In bfloat16 and in several files, as large models are published."""
    theirs = published('in', BASES[name], torch.bfloat16, '10KB')
    assert len([*Path('in').glob('*.safetensors')]) > 2
    fill({'in/adapter_model.safetensors': 'of something else'})
    ours = GPT.load('in')
    same_logits(theirs, ours)
    text = theirs.generate(IDX[:, :5], attention_mask=torch.ones(3, 5), do_sample=False,
                           max_new_tokens=40, eos_token_id=None, pad_token_id=0)
    assert torch.equal(text, ours.generate(IDX[:, :5], 40, temperature=0))      # with a cache

    hf_model.write(out, *hf_model.translated(ours))
    again, report = theirs_in(out, output_loading_info=True)
    assert type(again) is type(theirs) and not any(report.values()), report
    same_logits(again.eval(), ours)
    back = GPT.load(out)
    assert back.config == ours.config and same(dict(back.state_dict()), dict(ours.state_dict()))


# What a config.json says in place of that, and a file in place of the weights => what is said of it
LACKING = '''
{"hidden_act": "gelu"} => hidden_act
{"attention_bias": true} => attention_bias=True
{"model_type": "qwen3_moe"} => qwen3_moe
{"model_type": "qwen2", "use_sliding_window": true} => use_sliding_window=True
{"rope_scaling": {"type": "yarn", "factor": 4.0}} => yarn
{"quantization_config": {"quant_method": "fp8"}} => config=.*fp8
{"model_type": "qwen2"} => q_proj.bias'''
NO_WEIGHTS = r'''
model.Q4_K.gguf => a GGUF file is not read: download the Hugging Face folder it was made from
pytorch_model-1.bin => for a \.bin .*save_pretrained\)$
adapter_config.json => a merged adapter: transformers' save_pretrained
model.fp16.safetensors => give a folder that has best.pt, last.pt'''


def test_a_damaged_folder_or_a_feature_that_we_lack_is_refused_by_name():
    published('.')
    for odd, words in table(LACKING):
        fill({'config.json': json.dumps(LLAMA | json.loads(odd))})
        refused(words, GPT.load, '.')
    fill({'config.json': '{}'})
    refused('vocab_size', GPT.load, '.')
    fill({'config.json': json.dumps(LLAMA)})
    weights = Path('model.safetensors')
    weights.write_bytes(weights.read_bytes()[:-100])
    refused('Safetensor', GPT.load, '.')
    weights.write_text('version https://git-lfs.github.com/spec/v1\n')
    refused('git lfs pull', GPT.load, '.')
    for file, words in table(NO_WEIGHTS):
        weights = weights.rename(file)
        refused(words, GPT.load, '.')
        if file.endswith(('.gguf', '.safetensors')):
            refused(words, GPT.load, weights)


def test_a_head_in_the_file_counts_though_config_json_says_tied(out):
    """As in a model that an adapter of its head was merged into. The embedding again is no other."""
    theirs = published('.', SMOLLM2 | {'tie_word_embeddings': False})
    fill({'config.json': json.dumps(SMOLLM2)})
    ours = GPT.load('.')
    same_logits(theirs, ours)
    hf_model.write(out, *hf_model.translated(ours))
    same_logits(theirs_in(out), ours)
    tensors = load_file('model.safetensors')
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight'].clone()
    save_file(tensors, 'model.safetensors')
    assert not ours.config.tie_embeddings and GPT.load('.').config.tie_embeddings


def test_a_tokenizer_with_more_tokens_gets_rows_that_are_the_mean_row(tmp_path):
    """Tokenizer.load adds <|im_start|> and <|im_end|>. The old tokens keep their logits."""
    hf_tokenizer.write(tmp_path, Tokenizer.byte(['<|endoftext|>']), 64)
    for tied in True, False:
        model = published('.', LLAMA | {'vocab_size': 257, 'tie_word_embeddings': tied})
        ours = GPT.load('.')
        same_logits(model, ours)
        for rows in ours.embedding.weight, ours.head.weight:
            assert torch.allclose(rows[257:], rows[:257].mean(0).expand(2, -1), atol=1e-6)


# SmolLM2's, shortened, with a default system message
SMOL = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ \
'<|im_start|>system\nYou are "Smol" 🤗\\\\ {% x %}<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] \
+ '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ \
'<|im_start|>assistant\n' }}{% endif %}"""


# --- a model.py that somebody has edited ----------------------------------------------------------
EDITED = """
import model, torch
class Scaled(model.Block):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.scale = torch.nn.Parameter(torch.ones(32))
model.Block = Scaled"""
BYTES = Tokenizer.byte(SPECIAL_TOKENS)


FIELD = """
import dataclasses, model
@dataclasses.dataclass
class Capped(model.GPTConfig):
    softcap: float = 0.0
model.GPTConfig = Capped"""
each_kind = with_each('kind', ['hf', 'gguf', 'html'])


def exported(model, tokenizer, kind, before):
    """A command that exports this model, with an edited model.py; it has been tried and left nothing."""
    save_run('run', model, tokenizer)
    result = run(f'extras.models.export --ckpt=run --to={kind}', before=before)
    assert not result.returncode or {path.name for path in Path().rglob('*.*')} == {'best.pt', 'tokenizer.json'}
    return result


@each_kind
def test_an_export_of_tensors_that_a_llama_lacks_is_refused_and_leaves_nothing(kind):
    model = GPT(GPTConfig(BYTES.vocab_size, 64, 2, 2, 0, 32))
    for block in model.blocks:
        block.scale = torch.nn.Parameter(torch.ones(32))
    mistake(exported(model, BYTES, kind, EDITED), 'blocks.0.scale & your model.py and a Llama differ')


@each_kind
def test_an_export_of_an_option_that_a_llama_lacks_is_refused_unless_it_is_off(kind):
    """A new field of GPTConfig that adds no tensor."""
    model, tokenizer = GPT(GPTConfig(500, 64, 2, 2, 0, 32, dropout=0.1, vocab_multiple=64)), Tokenizer.train(SOURCE, 500)
    model.config.softcap = 30.0
    mistake(exported(model, tokenizer, kind, FIELD), "{'softcap': 30.0} & other programs would run another model")
    model.config.softcap = 0.0
    ok(exported(model, tokenizer, kind, FIELD))


# --- a folder to publish, and a model of others: more pretraining, SFT, a chat --------------------
@with_each('stage', [{}, {'sample_prompt': 'ROMEO:\n'}, {'stage': 'sft'}])
def test_an_export_generates_what_ours_does_and_its_card_is_true(stage):
    """Nothing is replaced. The card's example continues the prompt of the run's samples, or asks a
    model of chats in its template, whatever that learned; no prompt of another model is in it."""
    tokenizer, hf = Tokenizer.train(SOURCE, 500), Path('hf')
    torch.manual_seed(0)
    model = GPT(GPTConfig(500, 64, 2, 4, 2, 32, vocab_multiple=64))
    save_run('.', model, tokenizer, config={'init_from': 'out/base'} | stage, step=7)
    fill({'eval.json': 'scores'})
    command = 'extras.models.export --ckpt=best.pt --to=hf'
    ok(run(command))
    mistake(run(command), 'hf already exists')
    assert (hf / 'eval.json').read_text() == 'scores'
    card = (hf / 'README.md').read_text()
    assert all(word in card for word in ("init_from = 'out/base'", 'license: other', 'at step 7'))
    names, example = {}, re.search('```python\n(.*?)```', card, re.S)[1]
    exec(example.replace("'.'", repr(str(hf))), names)
    theirs, idx = names['model'], names['ids']['input_ids']
    question = [{'role': 'user', 'content': 'YOUR QUESTION'}]
    wanted = tokenizer.render(question, add_generation_prompt=True)[0] if 'stage' in stage else (
        [*tokenizer.first, *tokenizer.encode('ROMEO:' if stage else 'The')])
    assert idx.tolist() == [wanted]
    config = theirs.generation_config
    assert config.eos_token_id == tokenizer.stop
    assert config.suppress_tokens == tokenizer.suppressed_tokens()
    text = theirs.generate(idx, max_new_tokens=30, do_sample=False, eos_token_id=None)
    assert torch.equal(text, model.generate(idx, 30, temperature=0))


SMALL = '--max_steps=8 --batch_size=8 --eval_interval=8 --learning_rate=3e-3 --device=cpu '
FLAGS = {'prepare.py': '', 'chats.py': '--n_examples=40', 'sft.py': SMALL,
         'sample.py': '--max_new_tokens=4 --device=cpu',
         'train.py': SMALL + '--warmup_steps=1 --block_size=48 --eval_tokens=2048'}


def test_the_commands_of_the_page_continue_fine_tune_chat_and_export(
        tmp_path, python_files, data_dir):
    """Those of docs/use.md, with a small SmolLM2 that has more rows than tokens. Their folder names
    no hash: the ids decide whether it fits to data."""
    theirs = tmp_path / 'SmolLM2-135M'
    published(theirs, SMOLLM2 | {'vocab_size': 509, 'max_position_embeddings': 256})
    hf_tokenizer.write(theirs, Tokenizer.train(SOURCE, 500), 256)
    (theirs / 'chat_template.jinja').write_text(SMOL)
    page = (ROOT / 'docs/use.md').read_text()
    section = page.split('## Start from another model')[1].split('\n## ')[0]
    commands = re.findall('^python .*', section, re.M)
    assert len(commands) == 7
    text = f'--source={python_files}/asyncio'
    ok(run('clean.py', text, '--out_dir=data/mine_clean'))
    for command in commands:
        _, script, *flags = shlex.split(command)
        flags += FLAGS[script].split()
        talk = "import io, sys; sys.stdin = io.StringIO('hi\\n')"
        printed = ok(run(script, *flags, before=SHORT_SAMPLES + talk))
        # of a conversation without a system message, the template's, once
        assert printed.count('<|im_start|>system') == (script == 'sft.py')
    mistake(run(f'train.py --data_dir={data_dir} --init_from=SmolLM2-135M'),
            'another tokenizer & --tokenizer=SmolLM2-135M/tokenizer.json')
    ok(run('extras.models.export --ckpt=out/smol --to=hf'))
    for out in 'more', 'smol':
        losses = series(f'out/{out}', 'val_loss')
        assert losses[-1] < losses[0] - 0.02, (out, losses)
    assert "init_from = 'SmolLM2-135M'" in (tmp_path / 'out/smol/hf/README.md').read_text()


# --- a longer context -----------------------------------------------------------------------------
def test_train_py_makes_the_context_longer_and_twice_as_if_at_once(base_run, data_dir):
    """Its first loss is that of the stretched model."""
    for out, base, n in ('a', base_run, 64), ('b', 'a', 128):
        ok(train(data_dir, out, f'--init_from={base} --block_size={n} --max_steps=1 --warmup_steps=0'))
    wanted = GPT.load(base_run, block_size=128, rope_scaling=(4.0, 1.0, 4.0, 32.0))
    assert GPT.load('b').config == wanted.config


# --- LoRA -----------------------------------------------------------------------------------------
def test_only_adapters_train_from_the_base_bit_for_bit_and_merged_equals_unmerged():
    """With the biases of Qwen2 and the norms of Qwen3, which have no adapters."""
    model, plain = (lively(vocab_size=96, block_size=64, qkv_bias=True, qk_norm=True)
                    for _ in range(2))
    lora.adapt(model, 4)
    assert torch.equal(model(IDX)[0], plain(IDX)[0])            # B begins as 0
    model(IDX, IDX)[1].backward()
    torch.optim.SGD(model.parameters(), 1.0).step()             # what has a gradient
    weights, base = model.state_dict(), dict(plain.state_dict())
    assert same({name: weights[name] for name in base}, base)
    assert sum(bool(w.any()) for name, w in weights.items() if name.endswith('lora_B')) == 14
    part, x = model.blocks[1].mlp.w_down, torch.randn(3, 48)    # the formula of the paper
    wanted = part.weight @ x.T + 16 / 4 * (part.lora_B @ (part.lora_A @ x.T))
    assert torch.allclose(part(x), wanted.T, atol=1e-5)
    plain.load_state_dict(lora.merged(weights))
    after = model(IDX)[0]
    assert (plain(IDX)[0] - after).abs().max() < 2e-5 * after.abs().max()       # float32
