"""chats.py: each form keeps its meaning or is refused by name; rules, copies, masks, the split, and
what it prints."""
import collections
import gzip
import hashlib
import json
import os
import re
import shlex
from pathlib import Path

from conftest import (ROOT, each_is_a_mistake, each_line, fill, mistake, numbered, ok, read_json,
                      read_rows, run, shared, table, with_each, write)
from test_streaming import say

from extras.text import chat_schemas


def line_of(words):
    """The line of train.jsonl that a text means: 'user: a | assistant: b', or
    'user: a | chosen: b | rejected: c | margin: 2'."""
    fields = [field.replace(r'\n', '\n').split(': ', 1) for field in words.split(' | ')]
    turns = [say(*field) for field in fields if field[0] in ('system', 'user', 'assistant', 'tool')]
    others = {name: value if name in ('chosen', 'rejected', 'completion') else json.loads(value)
              for name, value in fields[len(turns):]}
    prompt = turns[0]['content'] if len(turns) == 1 else turns
    return {'prompt': prompt, **others} if others else {'messages': turns}


# the functions above the job, which itself needs a command line
CHATS = {'__name__': 'chats'}
exec((ROOT / 'chats.py').read_text('utf-8').split('\nconfig = configure')[0], CHATS)
CHATS |= {'min_score': 4, 'pii': False, 'explicit': set()}              # as these flags say


def chats(source, *flags, **how):
    """Run chats.py, and return what it prints."""
    return ok(run(f'chats.py --source={source} --out_dir=out --overwrite=True', *flags, **how))


def of_rows(rows, *flags):
    """The same for these records."""
    return chats(write('x.jsonl', rows), *flags)


def no_chats(source, words, *flags):
    """It ends as a mistake with these words, which ` & ` separates, and leaves no results. Return what
    it says."""
    result = run(f'chats.py --source={source} --out_dir=no', *flags)
    mistake(result, words)
    assert not [*Path().glob('no/[!.]*')]
    return result.stderr


def report():
    return read_json('out/report.json')


def both():
    """The lines of train.jsonl, and those of val.jsonl."""
    return [read_rows(f'out/{side}.jsonl') for side in ('train', 'val')]


def kept():
    """All of them."""
    return sum(both(), [])


def as_text(rows):
    """Records in an order of their own, to compare."""
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def left_out():
    """{reason: records}"""
    return {why: n for why, (n, place) in report()['left_out'].items()}


