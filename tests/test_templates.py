"""Chats of other people's models: the ids of their own templates, their ends, what is trained."""
import json
import operator
import re
from pathlib import Path

import pytest
import tokenizers
import torch
from attacks import sections
from common import load_model
from conftest import fill, mistake, ok, refused, run, series, table, write
from test_hf_model import BASES, LLAMA, published, theirs_in
from transformers import AutoTokenizer

from extras.models import hf_tokenizer
from extras.tasks import answers
from tokenizer import Tokenizer

# Templates that do what published ones do, in our words. Qwen3: a thought stays in the turns behind
# the last question, empty if there is none, and goes from others. Phi: roles become tokens, which
# swallow white space; a whole chat has an end of its own. plain: no mark of an answer but a blank;
# the system message is a part of the first question. macro: the marks are tokens, but not special,
# and neither file names the end of a turn.
TEMPLATES = dict(sections("""
=== Llama 3
{{- bos_token }}
{%- if strftime_now is defined %}{% set day = strftime_now('%Y') %}{% else %}{% set day = '2024' %}\
{% endif %}
{%- if tools is not none %}{{- 'tools' }}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system, messages = messages[0]['content'] | trim, messages[1:] %}
{%- else %}{% set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + day + '\n\n' + system + '<|eot_id|>' }}
{%- for m in messages %}
    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}
    {{- (m['content'] | tojson if m['role'] == 'tool' else m['content'] | trim) + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
=== Qwen2.5
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\nYou are Q.<|im_end|>\n' }}
{%- endif %}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
=== Qwen3
{%- set ns = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
    {%- set thought, c = '', m.content %}
    {%- if m.role == 'assistant' and '</think>' in c %}
        {%- set thought, c = c.split('</think>')[0].split('<think>')[-1], c.split('</think>')[-1] %}
    {%- endif %}
    {{- '<|im_start|>' + m.role + '\n' }}
    {%- if m.role == 'assistant' and loop.index0 > ns.last %}
        {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}
    {%- endif %}
    {{- c.lstrip('\n') + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
=== Gemma
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not \
supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != \
(loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}{% if \
message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}\
{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}\
{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}
=== Mistral
{{ bos_token }}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {{- '[INST]' + m.content + '[/INST]' }}
    {%- elif m.role == 'system' %}
        {{- '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}
    {%- else %}
        {{- m.content + eos_token }}
    {%- endif %}
{%- endfor %}
=== R1
{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}\
{% elif m['role'] == 'assistant' %}{% set c = m['content'] %}{% if '</think>' in c %}{% set c = \
c.split('</think>')[-1] %}{% endif %}<｜Assistant｜>{{ c }}<｜end▁of▁sentence｜>{% endif %}\
{% endfor %}{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}
=== Phi
{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}
=== plain
{% if messages[0].role == 'system' %}{% set first, messages = '<<' + messages[0].content + \
'>> ', messages[1:] %}{% else %}{% set first = '' %}{% endif %}{% for m in messages %}{% if m.role == \
'user' %}{{ bos_token + 'Q: ' + (first if loop.first else '') + m.content + ' A:' }}{% else %}{{ ' ' + \
m.content + eos_token }}{% endif %}{% endfor %}
=== macro
{% macro turn(mark, m) %}{{ mark + m.content }}{% endmacro %}
{% for m in messages %}
    {% if m.role == 'system' %}{{ turn('[S]', m) }}{% continue %}{% endif %}
    {{- turn('[A]' if m.role == 'assistant' else '[Q]', m) }}
    {%- if m.role == 'assistant' %}[/A]{% endif %}
{% endfor %}
{% if add_generation_prompt %}[A]{% endif %}"""))
TEMPLATES['SmolLM2'] = hf_tokenizer.CHAT_TEMPLATE
# trl's, for training: marks around what is learned
TEMPLATES['marked'] = TEMPLATES['Qwen2.5'].replace("m.content + '<|im_end|>' + '\n' }}\n", """'' }}
    {%- if m.role == 'assistant' %}
        {%- generation %}{{- m.content + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}{{- m.content + '<|im_end|>' }}{% endif %}
    {{- '\n' }}
""")
# special tokens, from id 256 on; tokens that are not; the ends in generation_config.json; an answer
# that is trained; the template. As published ones do, forgetful names the end of a text only.
MODELS = """
SmolLM2 | ML |  | [256, 258] | yo<|im_end|> | SmolLM2
Qwen2.5 | ML |  | [258, 256] | yo<|im_end|> | Qwen2.5
Llama 3 | L3 |  | [257, 260] | yo<|eot_id|> | Llama 3
Qwen3 | ML | <think> </think> | 258 | yo<|im_end|> | Qwen3
Gemma | <bos> <eos> <start_of_turn> <end_of_turn> |  | [257, 259] | yo<end_of_turn> | Gemma
Mistral | <s> </s> [INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] |  | 257 | yo</s> | Mistral
R1 | <｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> | <｜User｜> <｜Assistant｜> <think> </think> | 257 |  | R1
forgetful | ML |  | 256 | yo<|im_end|> | Qwen2.5
marked | ML |  | 258 | yo<|im_end|> | marked
Phi | <|endoftext|> <|system|> <|user|> <|assistant|> <|end|> |  | [258, 256, 260] | yo<|end|> | Phi
plain | <s> </s> |  | 257 |  yo</s> | plain
macro | <s> </s> | [S] [Q] [A] [/A] | null | yo[/A] | macro
""".replace('ML', '<|endoftext|> <|im_start|> <|im_end|>').replace(
    'L3', '<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|>')
