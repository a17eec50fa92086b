"""OpenAI's API: what /v1/models, /v1/completions and /v1/chat/completions answer, whole and as a stream."""
import json
import math

import pytest
import torch
from serving import ask, refused, serving, small

from parts.sample import asking

CHAT = [{'role': 'system', 'content': 'be brief'}, {'role': 'user', 'content': 'hi'}]


def between(tokenizer, prefix, suffix, context, max_tokens):
    """As asking.between would: the suffix comes first."""
    return asking.Prompt(tokenizer.encode(suffix + '|' + prefix), None, 0, ''), min(max_tokens, 5)


@pytest.fixture(scope='module')
def pairs():
    return {'out/a': small(), 'b': small(seed=1)}


@pytest.fixture(scope='module')
def server(pairs):
    with serving(pairs, between=between) as server:
        yield server


def stream(server, path, fields):
    """The events of a stream, and whether it said [DONE]."""
    status, text = ask(server, path, fields | {'stream': True})
    assert status == 200, text
    lines = text.split('\n\n')
    assert lines.pop() == '' and all(line.startswith('data: ') for line in lines)
    done = lines[-1] == 'data: [DONE]'
    return [json.loads(line[6:]) for line in lines[:len(lines) - done]], done


@torch.no_grad()
def greedy(pair, prompt, n):
    """The model's own greedy text. No healing: in this tokenizer each token is a byte."""
    model, tokenizer = pair
    ids = model.generate(torch.tensor([prompt]), n, temperature=0, stop=tokenizer.stop)[0].tolist()
    ids = ids[len(prompt):]
    return ids, tokenizer.decode([id for id in ids if id not in tokenizer.stop])


def test_models_are_listed_in_their_order_and_one_by_one(server):
    status, listed = ask(server, '/v1/models')
    assert status == 200 and [model['id'] for model in listed['data']] == ['out/a', 'b']
    assert ask(server, '/v1/models/out/a') == ask(server, '/v1/models/out%2Fa') == (200, listed['data'][0])
    refused(404, ask(server, '/v1/models/c'), '/v1/models/c')


@pytest.mark.parametrize('name', ['out/a', 'b', None])
def test_a_completion_is_the_models_own_text(server, pairs, name):
    model, tokenizer = pair = pairs[name or 'out/a']
    ids, text = greedy(pair, tokenizer.begin + tokenizer.encode('def f('), 9)
    status, answer = ask(server, '/v1/completions', {'model': name, 'prompt': 'def f(', 'max_tokens': 9,
                                                     'temperature': 0, 'logprobs': 2})
    choice = answer['choices'][0]
    assert (status, answer['object'], choice['text']) == (200, 'text_completion', text)
    assert answer['usage']['prompt_tokens'] == 7 and answer['model'] == (name or 'out/a')
    known = choice['logprobs']
    assert len(known['tokens']) == answer['usage']['completion_tokens'] == 9
    assert known['text_offset'] == [len(tokenizer.decode(ids[:i])) for i in range(9)] or '\ufffd' in text
    logits = model(torch.tensor([tokenizer.begin + tokenizer.encode('def f(') + ids]))[0][0, -10:-1]
    log_p = logits.log_softmax(-1)
    best = log_p.amax(-1).tolist()      # greedy: they are the chosen ones
    assert known['token_logprobs'] == pytest.approx(best, abs=1e-4)
    assert [max(top.values()) for top in known['top_logprobs']] == pytest.approx(best, abs=1e-4)


def test_a_chat_is_what_the_model_says_behind_the_template(server, pairs):
    model, tokenizer = pair = pairs['out/a']
    text = greedy(pair, tokenizer.render(CHAT, True)[0], 8)[1]
    fields = {'messages': CHAT, 'temperature': 0, 'max_completion_tokens': 8, 'max_tokens': 3, 'n': 2,
              'logprobs': True, 'top_logprobs': 3, 'frequency_penalty': 0, 'user': 'unknown: ignored'}
    status, answer = ask(server, '/v1/chat/completions', fields)
    assert (status, answer['object'], len(answer['choices'])) == (200, 'chat.completion', 2)
    for choice in answer['choices']:
        assert choice['message'] == {'role': 'assistant', 'content': text}
        tokens = choice['logprobs']['content']
        assert [len(token['top_logprobs']) for token in tokens] == [3] * 8
        assert b''.join(bytes(token['bytes']) for token in tokens).decode('utf-8', 'replace') == text
    parts = [{**m, 'content': [{'type': 'text', 'text': m['content']}]} for m in CHAT]
    again = ask(server, '/v1/chat/completions', fields | {'messages': parts})[1]
    assert again['choices'] == answer['choices']


