"""
Two wrong answers to each exercise, as somebody might write them, and what the three lines of feedback must
hold: words of the input, of what was found and of what was expected.
"""
import collections

WRONG = collections.defaultdict(list)       # {exercise: [(code, words, words, words), ...]}
# === exercise | of the input | of what was found | of what was expected, and then the answer. The
# input of bpe_train comes from hypothesis, and is another one with another version of it.
for part in r'''
=== pass_at_k | n=4, c=2, k=2 | 1 | 0.8333
return min(1.0, c * k / n)
=== pass_at_k | n=1, c=0, k=1 | division by zero (eval.py, line | 0
return 1 - math.prod((n - c - i) / (n - i) for i in range(k + 1))
=== schedule | step=55, max_steps=100, warmup_steps=10 | 1 | 0.55
return learning_rate * min(1.0, (step + 1) / warmup_steps)
=== schedule | step=10, max_steps=100 | 0.97797 | 1
if step < warmup_steps:
    return learning_rate * (step + 1) / warmup_steps
return min_lr + 0.5 * (learning_rate - min_lr) * (1 + math.cos(math.pi * step / max_steps))
=== rms_norm | times 0.0001, bfloat16 | torch.float32 | torch.bfloat16
return x / (x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt() * self.weight
=== rms_norm | times 0.0001, float32 |  at [0, 0] |  at [0, 0]
return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps) * self.weight
=== rope | rope_table(8, 60, 10000) |  at [0, 1, 0] |  at [0, 1, 0]
a, b = x[..., ::2], x[..., 1::2]
return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
=== rope | [-0.09, 0.52, -0.67, 0.85, -1.35, -1.7, 0.57, 0.79] | RuntimeError | (3, 60, 8)
a, b = x.chunk(2, dim=-1)
return x * cos + torch.cat((-b, a), dim=-1) * sin
=== top_p | top_k=2, top_p=None | [0, 1, 2, 3] | [1, 3]
if temperature == 0:
    return logits.argmax(-1)
p = (logits / temperature).softmax(-1)
if top_p:
    p = p * (p > 1 - top_p)
return torch.multinomial(p, 1)[:, 0]
=== top_p | 0.15 0.5 0.05 0.3, temperature=1.0 | [0, 1, 2, 3] | [1, 3]
return torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]
=== chat_mask | render([{'role': 'system', 'content': ''}]) | [285, 105 | [287, 261, 288, 10]
text = ''.join(f'<|im_start|>{m["role"]}\n{m["content"]}<|im_end|>\n' for m in messages)
return self.encode(text), [1] * len(self.encode(text))
=== chat_mask | {'role': 'human', 'content': 'hi'} | no error | a ValueError that says
start, end = self.special["<|im_start|>"], self.special["<|im_end|>"]
ids, mask = [], []
for message in messages:
    head = [start, *self.encode(message["role"] + "\n")]
    body = [*self.encode(message["content"]), end]
    ids += [*head, *body, *self.encode("\n")]
    mask += [0] * len(head) + [int(message["role"] == "assistant")] * len(body) + [0]
if add_generation_prompt:
    ids += [start, *self.encode("assistant\n")]
return ids, mask + [0] * (len(ids) - len(mask))
=== targets | [([5, 6, 7, 8], [0, 0, 1, 1]), ([9, 3], [0, 1])], pad=0 | (2, 4) | (2, 3)
T = max(len(ids) for ids, _ in rows)
x, y = np.full((len(rows), T), pad), np.full((len(rows), T), IGNORE)
for row, (ids, mask) in enumerate(rows):
    x[row, :len(ids)] = ids
    y[row, :len(ids)] = np.where(mask, ids, IGNORE)
return torch.from_numpy(x), torch.from_numpy(y)
=== targets | y of collate([([5, 6, 7, 8] | [3, 0, 0] | [3, -100, -100]
T = max(len(ids) for ids, _ in rows) - 1
x, y = np.full((len(rows), T), pad), np.full((len(rows), T), pad)
for row, (ids, mask) in enumerate(rows):
    x[row, :len(ids) - 1] = ids[:-1]
    y[row, :len(ids) - 1] = np.where(mask[1:], ids[1:], pad)
return torch.from_numpy(x), torch.from_numpy(y)
=== dpo | are the loss and the two gradients finite? | False | True
losses = -torch.log(torch.sigmoid(chosen - rejected))
=== dpo | rejected -5 (-5) | 4.018 | 0.693
losses = -F.logsigmoid(policy_chosen - policy_rejected)
=== bpe_encode | 'aaaa' | [257, 257] | [272]
pieces = [bytes([b]) for b in to_utf8(chunk)]
i = 0
while i + 1 < len(pieces):
    if pieces[i] + pieces[i + 1] in ranks:
        pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]
    else:
        i += 1
return [ranks[piece] for piece in pieces]
=== bpe_encode | 'a' | KeyError: 'a' (tokenizer.py, line | [97]
return [ranks[letter] for letter in chunk]
=== attention | prompts of length 1, greedy, with a cache |  at [ |  at [
T = x.shape[1]
heads = lambda y: y.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
q, k = (rotate(heads(w(x)), cos, sin) for w in (self.w_q, self.w_k))
y = attend(q, k, heads(self.w_v(x)), mask, mask is None)
return self.w_o(y.transpose(1, 2).flatten(2))
=== attention | 4 heads of queries and 1 of keys | RuntimeError: mat1 | (8, 24, 50)
B, T, C = x.shape
q, k, v = (w(x).view(B, self.config.n_head, T, -1) for w in (self.w_q, self.w_k, self.w_v))
y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, mask, mask is None)
return self.w_o(y.transpose(1, 2).flatten(2))
=== minhash | the cat sat on the mat | [4141112725 | [2336241653
a, b = hash_functions(k)
return (a * (shingles >> np.uint64(32)).astype(np.uint32) + b).max(1)
=== minhash | an empty set, 4 functions | ValueError: zero-size | [4294967295
a, b = hash_functions(k)
return (a * (shingles >> np.uint64(32)).astype(np.uint32) + b).min(1)
=== accumulation | --objective=mlm, one process, 4 micro-batches | 5.757 | 5.754
loss = 0.0
for x, y, *mask in batches:
    mean = net(x, y, *mask, with_logits=False)[1] / len(batches) / world
    (mean * world).backward()
    loss += mean.detach()
=== accumulation | loss of 8 steps in 2 processes | 11.548 | 5.774
n_targets = sum((y != IGNORE).sum() for x, y, *mask in batches)
loss = 0.0
for x, y, *mask in batches:
    mean = net(x, y, *mask, with_logits=False)[1] * (y != IGNORE).sum() / n_targets
    mean.backward()
    loss += mean.detach()
=== batch_order | 1009 tokens, T=10, seed=0 | 3 at [1] | 10 at [1]
random = np.random.default_rng((seed, epoch))
return random.integers(0, n_tokens - T - 1, n_tokens // T)
=== batch_order | 10,001 tokens, T=50 | 1 | more than 20
blocks = np.arange(max(1, n_tokens // T - 1)) * T
return np.random.default_rng([seed, epoch]).permutation(blocks)
=== resume | stopped after step 6 | KeyError: 'config' | 6
torch.save({'model': model.state_dict(), 'model_config': vars(model.config), 'step': step}, out / name)
=== resume | stopped after step 6 | 7 | 6
checkpoint = {'format': 'nanoparrot-checkpoint-1', 'model': model.state_dict(),
              'model_config': vars(model.config), 'config': config,
              'optimizer': opt.state_dict()['state'], 'scaler': scaler.state_dict(),
              'tokenizer_hash': tokenizer.hash, 'data': data_hash, 'step': step + 1,
              'tokens': step * step_tokens, 'best_val': best_val, 'window': window,
              'skipped': skipped, 'positions': stream and stream.positions()}
torch.save(checkpoint, out / name)
(out / 'config.json').write_text(json.dumps(config))
=== bpe_train | learn_merges([b' | (97, | (97,
words, merges = [list(word) for word in words], []
while len(merges) < n_merges:
    frequency = collections.Counter(pair for word in words for pair in zip(word, word[1:]))
    if not frequency:
        break
    best = min(frequency, key=lambda pair: (-frequency[pair], pair))
    for word in words:
        merge(word, best, 256 + len(merges))
    merges.append(best)
return merges, sum(n * len(word) for word, n in zip(words, counts))
=== bpe_train | [b'a'], [1] | ValueError: max() | ([], 1)
words, merges = [list(word) for word in words], []
for token in range(256, 256 + n_merges):
    pairs = [pair for word, n in zip(words, counts) for pair in n * [*zip(word, word[1:])]]
    merges.append(max(pairs, key=pairs.count))
    for word in words:
        merge(word, merges[-1], token)
return merges, sum(n * len(word) for word, n in zip(words, counts))
'''.split('\n=== ')[1:]:
    head, code = part.split('\n', 1)
    name, *words = head.split(' | ')
    WRONG[name].append((code, *words))
