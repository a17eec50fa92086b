'use strict'
// The models of an exported page: their forward pass, their tokenizer, and how an answer is drawn.
//
//     text -> ids -> [ embedding -> blocks -> norm -> head -> logits -> the next id ] -> text
//
// This is model.py, tokenizer.py and sample.py again, for one token at a time and without libraries, so that
// you can read all of it in one place. Each token costs a product with every weight: 5 million of them take
// a browser some milliseconds. parts/sample/html_file.py wrote the JSON that is read here.
// C n_embd, H query heads, K key/value heads, D head width, V vocabulary.

// --- numbers ----------------------------------------------------------------------------------------------
function bytes_of(base64) {
  const text = atob(base64)                             // a character for each byte
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  return bytes
}

// The weights of one tensor. A matrix is int8, and one number for each of its rows says how much a 1 is
// worth: the row 0.5 -0.25 0.1 becomes 127 -64 25 and the scale 0.5 / 127. The rest is bfloat16, the upper
// half of a float32.
function read_tensor({ int8, scales, bfloat16 }) {
  if (int8) return { rows: new Int8Array(bytes_of(int8).buffer), scales: new Float32Array(bytes_of(scales).buffer) }
  const upper = new Uint16Array(bytes_of(bfloat16).buffer)
  return new Float32Array(Uint32Array.from(upper, half => half << 16).buffer)
}

// The product of a matrix (n, C) and a vector (C,): one number for each row. Nearly all of the time is spent
// in its inner loop.
function product({ rows, scales }, x) {
  const C = x.length
  const y = new Float32Array(scales.length)
  for (let row = 0, start = 0; row < y.length; row++, start += C) {
    let sum = 0
    for (let i = 0; i < C; i++) sum += rows[start + i] * x[i]
    y[row] = scales[row] * sum
  }
  return y
}

function softmax(z) {
  const largest = z.reduce((a, b) => Math.max(a, b))    // so that nothing overflows
  const e = z.map(value => Math.exp(value - largest))
  const sum = e.reduce((a, b) => a + b, 0)
  return e.map(value => value / sum)
}

// --- the model --------------------------------------------------------------------------------------------
// w * x / sqrt(mean(x^2) + eps)
function rms_norm(x, weight, eps) {
  const mean = x.reduce((sum, value) => sum + value * value, 0) / x.length
  return x.map((value, i) => weight[i] * value / Math.sqrt(mean + eps))
}

// RoPE: in each head, the pair (x_i, x_{i + D/2}) turns by the angle position * theta^(-2i/D). So the product
// of a query and a key depends on the distance between them.
function rotate(x, position, { head_dim: D, rope_theta }) {
  const y = new Float32Array(x.length)
  for (let head = 0; head < x.length; head += D) {
    for (let i = 0; i < D / 2; i++) {
      const angle = Math.fround(position * Math.fround(rope_theta ** (-2 * i / D)))
      const a = x[head + i], b = x[head + i + D / 2]
      y[head + i] = a * Math.cos(angle) - b * Math.sin(angle)
      y[head + i + D / 2] = b * Math.cos(angle) + a * Math.sin(angle)
    }
  }
  return y
}

// Each head of the query q (H D,) compares itself with the keys of all positions so far and takes the mean of
// their values, weighted by how well they fit. keys and values: a (K D,) for each position. H / K query heads
// share one head of these.
function attend(q, keys, values, { n_head: H, n_kv_head: K, head_dim: D }) {
  const y = new Float32Array(q.length)
  for (let head = 0; head < H; head++) {
    const mine = head * D, theirs = Math.floor(head / (H / K)) * D
    const scores = Float32Array.from(keys, key => {
      let sum = 0
      for (let i = 0; i < D; i++) sum += q[mine + i] * key[theirs + i]
      return sum / Math.sqrt(D)
    })
    softmax(scores).forEach((p, t) => {
      for (let i = 0; i < D; i++) y[mine + i] += p * values[t][theirs + i]
    })
  }
  return y
}

// silu(gate) * up, silu(z) = z sigmoid(z): the gate says how much of up passes.
const swiglu = (gate, up) => gate.map((z, i) => z / (1 + Math.exp(-z)) * up[i])

const plus = (x, y) => x.map((value, i) => value + y[i])

