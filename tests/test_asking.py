"""Prompts become text: healing, where an answer ends, and sample.py against one token at a time, no cache.
Many answers in a batch: each is the answer alone, whoever is next to it."""
import random

import numpy as np
import pytest
import torch
from conftest import greedy, ok, run, sharpen
from test_generation import nucleus_of
from test_model import lively

from model import GPT, GPTConfig
from parts.sample import asking
from parts.sample.asking import Answer, Prompt, Text, end_of
from tokenizer import Tokenizer

RULE, PROMPT = '-' * 80 + '\n', 'def f7'


def sample(ckpt, *flags):
    """What sample.py writes after its settings: the texts, each with its prompt."""
    said = ok(run('sample.py', f'--ckpt={ckpt}', '--device=cpu', f'--prompt={PROMPT}', *flags))
    return [text.removesuffix('\n') for text in said.split(RULE)[1:-1]]     # the rule has its own line


def test_temperature_0_writes_the_most_probable_tokens_also_past_the_context(babbler):
    expected = greedy(babbler, PROMPT, 120)
    assert len(Tokenizer.load(babbler / 'tokenizer.json').encode(expected)) > 80      # the context is 32
    assert sample(babbler, '--temperature=0', '--max_new_tokens=120', '--seed=2') == [expected]
    assert sample(babbler, '--temperature=0', '--random_init=True', '--max_new_tokens=120') != [expected]


def test_samples_are_as_many_as_asked_and_follow_from_the_seed(babbler):
    flags = ['--num_samples=4', '--temperature=2', '--top_k=0', '--max_new_tokens=30']
    texts = sample(babbler, *flags)
    assert len(texts) == 4 == len(set(texts)) and all(text.startswith(PROMPT) for text in texts)
    assert sample(babbler, *flags) == texts and sample(babbler, *flags, '--seed=2') != texts


def test_a_prompt_file_is_completed_character_for_character(babbler, tmp_path):
    for content in 'def f7(a, b):\n\treturn ', 'naïve 漢字 \n\n ', 'x' * 99:
        (tmp_path / 'prompt.py').write_text(content, encoding='utf-8')
        said = ok(run('sample.py', f'--ckpt={babbler}', f'--prompt_file={tmp_path}/prompt.py',
                      '--device=cpu', '--temperature=0', '--max_new_tokens=3'))
        text = said.split(RULE)[1].removesuffix('\n')
        assert text.startswith(content) and text == greedy(babbler, content, 3), content


def test_nothing_of_a_stop_text_is_written_though_tokens_cut_it(babbler):
    whole = greedy(babbler, PROMPT, 60)
    for begin, n in (10, 1), (21, 2):
        stop = whole[len(PROMPT) + begin:][:5]
        expected = whole[:whole.index(stop, len(PROMPT))]
        flags = ['--temperature=0', '--max_new_tokens=60', f'--stop_at={stop}', f'--num_samples={n}']
        assert sample(babbler, *flags) == [expected] * n, stop


# --- without a model ----------------------------------------------------------------------------------------
def test_healing_lets_the_last_token_become_a_longer_one():
    tok = Tokenizer.train(['def f(x):\n    return x\n'] * 9, 340)
    ids = tok.encode('def f(x):')
    start, allowed = tok.heal(ids)
    assert start == ids[:-1] and ids[-1] in allowed
    assert allowed == [i for i, t in enumerate(tok.vocab) if t.startswith(tok.vocab[ids[-1]])]
    assert tok.encode('def f(x):\n    return x')[len(start)] in allowed and len(allowed) > 1
    for ids in [], [5, tok.special['<|im_end|>']]:
        assert tok.heal(ids) == (ids, None)


def text_of(text, stop_at, last=''):
    """The Text that these bytes become, one id each, and its pieces. last: the prompt's last character."""
    prompt = Prompt([1], None, 0, last)
    answer = Answer(prompt, [0.5] * 50)
    it = Text(answer, Tokenizer.byte(), prompt, **end_of(stop_at))
    pieces = []
    for byte in text.encode():
        if not answer.finish:
            answer.ids.append(byte)
            pieces.append(it.take())
    return it, pieces


def test_where_a_function_ends_and_that_the_prompts_last_character_is_no_stop_text():
    for body, rest in ('  a\n\n\n', 'def g'), ('  x = (\n', '1)\n'), ('  a\n# b\n  c\n)\n]\n}\n', 'd'):
        assert text_of(body + rest, 'function')[0].text == body
        it = text_of(body, 'function')[0]
        assert it.text == body and not it.answer.finish         # the next line may be indented too
    it = text_of('abE.DcE.D', 'E.D')[0]
    assert it.text == 'ab' and it.answer.finish == 'stop'
    assert text_of('abEND', 'E.D')[0].text == 'abEND'
    assert text_of('zabaabc', 'abX')[1] == ['z', '', '', 'ab', 'a', '', 'abc']          # held back
    assert text_of('漢x', '')[1] == ['', '', '漢', 'x']                  # with the last byte of a character

    for last, ends, text, expected in [
            ('\n', '\n', 'ab\ncd', 'ab'), ('x', 'x', 'axb', 'a'), ('x', 'xa', 'ab xa', 'ab '),
            ('', 'b', 'abc', 'a'), ('\n', 'function', 'def', ''), ('\n', 'function', '  a\nb', '  a\n'),
            (':', 'function', '\n  a', '\n  a')]:
        assert text_of(text, ends, last)[0].text == expected, (last, ends, text)


# --- many answers at a time ---------------------------------------------------------------------------------
CONTEXT, STOP = 24, {0, 3}