# A record, and what chats.py makes of it, with the columns that may stay unread, and those that it
# asks about; or why it refuses the record.
CONVERSATIONS = r'''
{"instruction": "a", "input": "b", "output": "c"}
-> user: a\n\nb | assistant: c
{"instruction": "c", "output": "d", "history": [["a", "b"]]}
-> user: a | assistant: b | user: c | assistant: d
{"instruction": "When?", "context": "In 1932.", "response": "1932.", "category": "qa"}
-> user: When?\n\nIn 1932. | assistant: 1932. | unused: category
{"id": "cot.1", "system_prompt": "s", "question": "a", "response": "b"}
-> system: s | user: a | assistant: b | unused: id
{"context": "c", "question": "q", "answers": {"text": ["x"]}}
-> refused: or input with output, completion
{"question": "a", "answer": ["b", "B"]}
-> refused: neither text nor messages: ['answer']: 'b'
{"instruction": "a", "question": "q", "response": "b"}
-> user: a | assistant: b | asked: question
{"conversations": [{"from": "system", "value": ""}, {"from": "gpt", "value": "x"},
 {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
-> user: a | assistant: b
{"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "x"},
 {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
-> system: s | user: a | assistant: b
{"prompt": "a", "completion": "b", "label": true}
-> user: a | assistant: b | asked: label
{"prompt": "a", "completion": "b", "label": false}
-> user: a | assistant: b | asked: label
{"conversations": [{"from": "developer", "value": "s"}, {"from": "Human", "value": "a"},
 {"from": "gpt", "value": "b"}]}
-> system: s | user: a | assistant: b
{"conversation": [{"role": "prompter", "content": "a"}, {"role": "Bing", "content": "b"}]}
-> user: a | assistant: b
{"conversation": "id-7", "instruction": "a", "output": "b"}
-> user: a | assistant: b | asked: conversation
{"conversation": [{"human": "a", "assistant": "b"}]}
-> refused: unknown role: none: {'human': 'a', 'assistant': 'b'}
{"input": "a", "target": "b"}
-> refused: or input with output, completion, response, answer (cells None, N/A are empty): target, input
{"id": "0", "data": ["a", "b", "c", "d"]}
-> refused: no list of messages, and no instruction
{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
 "completion": [{"role": "assistant", "content": "b"}]}
-> system: s | user: a | assistant: b
{"messages": [{"role": "user", "name": "Ann", "content": [{"type": "text", "text": "a"}, "b"]},
 {"role": "assistant", "content": "c"}]}
-> user: a\nb | assistant: c | asked: messages.name
{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"},
 {"role": "assistant", "content": "c"}]}
-> refused: do not alternate
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b",
 "tool_calls": []}, {"role": "tool", "content": "t"}, {"role": "assistant", "content": "c"}]}
-> user: a | assistant: b | tool: t | assistant: c
{"system": "x", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
 {"role": "assistant", "content": "b"}]}
-> system: s | user: a | assistant: b | asked: system
{"system": "s", "messages": [{"role": "assistant", "content": "x"},
 {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
 {"role": "user", "content": "c"}]}
-> system: s | user: a | assistant: b
{"messages": [], "instruction": null, "prompt": "a", "output": null, "answer": "b", "data": "2024"}
-> user: a | assistant: b | asked: data
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b",
 "tool_calls": [{"id": 1}]}]}
-> user: a | assistant: b | asked: messages.tool_calls
{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}]}
-> refused: unknown role: function_call
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
-> user: a | assistant: b | asked: messages.weight
{"messages": [{"role": "user", "content": "a", "weight": 1}, {"role": "assistant", "content": "b", "weight": 1}]}
-> user: a | assistant: b | asked: messages.weight
{"messages": [{"role": "user", "content": "a", "train": false, "masked": "false", "weight": 0.0},
 {"role": "assistant", "content": "b", "train": true, "weight": 1.0, "Author": "me"}]}
-> user: a | assistant: b | unused: messages.author
{"messages": [{"role": "user", "content": "a", "loss": 0, "ignore": false},
 {"role": "assistant", "content": "b", "loss": 1, "ignore": true}]}
-> user: a | assistant: b | asked: messages.ignore, messages.loss
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0.5}]}
-> user: a | assistant: b | asked: messages.weight
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "train": "False"}]}
-> user: a | assistant: b | asked: messages.train
{"conversations": [{"from": "human", "value": "a", "masked": true}, {"from": "gpt", "value": "b"}]}
-> user: a | assistant: b | asked: messages.masked
{"messages": [{"role": "user", "content": "a", "train": true}, {"role": "assistant", "content": "b"}]}
-> user: a | assistant: b | asked: messages.train
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "No-Grad": true}]}
-> user: a | assistant: b | asked: messages.no_grad
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "Loss-Mask": "0.0"}
-> user: a | assistant: b | asked: loss_mask
{"messages": [{"role": "system", "content": "s", "weight": "0", "shown": false},
 {"role": "user", "content": "a", "loss_mask": 0, "learn": "False"},
 {"role": "assistant", "content": "b", "train": true, "weight": 1.0}]}
-> system: s | user: a | assistant: b
{"messages": [{"role": "user", "content": "a", "loss_mask": [1, 0]},
 {"role": "assistant", "content": "b", "train_detail": [{"begin_offset": 0, "train": false}]}]}
-> user: a | assistant: b | asked: messages.loss_mask, messages.train_detail
{"messages": [{"role": "user", "content": "a", "id": 7, "idx": 0, "turn": 1, "Title": "no"},
 {"role": "assistant", "content": "b", "idx": 1, "lang": "en", "msg-id": "x"}]}
-> user: a | assistant: b | unused: messages.id, messages.idx, messages.lang, messages.msg_id, messages.title | asked: messages.turn
{"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cut": true, "note": null}]},
 {"role": "assistant", "text": "b", "content": null, "refusal": "no"}]}
-> user: a | assistant: b | asked: messages.content.cut, messages.refusal
{"messages": [{"from": "human", "role": "user", "value": "b", "content": "a", "text": "c"},
 {"from": "gpt", "text": "d"}]}
-> user: a | assistant: d | asked: messages.from, messages.text, messages.value
{"prompt": "a", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
 "response": "b", "system": "s", "tag": "a"}
-> system: s | user: a | assistant: b | asked: tag
{"Prompt": "a", "prompt": "b", "completion": "c"}
-> refused: columns with one name: Prompt, prompt
{"title": "True or false? [Solved]", "tags": ["a", "bad answer"], "Split": 1, "author": ["x", 2.5],
 "metadata": "made in {May}", "source": "false friends", "prompt": "a", "completion": "b"}
-> user: a | assistant: b | unused: author, metadata, source, split, tags, title
{"prompt": "a", "completion": "b", "metadata": {"n": 1}, "source": " {'label': 0}", "split": "False",
 "tags": ["x", {"bad": 1}], "category": [true], "task_id": false, "author": "[{\"good\": 0}]", "url": "u"}
-> user: a | assistant: b | unused: url | asked: author, category, metadata, source, split, tags, task_id
{"messages": [{"role": "user", "content": "a", "id": {"x": 1}, "source": "web"},
 {"role": "assistant", "content": "b", "metadata": {"rating": "bad"}, "tags": [false]}]}
-> user: a | assistant: b | unused: messages.source | asked: messages.id, messages.metadata, messages.tags
{"prompt": "a", "completion": "b", "": 3, "Is good, 1-5": 4, "chosen": "c"}
-> user: a | assistant: b | asked: chosen, is good_1_5, unnamed
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
 {"role": "assistant", "content": "c"}]}
-> refused: do not alternate
{"messages": [{"role": "tool", "content": "a"}, {"role": "user", "content": "b"},
 {"role": "assistant", "content": "c"}]}
-> refused: do not alternate
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "calls"},
 {"role": "tool", "content": "x"}, {"role": "tool", "content": "y"},
 {"role": "assistant", "content": "b"}]}
-> user: a | assistant: calls | tool: x | tool: y | assistant: b
{"prompt": "a", "completion": " \n"}
-> refused: empty message
{"prompt": "\n", "completion": "b"}
-> refused: empty message
{"messages": [{"role": "narrator", "content": "a"}]}
-> refused: unknown role: narrator
{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
 {"role": "assistant", "content": "b"}]}
-> refused: a message is not text
{"messages": {"a": 1}}
-> refused: unknown role: none
{"Question": "a", "ANSWER": "b", "system-prompt": "s"}
-> system: s | user: a | assistant: b
{"input": "a", "output": "b"}
-> user: a | assistant: b
{"messages": "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]"}
-> user: a | assistant: b
{"messages": "[{'role': 'user'}]"}
-> refused: do not alternate
{"messages": "[{'from': 'human', 'value': 'a \"it\\'s\\n\"'}, {\"from\": \"gpt\", 'value': \"b\"}]"}
-> user: a "it's\n" | assistant: b
{"messages": "[{'from': 'human', 'value': 'a} {b}\\n{c'}\n {'from': 'gpt', 'value': 'd'}]"}
-> user: a} {b}\n{c | assistant: d
{"messages": "[{'from': 'human', 'value': 'a'} {'from': 'gpt', 'value': 'd'}]", "prompt": "a"}
-> refused: messages is a string, but neither JSON nor a Python list
{"messages": "array([{'role': 'user', 'content': 'a'}], dtype=object)"}
-> refused: messages is a string, but neither JSON nor a Python list: array([{
{"instruction": "Write a chat.", "output": "[{\"role\": \"assistant\", \"content\": \"b\"}]", "context": "c"}
-> user: Write a chat.\n\nc | assistant: [{"role": "assistant", "content": "b"}]
{"instruction": "Sort:", "input": "[{\"name\": \"b\"}, {\"name\": \"a\"}]", "output": "a, b"}
-> user: Sort:\n\n[{"name": "b"}, {"name": "a"}] | assistant: a, b
{"prompt": "\u001b[1;31merror\u001b[0m 1: N\bA", "completion": "b\u0007\u00ad"}
-> user: error 1: A | assistant: b
{"prompt": [{"role": "user", "content": "a"}], "input": "x", "completion": "b"}
-> refused: neither text nor messages: ['prompt', 'input']
{"prompt": "a", "completion": "b", "label": 0}
-> user: a | assistant: b | asked: label
{"messages": [{"role": "user", "content": "a", "attachments": ["x.pdf"]},
 {"role": "assistant", "content": "b"}], "images": ["x.png"]}
-> user: a | assistant: b | asked: images, messages.attachments
{"messages": [{"role": "user", "content": "a"}]}
-> refused: do not alternate
{"name": "Ann", "messages": [{"id": 1, "from": "Ann", "text": "a"}]}
-> refused: unknown role: ann
{"title": "t", "body": "a", "answers": [{"body": "b", "score": 3}]}
-> refused: no instruction, prompt, question, query or input with output, completion, response, answer (cells None, N/A are empty): title, body, answers
{"messages": [3]}
-> refused: neither text nor messages: ['messages']: 3
{"mapping": {"1": null}, "current_node": "1"}
-> refused: no list of messages
{"instruction": "a", "input": 5, "output": "b"}
-> refused: neither text nor messages: ['instruction', 'input']: 5
{"instruction": "a", "input": 5, "output": "b", "context": "c"}
-> refused: a question is not text: ['a', 5, 'c']
{"instruction": "a", "output": null}
-> refused: or input with output, completion
{"prompt": "a", "answer": "b", "history": [["x"]]}
-> refused: "history" must be a list of pairs
{"prompt": "a", "answer": "b", "system": 3}
-> refused: a message is not text
{"text": "a"}
-> refused: response, answer (cells None, N/A are empty): text
{"prompt": "a", "completion": "b", "score": "4.5"}
-> user: a | assistant: b
{"prompt": "a", "completion": "b", "score": null}
-> user: a | assistant: b
{"prompt": "a", "completion": "b", "score": 3.9}
-> refused: low score
{"prompt": "a", "completion": "b", "score": "nan"}
-> refused: low score
{"prompt": "a", "completion": "b", "score": "good"}
-> refused: could not convert string to float: 'good'
{"prompt": "a <| b |>", "completion": "A <|endoftext|> B<|im_end|>"}
-> user: a <| b |> | assistant: A <|endoftext|> B<|im_end|>
{"instruction": "a", "input": NaN, "output": "b", "rating": NaN, "system": NaN, "source": NaN}
-> user: a | assistant: b
{"messages": [{"role": "user", "content": "a", "weight": NaN}, {"role": "assistant", "content": "b"}], "score": NaN}
-> user: a | assistant: b
{"prompt": "x\r\n\ufeffy\u0000", "answer": "e\u0301"}
-> user: x\ny | assistant: é
'''
PAIRS = r'''
{"messages": [], "instruction": "a", "input": "b", "chosen": "c", "rejected": "d"}
-> user: a\n\nb | chosen: c | rejected: d
{"instruction": "c", "history": [["a", "b"]], "chosen": "d", "rejected": "e"}
-> user: a | assistant: b | user: c | chosen: d | rejected: e
{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
-> user: a | chosen: b | rejected: c
{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d\n\ne",
 "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: f"}
-> user: a | assistant: b | user: c | chosen: d\n\ne | rejected: f
{"prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "chosen": "d", "rejected": "e"}
-> user: a | assistant: b | user: c | chosen: d | rejected: e
{"instruction": "Human: a", "input": "b", "chosen": "c", "rejected": "d", "system": " "}
-> user: Human: a\n\nb | chosen: c | rejected: d
{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "", "score_chosen": "3", "score_rejected": 1}
-> user: a | chosen: b | rejected: c | margin: 2.0
{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_score": 4, "rejected_score": 5}
-> refused: low margin
{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_score": 4, "rejected_rating": 5}
-> user: a | chosen: b | rejected: c | asked: chosen_score, rejected_rating
{"prompt": "Human: a\n\nAssistant:", "completion": "b", "label": true}
-> user: a | completion: b | label: true
{"conversations": [{"from": "human", "value": "a"}], "chosen": {"from": "gpt", "value": "b"},
 "rejected": {"from": "gpt", "value": "c"}}
-> user: a | chosen: b | rejected: c
{"system": "s", "prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"}
-> system: s | user: a | chosen: b | rejected: c
{"prompt": [{"role": "user", "content": "a"}],
 "chosen": [{"role": "assistant", "content": "b"}, {"role": "tool", "content": "c"},
 {"role": "assistant", "content": "d"}], "rejected": [{"role": "assistant", "content": "b"},
 {"role": "tool", "content": "c"}, {"role": "assistant", "content": "e"}]}
-> refused: do not alternate
{"chosen": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "a"},
 {"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "x"},
 {"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}
-> user: a | chosen: b | rejected: c
{"system": "s", "prompt": [{"role": "system", "content": ""}, {"role": "user", "content": "a"}],
 "chosen": "b", "rejected": "c"}
-> system: s | user: a | chosen: b | rejected: c
{"prompt": "a", "chosen": [{"user": "", "assistant": ""}, {"user": "", "assistant": ""}],
 "rejected": "b"}
-> refused: unknown role: none
{"prompt": "a", "prompt_id": "1", "messages": [{"role": "user", "content": "a"},
 {"role": "assistant", "content": "b"}], "chosen": [{"role": "user", "content": "a"},
 {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "a"},
 {"role": "assistant", "content": "c"}], "score_chosen": 8, "score_rejected": 5.5}
-> user: a | chosen: b | rejected: c | margin: 2.5 | unused: prompt_id
{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 8, "score_rejected": 5,
 "margin": 0, "agreement": 0.75}
-> user: a | chosen: b | rejected: c | margin: 0.0 | agreement: 0.75 | asked: score_chosen, score_rejected
{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 8, "margin": null,
 "agreement": null}
-> user: a | chosen: b | rejected: c | asked: score_chosen
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
 "label": "false"}
-> user: a | completion: b | label: false
{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
 "completion": "b", "label": 1}
-> system: s | user: a | completion: b | label: true
{"prompt": "a", "chosen": "b", "rejected": "c", "chosen_rating": 5, "rejected_rating": "4"}
-> user: a | chosen: b | rejected: c | margin: 1.0
{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "", "score_chosen": "", "score_rejected": 1}
-> user: a | chosen: b | rejected: c
{"prompt": "a", "chosen": "b", "rejected": "c", "Chosen-Rating": 3, "rejected_rating": null}
-> user: a | chosen: b | rejected: c
{"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c"},
 {"role": "tool", "content": "x"}, {"role": "assistant", "content": "d"}]}
-> refused: ('chosen', 'rejected') are not one message each
{"prompt": "q", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
 "chosen": "a", "rejected": "b"}
-> refused: do not alternate
{"prompt": [{"role": "assistant", "content": "q"}], "chosen": "a", "rejected": "b"}
-> refused: do not alternate
{"input": {"messages": [{"role": "user", "content": "a"}], "tools": []},
 "preferred_output": [{"role": "assistant", "content": "b"}],
 "non_preferred_output": [{"role": "assistant", "content": "c"}]}
-> refused: no pair or label
{"prompt": "a", "chosen": "b", "rejected": "c", "chosen-rating": 5.0, "rejected-rating": 4}
-> user: a | chosen: b | rejected: c | margin: 1.0
{"prompt": "a", "response_a": "b", "response_b": "c", "winner": "tie"}
-> refused: no pair or label
{"messages": "hi", "chosen": "a", "rejected": "b"}
-> refused: no list of messages, and no instruction
{"prompt": "a", "completion": "b", "label": -1}
-> user: a | completion: b | label: false
{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 3, "score_rejected": null}
-> user: a | chosen: b | rejected: c
{"prompt": "a", "completion": "b", "label": "up"}
-> user: a | assistant: b | asked: label
{"prompt": "a", "chosen": "b"}
-> refused: no pair or label
{"chosen": "b", "rejected": "c"}
-> refused: no list of messages
{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
 "rejected": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "c"}]}
-> refused: different prompts
{"instruction": "a", "completions": [{"response": "b", "overall_score": 3}]}
-> refused: no pair or label
{"prompt": "a", "chosen": "x", "rejected": " x"}
-> refused: equal or empty answers
{"prompt": "a", "chosen": "x", "rejected": " "}
-> refused: equal or empty answers
{"prompt": "a", "completion": " ", "label": true}
-> refused: equal or empty answers
{"prompt": " ", "chosen": "x", "rejected": "y"}
-> refused: empty message
{"prompt": "a", "chosen": {"x": 1}, "rejected": "c"}
-> refused: unknown role: none
{"prompt": "a", "chosen": "b", "rejected": "c", "margin": "nan"}
-> refused: low margin
{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": "good", "score_rejected": 1}
-> refused: could not convert string to float: 'good'
'''