// Read one more token. The cache keeps the keys and values of those before it, [{keys, values}] of all blocks,
// and gets those of this one. Returns the vector (C,) from which the next token follows.
function read_token({ config, weights }, id, cache) {
  const norm = (name, x) => rms_norm(x, weights[`${name}.weight`], config.norm_eps)
  const times = (name, x) => product(weights[`${name}.weight`], x)
  const position = cache[0].keys.length
  const { rows, scales } = weights['embedding.weight']
  let x = Float32Array.from(rows.subarray(id * config.n_embd, (id + 1) * config.n_embd), n => n * scales[id])
  for (const [n, { keys, values }] of cache.entries()) {
    const block = `blocks.${n}`
    const y = norm(`${block}.norm_1`, x)
    const q = rotate(times(`${block}.attention.w_q`, y), position, config)
    keys.push(rotate(times(`${block}.attention.w_k`, y), position, config))
    values.push(times(`${block}.attention.w_v`, y))
    x = plus(x, times(`${block}.attention.w_o`, attend(q, keys, values, config)))
    const z = norm(`${block}.norm_2`, x)
    x = plus(x, times(`${block}.mlp.w_down`, swiglu(times(`${block}.mlp.w_gate`, z), times(`${block}.mlp.w_up`, z))))
  }
  return norm('norm', x)
}

// --- the tokenizer: byte-level BPE ------------------------------------------------------------------------
// A token is a text with a character for each byte: 'é' is 'Ã©'.
const to_bytes = text => Array.from(new TextEncoder().encode(text), byte => String.fromCharCode(byte))
const from_bytes = token => Uint8Array.from(token, c => c.charCodeAt(0))

// A pattern of Python's regex in the syntax of JavaScript. Our \s has other characters, and there is no
// possessive ++, which is a matter of speed in the patterns that we know.
function javascript(pattern) {
  const known = pattern.replace(/([+*?]|\{\d+,?\d*\})\+/g, '$1').replaceAll('\\s', '\\p{White_Space}')
  return new RegExp(known.replaceAll('\\S', '\\P{White_Space}'), 'gu')
}

// A text is cut into chunks; in each, the two neighbors whose union is the oldest token merge, again and
// again. What a user types is never a special token.
function encode({ pattern, ranks }, text) {
  const ids = []
  for (const [chunk] of text.matchAll(pattern)) {
    const pieces = to_bytes(chunk)
    for (;;) {
      const unions = pieces.slice(1).map((piece, i) => ranks.get(pieces[i] + piece) ?? Infinity)
      const oldest = unions.reduce((a, b) => Math.min(a, b), Infinity)
      if (oldest === Infinity) break
      const i = unions.indexOf(oldest)
      pieces.splice(i, 2, pieces[i] + pieces[i + 1])
    }
    ids.push(...pieces.map(piece => ranks.get(piece)))
  }
  return ids
}

// <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n: each part is encoded by itself, so nobody who
// types such a mark forges a message.
function encode_chat(tokenizer, messages) {
  const { '<|im_start|>': start, '<|im_end|>': end } = tokenizer.special
  if (start === undefined) throw new Error('this model knows no conversations: let it continue a text')
  const text = part => encode(tokenizer, part)
  const turns = messages.flatMap(({ role, content }) =>
    [start, ...text(role + '\n'), ...text(content), end, ...text('\n')])
  return { ids: [...turns, start, ...text('assistant\n')], healed: '' }
}

// A text may end inside a token: it ends with `):`, and texts have `):`, a newline and spaces as one token. So
// its last token goes, and the first new one must begin with the bytes of that one: `healed`.
function encode_text(tokenizer, text) {
  const ids = [...tokenizer.begin, ...encode(tokenizer, text)]
  if (!ids.length) return { ids: tokenizer.first, healed: '' }
  return { ids, healed: ids.length > 1 ? tokenizer.tokens[ids.pop()] : '' }
}