def sharp(**settings):
    torch.manual_seed(0)
    return sharpen(GPT(GPTConfig(97, CONTEXT, 2, 4, 2, 32, **settings)))


def answers_to(prompts, limits):
    """Answers to lists of ids. An answer's random numbers follow from its place in the list."""
    return [Answer(Prompt(ids, None, 0, ''), np.random.default_rng(i).random(limit).tolist())
            for i, (ids, limit) in enumerate(zip(prompts, limits))]


def log_p(logits, ids):
    return logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]


def prompts_of(n):
    dice = random.Random(n)
    prompts = [[dice.randrange(1, 97) for _ in range(dice.randint(1, CONTEXT + 4))] for _ in range(n)]
    return prompts + prompts[:n // 2]           # some are equal


@torch.no_grad()
def slowly(model, answer, temperature, top_k, top_p, never):
    """Independent: no cache, no batch, weights sorted in Python. -> ids, log p of each"""
    ids, log_probs = list(answer.prompt.ids), []
    n = len(ids)
    for u in answer.noise:
        logits = model(torch.tensor([ids[-CONTEXT:]]))[0][0, -1].double()
        logits[never] = -torch.inf
        nucleus = nucleus_of(logits, max(temperature, 1e-6), top_k, top_p)
        passed = 0.0
        for i in sorted(nucleus):               # in the order of ids
            passed += nucleus[i]
            if passed > u * sum(nucleus.values()):
                break
        ids.append(i)
        log_probs.append(logits.log_softmax(-1)[i].item())
        if i in STOP:
            break
    return ids[n:], log_probs


SETTINGS = ((0, 0, 1.0, []), (0.7, 5, 1.0, [6, 7]), (1.0, 40, 0.9, []), (1.6, 0, 0.5, [3, *range(50, 97)]))


@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_each_answer_is_drawn_with_its_own_numbers_however_many_are_written_at_a_time(settings):
    """1e-4: of float32 sums in another order, at log p down to -15."""
    model, prompts = sharp().train(), prompts_of(20)
    limits = [1 + 7 * i % 40 for i in range(len(prompts))]
    how = dict(zip(('temperature', 'top_k', 'top_p', 'never'), settings))
    alone = [slowly(model, answer, **how) for answer in answers_to(prompts, limits)]
    assert sum(len(prompt) + len(ids) > CONTEXT + 1 for prompt, (ids, _) in zip(prompts, alone)) > 5
    for slots, look in ((1, None), (5, 16), (60, None), (60, 4)):
        answers = answers_to(prompts, limits)
        ended = [answer for answer in asking.write(model, answers, STOP, slots, score=log_p, look=look, **how)
                 if answer.finish]
        assert sorted(map(id, ended)) == sorted(map(id, answers)) and model.training
        for answer, (ids, log_probs) in zip(answers, alone):
            assert answer.ids == ids, slots
            assert answer.finish == ('stop' if ids[-1] in STOP else 'length')
            assert answer.scores == pytest.approx(log_probs, abs=1e-4)


def test_log_probs_in_bfloat16_are_near_those_of_float32():
    """Logits within 0.05, as test_generation.py holds for GPT.stream; log p adds the rounding of the sum."""
    for kind in 'bfloat16', 'autocast':
        model, exact = (lively(std=0.1, n_kv_head=2, block_size=CONTEXT).eval() for _ in range(2))
        answers = answers_to([[1 + i, 2, 3][:i] for i in range(1, 4)], [12] * 3)
        with torch.autocast('cpu', torch.bfloat16, enabled=kind == 'autocast'):
            list(asking.write(model.bfloat16() if kind == 'bfloat16' else model, answers, STOP, score=log_p))
        for answer in answers:
            for i, id in enumerate(answer.ids):
                logits = exact(torch.tensor([[*answer.prompt.ids, *answer.ids[:i]]]))[0][0, -1]
                assert abs(logits.log_softmax(-1)[id].item() - answer.scores[i]) < 0.06, kind


def test_a_reader_who_wants_no_more_ends_an_answer_and_it_costs_one_more_position():
    model = sharp()
    rows = []
    model.embedding.register_forward_hook(lambda module, given, out: rows.append(len(given[0])))
    answers = answers_to([[5, 6], [7]], [9, 9])
    for answer in asking.write(model, answers, ()):
        if answer is answers[0] and len(answer.ids) == 3:
            answer.finish = 'gone'
    assert [len(answer.ids) for answer in answers] == [3, 9] and rows == [2] * 4 + [1] * 5

    rows.clear()
    answers = answers_to([[5, 6], [7]], [9, 9])
    for answer in asking.write(model, answers, (), look=4):     # what was written since the last look is lost
        if answer is answers[0] and len(answer.ids) == 3:
            answer.finish = 'gone'
    assert [len(answer.ids) for answer in answers] == [3, 9] and rows == [2] * 8 + [1]


def test_the_first_token_may_be_restricted_and_ids_that_the_tokenizer_lacks_are_never_drawn():
    model = sharp()
    restricted = Answer(Prompt([9, 8], [65, 66], 0, ''), [0.5, 0.5])
    free = answers_to([[5]], [3])
    list(asking.write(model, [*free, restricted], STOP, score=log_p))
    with torch.no_grad():
        two = model(torch.tensor([[9, 8]]))[0][0, -1, [65, 66]].log_softmax(-1).tolist()
    assert restricted.ids[0] in (65, 66)
    assert restricted.scores[0] == pytest.approx(two[restricted.ids[0] - 65], abs=1e-4)
    [alone] = answers_to([[5]], [3])
    list(asking.write(model, [alone], STOP))
    assert free[0].ids == alone.ids
