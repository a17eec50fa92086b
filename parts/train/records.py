"""
Records: lines of JSON -> token ids, and batches of rows of about the same length.

    rows_of_step_7 = Batches(lengths=np.array([3, 9, 4, 8]), batch_size=2, seed=1).of(7)
    conversations, n_empty, n_cut = read_conversations('sft/train.jsonl', 256, tokenizer, 'make sft')
    pairs, n_cut, n_same = read_pairs('pairs/train.jsonl', 256, tokenizer, 'dpo', 'make pairs')
"""
import gzip, hashlib, json, os, pathlib
import numpy as np

IGNORE = -100       # a target that is not trained


def digest(path):
    """The SHA-256 of a file, as text."""
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def read_jsonl(path, convert, advice):
    """[convert(record)] of the objects in the lines of a .jsonl or .jsonl.gz file. A line that cannot be
    read, is no JSON or is refused by convert is a ValueError that names it; advice: how to make such a file.
    A byte order mark and empty lines are skipped."""
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} does not exist; {advice}')
    number = 0
    rows = []
    opener = gzip.open if str(path).endswith('.gz') else open
    try:
        with opener(path, 'rb') as f:
            for line in f:
                number += 1
                text = line.decode('utf-8-sig').strip()
                if not text:
                    continue
                record = json.loads(text)
                if not isinstance(record, dict):
                    raise TypeError(f'{text:.20} is not an object')
                rows.append(convert(record))
    except Exception as e:      # a damaged file, a folder, a missing key, JSON that is nested too deep, ...
        raise ValueError(f'{path}, line {max(1, number)}: {type(e).__name__}: {e}; {advice}') from e
    return rows


