"""
What an answer earns in rl.py: 1 if its program passes its tests, or if it keeps the rules of its
line, else 0; or what a reward model says, a GPT with a head, which dpo.py trains.

    python rl.py --reward=problems --allow_code_execution=True          # problems.py
    python rl.py --reward=tasks.jsonl --allow_code_execution=True       # {"prompt", "tests"} lines
    python dpo.py --loss_type=rm --init_from=out/sft --data_dir=data/pairs --out_dir=out/reward
    python rl.py --reward=out/reward --kl_coef=0.05                     # this is RLHF
    python rl.py --reward=out/reward --prompts=FILE.jsonl ...           # asks what its lines ask

    add_head(model)             # model.reward_head, a parameter
    score(model, x, y)          # (N,) scores, from inputs and targets (N, T)

Lines may have all forms of questions.py, so the .jsonl files of HumanEval, MBPP and GSM8K, too. The
top of sandbox.py says what a program of the model can do to your machine.

People compare answers, and the loss of dpo.py makes the score of the better one larger (Bradley and
Terry 1952; 2203.02155). Only differences between the scores of a prompt have a meaning: the loss is
the same if all of them rise by 1. A checkpoint has the weights of the GPT under `model` and the
head under `reward_head`.
"""
import json, pathlib
import torch
import torch.nn as nn
from torch.nn.utils.rnn import pad_sequence
from configurator import Mistake
from extras import grading, sandbox
from extras.questions import convert, from_problems, messages_of, to_question
from model import GPT, IGNORE

N_PROBLEMS = 2000       # to train on, half of them compositions; problems.py draws any number


