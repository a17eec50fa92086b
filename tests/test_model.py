"""The model computes what its formulas say; its sizes, its first loss, its copies, its files."""
import dataclasses
import math
import pathlib
import re
import runpy

import pytest
import torch
from conftest import ROOT, like, refused
from feedback import expect, short

from model import IGNORE, GPT, GPTConfig, RMSNorm, rope_table, rotate
from extras.planner import count_parameters, sketch


def lively(std=0.2, **settings):
    """A small model whose every weight matters: matrices far from initialisation, gains away from 1."""
    torch.manual_seed(0)
    small = dict(vocab_size=50, block_size=24, n_layer=2, n_head=4, n_embd=32, n_ffn=48)
    model = GPT(GPTConfig(**{**small, **settings}))
    for p in model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, std)
    return model


def norm(x, gain, eps=1e-6):
    return gain.double() * x.double() / (x.double().pow(2).mean(-1, keepdim=True) + eps).sqrt()


def turn(x, theta):
    """RoPE in complex numbers: x_i + j x_{i + D/2} at position t is multiplied by e^(j t theta^(-2i/D))."""
    T, D = x.shape[-2:]
    angle = torch.tensor([[t * theta ** (-2 * i / D) for i in range(D // 2)] for t in range(T)]).double()
    z = torch.complex(x[..., :D // 2].double(), x[..., D // 2:].double()) * torch.exp(1j * angle)
    return torch.cat((z.real, z.imag), -1)


def swiglu(x, gate, up, down):
    g = x @ gate.double().T
    return g / (1 + (-g).exp()) * (x @ up.double().T) @ down.double().T


def formula(model, idx):
    """The whole forward in float64, one head at a time, from the state dict alone."""
    c, w = model.config, {k.removesuffix('.weight'): v.double() for k, v in model.state_dict().items()}
    D, x = c.n_embd // c.n_head, w['embedding'][idx]
    for b in (f'blocks.{i}.' for i in range(c.n_layer)):
        q, k, v = (norm(x, w[b + 'norm_1'], c.norm_eps) @ w[f'{b}attention.w_{n}'].T for n in 'qkv')
        heads = []
        for h in range(c.n_head):
            mine, shared = (slice(i * D, i * D + D) for i in (h, h // (c.n_head // c.n_kv_head)))
            score = turn(q[..., mine], c.rope_theta) @ turn(k[..., shared], c.rope_theta).mT / math.sqrt(D)
            e = score.exp().tril()
            heads.append(e / e.sum(-1, keepdim=True) @ v[..., shared])
        x = x + torch.cat(heads, -1) @ w[b + 'attention.w_o'].T
        mlp = [w[f'{b}mlp.w_{n}'] for n in ('gate', 'up', 'down')]
        x = x + swiglu(norm(x, w[b + 'norm_2'], c.norm_eps), *mlp)
    return norm(x, w['norm'], c.norm_eps) @ w['head'].T


def same(a, b, atol):
    torch.testing.assert_close([x.double() for x in a], [x.double() for x in b], rtol=0, atol=atol)


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.parameters()))


def batch():
    torch.manual_seed(1)
    idx, targets = torch.randint(50, (2, 8, 24))
    return idx, targets.masked_fill(torch.rand(8, 24) < 0.4, IGNORE)


def test_rmsnorm_equals_the_formula_and_stays_float32_under_autocast():
    torch.manual_seed(0)
    rms = RMSNorm(48, 1e-6)
    torch.nn.init.normal_(rms.weight)
    for scale in (1e-4, 1.0, 1e4):          # at 1e-4 eps counts
        x = torch.randn(7, 48) * scale
        asked = f'RMSNorm(48, eps=1e-6) with random weights, x of 7 x 48 random numbers times {scale:g}'
        expect(f'{asked}, float32', norm(x, rms.weight), rms, x, tolerance=2e-6)
        with torch.autocast('cpu', torch.bfloat16):
            autocast = f'{asked}, under autocast to bfloat16'
            expect(f'{autocast}: the type of its result for a float32', torch.float32, lambda: rms(x).dtype)
            expect(f'{autocast}, float32', norm(x, rms.weight), rms, x, tolerance=2e-6)
            rounded_once = norm(x.bfloat16(), rms.weight).bfloat16()
            expect(f'{asked}, bfloat16, rounded once, at the end', rounded_once, rms, x.bfloat16())


def test_rope_is_a_complex_rotation_that_keeps_norms_and_sees_only_distances():
    torch.manual_seed(0)
    for D, theta in ((2, 1e4), (8, 1e4), (64, 5e5)):
        x = torch.randn(3, 1, D).round(decimals=2).expand(3, 60, D)         # the same at every position
        cos, sin = rope_table(D, 60, theta)
        asked = (f'rotate(x, *rope_table({D}, 60, {theta:g})), x (3, 60, {D}) has a vector at every '
                 f'position, the first one is {short(x[0, 0].tolist())}')
        expect(asked, turn(x, theta), rotate, x, cos, sin, tolerance=2e-5)      # so it keeps norms
        y = rotate(x, cos, sin)
        scores = y[0] @ y[1].T
        for distance in range(-59, 60):
            line = scores.diagonal(distance)
            same(line, line[:1].expand_as(line), 1e-4)
        assert (scores[0] - scores[0, 0]).abs().max() > 0.1, D
        assert (scores - scores.T).abs().max() > 0.1, D


def test_the_forward_equals_the_formulas():
    for kv in (1, 2, 4):
        for tied in (True, False):
            model = lively(0.15, n_kv_head=kv, tie_embeddings=tied, rope_theta=500.0, norm_eps=1e-2)
            asked = (f'the logits (row, position, token) of 2 layers with 4 heads of queries and {kv} of '
                     'keys, for 8 rows of 24 tokens, without a cache')
            wanted = formula(model, batch()[0])
            expect(asked, wanted, lambda: model(batch()[0])[0], tolerance=1e-5)


@pytest.mark.parametrize('with_logits', [True, False])
def test_loss_and_gradient_come_from_the_scored_positions_only_and_are_0_without_any(with_logits):
    """Without logits, only these positions go through the head."""
    model, (idx, targets) = lively(), batch()
    logits = model(idx)[0]
    scored = [(b, t) for b in range(8) for t in range(24) if targets[b, t] != IGNORE]
    by_hand = -sum(logits[b, t].double().log_softmax(-1)[targets[b, t]] for b, t in scored) / len(scored)
    n_rows = []
    model.head.register_forward_hook(lambda head, x, y: n_rows.append(x[0][..., 0].numel()))
    returned, loss = model(idx, targets, with_logits=with_logits)
    same([loss], [by_hand], 1e-5)
    same(gradients(model, loss), gradients(model, by_hand), 1e-6)
    assert n_rows == [idx.numel() if with_logits else len(scored)]
    assert torch.equal(returned, logits) if with_logits else returned is None

    nothing = model(idx, torch.full_like(targets, IGNORE), with_logits=with_logits)[1]
    assert nothing.item() == 0 and all(g.isfinite().all() for g in gradients(model, nothing))


def test_logits_and_loss_are_float32_under_autocast_and_the_scores_are_close():
    model, (idx, targets) = lively(std=0.1), batch()
    with torch.autocast('cpu', torch.bfloat16):
        logits, loss = model(idx, targets)
    assert logits.dtype == loss.dtype == torch.float32 and not torch.equal(logits, model(idx)[0])
    same([loss], [model(idx, targets)[1]], 0.01)


# --- sizes --------------------------------------------------------------------------------------------------
def test_the_first_loss_is_ln_V():
    """nano's shape at its full context; the exact mean over all targets: no luck of the draw. A tied head
    favors the token it has just read, which among 65 weighs more: 0.12. A smaller embedding would fix that
    but costs training (docs/log.md, "Most choices inside a block"), so it is the bound that gives way."""
    for V, tied, most in ((65, True, 0.15), (32768, True, 0.1), (256, False, 0.1)):
        torch.manual_seed(0)
        model = GPT(GPTConfig(V, 512, 6, 8, 0, 256, 768, tie_embeddings=tied))
        with torch.no_grad():
            logits = model(torch.randint(V, (1, 512)))[0]
        assert abs((logits.logsumexp(-1) - logits.mean(-1)).mean().item() - math.log(V)) < most, (V, tied)


def test_an_impossible_config_is_a_value_error_with_value_and_expectation():
    for name, value, words in (('n_embd', 12, 'even n_head=4'), ('n_kv_head', 3, 'n_head=4 multiple')):
        words = [f'{name}={value}', *words.split()]
        refused(words, GPTConfig, **{'n_head': 4, 'n_embd': 32, name: value})


def test_a_tied_head_is_the_embedding_and_a_copy_may_have_two_but_cannot_tie_them():
    tied = GPT(GPTConfig(50, 8, 1, 2, 0, 16))
    untied = like(tied, tie_embeddings=False)
    assert torch.equal(untied.head.weight, tied.head.weight)
    assert tied.head.weight.data_ptr() == tied.embedding.weight.data_ptr()
    assert untied.head.weight.data_ptr() != untied.embedding.weight.data_ptr()
    with pytest.raises(AssertionError, match='lose the head'):
        like(untied, tie_embeddings=True)


def test_a_copy_has_the_weights_their_type_and_the_changed_config_and_grows_by_the_mean_row():
    assert {p.dtype for p in like(lively().bfloat16(), dropout=0.1).parameters()} == {torch.bfloat16}
    idx = torch.randint(50, (2, 8))
    model = lively(block_size=8, tie_embeddings=False, vocab_multiple=64).eval()
    model.embedding.weight.data[50:] = 1000.0               # rows that only fill up are in no mean
    copy = like(model, dropout=0.5, causal=False)
    assert copy.config == dataclasses.replace(model.config, dropout=0.5, causal=False)
    for name, weight in model.state_dict().items():
        if len(weight) == 64:           # the rows without a token begin as the mean
            weight = torch.cat([weight[:50], weight[:50].mean(0).expand(14, -1)])
        assert torch.equal(copy.state_dict()[name], weight), name
    assert not torch.equal(copy(idx)[0], copy(idx)[0])                      # it drops
    assert not torch.equal(copy.eval()(idx)[0], model(idx)[0])              # it sees what comes
    grown = like(model, vocab_size=53)
    assert grown.config.vocab_size == 53 and len(grown.head.weight) == 64
    for name in ('embedding.weight', 'head.weight'):
        rows = model.state_dict()[name][:50]
        assert torch.equal(grown.state_dict()[name][:53], torch.cat([rows, rows.mean(0).expand(3, -1)])), name


# --- files --------------------------------------------------------------------------------------------------
def saved(path, **changes):
    """A checkpoint as it comes from a small model, but for these entries."""
    model = GPT(GPTConfig(50, 8, 1, 2, 0, 16))
    torch.save({'model': model.state_dict(), 'model_config': vars(model.config), **changes}, path)
    return path


def test_what_was_saved_is_loaded_with_its_other_entries_and_changes_that_keep_the_shapes(tmp_path):
    model = lively(tie_embeddings=False, vocab_multiple=64)
    model.save(tmp_path / 'a.pt', step=3, config={'stage': 'sft'})
    torch.manual_seed(7)
    back = GPT.load(tmp_path / 'a.pt', dropout=0.5, causal=False, block_size=99, rope_scaling=(2.0,))
    assert back.config == dataclasses.replace(model.config, dropout=0.5, causal=False, block_size=99,
                                              rope_scaling=(2.0,))
    assert same_weights(back, model) and back.training
    assert back.saved == {'format': 'nanoparrot-checkpoint-1', 'step': 3, 'config': {'stage': 'sft'}}
    lively().bfloat16().save(tmp_path / 'half.pt')
    assert {p.dtype for p in GPT.load(str(tmp_path / 'half.pt')).parameters()} == {torch.float32}
    tied = GPT.load(saved(tmp_path / 'tied.pt'))
    assert tied.head.weight is tied.embedding.weight


def same_weights(a, b):
    return all(torch.equal(w, b.state_dict()[name]) for name, w in a.state_dict().items())


def test_of_a_runs_folder_the_best_model_counts_then_the_last_and_a_copied_file_is_not_mapped(tmp_path):
    for n, name in enumerate(('last-1.pt', 'last.pt', 'best.pt')):
        lively().save(tmp_path / name, step=n)
        assert GPT.load(tmp_path).saved['step'] == n
    model = GPT.load(tmp_path)
    with open(tmp_path / 'best.pt', 'r+b') as f:        # as cp does, in place
        f.write(bytes(200_000))
    assert same_weights(model, lively())


def test_a_run_of_an_older_version_is_loaded():
    model = GPT.load(ROOT / 'tests/old_run/run')
    assert model.saved['step'] and not {'model', 'model_config'} & model.saved.keys()
    assert GPT(model.config).saved == {}            # no file has it


NAN = {name: w * (math.nan if name == 'norm.weight' else 1)
       for name, w in GPT(GPTConfig(50, 8, 1, 2, 0, 16)).state_dict().items()}


def test_what_is_no_model_of_ours_is_one_sentence_with_its_path(tmp_path):
    file, good = tmp_path / 'a.pt', saved(tmp_path / 'good.pt')
    data, config = good.read_bytes(), vars(GPT.load(good).config)
    for content in b'', b'hello', data[:len(data) // 2], data[:-300]:
        file.write_bytes(content)
        refused(re.escape(f'{file} cannot be loaded'), GPT.load, file)
    for content in [1, 2], 'text', {'model': {}}, {'model_config': config}:
        torch.save(content, file)
        refused(re.escape(f'{file} cannot be loaded'), GPT.load, file)
    for weights, words in (3, ''), ({'norm.weight': 'x'}, ''), ({}, 'embedding.weight'), (NAN, 'not finite'):
        refused(f'{re.escape(str(file))}.*{words}', GPT.load, saved(file, model=weights))
    for odd, words in (
            ({'n_heads': 3}, 'n_heads'), ({'n_head': 3}, 'n_head=3'), ({'n_head': 0}, ''),
            ({'n_layer': -1}, 'blocks.0'), ({'n_layer': 2}, 'blocks.1'), ({'dropout': 'x'}, ''),
            ({'rope_theta': 0.0}, 'not finite'), ({'n_embd': 10**14}, ''), ({'qk_norm': True}, 'norm_q'),
            ({'vocab_size': 51}, 'embedding.weight')):
        saved(file, model_config={**config, **odd})
        refused(f'{re.escape(str(file))}.*{words}', GPT.load, file)
    refused(f'{tmp_path}/x.pt', GPT.load, tmp_path / 'x.pt')
    (tmp_path / 'empty').mkdir()
    refused(f'{tmp_path}/empty.*no best.pt, last.pt', GPT.load, tmp_path / 'empty')


def test_a_change_of_shapes_or_an_edited_model_py_is_named(tmp_path):
    good = saved(tmp_path / 'good.pt')
    for changes in {'n_layer': 2}, {'n_embd': 32}, {'n_heads': 2}, {'vocab_size': 51}:
        refused('good.pt .*this model.py', GPT.load, good, **changes)
    text = (ROOT / 'model.py').read_text(encoding='utf-8')
    for old, new, words in (('n_layer', 'n_layers', 'n_layer'), ('w_up', 'w_upper', 'w_upper')):
        (tmp_path / 'model.py').write_text(text.replace(old, new), encoding='utf-8')
        edited = runpy.run_path(str(tmp_path / 'model.py'))['GPT']
        refused(f'good.pt .*this model.py .*{words}', edited.load, good)


def test_no_file_runs_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / 'ran'), 'w'))
    saved(tmp_path / 'a.pt', more=Evil())
    # torch's own advice is to run it
    refused(r'a\.pt ((?!weights_only|option).)*$', GPT.load, tmp_path / 'a.pt')
    assert not (tmp_path / 'ran').exists()
    torch.load(tmp_path / 'a.pt', weights_only=False)['more'].close()
    assert (tmp_path / 'ran').exists()                  # it is a real one


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pt'
    lively().save(path, step=1)

    def died(state, f):
        pathlib.Path(f).write_bytes(b'half')
        raise OSError
    monkeypatch.setattr('torch.save', died)
    with pytest.raises(OSError):
        lively().save(path, step=2)
    monkeypatch.undo()
    assert GPT.load(path).saved['step'] == 1
    lively().save(path, step=3)             # also if the last one died
    assert GPT.load(path).saved['step'] == 3 and [*tmp_path.iterdir()] == [path]


# --- log p --------------------------------------------------------------------------------------------------
def test_log_p_is_that_of_the_scored_targets_row_after_row_at_a_temperature():
    """Only they go through the head. A target's gradient comes through it."""
    model, (idx, targets) = lively(), batch()
    n_rows = []
    model.head.register_forward_hook(lambda head, x, y: n_rows.append(x[0][..., 0].numel()))
    for temperature in 1.0, 0.5, 3.0:
        by_hand = torch.stack([(model(idx)[0][b, t].double() / temperature).log_softmax(-1)[targets[b, t]]
                               for b in range(8) for t in range(24) if targets[b, t] != IGNORE])
        found = model.log_p(idx, targets, temperature)
        same([found], [by_hand], 1e-5)
        assert found.dtype == torch.float32 and n_rows[-1] == len(found) == (targets != IGNORE).sum()
    same(gradients(model, model.log_p(idx, targets).mean()), gradients(model, -model(idx, targets)[1]), 1e-6)
    nothing = model.log_p(idx, torch.full_like(targets, IGNORE))
    assert nothing.shape == (0,) and all(not g.any() for g in gradients(model, nothing.sum()))


# --- the presets of config/ ---------------------------------------------------------------------------------
LADDER = {'nano': 5_180_672, 'mini': 27_402_752, 'midi': 92_228_352, 'mega': 1_130_981_376,
          'codeparrot_small': 110_119_680, 'codeparrot': 1_532_059_200}
# n_embd, n_head, n_layer, n_ffn: as the lesson has them
LESSON = {'nano': (256, 8, 6, 768), 'mini': (512, 8, 8, 1536), 'midi': (768, 12, 12, 2304),
          'mega': (2048, 32, 22, 5632)}


def test_a_preset_has_the_parameters_that_it_states_and_the_lessons_settings():
    for name, n in LADDER.items():
        text = (ROOT / f'config/{name}.py').read_text(encoding='utf-8').replace('\n# ', ' ')
        settings = {}
        for path in re.search(r'train.py ((config/nano.py )?config/\w+.py)', text)[1].split():
            settings |= runpy.run_path(str(ROOT / path))
        shape = GPTConfig.__dataclass_fields__.keys() & settings.keys()
        config = GPTConfig(**{key: settings[key] for key in shape})
        assert count_parameters(sketch(config))['total'] == n, name
        assert re.search(rf'\b{n:,} parameters', text), name
        if name in LESSON:
            assert (config.n_embd, config.n_head, config.n_layer, config.n_ffn) == LESSON[name]
            names = ('block_size', 'batch_size', 'max_steps', 'learning_rate', 'min_lr', 'warmup_steps',
                     'grad_clip', 'log_interval', 'eval_interval', 'save_interval')
            wanted = [512, 32, 10_000, 3e-4, 3e-5, 1000, 1.0, 50, 500, 1000]
            assert [settings[name] for name in names] == wanted
            assert settings['sample_prompt'] == 'ROMEO:'
        # flags that bring it to the size that the lesson claims: 11M, 50M, 200M
        claims = re.findall(r'((?:--\w+=\d+ )+)there are ([\d,]+)\.', text)
        assert len(claims) == (name in ('nano', 'mini', 'midi')), name
        for flags, n in claims:
            larger = {key: int(value) for key, value in re.findall(r'--(\w+)=(\d+)', flags)}
            config = GPTConfig(**{key: (settings | larger)[key] for key in shape})
            assert f'{count_parameters(sketch(config))["total"]:,}' == n, name


# --- a vocabulary filled up to a multiple of 64 -------------------------------------------------------------
def test_padding_changes_no_loss_logit_or_gradient_and_is_never_sampled():
    """The padded rows would win each comparison."""
    for tied in (True, False):
        plain, (idx, targets) = lively(tie_embeddings=tied), batch()
        padded = like(plain, vocab_multiple=64)
        for matrix in (padded.embedding.weight, padded.head.weight):
            assert matrix.shape == (64, 32)
            matrix.data[50:] = 1000.0
        (a, loss_a), (b, loss_b) = plain(idx, targets), padded(idx, targets)
        same((a, loss_a), (b, loss_b), 1e-5)
        for grad, of in zip(gradients(padded, loss_b), gradients(plain, loss_a), strict=True):
            assert torch.allclose(grad[:len(of)], of, atol=1e-6) and not grad[len(of):].any()
        for draw in (dict(temperature=0), dict(temperature=5), dict(top_k=99), dict(top_p=0.9)):
            written = []
            for model in (plain, padded):
                torch.manual_seed(1)
                written.append(model.generate(idx[:, :3], 30, **draw))
            assert written[1].max() < 50 and torch.equal(*written), draw
