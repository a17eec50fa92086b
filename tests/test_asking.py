"""Prompts become text: healing, where an answer ends, and sample.py against one token at a time, no cache."""
from conftest import greedy, ok, run

from parts.sample.asking import Prompt, Text, end_of
from parts.sample.decoding import Answer
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
    answer = Answer((1,), 50, None)
    it = Text(answer, Tokenizer.byte(), Prompt([1], None, 0, last), **end_of(stop_at))
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
