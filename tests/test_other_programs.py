"""Other people's programs run our exports: llama.cpp (the package xllamacpp) has our greedy continuation, and
lm_eval (its `hf` model) scores IFEval on our answers. bench/llama_cpp.py compares ids, too."""
import json
import random
import urllib.request

import pytest
import torch
from conftest import ROOT

from model import GPT, GPTConfig
from parts.sample import gguf_file, model_card
from tokenizer import Tokenizer

try:
    import lm_eval
except ImportError:
    lm_eval = None
SHAPES = [{}, {'n_kv_head': 4, 'tie_embeddings': False}, {'rope_scaling': (4.0,), 'rope_theta': 500.0},
          {'rope_scaling': (8.0, 1.0, 4.0, 24.0), 'rope_theta': 500.0, 'vocab_multiple': 128},
          {'qkv_bias': True}, {'qk_norm': True, 'head_dim': 32}]        # as Qwen2 and Qwen3 have them
SOURCE = (ROOT / 'tokenizer.py').read_text(encoding='utf-8')


def a_model(tokenizer, **settings):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**dict(vocab_size=tokenizer.vocab_size, block_size=128, n_layer=2, n_head=4,
                                    n_kv_head=2, n_embd=64, n_ffn=96), **settings})).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.2)
    return model


class Served:
    """llama.cpp's own server with one file of ours."""

    def __init__(self, folder, model, tokenizer, kind):
        xllamacpp = pytest.importorskip('xllamacpp')
        gguf_file.write(folder, model, tokenizer, kind, {})
        path, = folder.glob('*.gguf')
        p = xllamacpp.CommonParams()
        p.model.path = str(path)
        p.n_ctx = 128
        p.n_parallel = 1
        p.warmup = False
        p.verbosity = -1
        p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
        p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(p)

    def post(self, what, **fields):
        request = urllib.request.Request(self.server.listening_address + what, json.dumps(fields).encode(),
                                         {'Content-Type': 'application/json'})
        return json.load(urllib.request.urlopen(request, timeout=60))

    def greedy(self, ids, n):
        """At most n ids, and the 5 largest log-probabilities of the first, {id: log p}: none if that is part
        of a character."""
        settings = {'temperature': 0, 'return_tokens': True, 'n_probs': 5, 'cache_prompt': False}
        answer = lambda n: self.post('/completion', prompt=ids, n_predict=n, **settings)
        first = answer(1).get('completion_probabilities') or [{'top_logprobs': []}]
        return answer(n)['tokens'], {token['id']: token['logprob'] for token in first[0]['top_logprobs']}


@pytest.mark.parametrize('kind, close', [('gguf', 1e-4), ('gguf-f16', 0.02), ('gguf-q8_0', 0.5)])
@pytest.mark.parametrize('settings', SHAPES)
def test_llama_cpp_continues_as_we_do(tmp_path, settings, kind, close):
    tokenizer = Tokenizer.train(SOURCE, 700)
    model = a_model(tokenizer, **settings)
    served = Served(tmp_path, model, tokenizer, kind)
    dice = random.Random(0)
    compared = 0
    for _ in range(6):
        ids = [dice.randrange(600) for _ in range(40)]
        found, best = served.greedy(ids, 60)
        ours = model.generate(torch.tensor([ids]), 60, temperature=0, stop=tokenizer.stop)[0, 40:].tolist()
        p = model(torch.tensor([ids]))[0][0, -1].log_softmax(-1)
        assert all(abs(p[id].item() - log_p) < close for id, log_p in best.items()), best
        assert found == ours or kind != 'gguf'
        compared += len(best)
    assert compared >= 10


@pytest.mark.skipif(not lm_eval, reason='needs lm_eval')
def test_lm_eval_scores_ifeval_s_records_on_our_greedy_answers(tmp_path):
    """S004-49: its own checks, on records of IFEval's layout; an answer without a comma follows no_comma."""
    pytest.importorskip('langdetect')       # pip install "lm_eval[hf,ifeval]"
    from lm_eval.tasks.ifeval import utils
    tokenizer = Tokenizer.train(SOURCE, 700)
    model = a_model(tokenizer)
    model_card.write(tmp_path, model, tokenizer, 'hf', {})
    kinds = 'punctuation:no_comma', 'detectable_format:json_format', 'change_case:english_lowercase'
    items = [{'key': i, 'prompt': f'def f{i}(x):', 'instruction_id_list': [kinds[i % 3]], 'kwargs': [{}]}
             for i in range(9)]
    path = tmp_path / 'items.jsonl'
    path.write_text(''.join(json.dumps(item) + '\n' for item in items), encoding='utf-8')
    task = dict(
        task='instructions', dataset_path='json', test_split='test', output_type='generate_until',
        dataset_kwargs={'data_files': {'test': str(path)}, 'cache_dir': str(tmp_path)},
        doc_to_text='prompt', doc_to_target=0, process_results=utils.process_results,
        metric_list=[{'metric': f'{level}_level_{how}_acc', 'aggregation': mean, 'higher_is_better': True}
                     for how in ('strict', 'loose')
                     for level, mean in (('prompt', 'mean'), ('inst', utils.agg_inst_level_acc))],
        generation_kwargs={'until': [], 'do_sample': False, 'temperature': 0.0, 'max_gen_toks': 40})
    found = lm_eval.simple_evaluate(
        'hf', model_args=f'pretrained={tmp_path}/hf,dtype=float32,add_bos_token=True', tasks=[task],
        device='cpu', batch_size=1, log_samples=True, bootstrap_iters=0)
    for item, sample in zip(items, found['samples']['instructions'], strict=True):
        ids = torch.tensor([tokenizer.begin + tokenizer.encode(item['prompt'])])
        new = model.generate(ids, 40, temperature=0, stop=tokenizer.stop)[0, ids.shape[1]:].tolist()
        ours = tokenizer.decode([id for id in new if id not in tokenizer.special.values()])
        assert sample['filtered_resps'] == [ours]
        if item['instruction_id_list'] == ['punctuation:no_comma']:
            assert sample['prompt_level_strict_acc'] == (',' not in ours and ours.strip() != '')
    assert 0 <= found['results']['instructions']['prompt_level_strict_acc,none'] <= 1