@with_each('kind, table', [('sft', CONVERSATIONS), ('preference', PAIRS)])
def test_each_form_keeps_its_meaning_or_is_refused_by_name(kind, table):
    for record, words in re.findall(r'(?s:({.*?))\n-> (.*)', table):
        words, _, asked = words.partition(' | asked: ')
        words, _, unused = words.partition(' | unused: ')
        row, before = json.loads(record), json.loads(record)
        try:
            columns, unread = CHATS['without_empty'](row), collections.defaultdict(list)
            if CHATS['needs_schemas'](columns):
                columns = chat_schemas.in_known_form(columns, {*map(CHATS['plain_name'], row)})
            example = CHATS['read_record'](columns, kind, collections.Counter(), unread)
            CHATS['check_rules'](*example)
            may = {name for name, values in unread.items()
                   if all(CHATS['is_harmless'](name, value) for value in values)}
            result = (json.loads(CHATS['line_of'](*example)), ', '.join(sorted(may)),
                      ', '.join(sorted(unread.keys() - may)))
        except ValueError as error:
            result = f'refused: {error}'
        if words.startswith('refused: '):
            assert words.removeprefix("refused: ") in str(result), (record, result)
        else:
            assert result == (line_of(words), unused, asked), record
        assert row == before


def test_no_record_makes_it_fail_but_a_fault_of_ours_does():
    """Columns and messages of other kinds than they should have are counted."""
    odd = [None, '', [], {}, 0, True, 1e400, 10 ** 400, 'x\ud800', ['a'], [[1, 2]], [None], [{}],
           {'text': ['z']}, {'messages': 3}, '[{"role": "user"}]', '\n\nHuman: a\n\nAssistant:']
    rows = [{'prompt': f'q{i}', 'completion': 'a', 'label': i > 4} for i in range(9)]
    records = map(json.loads, re.findall(r'(?s:({.*?))\n-> .*', CONVERSATIONS + PAIRS))
    for row in {(*row,): row for row in records}.values():          # one of each set of columns
        rows += [{**row, name: value} for name in row for value in odd]
    for kind in 'sft', 'preference':
        of_rows(rows, f'--kind={kind} --pii=False --unused=all')
        assert report()['read'] == len(rows) and 9 <= report()['kept'] < len(rows)
    broken = run('chats.py --source=x.jsonl --out_dir=no',
                 before="import unicodedata\nunicodedata.normalize = {}['ours']")
    assert broken.returncode == 1 and 'KeyError' in broken.stderr