MODELS = {name: row for name, *row in table(MODELS, ' | ')}
BEGIN = 'Llama 3', 'Gemma', 'Mistral', 'R1', 'plain'      # their library puts the first one before a text


def said(*texts):
    """A talk: a user's text, an answer, a user's text, ..."""
    return [{'role': ('user', 'assistant')[i % 2], 'content': text} for i, text in enumerate(texts)]


TALK = said('hi', 'yo', ' 2 <b>&\n\n漢é? ', 'yo')
SYSTEM, TOOL = ([{'role': role, 'content': 'Say "é" <b>.'}] for role in ('system', 'tool'))
THOUGHT = '<think>\nHm.\n</think>\n\nyo'
ASKED = [TALK[:1], TALK[:3], SYSTEM + TALK[:3], said('hi', THOUGHT, 'so?'), TALK[:2] + TOOL]
SHOWN = [TALK, SYSTEM + TALK[:2], said('hi', THOUGHT)]


def made(folder, name, **more):
    """Write the files of a model's tokenizer. Return it as transformers reads it. more: of
    tokenizer_config.json"""
    folder = Path(folder)
    special, plain, ends, _, template = MODELS[name]
    special, begins = special.split(), name in BEGIN
    ids = {token: id for id, token in enumerate(Tokenizer.byte().to_json()['vocab'])}
    hf = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    hf.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    hf.decoder = tokenizers.decoders.ByteLevel()
    hf.add_special_tokens([tokenizers.AddedToken(token, normalized=False) for token in special])
    hf.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in plain.split()])
    if begins:
        hf.post_processor = tokenizers.processors.TemplateProcessing(
            single=f'{special[0]} $A', special_tokens=[(special[0], hf.token_to_id(special[0]))])
    form = json.loads(hf.to_str())
    for token in form['added_tokens']:
        token['rstrip'] = name == 'Phi'
    names = {'bos_token': special[0] if begins else None, 'eos_token': special[begins]}
    files = {'tokenizer': form, 'generation_config': {'eos_token_id': json.loads(ends)},
             'tokenizer_config': {'tokenizer_class': 'PreTrainedTokenizerFast', **names,
                                  'chat_template': TEMPLATES[template], **more}}
    folder.mkdir(exist_ok=True)
    for file, content in files.items():
        (folder / f'{file}.json').write_text(json.dumps(content))
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope='module', params=MODELS)
def folder(request, tmp_path_factory):
    """(name, its tokenizer as transformers reads it, as we do)"""
    folder = tmp_path_factory.mktemp('folder')
    theirs = made(folder, request.param)
    return request.param, theirs, Tokenizer.load(folder / 'tokenizer.json')


def ids_of(theirs, chat, asks):
    return theirs.apply_chat_template(chat, add_generation_prompt=asks, return_dict=False)


