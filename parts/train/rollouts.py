"""
Rollouts of rl.py: prompts, their answers, and what judges these.

    tasks, val_tasks, identity = open_tasks(config, tokenizer, longest=192, here=here)
    noise = noise_of(seed=1, number=0, rows=[0, 1, 2], length=64)   # float64 (3, 64), in [0, 1)
    for i, ids, log_probs, ended in write(model, prompts, noise, 1.0, tokenizer.stop): ...
    reward_of(questions.to_question({'prompt': '2 + 2?', 'answer': '4'}), 'It is 4')    # 1.0

Each answer has random numbers of its own, its row of noise. So other answers and other processes
change it by rounding only.
"""
import os, runpy, sys
import numpy as np
from parts import Mistake
from extras import grading, questions, sandbox
from parts.model import adapters, checkpoints
from parts.prepare import reading
from parts.sample import asking
from parts.train import records


# --- tasks: prompts, and what judges their answers ------------------------------------------------
def open_tasks(config, tokenizer, longest, here):
    """Return the tasks to train on, those held out, and what identifies the reward. longest: tokens
    of a prompt. No prompt is both trained on and held out."""
    reward, held_out, eval_prompts = (
        config[name] for name in ('reward', 'held_out', 'eval_prompts'))
    score = None
    if os.path.isdir(reward):
        score = reward_model(reward, config['init_from'], tokenizer, here.device)
    tasks = read_tasks(config['prompts'] if score else reward, tokenizer, longest,
                       config['n_problems'], config['problems_seed'], ('review', 'feedback'),
                       score=score)
    if held_out or reward == 'problems':
        val_tasks = read_tasks(held_out or reward, tokenizer, longest, eval_prompts, 0,
                               ('validation', 'feedback_validation'))
    else:
        val_tasks = dict([*tasks.items()][::10])
    tasks = [task for ids, task in tasks.items() if ids not in val_tasks]
    val_tasks = [*val_tasks.values()][:eval_prompts]
    if not tasks or not val_tasks:
        raise Mistake(f'{reward=}, prompts of at most {longest} tokens: {len(val_tasks)} to '
                      f'evaluate on, {len(tasks)} others to train on; give more, or lower '
                      '--max_new_tokens')

    tested = [task for task in tasks + val_tasks if task['tests']]
    if tested and not config['allow_code_execution']:
        raise Mistake(f'{reward=}, {held_out=}: judging runs programs that the model wrote; first '
                      'read the top of extras/sandbox.py, then add --allow_code_execution=True')
    # Do the tests work here? An answer that is known to be right must pass, and an empty one not.
    if tested and here.is_main:
        run = lambda jobs: [*sandbox.run_many(jobs, config['timeout'])]
        grading.check_harness(tested, run)
    read = {'reward': reward, 'held_out': held_out, 'prompts': score and config['prompts'],
            'the model of kl_coef': config['kl_coef'] and config['init_from']}
    return tasks, val_tasks, {name: source if source == 'problems' else
                              records.digest(checkpoints.find(source))
                              for name, source in read.items() if source}


