"""Other people's programs run our exports: llama.cpp (xllamacpp) has our greedy answers."""
import json
import random
import urllib.request

import pytest
import torch
from conftest import ROOT
from test_model import lively

from extras import export
from tokenizer import Tokenizer

SHAPES = [{}, {'n_kv_head': 4, 'tie_embeddings': False},
          {'rope_scaling': (4.0,), 'rope_theta': 500.0, 'vocab_multiple': 128}]
SOURCE = (ROOT / 'tokenizer.py').read_text(encoding='utf-8')


@pytest.mark.parametrize('settings', SHAPES)
def test_llama_cpp_continues_as_we_do(tmp_path, settings):
    xllamacpp = pytest.importorskip('xllamacpp')
    tokenizer = Tokenizer.train(SOURCE, 700)
    small = dict(vocab_size=tokenizer.vocab_size, block_size=128, n_kv_head=2, n_embd=64, n_ffn=96)
    model = lively(**{**small, **settings}).eval()
    model.head.weight.data[tokenizer.special['<|span_3|>']] *= 9        # neither may draw it
    export.publish_gguf(tmp_path, model, tokenizer)
    p = xllamacpp.CommonParams()
    p.model.path = str(tmp_path / 'model-f32.gguf')
    p.n_ctx = 128
    p.n_parallel = 1
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(p)
    for seed in range(6):
        ids = random.Random(seed).choices(range(600), k=40)
        request = dict(prompt=ids, n_predict=60, temperature=0, return_tokens=True, cache_prompt=False)
        data = json.dumps(request).encode()
        answer = urllib.request.urlopen(f'{server.listening_address}/completion', data)
        never = tokenizer.never_in_answers(model.config.vocab_size)
        best = lambda logits, rows, t: logits.index_fill(1, torch.tensor(never), -torch.inf).argmax(-1)
        ours = [token.item() for token in model.stream(torch.tensor([ids]), 60, best, tokenizer.stop)]
        assert json.load(answer)['tokens'] == ours