# --- which kind, what is left out, what is changed ------------------------------------------------
KINDS = """
{"completion": "b"} -> next: python sft.py --init_from=out/base --data_dir=
{"chosen": "b", "rejected": "c"} -> next: python dpo.py --init_from=out/sft --data_dir=
{"completion": "b", "label": false} -> next: python dpo.py --init_from=out/sft --loss_type=kto --data_dir=
{"completion": "b", "label": 3} -> label: 3 (10 records) & --unused=label
{"completion": "b", "label": 2} --kind=preference -> label: 2 (10 records) & --unused=label
{"completion": "b", "label": "2.0"} --kind=preference -> label: "2.0" (10 records) & reads `label`: 1, 0;
{"completion": "b", "label": 0} -> label: 0, 1 (10 records) & --kind=preference reads `label`
{"output": "b", "label": true} -> label: true, false (10 records) & --kind=preference reads `label`"""


@each_line(KINDS)
def test_the_first_record_that_can_be_read_says_which_kind_it_is_or_the_label_is_asked_for(line):
    row, said = line.split(' -> ')
    row, *flags = row.split(' --')
    row, other = json.loads(row), {False: True, True: False}       # also of 0 and 1
    rows = [{'title': 'no question'}, *({'prompt': f'q{i}', **row} for i in range(10))]
    for changed in rows[2::2]:
        if row.get('label') in other:
            changed['label'] = type(row['label'])(other[row['label']])
    if 'next' in said:
        assert of_rows(rows).splitlines()[-1] == f'{said}out'
    else:
        no_chats(write('x.jsonl', rows), said, *(f'--{flag}' for flag in flags))


def test_both_splits_have_good_and_bad_answers_if_there_are_two_questions_of_each():
    labels = lambda n, bad: [{'prompt': f'q{i}', 'completion': 'a', 'label': i >= bad} for i in range(n)]
    for rows in labels(60, 3), labels(60, 57), labels(400, 2), labels(4, 2):
        of_rows(rows)
        for side in both():
            assert {row['label'] for row in side} == {True, False}, len(rows)
    no_chats(write('x.jsonl', labels(2, 1)), '2 records of & need two questions (of each label)')
    # dpo.py would refuse them
    for rows in labels(60, 1), labels(60, 59), labels(60, 0), labels(60, 60):
        no_chats(write('x.jsonl', rows), '60 records of & need two questions (of each label)')


# the number of records of a kind => what is said of them, and no line of a warning otherwise
SAID = r"""
{"prompt": "qN&quot;", "completion": "<p>aN</p>"} => changed, HTML, kept: 18, first x.jsonl:2
{"prompt": "What is N?", "chosen": "What is N?\n\nN", "rejected": "What is N? No"} => changed, answers that begin with their question, kept: 9, first x.jsonl:2
{"prompt": "q <| N |>", "completion": "A <|endoftext|> B<|im_end|>"} => changed, special tokens to plain text: 18, first x.jsonl:2
{"prompt": "qN", "completion": "caf\udce9"} => not UTF-8 (convert it
{"prompt": "qN", "completion": "aN", "score": null} --min_score=1 => unused columns, kept without --min_score: 9, first x.jsonl:2"""


@each_line(SAID)
def test_what_stays_as_it_is_or_is_mostly_lost_is_said(line):
    row, said = line.split(' => ')
    row, *flags = row.split(' --')
    first = {**json.loads(row), 'prompt': 'one more', 'score': 3, 'completion': 'a', 'chosen': 'b'}
    first = {name: first[name] for name in [*json.loads(row)] if name in first}
    lost = 'UTF' in said
    rows = [json.dumps(first)] + [row.replace('N', str(i)) for i in range(9)]
    rows += [json.dumps({'prompt': f'good {i}', 'completion': 'a'}) for i in range(8 * lost)]
    data = '\n'.join(rows).encode()
    for more in b'', *[b'\n{"prompt": "last", "completion": "b"}'] * lost:
        fill({'x.jsonl': data.replace(b'\\udce9', b'\xe9') + more})
        printed = chats('x.jsonl', '--pii=False', *(f'--{flag}' for flag in flags))
        assert said in printed and ('WARNING: left out' in printed) == (lost and not more)
        if lost:
            assert report()['bytes_left_out'] > 9 * 20


