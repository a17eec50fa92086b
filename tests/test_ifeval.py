"""IFEval's instructions: one text follows each, another breaks it; what has no check never passes."""
import json

import pytest
from conftest import mistake, ok, run

from parts.eval import ifeval
from parts.eval.ifeval import KINDS, follows

# kind, arguments, a text that follows it, a text that does not; by hand from arXiv:2311.07911, table 1
CASES = [
    ('keywords:existence', {'keywords': ['Rain', 'sun']}, 'the sun after rain', 'the sun'),
    ('keywords:frequency', {'keyword': 'oak', 'frequency': 2, 'relation': 'at least'}, 'Oak, oak', 'oak'),
    ('keywords:frequency', {'keyword': 'oak', 'frequency': 2, 'relation': 'less than'}, 'oak', 'oak oak'),
    ('keywords:forbidden_words', {'forbidden_words': ['oak']}, 'a soaked tree', 'an Oak'),
    ('keywords:letter_frequency', {'letter': 'o', 'let_frequency': 3, 'let_relation': 'at least'},
     'Ooo', 'oo'),
    ('length_constraints:number_sentences', {'num_sentences': 2, 'relation': 'less than'},
     'One, at 3.5 m.', 'One. "Two!" Three?'),
    ('length_constraints:number_paragraphs', {'num_paragraphs': 2}, 'a\n***\nb', 'a\n\nb'),
    ('length_constraints:number_words', {'num_words': 3, 'relation': 'at least'},
     'one, two three', 'one two'),
    ('length_constraints:nth_paragraph_first_word', {'num_paragraphs': 2, 'nth_paragraph': 2,
     'first_word': 'Weekend'}, 'a\n\n"weekend, b', 'weekend\n\na'),
    ('detectable_content:number_placeholders', {'num_placeholders': 2}, '[name] at [home]', '[name]'),
    ('detectable_content:postscript', {'postscript_marker': 'P.S.'}, 'Yes.\n\np. s. no', 'Yes.'),
    ('detectable_content:postscript', {'postscript_marker': 'P.P.S'}, 'P.P.S yes', 'P.S. yes'),
    ('detectable_format:number_bullet_lists', {'num_bullets': 2}, '* a\n- b', '* a'),
    ('detectable_format:constrained_response', {}, 'My answer is maybe.', 'Maybe.'),
    ('detectable_format:number_highlighted_sections', {'num_highlights': 2}, '*a* and *b*', '*a* **'),
    ('detectable_format:multiple_sections', {'section_spliter': 'PART', 'num_sections': 2},
     'PART 1\na\nPART 2\nb', 'PART 1'),
    ('detectable_format:json_format', {}, '```json\n{"a": [1]}\n```', '{a: 1}'),
    ('detectable_format:title', {}, '<<Trees>>\nOak', '<< >>'),
    ('combination:two_responses', {}, 'a\n******\nb', 'a\n******\na'),
    ('combination:repeat_prompt', {'prompt_to_repeat': 'Say yes'}, 'say YES. Yes', 'Yes'),
    ('startend:end_checker', {'end_phrase': 'The end.'}, 'Yes. the END."', 'The end. Yes'),
    ('startend:quotation', {}, ' "yes" ', '"yes'),
    ('change_case:capital_word_frequency', {'capital_frequency': 2, 'capital_relation': 'at least'},
     'THE WELL-KNOWN oak', 'THE oak'),
    ('change_case:english_capital', {}, 'AN OAK', 'An oak'),
    ('change_case:english_lowercase', {}, 'an oak', 'An oak'),
    ('punctuation:no_comma', {}, 'a b', 'a, b')]


@pytest.mark.parametrize('kind, arguments, good, bad', CASES)
def test_each_kind_has_a_text_that_follows_and_one_that_does_not(kind, arguments, good, bad):
    assert follows(kind, arguments, good) is True and follows(kind, arguments, bad) is False
    assert follows(kind, arguments, ' \n') is False


def test_all_kinds_of_the_paper_but_one_are_there():
    assert {kind for kind, *_ in CASES} == KINDS.keys() and len(KINDS) == 24
    assert follows('language:response_language', {'language': 'kn'}, 'x') is None


def record(key, kinds, **kwargs):
    return {'key': key, 'prompt': 'Write.', 'instruction_id_list': kinds,
            'kwargs': [kwargs if i == 0 else {} for i, _ in enumerate(kinds)]}


def test_a_file_as_published_is_scored_strictly_and_loosely(tmp_path):
    """By hand: 1000 follows both; 1001 only without its first line; 1002 one of two; 1003 has no check."""
    comma, quoted, language = 'punctuation:no_comma', 'startend:quotation', 'language:response_language'
    rows = [record(1000, [comma, quoted], num_words=None), record(1001, [quoted]),
            record(1002, [comma, quoted]), record(1003, [language], language='de'),
            record(1004, [language, comma], language='de')]
    said = ['"Yes"', 'Sure:\n"Yes"', 'Yes', 'Ja', 'a,b']
    for name, lines in ('data', rows), ('answers', [{'task_id': 1000 + i, 'completion': text}
                                                    for i, text in enumerate(said)]):
        (tmp_path / name).write_text(''.join(json.dumps(x) + '\n' for x in lines), encoding='utf-8')
    text = ok(run('eval.py', '--tasks=instructions', f'--data={tmp_path}/data', f'--out={tmp_path}/eval.json',
                  f'--completions={tmp_path}/answers'))
    result = json.loads((tmp_path / 'eval.json').read_text(encoding='utf-8'))['tasks']['instructions']
    assert result['outcomes'] == {'passed': 1, 'wrong': 3, 'unsupported': 1} and result['pass@1'] == 1 / 5
    assert result['prompts_strict'] == 1 / 3 and result['prompts_loose'] == 2 / 3
    assert result['instructions_strict'] == 3 / 6 and result['instructions_loose'] == 4 / 6
    assert result['unsupported'] == {language: 2} and language in text
    assert 'sample.py' not in text                  # no model was scored, so none is recommended


@pytest.mark.parametrize('line, words', [
    (record(1, []), ['empty']), (record(1, ['keywords:existence']), ['keywords:existence', 'line 1']),
    (record(1, ['keywords:frequency'], keyword='a', frequency=1, relation='at most'), ["'at most'"]),
    (record(1, ['keywords:existence'], keywords=['(']), ['keywords:existence'])])
def test_an_instruction_that_cannot_be_tried_is_refused(line, words, tmp_path):
    (tmp_path / 'data').write_text(json.dumps(line), encoding='utf-8')
    with pytest.raises(ValueError):
        ifeval.check(line)
    mistake(run('eval.py', '--tasks=instructions', f'--data={tmp_path}/data', '--completions=x'), *words)