def test_a_chat_has_the_ids_that_the_template_of_its_folder_gives_and_its_ends(folder, out):
    """Also from a saved copy of the tokenizer, and in transformers from an export of that."""
    name, theirs, ours = folder
    ours.save('copy.json')
    copy = Tokenizer.load('copy.json')
    the_same = operator.attrgetter('hash', 'stop', 'begin', 'special', 'chat')
    assert the_same(copy) == the_same(ours)
    hf_tokenizer.write(out, copy, 64)
    exported = AutoTokenizer.from_pretrained(out)
    for chat in ASKED + SHOWN:
        asks = chat in ASKED
        if name in ('Gemma', 'R1') and (chat[0] in SYSTEM or chat[-1] in TOOL):
            refused('System role|Roles must|leaves out the (system|tool)', ours.render, chat, asks)
        elif name == 'R1' and not asks:         # it asks with <think>, and shows answers without
            refused(r"asks for this answer with '<think>\\n' and shows it without", ours.render, chat)
        else:
            wanted = ids_of(theirs, chat, asks)
            assert ids_of(exported, chat, asks) == wanted
            assert ours.render(chat, asks)[0] == copy.render(chat, asks)[0] == wanted
    ends, answer = MODELS[name][2:4]
    assert {*ours.stop} >= {*map(int, re.findall(r'\d+', ends))}
    assert ours.decode(ours.stop[-1:]) == (answer.split('yo')[1] if answer else '<｜end▁of▁sentence｜>')
    assert not {*ours.stop} & {*ours.suppressed_tokens()}


def test_what_an_answer_is_with_its_end_is_trained_and_nothing_else(folder):
    """Where a template has marks, it is what transformers finds."""
    name, theirs, ours = folder
    if name == 'R1':
        return
    learned = lambda ids, mask: ours.decode([id for id, bit in zip(ids, mask) if bit])
    ids, mask = ours.render(TALK)
    answer, thought = MODELS[name][3], ''
    if name == 'Qwen3':
        thought = '<think>\n\n</think>\n\n'         # as it is asked
        # the thought of the earlier turn is gone, that of the last is learned
        chat = said('hi', THOUGHT, 'so?', THOUGHT)
        assert learned(*ours.render(chat)) == f'{answer}{THOUGHT}<|im_end|>'
    assert learned(ids, mask) == answer + thought + answer and len(bytes(mask).replace(b'\0', b' ').split()) == 2
    asked, _ = ours.render(TALK[:3], True)          # how the whole chat begins
    assert ids[:len(asked)] == asked and mask[len(asked):][:3] == [1, 1, 1]
    if name == 'marked':
        found = theirs.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
        assert found['input_ids'] == ids and found['assistant_masks'] == mask


def test_nobody_forges_a_mark_of_a_template(folder):
    """Neither a user, nor a model that repeats what a user said."""
    name, _, ours = folder
    marks = [mark for mark in ' '.join(MODELS[name][:2]).split() if 'think' not in mark]
    ids = {ours.hf.token_to_id(mark) for mark in marks}
    count = lambda *texts: sum(id in ids for id in ours.render(said(*texts), True)[0])
    forged = f'a{"".join(marks)}b'
    repeated = forged.replace('<｜Assistant｜>', '').replace('[A]', '')   # of what it is writing anyway
    assert count(forged, repeated, 'hi') == count('hi', 'yo', 'hi')
    assert forged in ours.decode(ours.render(said(forged), True)[0])
    if name == 'Qwen3':         # an answer has thoughts, a question has none
        thoughts = lambda *texts: ours.render(said(*texts), True)[0].count(ours.encode('<think>')[0])
        assert thoughts('<think>') == 0 and thoughts('hi', '<think>', 'so?') == 1


def test_each_way_to_write_a_template_and_the_names_in_it_is_read():
    """A file counts more than tokenizer_config.json, in which there may be several with names."""
    named = lambda *names: [{'name': name, 'template': TEMPLATES['Qwen2.5']} for name in names]
    end = {'__type': 'AddedToken', 'content': '<|im_end|>', 'special': True}
    ours = lambda: Tokenizer.load('tokenizer.json')
    made('.', 'Qwen2.5', chat_template=named('rag', 'tools'))
    refused('there are rag, tools; copy the right one into chat_template.jinja', ours().render, TALK)
    for template in named('rag', 'default'), '{{ bos_token }}' + TEMPLATES['Qwen2.5'], 'a file':
        if template == 'a file':
            fill({'chat_template.jinja': '{{ eos_token }}' + TEMPLATES['Qwen2.5']})
        theirs = made('.', 'Qwen2.5', chat_template=template, bos_token=end)
        assert ours().render(TALK)[0] == ids_of(theirs, TALK, False)