def test_an_empty_cell_and_a_table_with_other_names_are_refused_with_what_to_do():
    cells = '"None of them",None,N/A,no,NULL'.split(',')
    fill({'a.csv': 'question,answer\n' + ''.join(f'q{i},{cells[i % 5]}\n' for i in range(50)),
          'b.csv': 'Frage,Antwort\n' + 'q,a\n' * 9})
    chats('a.csv')
    assert {answer_in(row) for row in kept()} == {'None of them', 'no'}
    [(why, [n, place])] = read_json('out/report.json')['left_out'].items()
    assert '(cells None, N/A are empty)' in why and (n, place) == (30, 'a.csv:2 (question)')
    no_chats('b.csv', "rename a table's columns: sed '1s/MINE/question/' & first & (frage, antwort)")


# --- it asks about what it does not read ----------------------------------------------------------
# what is beside instruction, response and id, in turn of the records => what is shown of it
ASKED = r"""
{"kto_tag": [false, true]} => kto_tag: false, true (12 records) & --unused=kto_tag
{"Is-Safe": [true, true, false]} => is_safe: true, false (12 records) & --unused=is_safe
{"verdict": ["bad", "good"], "grade": [1, -1]} => verdict: "bad", "good" (12 & grade: 1, -1 (12 & --unused=verdict,grade
{"flagged": [null, "", [], {}, 0, 0]} => flagged: 0 (4 records)
{"article": ["one LONG", "two LONG"], "options": [["x", "y"], ["z"]]} => article: "one xxx & options: ["x", "y"], ["z"]
{"question": ["And 1?", "And 2?"]} => question: "And 1?", "And 2?"
{"prompt": ["what is 0?", "what is 1?"]} => prompt: "what is 0?", "what is 1?" (10 records)
{"reviews": [[{"good": false}], [{"good": true}]], "tags": ["bad", 7, ["x"]]} => reviews: [{"good": false}], [{"good": true}] (12
{"score": [1, 2, 3]} => score: 1, 2 (12 records) & --min_score `score`
{"label": [0, 1]} => label: 0, 1 (12 records) & --kind=preference reads `label`
{"": ["0", "1"], "How good, 1-5": [5]} => unnamed: "0", "1" & '--unused=unnamed,how good_1_5'
{"output": ["a"], "chosen": ["c"]} => chosen: "c" (12 & --unused=chosen & join
{"metadata": [{"is_correct": false}, {"is_correct": true}]} => metadata: {"is_correct": false}, {"is_correct": true} (12
{"split": ["train", "train", "False"], "tags": [["a"]]} => split: "False" (12 records)"""


def beside(more, i):
    """Record i with these columns, whose values it takes in turn."""
    return {'instruction': f'what is {i}?', 'response': 'a', 'id': i} | {
        name: values[i % len(values)] for name, values in more.items()}


@each_line(ASKED)
def test_a_column_that_is_not_read_is_shown_with_two_values_until_its_flag_is_given(line):
    more, said = line.replace('LONG', 'x' * 9999).split(' => ')
    source = write('x.jsonl', [beside(json.loads(more), i) for i in range(12)])
    shown = no_chats(source, said)
    assert len(shown.splitlines()[-1]) < 2000
    [pasted] = shlex.split(re.search(r'add (.*) \(or --unused=all\)', shown)[1])
    for flag in '--unused=all', pasted:
        chats(source, flag)
        assert as_text(kept()) == as_text(
            line_of(f'user: what is {i}? | assistant: a') for i in range(12))
    counted = report()['unused_columns']
    assert counted.keys() - {'id', 'tags'} == {*pasted.removeprefix('--unused=').split(',')}


REFUSAL = """{"messages": [{"role": "user", "content": "what about N"},
                           {"role": "assistant", "content": null, "refusal": "no"}]}"""


def test_an_answer_that_has_no_text_is_left_out_after_it_was_asked_about():
    source = write('x.jsonl', numbered(REFUSAL, 3) + numbered('{"prompt": "what is N?", "completion": "a"}', 3))
    no_chats(source, 'messages.refusal: "no" (3 records)')
    chats(source, '--unused=messages.refusal')
    assert left_out() == {'empty message': 3}


def test_a_column_is_never_named_in_vain():
    """A misspelled name ends it, and naming the column that is read first leaves the other one."""
    rows = [beside({}, i) | {'question': f'and {i}?'} for i in range(9)]
    source = write('x.jsonl', rows)
    for flag in 'questions', 'question,messages.x', 'Id,all,x':
        no_chats(source, f'--unused={flag} must name columns that are not read: ', f'--unused={flag}')
    chats(source, '--unused=Instruction')
    assert {row['messages'][0]['content'] for row in kept()} == {row['question'] for row in rows}


def test_a_flag_that_is_pasted_has_the_columns_of_the_one_before():
    source = write('x.jsonl', [beside({'b': [1], 'a': ['x'], 'title': ['t']}, i) for i in range(9)])
    no_chats(source, 'a: "x" (9 records). If & --unused=b,a (or', '--unused=b')
    assert 'unused columns, title: 9, first ' in chats(source, '--unused=b,a')


# no record can be used: the first reason, its count, its place and what the record has
UNUSABLE = """
{"segments": [{"label": false, "text": "q"}], "source": "web"} => (segments, source)
{"message_tree_id": "N", "prompt": {"text": "q", "role": "prompter", "replies": []}} => (message_tree_id, prompt)
{"mapping": {"N": {"message": null}}, "title": "t"} => (mapping, title)
{"text": "### Human: q### Assistant: a"} => (text)"""


@each_line(UNUSABLE)
def test_if_no_record_can_be_used_the_reason_its_place_and_the_columns_are_said(line):
    row, columns = line.split(' => ')
    source = write('x.jsonl', [json.loads(row.replace('N', str(i))) for i in range(5)])
    no_chats(source, f'0 records of {source} can be used, & ; WARNING: left out, no list of messages, and no '
             f' & : 5, first {source}:1 {columns}')


# what is beside a question and an answer, flags, and what is said
NUMBERLESS = """
{} => --min_score=3 => no record has a number for --min_score; not read: id
{"rating": [1, 5]} => --min_score=3 => rating: 1, 5 (9 records)
{"rating": [1, 5]} => --min_score=3 --unused=rating => no record has a number for --min_score; not read: rating, id
{"chosen": ["b"], "rejected": ["c"]} => --min_margin=1 --unused=response => no record has a number for --min_margin"""


def test_a_filter_that_finds_no_number_ends_it_and_names_the_columns():
    for more, flags, words in table(NUMBERLESS, ' => '):
        no_chats(write('x.jsonl', [beside(json.loads(more), i) for i in range(9)]), words, flags)
    of_rows([beside({'score': [1, 5, None]}, i) for i in range(9)], '--min_score=3')
    assert left_out() == {'low score': 3}
    assert report()['unused_columns']['--min_score'] == 3       # kept, and counted