// --- the next token ---------------------------------------------------------------------------------------
// Random numbers from 0 to 1 that are the same for the same seed (mulberry32).
function dice(seed) {
  return () => {
    seed = (seed + 0x6D2B79F5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

// The ids of the k largest numbers, the largest first.
function largest(values, k) {
  const least = Float32Array.from(values).sort().at(-Math.min(k, values.length))
  const ids = [...values.keys()].filter(id => values[id] >= least)
  return ids.sort((a, b) => values[b] - values[a]).slice(0, k)
}

// Of the k most probable tokens (0: of all), draw one by its probability. Temperature 0 takes the first; a
// higher one brings the probabilities closer together.
function draw(logits, temperature, k, random) {
  const ids = largest(logits, temperature ? k || logits.length : 1)
  const p = softmax(ids.map(id => logits[id] / (temperature || 1)))
  let rest = random()
  return ids.find((_, i) => (rest -= p[i]) < 0) ?? ids[0]
}

// --- an answer --------------------------------------------------------------------------------------------
const file = JSON.parse(document.getElementById('models').textContent)
for (const model of file.models) {
  const { weights, tokenizer } = model
  for (const name in weights) weights[name] = read_tensor(weights[name])
  tokenizer.pattern = javascript(tokenizer.pattern)
  tokenizer.n_text = tokenizer.tokens.length - Object.keys(tokenizer.special).length
  tokenizer.ranks = new Map(tokenizer.tokens.slice(0, tokenizer.n_text).map((token, id) => [token, id]))
}

// The browser paints and listens only while nothing runs, so all models pause together 30 times a second.
let painted = 0
async function pause() {
  if (performance.now() - painted < 33) return
  await new Promise(done => setTimeout(done))
  painted = performance.now()
}

// Answer messages, a text or a problem, token by token. Yields what parts/sample/server.py would send: the new
// characters, the token with its rivals, and at the end of a problem its verdict.
async function* answer(asked, is_chat, signal) {
  const { config, weights, tokenizer, ...model } = file.models.find(({ id }) => id === asked.model)
  const problem = file.problems.find(({ task_id }) => task_id === asked.task_id)
  const { tokens, stop, n_text } = tokenizer
  const prompt = is_chat
    ? encode_chat(tokenizer, problem ? [{ role: 'user', content: problem.asked }] : asked.messages)
    : encode_text(tokenizer, problem?.prompt ?? asked.prompt)
  const room = config.block_size - prompt.ids.length + 1
  if (room < 1) throw new Error(`this is longer than the context of ${config.block_size} tokens: clear, or ask less`)
  const limit = Math.min(room, asked.max_tokens ?? room)
  const random = dice(asked.seed ?? Math.random() * 2 ** 32)
  const cache = Array.from({ length: config.n_layer }, () => ({ keys: [], values: [] }))
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })         // waits for whole characters
  const ends = problem && !is_chat && new RegExp(problem.ends)          // where a function ends
  let text = '', unread = prompt.ids, hidden
  for (let n = 1; n <= limit; n++) {
    for (const id of unread) {
      await pause()
      signal.throwIfAborted()
      hidden = read_token({ config, weights }, id, cache)
    }
    const logits = product(weights['head.weight'] ?? weights['embedding.weight'], hidden)
    logits.forEach((_, id) => {                         // marks of a chat, and rows without a token
      if (id >= n_text && !stop.includes(id)) logits[id] = -Infinity
    })
    if (n === 1 && prompt.healed) {
      tokens.forEach((token, id) => {
        if (id >= n_text || !token.startsWith(prompt.healed)) logits[id] = -Infinity
      })
    }
    const id = draw(logits, asked.temperature, asked.top_k, random)
    unread = [id]

    // log p = z - log sum e^z
    const top = largest(logits, 4).filter(id => logits[id] > -Infinity)
    const log_sum = logits[top[0]] + Math.log(logits.reduce((s, z) => s + Math.exp(z - logits[top[0]]), 0))
    const [token, ...top_logprobs] = [id, ...top].map(each => (
      { token: new TextDecoder().decode(from_bytes(tokens[each])), logprob: logits[each] - log_sum }))
    const is_stop = stop.includes(id)
    const bytes = is_stop ? '' : tokens[id].slice(n === 1 ? prompt.healed.length : 0)
    const n_shown = text.length
    text += decoder.decode(from_bytes(bytes), { stream: !is_stop && n < limit })
    const end = ends ? (problem.prompt.at(-1) + text).search(ends) - 1 : -1
    if (end >= 0) text = text.slice(0, end)
    yield { text: text.slice(n_shown), tokens: [{ ...token, top_logprobs }], id }
    if (is_stop || end >= 0) break
  }
  if (problem) yield { verdict: verdict(model, problem, is_chat, text) }
}

function verdict({ chat, judged }, { task_id }, is_chat, text) {
  const known = judged[task_id]
  if (known && chat === is_chat && known.text === text) return known
  return { outcome: '', message: 'not tested when this file was written' }
}

const source = {
  note: 'The models are in this file and run in your browser, so nothing is sent anywhere. A browser cannot run Python: '
    + 'the verdicts are from when this file was written, and only answers at temperature 0 can have one.',
  models: async () => file.models,
  problems: async () => file.problems,
  answer,
}