@pytest.mark.parametrize('chat', [False, True])
@pytest.mark.parametrize('more', [{}, {'n': 3, 'stop': ['e', '\n']}])
def test_a_stream_adds_up_to_the_whole_answer(server, chat, more):
    path = '/v1/chat/completions' if chat else '/v1/completions'
    fields = {'messages': CHAT, 'logprobs': True} if chat else {'prompt': ['one', 'x'][:1], 'logprobs': 0}
    fields |= {'seed': 5, 'max_tokens': 40} | more
    whole = ask(server, path, fields)[1]
    events, done = stream(server, path, fields | {'stream_options': {'include_usage': True}})
    assert done and events.pop()['usage'] == whole['usage']
    kind = 'chat.completion.chunk' if chat else 'text_completion'
    assert {(event['id'], event['object']) for event in events} == {(events[0]['id'], kind)}
    assert whole['id'] != events[0]['id']
    for choice in whole['choices']:
        own = [event['choices'][0] for event in events if event['choices'][0]['index'] == choice['index']]
        assert [c['finish_reason'] for c in own] == [None] * (len(own) - 1) + [choice['finish_reason']]
        if chat:
            assert ''.join(c['delta']['content'] for c in own) == choice['message']['content']
            assert [c['delta'].get('role') for c in own] == ['assistant'] + [None] * (len(own) - 1)
            tokens = [token for c in own for token in c['logprobs']['content']]
            assert tokens == choice['logprobs']['content']
        else:
            assert ''.join(c['text'] for c in own) == choice['text']
            log_p = [value for c in own for value in c['logprobs']['token_logprobs']]
            assert log_p == pytest.approx(choice['logprobs']['token_logprobs'], abs=1e-4)
    assert math.isfinite(whole['created'])


def test_the_seed_decides_and_without_one_answers_differ(server):
    fields = {'prompt': 'a', 'temperature': 2}
    text = lambda **more: ask(server, '/v1/completions', fields | more)[1]['choices'][0]['text']
    assert text(seed=1) == text(seed=1) != text(seed=2)
    assert text() != text()


def test_a_gap_is_filled(server, pairs):
    model, tokenizer = pairs['b']
    text = greedy(pairs['b'], tokenizer.encode('end|begin'), 5)[1]
    fields = {'model': 'b', 'prompt': 'begin', 'suffix': 'end', 'max_tokens': 90, 'temperature': 0}
    assert ask(server, '/v1/completions', fields)[1]['choices'][0]['text'] == text
    refused(400, ask(server, '/v1/completions', fields | {'suffix': ['a', 'b']}), 'suffix must be one text')
    plain = ask(server, '/v1/completions', fields | {'model': 'out/a', 'suffix': None})
    assert plain[0] == 200 == ask(server, '/v1/completions', fields | {'model': 'out/a', 'suffix': ''})[0]


def test_the_client_of_openai_reads_it(server):
    openai = pytest.importorskip('openai', reason='pip install openai: the client that this test is about')
    host, port = server.server_address
    client = openai.OpenAI(base_url=f'http://{host}:{port}/v1', api_key='none', max_retries=0)
    assert [model.id for model in client.models.list()] == ['out/a', 'b']
    assert client.models.retrieve('out/a').id == 'out/a'
    asked = {'model': 'b', 'messages': CHAT, 'seed': 1, 'max_tokens': 20, 'logprobs': True, 'top_logprobs': 2}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert ''.join(c.choices[0].delta.content for c in chunks) == whole.choices[0].message.content
    assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
    asked['stop'] = whole.choices[0].message.content[5]     # its stream() refuses answers without an end
    with client.chat.completions.stream(**asked) as gathered:
        message = gathered.get_final_completion().choices[0].message
    said = whole.choices[0].message.content.split(asked['stop'])[0]
    assert (message.role, message.content) == ('assistant', said)
    asked = {'model': 'out/a', 'prompt': 'def f', 'seed': 1, 'stop': ['q'], 'n': 2, 'logprobs': 1}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True))
    for choice in whole.choices:
        assert ''.join(c.choices[0].text for c in chunks if c.choices[0].index == choice.index) == choice.text
    with pytest.raises(openai.BadRequestError, match='temperature=7'):
        client.completions.create(model='b', prompt='x', temperature=7)
    with pytest.raises(openai.NotFoundError, match='no model'):
        client.completions.create(model='c', prompt='x')