# --- tests ----------------------------------------------------------------------------------------
def open_tests(source, content, n_held_out, allow_code_execution, timeout, rank, world):
    """Return prompts, judge(prompts, texts), which yields what these texts earn, and bytes that
    identify both. source: problems, or a path, whose bytes are content. n_held_out: how many
    problems, of those that nobody trains on; 0 = those to train on."""
    if source == 'problems':
        splits = ['validation', 'feedback_validation'] if n_held_out else ['review', 'feedback']
        asked = from_problems((n_held_out or N_PROBLEMS) // 2, 0 if n_held_out else 1, splits)
        content = repr(asked).encode()
    else:
        first_of = {}       # by the prompt

        def question_of_line(record):
            question = to_question(record)
            first = first_of.setdefault(str(question['messages']), question)
            if any(first[key] != question[key] for key in ('tests', 'rules')):
                raise Mistake('an earlier line has this prompt and other tests or rules')
            return question

        asked = convert(source, content, question_of_line, 'a line has "prompt" and "answer", '
                        '"tests" or rules, see docs/chat.md')
    question_of = {str(question['messages']): question for question in asked}
    # All processes share the cores.
    court = sandbox.Court(timeout, processes=max(1, min(16, sandbox.CORES // world)))

    def reward_of(question, text, running):
        """Return what a text earns. running: the future result of its program, or None."""
        verdict = grading.outcome(question, text, running and running.result())
        if verdict['outcome'] == 'infrastructure':
            court.shutdown(wait=False, cancel_futures=True)     # or Python would run the rest
            raise Mistake(f'no verdict on {question["messages"][-1]["content"]!r:.80}: its tests '
                          f'or the machine failed: {verdict["message"]}')
        return float(verdict['outcome'] == 'passed')

    def judge(prompts, texts):
        """Begin to run the programs in texts, and return rewards, an iterator that waits for them:
        the model goes on to write."""
        cases = [(question_of[str(prompt)], text) for prompt, text in zip(prompts, texts)]
        jobs = [grading.job(*case, chat=True) for case in cases]
        court.known.clear()         # it would remember the programs of all steps
        running = [job and court.submit(*job) for job in jobs]
        return (reward_of(*case, result) for case, result in zip(cases, running))

    tested = [question for question in asked if question['tests']]
    if tested and not allow_code_execution:
        raise Mistake(f'{source}: judging runs programs that the model wrote; first read the top '
                      'of extras/sandbox.py, then add --allow_code_execution=True')
    # Do the tests work here? An answer that is known to be right must pass, and an empty one not.
    if tested and rank == 0:
        grading.check_harness(tested, lambda jobs: sandbox.run_many(jobs, timeout))
    return [question['messages'] for question in asked], judge, content


# --- a reward model -------------------------------------------------------------------------------
def add_head(model):
    """Give a GPT a head, in place: a linear function of the hidden state. It begins as 0, and so do
    all scores. So the first loss is -log sigmoid(0) = ln 2."""
    model.reward_head = nn.Parameter(model.embedding.weight.new_zeros(1, model.config.n_embd))


def score(model, x, y):
    """Return the scores of N answers, float32 (N,), read at the last token of each. In the first
    row, that is 9 at position 4; an answer ends with <|im_end|>, unless it was cut:

        x    5 6 7 8 9      y    _ 7 8 9 _          (_ is IGNORE)
             5 6 7 4 0           _ 7 4 _ _"""
    position = torch.arange(y.shape[1], device=y.device)                                # (T,)
    last = torch.where(y != IGNORE, position, 0).amax(1) + 1    # (N,): where its target is input
    rows = torch.arange(len(x), device=x.device)                                        # (N,)
    hidden = model.backbone(x)[rows, last]                                              # (N, C)
    return (hidden.float() * model.reward_head).sum(1)      # in float32: autocast would round


def open_scores(path, prompts, tokenizer, device, autocast):
    """Return prompts, judge(prompts, texts), which yields the scores of these texts, and bytes
    that identify both. path: a folder of dpo.py --loss_type=rm. prompts: problems, or a FILE.jsonl
    with {"prompt"} lines."""
    remedy = 'train one: python dpo.py --loss_type=rm --out_dir=out/reward --data_dir=data/pairs'
    try:
        model = GPT.load(path, dropout=0.0).to(device).eval()
    except ValueError as error:
        raise Mistake(f'{error}; {remedy}') from None
    if 'reward_head' not in model.saved:
        raise Mistake(f'{path} is not a reward model, because it has no reward head; {remedy}')
    if model.saved.get('tokenizer_hash') != tokenizer.hash:
        raise Mistake(f'{path} has another tokenizer than the model that is trained; {remedy}')
    model.reward_head = nn.Parameter(model.saved.pop('reward_head').to(device).float())     # (1, C)
    end, T = tokenizer.special['<|im_end|>'], model.config.block_size

    def fit(prompt, text):
        """Return prompt and answer as at most T ids. If they are too long, the prompt loses its
        beginning, down to a quarter of the context; only then the answer loses its end."""
        ids, _ = tokenizer.render(messages_of(prompt), add_generation_prompt=True)
        # The model has seen ended answers only, so one that was cut off counts as if it ended.
        answer = [*tokenizer.encode(text), end]
        ids = ids[-max(T - len(answer), T // 4, 1):]
        return torch.tensor(ids + answer[:T - len(ids)])

    @torch.no_grad()
    def judge(prompts, texts):
        rows = [fit(*case) for case in zip(prompts, texts)]
        for i in range(0, len(rows), 64):
            few = rows[i:i + 64]
            x = pad_sequence(few, batch_first=True).to(device)                          # (B, T)
            y = pad_sequence([row[1:] for row in few], batch_first=True, padding_value=IGNORE)
            with autocast:
                scores = score(model, x, y.to(device)).tolist()
            yield from scores

    bits = sum(p.detach().view(torch.int32).sum().item() for p in model.parameters())
    return read_prompts(prompts), judge, f'{bits}'.encode()


def read_prompts(source):
    """Return what is asked: texts or messages."""
    if source == 'problems':
        return [question['messages'] for question in
                from_problems(1000, 1, ['review', 'feedback'])]
    try:
        lines = pathlib.Path(source).read_bytes().splitlines()
        return [json.loads(line)['prompt'] for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Mistake(f'prompts={source} must be problems, or a file with a {{"prompt"}} on each '
                      f'line: {type(error).__name__}: {error}') from None
