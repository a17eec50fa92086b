"""
Figures of generated text: is it Python, does it turn in circles?

    syntax_error('x = = 1')                     # 'SyntaxError: invalid syntax (program, line 1)'
    parse_rate(['x = 1\\ny = [', 'no code'])    # 0.5: the last statement may be cut off
    repetition(['a b c d a b c d'])             # 0.2

Copy this file alone: it needs torch.
"""
import re, warnings
import torch


def syntax_error(code):
    """Why a text is not Python, or None if it is. (ast.parse would accept a `return` outside a function.)"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')                             # of odd escapes in strings
            compile(code, 'program', 'exec', dont_inherit=True)
    except Exception as e:          # lone surrogates: UnicodeEncodeError; deep nesting: MemoryError
        return f'{type(e).__name__}: {e}'


def parse_rate(texts):
    """Share of texts that parse as Python. The last top-level statement may be cut off and is ignored; a text
    with no other statement counts as not Python."""
    good = 0
    for text in texts:
        ends = [m.start() for m in re.finditer(r'\n(?=[^\s#)\]}])', text)]
        whole = text[:max(ends, default=0)]
        if re.search(r'^[^\s#]', whole, re.M) and syntax_error(whole) is None:
            good += 1
    return good / len(texts)


def is_code(texts):
    """Whether most of the texts are Python."""
    return parse_rate(texts) >= 0.5


def samples(model, tokenizer, prompt, num_samples, sample_tokens):
    """Texts that the model writes now. prompt: a text, with which they begin; or ids, which are not shown."""
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    prompts = torch.tensor([ids] * num_samples, device=model.embedding.weight.device)      # (num_samples, T)
    rows = model.generate(prompts, sample_tokens, temperature=0.8, top_k=50)
    return [tokenizer.decode(row if isinstance(prompt, str) else row[len(ids):]) for row in rows.tolist()]


def figures(texts, code):
    """For metrics.jsonl: repetition, and parse_rate if the training data are code."""
    found = {'repetition': repetition(texts)}
    if code:
        found['parse_rate'] = parse_rate(texts)
    return found


def repetition(texts, n=4):
    """The share of n-grams of words that the same text has had before: 0.9 and more is a model that turns in
    circles. repetition(['a b c d a b c d']): 1 of 5."""
    repeated = total = 0
    for text in texts:
        words = text.split()
        grams = [tuple(words[i:i + n]) for i in range(len(words) - n + 1)]
        repeated += len(grams) - len(set(grams))
        total += len(grams)
    return repeated / max(1, total)
