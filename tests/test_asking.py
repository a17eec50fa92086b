"""Prompts become text: where an answer ends, and sample.py against one token at a time, no cache.
Many answers in a batch: each is the answer alone, whoever is next to it."""
import math
import random
import re
import types

import pytest
import torch
from conftest import greedy, ok, run, sharpen

from model import GPT, GPTConfig
from model import sample as draw_one
from parts.sample import asking
from parts.sample.asking import Answer, Prompt, end_of
from tokenizer import Tokenizer

PROMPT = 'def f7'


def sample(ckpt, *flags):
    """The texts that sample.py writes, with their prompts. Several have a line before each of them."""
    said = ok(run('sample.py', f'--ckpt={ckpt}', '--device=cpu', *flags))
    return [text.removesuffix('\n') for text in re.split('--- temperature [^ ]+ -+\n', said) if text]


def test_temperature_0_writes_the_most_probable_tokens_also_past_the_context(babbler):
    """And nothing of a text to stop at, though tokens cut it."""
    expected = greedy(babbler, PROMPT, 120)
    assert len(Tokenizer.load(babbler / 'tokenizer.json').encode(expected)) > 80      # the context is 32
    flags = [f'--prompt={PROMPT}', '--temperature=0', '--max_new_tokens=120']
    assert sample(babbler, *flags, '--seed=2') == [expected]
    assert sample(babbler, *flags, '--random_init=True') != [expected]
    stop = expected[len(PROMPT) + 21:][:5]
    before, _, _ = expected[len(PROMPT):].partition(stop)
    assert sample(babbler, *flags, f'--stop_at={stop}') == [PROMPT + before]


def test_samples_are_as_many_as_asked_and_follow_from_the_seed(babbler):
    flags = [f'--prompt={PROMPT}', '--num_samples=4', '--temperature=2', '--top_k=0', '--max_new_tokens=30']
    texts = sample(babbler, *flags)
    assert len(texts) == 4 == len(set(texts)) and sample(babbler, *flags[:1], *flags[2:]) == texts[:1]
    assert sample(babbler, *flags) == texts and sample(babbler, *flags, '--seed=2') != texts


def test_a_prompt_file_is_completed_character_for_character(babbler, tmp_path):
    for content in 'def f7(a, b):\n\treturn ', 'naïve 漢字 \n\n ', 'x' * 99:
        (tmp_path / 'prompt.py').write_text(content, encoding='utf-8')
        flags = [f'--prompt_file={tmp_path}/prompt.py', '--temperature=0', '--max_new_tokens=3']
        [text] = sample(babbler, *flags)
        assert text.startswith(content) and text == greedy(babbler, content, 3), content


# --- without a model ----------------------------------------------------------------------------------------
def answer_of(text, stop_at, last=''):
    """The Answer that these bytes become, one id each, and its pieces. last: the prompt's last character."""
    answer = Answer(Prompt([1], last=last), [0.5] * 50, Tokenizer.byte(), end_of(stop_at))
    pieces = []
    for byte in text.encode():
        if not answer.finish:
            answer.ids.append(byte)
            pieces.append(answer.take())
    return answer, pieces


def test_where_a_function_ends_and_that_the_prompts_last_character_is_no_stop_text():
    for last, ends, text, expected, finish in [
            ('', 'function', '  a\n\n\ndef g', '  a\n\n\n', 'stop'),
            ('', 'function', '  a\n\n\n', '  a\n\n\n', None),
            ('', 'function', '  a\n# b\n  c\n)\n]\n}\nd', '  a\n# b\n  c\n)\n]\n}\n', 'stop'),
            ('\n', 'function', 'def', '', 'stop'), (':', 'function', '\n  a', '\n  a', None),
            ('', 'E.D', 'abE.DcE.D', 'ab', 'stop'), ('', 'E.D', 'abEND', 'abEND', None),
            ('x', 'x', 'axb', 'a', 'stop'), ('x', 'xa', 'ab xa', 'ab ', 'stop'),
            ('', '', 'abc', 'abc', None)]:
        answer = answer_of(text, ends, last)[0]
        assert (answer.text, answer.finish) == (expected, finish), (last, ends, text)
    assert answer_of('zabaabc', 'abX')[1] == ['z', '', '', 'ab', 'a', '', 'abc']          # held back
    assert answer_of('漢x', '')[1] == ['', '', '漢', 'x']                  # with the last byte of a character


