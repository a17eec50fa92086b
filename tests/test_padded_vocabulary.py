"""Rows that fill the vocabulary up to a multiple of 64 are not tokens: they change no loss or gradient, are
never sampled, do not leave for Hugging Face, and stay behind when the vocabulary grows."""
import pytest
import torch
from conftest import TINY, metrics, ok, run

from model import GPT, GPTConfig, load_checkpoint
from parts.train.planner import count_parameters

V = 65
IDX = torch.randint(V, (4, 17), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=['tied', 'untied'])
def pair(request):
    """The same weights without and with padding; the padded rows would win each comparison."""
    torch.manual_seed(0)
    plain = GPT(GPTConfig(V, 16, 2, 2, 1, 32, tie_embeddings=request.param == 'tied'))
    padded = plain.like(vocab_multiple=64)
    for matrix in (padded.embedding.weight, padded.head.weight):
        assert matrix.shape == (128, 32) and matrix.any()
        matrix.data[V:] = 1000.0
    assert count_parameters(vars(padded.config))['total'] == sum(p.numel() for p in padded.parameters())
    return plain, padded


def test_loss_logits_and_gradients_are_those_without_padding(pair):
    for smoothing in (0.0, 0.1):
        results = []
        for model in pair:
            model.label_smoothing, model.focal = smoothing, smoothing
            model.zero_grad()
            logits, loss = model(IDX[:, :-1], IDX[:, 1:])
            loss.backward()
            results.append((logits, loss, {name: p.grad for name, p in model.named_parameters()}))
        (a, loss_a, grads_a), (b, loss_b, grads_b) = results
        assert b.shape == (4, 16, V) and torch.allclose(a, b, atol=1e-5)
        assert loss_a.item() == pytest.approx(loss_b.item(), rel=1e-6)
        for name, grad in grads_b.items():
            rows = V if name in ('embedding.weight', 'head.weight') else len(grad)
            assert torch.allclose(grad[:rows], grads_a[name], atol=1e-6) and not grad[rows:].any(), name


def test_a_padded_row_is_never_sampled(pair):
    for draw in (dict(temperature=0), dict(temperature=5), dict(top_k=99), dict(top_p=0.9)):
        written = []
        for model in pair:
            torch.manual_seed(1)
            written.append(model.generate(IDX[:, :3], 60, **draw))
        assert written[1].max() < V and torch.equal(*written), draw


def test_hugging_face_gets_the_true_rows(pair, tmp_path):
    transformers = pytest.importorskip('transformers')
    plain, padded = pair
    padded.save_hf(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert theirs.config.vocab_size == V == len(theirs.get_input_embeddings().weight)
    assert torch.allclose(theirs(IDX[:, :16]).logits, plain.eval()(IDX[:, :16])[0], atol=1e-5)
    back = GPT.from_hf(tmp_path)
    assert all(torch.equal(p, plain.state_dict()[name]) for name, p in back.state_dict().items())


def test_a_copy_keeps_the_filling_rows_so_that_a_resumed_run_has_the_same_bits(pair):
    """sft.py, dpo.py and rl.py copy the model when they begin and when they resume."""
    plain, padded = pair
    for copy, of in ((padded.like(dropout=0.1), padded), (padded.like(vocab_multiple=1), plain)):
        assert all(torch.equal(p, of.state_dict()[name]) for name, p in copy.state_dict().items())
    assert padded.like(dropout=0.1).config.dropout == 0.1


def test_growing_takes_the_mean_of_the_true_rows(pair):
    plain, padded = pair
    a, b = plain.grown(70), padded.grown(70)
    assert b.config.vocab_size == 70 and b.embedding.weight.shape == (128, 32)
    for name, weights in a.state_dict().items():
        assert torch.equal(weights, b.state_dict()[name][:len(weights)]), name
    assert padded.grown(V) is padded and padded.grown(129).embedding.weight.shape == (192, 32)


def test_a_run_with_padding_trains_and_hands_its_true_rows_on(data_dir, tmp_path):
    flags = [f'--data_dir={data_dir}', *TINY]
    ok(run('train.py', *flags, '--vocab_multiple=384', f'--out_dir={tmp_path}/a'))
    model, _ = load_checkpoint(tmp_path / 'a' / 'last.pt')
    assert model.config.vocab_size == 512 and len(model.embedding.weight) == 768
    losses = [row['val_loss'] for row in metrics(tmp_path / 'a') if 'val_loss' in row]
    assert 6.1 < losses[0] < 6.4 and losses[-1] < losses[0]                 # ln 512 = 6.24, ln 768 = 6.64
    ok(run('train.py', *flags, f'--init_from={tmp_path}/a', f'--out_dir={tmp_path}/b'))
    assert len(load_checkpoint(tmp_path / 'b' / 'last.pt')[0].embedding.weight) == 512
    again = [row['val_loss'] for row in metrics(tmp_path / 'b') if 'val_loss' in row]
    assert again[0] == pytest.approx(losses[-1], rel=1e-3)                 # bfloat16, other shapes