# --- the columns of public data sets, with records of our own -------------------------------------
SETS = r"""
Alpaca {"instruction": "qN", "input": "", "output": "a", "text": "Below is ... qN"} => text
Alpaca, cleaned {"instruction": "qN", "input": "x", "output": "a"} =>
Dolly {"instruction": "qN", "context": "c", "response": "a", "category": "closed_qa"} =>
OpenOrca {"id": "cot.N", "system_prompt": "s", "question": "qN", "response": "a"} =>
SlimOrca {"conversations": [{"from": "system", "value": "s", "weight": null}, {"from": "human", "value": "qN", "weight": 0.0}, {"from": "gpt", "value": "a", "weight": 1.0}]} =>
OpenHermes-2.5 {"custom_instruction": null, "topic": null, "model_name": null, "model": null, "skip_prompt_formatting": false, "category": "orca", "conversations": [{"from": "human", "value": "qN", "weight": null}, {"from": "gpt", "value": "a", "weight": null}], "views": null, "language": null, "id": null, "title": null, "idx": null, "hash": null, "avatarUrl": null, "system_prompt": null, "source": "airoboros2.2"} => skip_prompt_formatting
UltraChat-200k {"prompt": "qN", "prompt_id": "f0N", "messages": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}]} =>
no_robots {"prompt": "qN", "prompt_id": "c1N", "messages": [{"content": "s", "role": "system"}, {"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "category": "Chat"} =>
Tulu-3-sft {"id": "oasst1_N", "messages": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "source": "ai2-adapt-dev/oasst1_converted"} =>
smoltalk {"messages": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "source": "smol-magpie-ultra"} =>
smoltalk, magpie {"conversation_tokens": 9, "messages": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "quality": "good", "reward_model_score": -0.5, "category": "math", "difficulty": "easy", "task": "t"} => conversation_tokens,quality,reward_model_score,difficulty
LMSYS {"conversation_id": "9N", "model": "vicuna", "conversation": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "turn": 1, "language": "English", "openai_moderation": [{"flagged": false}], "redacted": false} => turn,openai_moderation,redacted
OASST1 {"message_id": "6aN", "parent_id": null, "user_id": "c3", "created_date": "2023", "text": "qN", "role": "prompter", "lang": "en", "review_count": 3, "deleted": false} => refused: no list of messages
Guanaco {"text": "### Human: qN### Assistant: a"} => refused: no list of messages
OASST2 flattened {"conversation": [{"role": "prompter", "text": "qN"}, {"role": "assistant", "text": "a"}]} =>
LLaMA-Factory kto {"messages": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "label": ODD} => label
LLaMA-Factory kto, alpaca {"instruction": "qN", "input": "", "output": "a", "kto_tag": ODD} => kto_tag
LLaMA-Factory sharegpt {"conversations": [{"from": "human", "value": "qN"}, {"from": "gpt", "value": "a"}], "system": "s", "tools": "[]"} => tools
axolotl {"messages": [{"role": "user", "content": "qN", "train": false}, {"role": "assistant", "content": "a", "train": ODD}]} => messages.train
axolotl, details {"messages": [{"role": "user", "content": "qN"}, {"role": "assistant", "content": "a", "train_detail": [{"begin_offset": 0, "end_offset": 0, "train": false}]}]} => messages.train_detail
axolotl, segments {"segments": [{"label": false, "text": "qN"}, {"label": true, "text": "a"}]} => refused: no list of messages
OpenAI {"messages": [{"role": "user", "content": "qN"}, {"role": "assistant", "content": "a", "weight": 1}]} =>
UltraFeedback {"prompt": "qN", "prompt_id": "1N", "chosen": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "rejected": [{"content": "qN", "role": "user"}, {"content": "b", "role": "assistant"}], "messages": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "score_chosen": 8.5, "score_rejected": 7.0} =>
orca_dpo_pairs {"system": "", "question": "qN", "chosen": "a", "rejected": "b"} =>
orca_dpo_pairs, distilabel {"system": "", "input": "qN", "chosen": "a", "rejected": "b", "generations": ["a", "b"], "order": ["chosen", "rejected"], "rating": [9.0, 8.0], "rationale": "r", "status": "unchanged", "chosen_score": 9.0, "in_gsm8k_train": false} => generations,order,rating,rationale,status,chosen_score,in_gsm8k_train
hh-rlhf {"chosen": "\n\nHuman: qN\n\nAssistant: a", "rejected": "\n\nHuman: qN\n\nAssistant: b"} =>
orpo-dpo-mix {"source": "Airoboros", "chosen": [{"content": "qN", "role": "user"}, {"content": "a", "role": "assistant"}], "rejected": [{"content": "qN", "role": "user"}, {"content": "b", "role": "assistant"}], "prompt": "qN", "question": "qN"} =>
Nemotron v2 {"uuid": "N", "license": "cc-by-4.0", "generator": "DeepSeek-R1", "messages": [{"role": "user", "content": "qN"}, {"role": "assistant", "content": "a"}], "metadata": "{\"is_correct\": ODD}"} => metadata
trl, kto {"prompt": "qN", "completion": "a", "label": ODD} =>"""


@each_line(SETS, ids=lambda line: line.split(' {')[0])
def test_public_data_sets_are_read_or_asked_about_once_or_refused_and_nothing_false_is_learned(line):
    text, asked = line[line.index('{'):].split(' =>')
    rows = [json.loads(text.replace('qN', f'what is {i}?').replace('N', str(i)).replace(
        'ODD', 'false true'.split()[i % 2])) for i in range(5)]
    source, asked = write('x.jsonl', rows), asked.strip()
    if 'refused' in asked:
        no_chats(source, asked.removeprefix('refused: '))
        return
    if asked:
        no_chats(source, f'(or --unused=all) & --unused={asked} ')
    chats(source, *[f'--unused={asked}'] * bool(asked))
    found = kept()
    shown = json.dumps(found)
    assert len(found) == 5 and all(f'what is {i}?' in shown for i in range(5))
    assert {answer_in(row) for row in found} == {'a'}
    for word in 's', 'c', 'x':      # a system message, a context, an input
        assert (f'"{word}"' in text) <= bool(re.search(rf'"content": "{word}"|\\n{word}"', shown))
    assert all(row.get('rejected', 'b') == 'b' for row in found)


def answer_in(row):
    """What is learned as good, or judged by a label."""
    return row.get('chosen') or row.get('completion') or row['messages'][-1]['content']


# pairs, and why they are left out; copies of what stands before
PAIR_REASONS = r"""
user: q | completion: q | label: false
user: q | completion: q | label: true
user: q | chosen: 2 | rejected: 22
user: q | chosen: 22 | rejected: 2
user: q | chosen: 2 | rejected: 2 2
user: ann@uni.edu? | chosen: ask bob@uni.edu | rejected: no
user: q | chosen: 22 | rejected: 2 -> exact duplicate
user: ann@uni.edu? | chosen: ann@uni.edu | rejected: bob@uni.edu -> equal or empty answers"""