def test_of_several_stop_words_the_first_that_is_complete_ends_the_text_and_none_is_shown_in_part():
    """Against a slow version, which looks at each beginning of the text."""
    dice = random.Random(0)
    some = lambda most: ''.join(dice.choices('ab', k=dice.randint(1, most)))
    for _ in range(2000):
        words, text = [some(5) for _ in range(dice.randint(1, 4))], some(12)
        cuts = [min(at for word in words if (at := text[:n].find(word)) >= 0)
                for n in range(len(text) + 1) if any(word in text[:n] for word in words)]
        expected = text[:cuts[0]] if cuts else text
        answer = Answer(Prompt([1]), [0.5] * len(text), Tokenizer.byte(), words)
        shown = ''
        for byte in text.encode():
            if not answer.finish:
                answer.append(byte, ())
                shown += answer.take()
                assert expected.startswith(shown)
                kept = answer.text[len(shown):]
                assert kept == '' or any(word.startswith(kept) for word in words)
        assert shown == answer.text == expected, (words, text)
        assert answer.finish == ('stop' if cuts else 'length')


# --- many answers at a time ---------------------------------------------------------------------------------
CONTEXT, STOP = 48, {0, 3}


def sharp():
    torch.manual_seed(0)
    return sharpen(GPT(GPTConfig(97, CONTEXT, 2, 4, 2, 32)))


def answers_to(prompts, limits, never=()):
    """Answers to lists of ids. An answer's random numbers follow from its place in the list. To prompts of
    an even length, the first id is one of six."""
    tokenizer = types.SimpleNamespace(never_in_answers=lambda n_rows: [*never])
    return [Answer(Prompt(ids, [*range(20, 26)] if len(ids) % 2 == 0 else None),
                   [random.Random(i).random() for _ in range(limit)], tokenizer)
            for i, (ids, limit) in enumerate(zip(prompts, limits))]


def log_p(logits, ids):
    return logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]


def alone(model, answer, **how):
    """Independent: one row, no cache, the whole window afresh for each id. -> its ids, their log p"""
    ids, scores = list(answer.prompt.ids), []
    with torch.no_grad():
        while len(scores) < len(answer.noise) and not (scores and ids[-1] in STOP):
            logits = model(torch.tensor([ids[-CONTEXT:]]))[0][:, -1]
            logits[:, answer.tokenizer.never_in_answers(97)] = -math.inf
            if answer.prompt.allowed and not scores:
                logits[:, :20] = logits[:, 26:] = -math.inf
            drawn = draw_one(logits, u=torch.tensor([answer.noise[len(scores)]]), **how)
            scores += log_p(logits, drawn).tolist()
            ids += drawn.tolist()
    return ids[len(answer.prompt.ids):], scores


def test_prompts_of_1_to_52_ids_in_a_batch_are_answered_as_alone_also_past_the_context():
    """Greedy, and sampled with the same numbers; whoever is next to it. 1e-4: of float32 sums in another
    order, at log p down to -15."""
    dice, model = random.Random(1), sharp()
    prompts = [[dice.randrange(1, 97) for _ in range(n)] for n in range(1, CONTEXT + 5)]
    prompts += prompts[:CONTEXT:3]              # some are equal
    limits = [1 + 7 * i % 40 for i in range(len(prompts))]
    for how, never in ({'temperature': 0}, []), (
            {'temperature': 1.6, 'top_k': 60, 'top_p': 0.5}, [3, *range(50, 97)]):
        expected = [alone(model, answer, **how) for answer in answers_to(prompts, limits, never)]
        assert sum(len(ids) + len(prompt) > CONTEXT + 1 for (ids, _), prompt in zip(expected, prompts)) > 5
        for slots in 1, 5, 99:
            answers = answers_to(prompts, limits, never)
            written = asking.write(model, answers, STOP, slots, score=log_p, **how)
            ended = [answer for answer in written if answer.finish]
            assert sorted(map(id, ended)) == sorted(map(id, answers))
            for answer, (ids, scores) in zip(answers, expected):
                assert answer.ids == ids, slots
                assert answer.finish == ('stop' if answer.ids[-1] in STOP else 'length')
                assert answer.scores == pytest.approx(scores, abs=1e-4)


def test_equal_prompts_run_once_and_answers_that_ended_leave():
    """Their reader may end one, too. They leave when they are more than a fifth, one token later."""
    model, shapes = sharp(), []         # (rows, columns) of what enters the embedding
    model.embedding.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    answers = answers_to([[5, 6, 7], [8], [5, 6, 7], [5, 6, 7]], [9, 2, 9, 5])
    for answer in asking.write(model, answers, ()):
        if answer is answers[0] and len(answer.ids) == 3:
            answer.finish = 'gone'
    assert shapes[0] == (2, 3)
    assert [n for n, _ in shapes[1:]] == [4, 4, 3, 2, 2, 1, 1, 1]
    assert [len(answer.ids) for answer in answers] == [3, 2, 9, 5]