UNUSABLE = """
{{ nothing() }} => can't render .*nothing
{% for => can't render .*template
{{ ''.__class__.__mro__ }} => can't render .*unsafe
{% for m in messages %}{{ m.content }} {% endfor %} => has no end token"""


def test_a_template_that_cannot_be_used_is_said_when_a_chat_is_asked_for():
    made('.', 'plain', eos_token=None)
    for template, words in table(UNUSABLE):
        fill({'chat_template.jinja': template})
        ours = Tokenizer.load('tokenizer.json')
        assert ours.encode('hi') and ours.encode_batch(['</s>']) != [[257]]
        refused(words, ours.render, TALK)
    fill({'generation_config.json': '{}'})
    refused('set eos_token_id', Tokenizer.load('tokenizer.json').render, TALK)


def test_messages_that_a_template_refuses_are_one_sentence():
    published('.', LLAMA | {'vocab_size': 260})
    made('.', 'Gemma')
    write('own.jsonl', [{'prompt': SYSTEM + TALK[:1], 'regex': 'a'}])
    for command in 'sample.py --chat=True --system=x --prompt=hi', 'eval.py --tasks=own --data=own.jsonl':
        mistake(run(command, '--ckpt=. --device=cpu'), 'System role not supported')


# --- a model with such a template, from the first question to an export ---------------------------
COLORS = ['red', 'blue', 'green'] * 8
REWARD = """
prompts = lambda: ['say red', 'say blue', 'say green']
reward = lambda prompt, text: float(text == prompt[4:] + '!')
"""


@torch.no_grad()
def greedy(model, ids, n=20, **how):
    """What transformers writes, with its end."""
    idx = torch.tensor([ids])
    return model.generate(idx, attention_mask=torch.ones_like(idx), do_sample=False, pad_token_id=0,
                          max_new_tokens=n, **how)[0, len(ids):].tolist()


def test_a_llama_3_is_asked_trained_and_exported_with_its_own_template():
    """Its answers end at any id in the list of generation_config.json, as in transformers."""
    small = {'vocab_size': 261, 'max_position_embeddings': 192}
    model = published('l3', BASES['Llama 3.1'] | small)
    asked = ids_of(made('l3', 'Llama 3'), TALK[:3], True)
    free = greedy(model, asked, eos_token_id=None)
    ends = {'eos_token_id': [257, free[12]]}
    fill({'l3/generation_config.json': json.dumps(ends)})
    model, tokenizer = load_model('l3')
    written = answers.write(model, tokenizer, [TALK[:3]], 1, max_new_tokens=20)
    text = tokenizer.decode(free[:free.index(free[12])])
    assert written == [[text]] and text and model.saved['config'] == {'stage': 'chat'}

    made('l3', 'Llama 3')
    command = lambda line: ok(run(line, '--device=cpu'))
    for side in 'train', 'val':
        write(f'sft/{side}.jsonl', [
            {'messages': said(f'say {color}', f'{color}!')} for color in COLORS])
    fill({'reward.py': REWARD})
    shown = command('sft.py --init_from=l3 --data_dir=sft --out_dir=a --max_steps=60 --batch_size=8 '
                    '--learning_rate=3e-3')
    assert '<|start_header_id|>user<|end_header_id|>' in shown and 'im_start' not in shown
    command('rl.py --init_from=a --reward=reward.py --out_dir=c --max_steps=1 --batch_size=2 '
            '--num_samples=2 --max_new_tokens=12')
    assert series('c', 'val_reward')[-1] == 1 and series('c', 'length')[-1] < 12
    assert command('sample.py --ckpt=c --chat=True --temperature=0 --prompt=say red').endswith(
        '\nred!\n')
    ok(run('extras.models.export --ckpt=c --to=hf'))
    theirs = AutoTokenizer.from_pretrained('c/hf')
    model = theirs_in('c/hf')
    assert theirs.decode(greedy(model, ids_of(theirs, said('say red'), True))) == 'red!<|eot_id|>'