def test_pairs_are_left_out_for_their_reasons_and_compared_behind_the_masks():
    rows = [line_of(f'user: q{i} | chosen: yes | rejected: no | margin: {i / 10} | '
                    f'agreement: {1 - i / 50}') for i in range(20)]
    table = [line_of(line.partition(' -> ')[0]) for line in PAIR_REASONS.strip().split('\n')]
    of_rows(rows, '--min_margin=0.5 --min_agreement=0.7')
    assert as_text(kept()) == as_text(rows[5:16])
    assert left_out() == {'low margin': 5, 'low agreement': 4}
    of_rows(rows + table)
    masked = re.sub(r'\w+@uni.edu', '<EMAIL>', json.dumps(table[:-2]))
    assert as_text(kept()) == as_text(rows + json.loads(masked))
    assert left_out() == {'exact duplicate': 1, 'equal or empty answers': 1}
    assert report()['read'] == report()['kept'] + 2 == len(rows + table)
    assert report()['changed'] == {'email': 5, 'answers that begin with their question, kept': 2}


# --- files ----------------------------------------------------------------------------------------
def test_every_record_of_real_files_arrives():
    for name, n in ('code_alpaca_2k.json', 2017 - 2), ('vicuna_dummy_conversation.json', 500):
        chats(shared(name))
        assert len(kept()) == n


WHY_LEFT_OUT = r"""not a JSON object \{\.\.\.\} \(a list of them must be a .json file\), 2, .*/a.jsonl:11$
can't be read \(Error -3 .*, 1, .*/bad.jsonl.gz
can't be read \(Compressed file ended before the end-of-stream marker.*, 1, .*/cut.jsonl.gz:\d\d+
neither a list .*Expecting.*, 1, .*/cut.json$
not UTF-8.*iconv.*, 1, .*/latin.jsonl:1
not as many cells.*, 1, .*/b.csv:2
exact duplicate, 2,
a Git LFS pointer, without the data, 2, .*/lfs.csv \(run git lfs pull\)""".split('\n')
PASSED_OVER = {'.txt': 1, 'linked folders': 1, 'broken links': 2, "folders that can't be read": 1}
# not even root may read it
CLOSED = """
import os
def scandir(path, real=os.scandir):
    if str(path).endswith('closed'):
        raise PermissionError(13, 'Permission denied', path)
    return real(path)
os.scandir = scandir"""