def read_tasks(source, tokenizer, longest, n=0, seed=0, splits=(), score=None):
    """Return {ids of a prompt, a tuple: its task}, of the prompts with at most `longest` tokens.
    source: FILE.jsonl, FILE.py, or problems: n of extras/problems.py, of these splits. A prompt
    that comes twice is one task. score: of a reward model, which judges in place of all else."""
    if source == 'problems':
        tasks = questions.from_problems(n // len(splits), seed, splits)
    elif source.endswith('.py'):
        tasks = tasks_of_file(source)
    else:
        tasks = reading.read_jsonl(source, lambda record: questions.to_question(record, not score),
                                   'a line has "prompt" and, unless a reward model judges, '
                                   '"tests" or "answer"; a reward can also be problems, '
                                   'FILE.py, or a folder that dpo.py wrote')
    found = {}
    for task in tasks:
        if score:
            task = {'messages': task['messages'], 'tests': '', 'rules': []}
        ids, _ = tokenizer.render(task['messages'], add_generation_prompt=True)
        if len(ids) <= longest:
            found[tuple(ids)] = task | {'ids': ids, 'score': score}     # not a record's own score
    return found


def tasks_of_file(path):
    """Return the tasks of a FILE.py, which runs here and may import what is beside it. It defines
    prompts(), a list of texts or messages, and reward(prompt, completion), a number."""
    # Its folder goes to the end of sys.path, so that no file in it hides a module of ours. It stays
    # there, because reward() may import as well.
    sys.path.append(os.path.dirname(os.path.abspath(path)))
    try:
        module = runpy.run_path(path)
        reward, prompts = module['reward'], module['prompts']()
        return [questions.to_question({'prompt': prompt}, is_graded=False)
                | {'prompt': prompt, 'reward': reward} for prompt in prompts]
    except Exception as e:
        raise Mistake(f'{path} must define prompts(), a list of texts or messages, and '
                      f'reward(prompt, completion), a number: {type(e).__name__}: {e}') from e


def reward_model(path, init_from, tokenizer, device):
    """Return score(task, texts) of a reward model that dpo.py --loss_type=rm wrote: a number for
    each text as an answer to the task. Higher is better; only differences have a meaning."""
    model, state = checkpoints.open_model(path, device)
    remedy = (f'train one: python dpo.py --loss_type=rm --init_from={init_from} '
              '--out_dir=out/reward --data_dir=data/pairs')
    if 'reward_head' not in state:
        raise Mistake(f'{path} is not a reward model, because it has no reward head; {remedy}')
    checkpoints.same_tokenizer(path, state['tokenizer_hash'], init_from, tokenizer.hash, remedy)
    net = adapters.RewardModel(model).requires_grad_(False).eval()
    net.score.weight.copy_(state['reward_head'])

    def score(task, texts):
        # The model has seen ended answers only, so one that was cut off counts as if it ended.
        answers = [[*tokenizer.encode(text), tokenizer.special['<|im_end|>']]
                   for text in texts]
        x, y = records.collate([records.fit_pair(task['ids'], answer, model.config.block_size)
                                for answer in answers])
        return net(x.to(device), y.to(device)).tolist()

    return score


# --- answers --------------------------------------------------------------------------------------
def noise_of(seed, number, rows, length):
    """Return random numbers in [0, 1), float64 (rows, length). A row follows from (seed, number,
    row)."""
    # Without the 1, row 0 would use the numbers of data.shuffled: [seed, n] and [seed, n, 0] are
    # the same to numpy.
    return np.array([np.random.default_rng([seed, number, row, 1]).random(length) for row in rows])


def write(model, prompts, noise, temperature, stop, slots=128):
    """Yield (i, ids, log p of each id, whether the answer ended by itself) when the answer to
    prompts[i], a list of ids, is complete: short ones come first. noise: float64 (prompts, n), for
    at most n ids. slots: answers written at a time."""
    number_of = {asking.Answer(asking.Prompt(prompt), row): i
                 for i, (prompt, row) in enumerate(zip(prompts, noise.tolist()))}

    def log_p(logits, ids):
        if logits.isnan().any():        # the guard comes too late, because nothing can be drawn
            raise Mistake('the model computes NaN, so it has diverged; resume last.pt, or start '
                          'again, with a lower --learning_rate or --dtype=float32')
        log_probs = (logits / (temperature or 1.0)).log_softmax(-1)                     # (n, V)
        return log_probs.gather(1, ids[:, None])[:, 0]                                  # (n,)

    for answer in asking.write(model, number_of, stop, slots, temperature=temperature, score=log_p):
        if answer.finish:
            yield number_of[answer], answer.ids, answer.scores, answer.finish == 'stop'


def submit(court, task, text):
    """Begin to run the program in an answer, if tests judge it. Return its future Result, or None.
    court: a sandbox.Court."""
    job = grading.job(task, text, chat=True)
    return court.submit(*job) if job else None


def rewards_of(task, answers, warn=None):
    """Return what the answers to a task earn, floats: what its reward model says, or reward_of."""
    if task['score']:
        return task['score'](task, [a.text for a in answers])
    return [reward_of(task, a.text, a.verdict, warn) for a in answers]


def reward_of(task, text, verdict=None, warn=None):
    """Return what a text earns as the answer to a task: 1.0 if eval.py would count it as passed,
    else 0.0; or what reward() says. verdict: what submit() returned. warn(text): told which rewards
    of a FILE.py count as 0; without it they are errors."""
    if 'reward' not in task:
        result = verdict and verdict.result()       # waits for the program
        outcome = grading.outcome(task, text, result)
        if outcome['outcome'] == 'infrastructure':
            raise Mistake(f'no verdict on {task["messages"][-1]["content"]!r:.80}: its '
                          f'tests or the machine failed: {outcome["message"]}')
        return float(outcome['outcome'] == 'passed')
    # Nothing here ends a call that hangs.
    try:
        number = float(task['reward'](task['prompt'], text))
        # Squares of much larger numbers do not fit into float32. nan is refused as well, because
        # every comparison with it is false.
        if abs(number) <= 1e12:
            return number
        why = f'returned {number}'
    except Exception as e:
        why = repr(e)
    why = f'reward({task["prompt"]!r:.80}, {text!r:.80}): {why}'
    if not warn:
        raise Mistake(f'{why}; it must return a number up to 1e12; --bad_reward=zero counts '
                      'others as 0')
    warn(f'counted as 0: {why}')
    return 0.0


def figures(answers, num_samples, here):
    """Return means over the answers of all processes, num_samples to each prompt. entropy: nats per
    sampled token. informative: the fraction of prompts of which an answer has an advantage other
    than 0. used: the fraction of the tokens that are in answers with such an advantage."""
    sums = np.zeros(7)          # a process without answers adds nothing
    for a in answers:
        n_tokens = len(a.ids)
        sums += [1, a.reward, a.reward >= 1, not a.ended, n_tokens, -sum(a.log_probs),
                 n_tokens * (a.advantage != 0)]
    groups = np.reshape([a.advantage for a in answers], (-1, num_samples))              # (P, G)
    n, earned, passed, truncated, n_tokens, nats, n_used, n_informative = here.sum(
        *sums, groups.any(1).sum())
    return {'reward': earned / n, 'pass_rate': passed / n, 'truncated': truncated / n,
            'length': n_tokens / n, 'entropy': nats / n_tokens,
            'informative': n_informative * num_samples / n, 'used': n_used / n_tokens}