class Batches:
    """Which of n rows make up a step, (batch_size,): batches.of(step). Each row occurs at most once in the
    `per_epoch` steps of an epoch, beside others of about its length, so that little is padded. Rows that do
    not fill a batch are left out; if there are fewer than a batch, some are repeated."""

    def __init__(self, lengths, batch_size, seed):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.per_epoch = max(1, len(lengths) // batch_size)
        self.batches = {}           # epoch -> its batches, of the last one asked for

    def of(self, step):
        epoch, i = divmod(step, self.per_epoch)
        if epoch not in self.batches:
            self.batches = {epoch: self.of_epoch(epoch)}
        return self.batches[epoch][i]

    def of_epoch(self, epoch):
        """Its batches, (per_epoch, batch_size), at random: 32 batches at a time are sorted by length."""
        dice = np.random.default_rng([self.seed, epoch])
        order = np.resize(dice.permutation(len(self.lengths)), self.per_epoch * self.batch_size)    # repeats
        for i in range(0, len(order), 32 * self.batch_size):
            part = order[i:i + 32 * self.batch_size]
            order[i:i + len(part)] = part[np.argsort(self.lengths[part], kind='stable')]
        return dice.permutation(order.reshape(-1, self.batch_size))


def unusual(model, learning_rate, lowest, highest, n_rows, epochs):
    """A text for each setting of a fine-tuning run that is not usual. lowest, highest: the rates from 100
    million trained parameters on; fewer (a small model, LoRA) bear higher rates."""
    large = sum(p.numel() for p in model.parameters() if p.requires_grad) >= 1e8
    if large and not lowest <= learning_rate <= highest:
        yield f'learning_rate={learning_rate:g}: from 100M parameters on {lowest:g} to {highest:g} is usual'
    if not 0.95 <= epochs <= 3:
        yield f'{epochs:.2f} epochs, 1 to 3 are usual: fewer miss rows, more learn them by heart'
    if not 1000 <= n_rows <= 100_000:
        yield f'rows: {n_rows:,}; a few thousand to some tens of thousands are usual: quality counts more'


# --- conversations ------------------------------------------------------------------------------------------
def fit_conversation(ids, mask, T, im_start):
    """A conversation of at most T + 1 tokens. If it is too long, we cut first the text after the last answer,
    then the oldest text, and only then the end of the last answer. The header of that answer stays."""
    end = max((i + 1 for i in range(len(ids)) if mask[i]), default=len(ids))    # of the last answer
    header = max((i for i in range(end) if ids[i] == im_start), default=0)      # where its header begins
    start = max(0, min(end - (T + 1), header))
    return ids[start:start + T + 1], mask[start:start + T + 1]


def read_conversations(path, T, tokenizer, command):
    """[(ids, mask)] of the conversations that have a trained token; how many have none; how many were cut.
    command: it makes such a file."""
    whole = read_jsonl(path, lambda record: tokenizer.render(record['messages']), f'prepare it: {command}')
    im_start = tokenizer.special['<|im_start|>']
    n_cut = len([ids for ids, _ in whole if len(ids) > T + 1])
    fitted = [fit_conversation(ids, mask, T, im_start) for ids, mask in whole]
    conversations = [(ids, mask) for ids, mask in fitted if 1 in mask[1:]]
    if not conversations:
        raise ValueError(f'{path} has no conversation with an answer, or none is left in {T} tokens')
    return conversations, len(whole) - len(conversations), n_cut


# --- preferences: a prompt, a better and a worse answer -----------------------------------------------------
def fit_pair(prompt, answer, T):
    """Prompt and answer, ids, of at most T tokens together. If they are too long, the prompt loses its
    beginning, down to a quarter of the context; only then the answer loses its end."""
    keep = max(T - len(answer), T // 4, 1)
    prompt = prompt[-keep:]
    return prompt, answer[:T - len(prompt)]


def to_pair(record, tokenizer):
    """The ids of the prompt and of both answers, each with its <|im_end|>; [] for the answer that a KTO
    record does not have."""
    messages = record['prompt']
    if not isinstance(messages, list):
        messages = [{'role': 'user', 'content': messages}]
    if 'completion' not in record:
        texts = [record['chosen'], record['rejected']]
    elif record['label'] not in (True, False):
        raise ValueError('a label is true or false')
    else:
        texts = [record['completion']]
    prompt = tokenizer.render(messages, add_generation_prompt=True)[0]
    chats = [[*messages, {'role': 'assistant', 'content': text}] for text in texts]
    n_newline = len(tokenizer.encode_inside('\n'))      # behind <|im_end|>: nothing learns it
    answers = [tokenizer.render(chat)[0][len(prompt):-n_newline] for chat in chats]
    if len(answers) == 1:
        answers.insert(1 if record['label'] else 0, [])
    return prompt, *answers


def read_pairs(path, T, tokenizer, loss_type, command):
    """[((prompt, chosen), (prompt, rejected))], all ids; how many of them were cut; how many were dropped,
    because both answers are the same, or are the same where they are cut."""
    whole = read_jsonl(path, lambda record: to_pair(record, tokenizer),
                       f'a line is {{"prompt", "chosen", "rejected"}}; prepare it: {command}')
    if loss_type != 'kto' and any([] in answers for _, *answers in whole):
        raise ValueError(f'{path} has answers with a label in place of pairs, which are not for '
                         f'--loss_type={loss_type}; add --loss_type=kto')
    pairs = []
    n_cut = 0
    for prompt, *answers in whole:
        same = fit_pair(prompt, max(answers, key=len), T)[0]    # one prompt for both
        pair = tuple(fit_pair(same, answer, T) for answer in answers)
        if pair[0][1] != pair[1][1]:
            pairs.append(pair)
            if len(prompt) + max(map(len, answers)) > T:
                n_cut += 1
    if not pairs:
        raise ValueError(f'{path} has no pair of two different answers, or none differs in {T} tokens')
    return pairs, n_cut, len(whole) - len(pairs)


def collate_pairs(pairs, pad):
    """Pairs -> inputs and targets, int64 (2 B, T): all chosen, then all rejected answers, padded right.
    Targets: the answer's tokens, else IGNORE. A reward model reads the last token, too."""
    rows = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    T = max(len(prompt) + len(answer) for prompt, answer in rows)
    x = np.full((len(rows), T), pad)                                                # (2 B, T)
    y = np.full((len(rows), T), IGNORE)                                             # (2 B, T)
    for row, (prompt, answer) in enumerate(rows):
        ids = [*prompt, *answer]
        x[row, :len(ids)] = ids
        y[row, len(prompt) - 1:len(ids) - 1] = answer
    return x, y


def longest(pair):
    """Tokens of the longer one of a pair's two texts."""
    return max(len(prompt) + len(answer) for prompt, answer in pair)