def test_lists_lines_and_packed_files_are_read_and_what_can_not_be_is_counted():
    lines = ''.join(f'{{"prompt": "q{i}", "completion": "é"}}\n' for i in range(9)).encode()
    packed = gzip.compress(lines.replace(b'q', b'packed'))
    cut = gzip.compress(b''.join(b'{"prompt": "cut %d", "completion": "a"}\n' % i for i in range(2000)))
    lfs = b'version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n'
    folder = fill({
        'a.jsonl': b'\xef\xbb\xbf' + lines + b'\n{oops\n3\n', 'list.json': b'[%b, %b]' % (*lines.splitlines()[:2],),
        'lines.json': '{"input": "x", "output": "y"}\n', 'z.jsonl.gz': packed,
        'cut.jsonl.gz': cut[:len(cut) // 2], 'bad.jsonl.gz': packed[:10] + b'\xff' * 40,
        'cut.json': '[{"a": 1}', 'note.txt': 'hello', 'lfs.csv': lfs, 'lfs.jsonl.gz': lfs,
        # 5 MB: a file of texts would be cut into pieces
        'long.jsonl': b'{"input": "long", "output": "%s\xff"}\n' % (b'x' * 5_000_000),
        'zz.jsonl': '{"input": "half", "output": "\\ud800"}\n', 'closed/a.jsonl': '',
        'latin.jsonl': b'{"input": "x", "output": "\xe9"}\n{"input": "behind", "output": "a"}',
        'b.csv': 'Question,Answer,n\r\n"one\r\ntwo",here,1\r\nbroken,row\r\n'}, 'in')
    (folder / 'link').symlink_to('.')
    (folder / 'lost.jsonl').symlink_to('nowhere')
    os.mkfifo(folder / 'pipe.jsonl')
    said = chats(folder, '--pii=False --unused=n', before=CLOSED)
    made = report()
    asked = [row['messages'][0]['content'] for row in kept()]
    questions = {text for text in asked if not text.startswith('cut')}
    assert questions == {*(f'{name}{i}' for name in ('q', 'packed') for i in range(9)), 'x', 'long',
                         'behind', 'one\ntwo', 'half'}
    assert kept().count(line_of('user: half | assistant: \ufffd')) == 1
    assert 800 < len(asked) - len(questions) < 1100             # half of the cut file
    places = {f'{why}, {n}, {place}' for why, (n, place) in made['left_out'].items()}
    for words in WHY_LEFT_OUT:
        assert any(re.search(words, place) for place in places), (words, sorted(places))
    assert made['skipped'] == PASSED_OVER and 'skipped, .txt: 1' in said
    assert made['unused_columns'] == {'n': 1} and made['changed'] == {'undecodable bytes': 2}
    assert made['first']['undecodable bytes'] == 'in/long.jsonl:1'
    # of a file that breaks off, its size counts, and so does each line that is no record
    assert len(cut) // 2 + 80 < made['bytes_left_out'] < len(cut) // 2 + 1000
    assert f'{made["read"]:,} records, 11 left out ({made["bytes_left_out"]:,} bytes); ' in said


def test_globs_folders_and_names_with_commas_are_read_hidden_files_and_results_are_not():
    for path in 'a.jsonl b/c.jsonl b/d/e.jsonl .git/f.jsonl b/.g.jsonl h,i.jsonl'.split():
        write(f'in/{path}', numbered(f'{{"prompt": "{path} N", "completion": "a"}}', 2))
    Path('mine').symlink_to('in')
    Path('out').symlink_to('in/out')
    for sources, n in {'in|in/|in/**|in/**/*.jsonl|mine': 8, 'in/b/**|in/*': 4,
                       'in/a.jsonl, in/b|in/b/*.jsonl,in/a.jsonl,in/b': 6}.items():
        for source in sources.split('|'):
            chats(source, '--out_dir=in/out')
            assert len(kept()) == n, source


# --- the split ------------------------------------------------------------------------------------
# How many of 200 are held out, at least and at most; so many of each kind, i is their number. The hash
# of COMMON would hold it out.
COMMON = next(text for text in map('How are you, {}?'.format, range(99)) if int(hashlib.blake2b(
    text.encode(), digest_size=8).hexdigest(), 16) < 0.1 * 2 ** 64)
SPLITS = """8 32 => 150 user: hi | TALK => 50 user: what about {i} | TALK
8 32 => 200 user: Continue, please. | TALK
8 32 => 200 user: How are you today? | TALK
8 32 => 60 user: How are you? | TALK => 140 user: what about {i} | TALK
8 32 => 200 system: You are kind and helpful. | user: hello | TALK
8 32 => 200 user: what about {i} | TALK
8 32 => 100 user: COMMON | PAIR => 100 user: q{i} | PAIR
8 32 => 60 user: COMMON | PAIR => 140 user: q{i} | PAIR
1 2 => 198 user: COMMON | PAIR => 2 user: q{i} | PAIR
100 100 => 100 user: q | PAIR => 100 user: r | PAIR""".replace('COMMON', COMMON).replace(
    'TALK', 'assistant: Hello! | user: tell {i} | assistant: ok').replace(
    'PAIR', 'chosen: a{i} | rejected: b')


def sides():
    """What is asked in train.jsonl, and what in val.jsonl."""
    return [[json.dumps(row.get('prompt') or row['messages'][-2]) for row in side] for side in both()]


@each_line(SPLITS)
def test_about_a_tenth_is_held_out_however_examples_begin_and_no_prompt_is_on_both_sides(line):
    bounds, *kinds = line.split(' => ')
    least, most = map(int, bounds.split())
    texts = [text for n, text in (kind.split(' ', 1) for kind in kinds) for _ in range(int(n))]
    of_rows([line_of(text.format(i=i)) for i, text in enumerate(texts)])
    train, val = sides()
    assert len(train + val) == 200 and not {*train} & {*val} and least <= len(val) <= most


def test_conversations_that_begin_alike_and_go_on_are_on_one_side():
    """As in data sets that have a record for each answer of a conversation."""
    turns = [f'user: what about {i}%s | assistant: a{i} | user: and %d? | assistant: ok | ' for i in range(40)]
    for end in '', 'user: well? | chosen: a | rejected: b | ':
        of_rows([line_of((turn * n % (('', 1, '', 2, '', 3)[:2 * n]) + end).strip(' |'))
                 for turn in turns for n in (1, 2, 3)])
        train, val = ({re.search(r'what about \d+', json.dumps(row))[0] for row in side} for side in both())
        assert len(train) + len(val) == 40 and not train & val and val


def test_a_text_is_held_out_by_its_hash_and_as_few_others_as_that_allows():
    for seed in range(30):
        texts = [f'{seed} {i}' for i in range(400)]
        low = {text for text in texts if int(hashlib.blake2b(
            text.encode(), digest_size=8).hexdigest(), 16) < 0.1 * 2 ** 64}
        assert CHATS['validation_texts'](texts, 0.1) == low and 22 <= len(low) <= 58


def test_answers_to_one_question_are_on_one_side_in_every_run():
    rows = [line_of('system: s | ' * (i // 30) + f'user: what about {i % 30} | assistant: a{i}')
            for i in range(90)]         # none, one or two system messages
    thumbs = [{'prompt': f'q{i % 14}', 'completion': f'a{i}', 'label': i % 2 > 0}
              for i in range(140)]
    for some in rows, thumbs, rows[:2]:
        of_rows(some, '--val_fraction=0.3')
        train, val = sides()
        assert len(train + val) == len(some) and train and val and not {*train} & {*val}
        of_rows(some[::-1] + rows[:9] * (some is rows), '--val_fraction=0.3')
        assert {*sides()[1]} == {*val}
    of_rows(rows[:2], '--val_fraction=0.999')
    assert [*map(len, sides())] == [1, 1]           # not all are held out


# --- results and mistakes -------------------------------------------------------------------------
MISTAKES = """
--source=nowhere => nowhere does not exist
--source=one.jsonl,nowhere => nowhere does not exist
--source=one.jsonl => 1 records of one.jsonl can be used & need two questions & left out, no list & or input with output & 1, first one.jsonl:2 (prompt)
--source=samples.jsonl => an answer that eval.py graded: 2 & samples.jsonl:1 & --prefer
--source=samples.jsonl --prefer=passed => none of the 2 graded answers
--source=one.jsonl --val_fraction=1 => val_fraction=1 must be
--source=one.jsonl --kind=chat => kind='chat' must be
--source=one.jsonl --prefer => --prefer needs a value: '' or passed
--source=one.jsonl --min_scores=3 => min_scores & min_score
--min_score=5 => min_score & --source=FILE
--source=one.jsonl --out_dir=full => full has val.jsonl, not from this script & --out_dir
--source=one.jsonl --out_dir=one.jsonl => can't write to one.jsonl
--source=two.jsonl --out_dir=done => done has results & --overwrite=True
"""


def test_a_mistake_is_one_sentence_and_leaves_no_results():
    write('two.jsonl', numbered('{"prompt": "N", "completion": "b"}', 2))
    write('samples.jsonl', numbered('{"task_id": 1, "prompt": "a", "completion": "N", "outcome": "wrong"}', 2))
    fill({'one.jsonl': '{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\n', 'full/val.jsonl': '1'})
    chats('two.jsonl', '--out_dir=done')
    each_is_a_mistake(MISTAKES, 'chats.py --out_dir=no')
    assert not [*Path().glob('no/[!.]*')]


# --- answers that eval.py has judged --------------------------------------------------------------
def sampled(task_id, outcomes):
    """What eval.py writes of answers, 'a passed!, b wrong': ! is good taste."""
    answers = [answer.split() for answer in outcomes.split(', ')]
    return [{'task': 'problems', 'task_id': task_id, 'completion': text,
             'prompt': f'do {task_id}', 'outcome': outcome.strip('!'),
             'preferred': '!' in outcome} for text, outcome in answers]


JUDGED = """
passed | ac bd af vw 0x 1x 2x 3x | abgvyz0123
taste | ab yz | ay
both | ac bd af vw ab yz 0x 1x 2x 3x | abgvyz0123"""


def test_of_judged_answers_passed_and_tasteful_ones_are_taught_at_most_four_of_a_problem():
    samples = sampled(1, 'a passed!, c wrong, b passed, d timeout')
    samples += sampled(2, 'g passed') + sampled(3, 'h wrong')
    samples += sampled(4, ', '.join(['x wrong', *(f'{i} passed' for i in range(9))]))
    samples += sampled(5, 'y passed!, z passed')
    samples += sampled(1, 'a passed!, e infrastructure, f exception!, i ungraded')
    # of joined files, one name may mean two questions
    samples += [{**row, 'prompt': 'other'} for row in sampled(5, 'v passed, w wrong')]
    samples += [{**samples[0], 'completion': None}]             # damaged
    for prefer, pairs, answers in table(JUDGED, ' | '):
        of_rows(samples, f'--prefer={prefer} --pii=False')
        assert sorted(row['chosen'] + row['rejected'] for row in kept()) == sorted(pairs.split())
        of_rows(samples, f'--prefer={prefer} --kind=sft --pii=False')
        assert sorted(map(answer_in, kept())) == sorted(answers) and left_out()
