"""
Exercises: you write one function of this project, and the project's tests grade it.

    bash run.sh exercise            # list the exercises, easy to hard
    bash run.sh exercise 4          # first call: create exercises/rope/model.py with an empty function
    bash run.sh exercise 4          # later calls: run the tests of this function with your file

docs/exercises.md lists the exercises with the usual mistakes. Your file is never overwritten: to
start over, delete its folder. To grade your file, the current scripts, extras/, config/, tests/ and
learn/ are copied to a temporary folder, where your file replaces the project's. You see pytest's
report of the first test that fails. No network is needed.
"""
import ast
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
EMPTY = "raise NotImplementedError('yours to write')"


class Exercise(NamedTuple):
    name: str
    file: str
    where: str          # the function, for example `sample` or `RMSNorm.forward`
    tests: str          # the tests that grade it: FILE::NAME, see ids_of()
    task: str
    seconds: int = 10   # time limit of a test, because an answer may loop forever
    begin: str = ''     # if the exercise is a part of a function or script: the prefix of its first line,
    end: str = ''       # and the prefix of the line after the part


EXERCISES = [
    Exercise('pass_at_k', 'eval.py', 'pass_at_k',
             'test_eval.py::test_pass_at_k_is_the_share_of_all_draws_that_hold_a_passing_sample',
             'The probability that one of k answers passes, if c of n passed. Chen et al. 2021, '
             'arXiv:2107.03374, eq. 1. The obvious 1 - (1 - c/n)^k is biased, because the answers are '
             'sampled without replacement.'),
    Exercise('schedule', 'train.py', 'lr_at',
             'test_train.py::test_the_schedule_at_its_landmarks',
             'The learning rate of a step: a linear rise, then half a cosine (arXiv:1608.03983). The '
             'docstring has values to check by hand.'),
    Exercise('rms_norm', 'model.py', 'RMSNorm.forward',
             'test_model.py::test_rmsnorm_equals_the_formula_and_stays_float32_under_autocast',
             'Divide by the root of the mean square; no mean is subtracted. Zhang & Sennrich 2019, '
             'arXiv:1910.07467, eq. 4. Compute in float32, return the type of x.'),
    Exercise('rope', 'model.py', 'rotate',
             'test_model.py::test_rope_is_a_complex_rotation_that_keeps_norms_and_sees_only_distances',
             'Rotate each pair (x_i, x_{i + D/2}) by its angle. Su et al. 2021, arXiv:2104.09864, eq. 34. '
             'The two values of a pair are D/2 apart, as in Llama; in the paper they are adjacent.'),
    Exercise('top_p', 'model.py', 'sample',
             'test_model.py::test_top_k_and_top_p_leave_the_most_probable_and_u_draws_where_the_'
             'sum_of_probabilities_reaches_it',
             'Sample a token: temperature, then top-k, then top-p. Holtzman et al. 2019, arXiv:1904.09751, '
             'section 3.1. The token with which the sum reaches p is kept.'),
    Exercise('chat_mask', 'tokenizer.py', 'Tokenizer.render',
             'test_tokenizer.py::test_only_the_assistants_words_and_their_end_are_trained '
             'test_tokenizer.py::'
             'test_a_bad_message_or_a_tokenizer_without_the_special_tokens_is_a_value_error',
             'The ids of a conversation, and a mask: 1 for the assistant\'s content and the <|im_end|> after '
             'it. Encode each part separately, or a user can forge a turn. A role that is not system, user, '
             'assistant or tool, or a content that is not text, is a ValueError that names the roles; a '
             'missing special token is a ValueError that names <|im_end|>.', seconds=30),
    Exercise('targets', 'sft.py', 'collate',
             'test_sft.py::test_a_target_is_the_next_token_if_that_is_trained '
             'test_sft.py::test_the_tensors_that_reach_the_loss_say_what_the_assistants_say',
             'Conversations of different lengths as inputs and targets. The target of a position is the '
             'NEXT token, so the mask of a position is also the mask of the next token.'),
    Exercise('dpo', 'dpo.py', 'preference_loss',
             'test_dpo_losses.py',
             'DPO: the negative log sigmoid of the margin between the two rewards. Rafailov et al. 2023, '
             'arXiv:2305.18290, eq. 7. A margin of -2000 must stay finite.',
             begin="    if loss_type == 'dpo':", end="    elif loss_type == 'ipo':"),
    Exercise('bpe_encode', 'tokenizer.py', 'encode_chunk',
             'test_tokenizer.py::test_the_lowest_id_first_gives_the_ids_of_tiktoken',
             'Apply the merges to one chunk of text. Sennrich et al. 2016, arXiv:1508.07909, section 3.2.'
             ' ranks maps bytes to ids: which pair is merged first?'),
    Exercise('attention', 'model.py', 'Attention.forward',
             'test_model.py::test_the_forward_equals_the_formulas '
             'test_model.py::'
             'test_cached_greedy_generation_equals_the_naive_loop_for_every_prompt_length',
             'Causal attention with grouped keys and values and with a cache. attend(), below it, computes '
             'the softmax: give it q, k, v and the mask. Vaswani et al. 2017, arXiv:1706.03762, eq. 1; '
             '2305.13245. Without a cache first: then only the first test passes.'),
    Exercise('minhash', 'dedup.py', 'minhash',
             'test_dedup.py::test_a_signature_of_a_union_is_the_smaller_of_two '
             'test_dedup.py::test_texts_share_a_band_as_often_as_the_formula_says '
             'test_dedup.py::test_a_signature_of_a_long_text_needs_little_memory',
             'k numbers, each of which is the same for two sets with probability J, their Jaccard '
             'similarity. Broder 1997: the smallest value under each of k hash functions, here '
             'a x + b of the upper 32 bits of each shingle. A set of a million shingles must not take '
             'a million times k numbers of memory.',
             begin='    x = (', end='    return minima'),
    Exercise('accumulation', 'train.py', '',
             'test_processes.py::test_a_run_has_the_losses_of_the_golden_one[mlm] '
             'test_processes.py::test_one_process_accumulating_4_equals_two_accumulating_2[adamw ddp 2] '
             'test_processes.py::'
             'test_in_bfloat16_other_micro_batches_and_processes_change_a_loss_by_rounding '
             'test_train.py::test_float16_looks_for_its_scale_and_skips_what_overflows',
             'The gradient of the mean loss over all targets of a step, from micro-batches: batches has the '
             'micro-batches of this process, each (x, y) and perhaps a mask. Targets that are IGNORE do not '
             "count, and dist.all_reduce(t) sums a tensor over processes. loss must be this process's part "
             'of the mean. Goyal et al. 2017, arXiv:1706.02677, section 3: divide once, by the total. '
             'For bfloat16, call net inside `with autocast:`; for float16, scaler.scale(...) multiplies '
             'what you call backward() on.',
             seconds=300, begin='    n_targets = ', end="    # The step's loss is a sum"),
    Exercise('batch_order', 'train.py', 'epoch_starts',
             'test_train.py::test_an_epoch_visits_every_block_once_in_an_order_and_with_a_shift_of_its_own '
             'test_train.py::test_the_cat_sat_on_the_mat',
             'The start of each sequence of an epoch, as a function of epoch and seed only, so that no state '
             'of the data must be saved, and a step can be repeated. np.random.default_rng([seed, epoch])'
             '.permutation(n) orders n blocks, and the first number of such a permutation is a good shift.'),
    Exercise('resume', 'train.py', 'save',
             'test_resume.py::test_a_run_stopped_killed_and_killed_while_saving_is_the_straight_run',
             'Save everything that a run needs to resume bit for bit: model.save(path, **more) writes the '
             'weights and more entries, and this file reads these keys as state[...]. No file may be '
             'incomplete: os.replace(new, name) renames a file, and the previous last.pt becomes last-1.pt. '
             'The state of random generators is not needed: why?', seconds=300),
    Exercise('bpe_train', 'tokenizer.py', 'learn_merges_slowly',
             'test_tokenizer.py::test_golden_low_lower_lowest '
             'test_tokenizer.py::test_the_merges_are_those_of_the_naive_loop',
             'Learn the merges: count pairs, merge the most frequent pair, of ties the one with the smaller '
             'ids. Count all pairs before each merge. learn_merges recounts few pairs: why is that enough?'),
]


def lines_of(exercise, source):
    """Return the lines that the reader writes, as (first, last + 1), from 0: a function's body after its
    docstring, or the lines from `begin` up to `end`."""
    lines = source.splitlines()
    nodes = ast.parse(source).body
    first, stop = 0, len(lines)
    for name in filter(None, exercise.where.split('.')):
        node, = (n for n in nodes if getattr(n, 'name', None) == name)
        nodes = node.body
        first, stop = node.body[0].lineno - 1, node.end_lineno
        if ast.get_docstring(node) is not None and isinstance(node, ast.FunctionDef):
            first = node.body[0].end_lineno
    if exercise.begin:
        first, = (i for i in range(first, stop) if lines[i].startswith(exercise.begin))
        stop = next(i for i in range(first, stop) if lines[i].startswith(exercise.end))
        first += lines[first].endswith(':')             # keep the line that opens a block
        stop -= lines[stop - 2:stop].count('')          # and the blank lines before a function
    return first, stop


def ids_of(exercise):
    """Return the names of its tests, which may have spaces: test_a.py::test_b[adamw 2]."""
    return re.split(r' (?=test_\w+\.py)', exercise.tests)


def blanked(exercise, source):
    """Return the file with EMPTY in place of the lines that the reader writes."""
    first, stop = lines_of(exercise, source)
    lines = source.splitlines(keepends=True)
    indent = re.match(' *', lines[first])[0]
    return ''.join([*lines[:first], textwrap.indent(EMPTY, indent) + '\n', *lines[stop:]])


def copy_project(folder):
    """Copy the parts of this project that the tests need into an empty folder."""
    for name in ('extras', 'config', 'tests', 'learn'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.glob('*.py'):
        shutil.copy(path, folder)


def grade(tests, answers, *flags, seconds=600):
    """Run the tests with answers, {file: text}, in place of the project's files. A test that takes more than
    `seconds` ends the run. Return pytest's CompletedProcess."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        copy_project(folder)
        for file, text in answers.items():
            (folder / file).write_text(text, encoding='utf-8')
        command = [sys.executable, '-m', 'pytest', '-q', '--tb=short', '--no-header',
                   '-rN', '-p', 'no:cacheprovider', '-o', f'faulthandler_timeout={seconds}',
                   '-o', 'faulthandler_exit_on_timeout=true', *flags, *(f'tests/{name}' for name in tests)]
        return subprocess.run(command, cwd=folder, text=True, capture_output=True)


def verdict(exercise, text, file):
    """Grade a file's text, and print the result. Return 0 if the tests pass. file: its name in messages."""
    if EMPTY in text:
        print('not yet: the function is still empty.')
        return 1
    try:
        ast.parse(text)
    except SyntaxError as e:
        print(f'not yet: {file}, line {e.lineno}, is not Python: {e.msg}')
        return 1
    try:
        result = grade(ids_of(exercise), {exercise.file: text}, '-x', seconds=exercise.seconds)
    except KeyboardInterrupt:
        print('not yet: you stopped the tests. If they took long, check for an endless loop.')
        return 1
    if 'Timeout (' in result.stderr:
        line = re.search(rf'File ".*{exercise.file}", line (\d+)', result.stderr)
        print(f'not yet: a test has not ended after {exercise.seconds} seconds. Is there an endless loop'
              + (f' at line {line[1]}?' if line else '?'))
        return 1
    counts = re.findall(r'(\d+) (passed|failed|error)', result.stdout)
    said = ', '.join(f'{n} {word}' for n, word in counts)
    if result.returncode or 'passed' not in said:       # os._exit(0) ends pytest with code 0, too
        # from the name of the failed test to the line with which pytest stops
        report = re.search('^_+ .*(?=^!)', result.stdout, re.M | re.S)
        print(report[0][-4000:] if report else result.stdout + result.stderr)
        print(f'not yet ({said}).')
        return 1
    print(f'passed: {said}.')
    return 0


def explain(number, exercise, path):
    """Print the task and the place of an exercise."""
    text = path.read_text(encoding='utf-8')
    line = text[:text.index(EMPTY)].count('\n') + 1
    print(f'Exercise {number}, {exercise.name}: write {exercise.where or "the missing lines"} in '
          f'{path.relative_to(ROOT)}, line {line}.\n\n{textwrap.fill(exercise.task, 100)}\n')
    if exercise.where and exercise.file in ('train.py', 'sft.py', 'dpo.py', 'eval.py'):
        print('Use only its arguments, and imports and constants of the file: tests extract the function.')
    print(f'Then type `bash run.sh exercise {number}` again.')


def main():
    if len(sys.argv) != 2:
        for number, e in enumerate(EXERCISES, 1):
            print(f'{number:>2}  {e.name:<14}{e.file}:{e.where or "the loop"}')
        print('\nbash run.sh exercise NUMBER starts an exercise; run it again to grade your file')
        return 0
    asked = sys.argv[1]
    number = next((i for i, e in enumerate(EXERCISES, 1) if asked in (e.name, str(i))), None)
    if number is None:
        print(f'error: no exercise {asked!r}; choose 1 to {len(EXERCISES)} from: bash run.sh exercise',
              file=sys.stderr)
        return 2
    exercise = EXERCISES[number - 1]
    path = ROOT / 'exercises' / exercise.name / pathlib.Path(exercise.file).name
    if not path.exists():
        source = (ROOT / exercise.file).read_text(encoding='utf-8')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(blanked(exercise, source), encoding='utf-8')
        explain(number, exercise, path)
        return 0
    text = path.read_text(encoding='utf-8')
    failed = verdict(exercise, text, path.relative_to(ROOT))
    if EMPTY in text:
        explain(number, exercise, path)
    elif not failed:
        print(f'Compare with ours: diff {path.relative_to(ROOT)} {exercise.file}')
    return failed


if __name__ == '__main__':
    if {'-h', '--help'} & {*sys.argv}:
        sys.exit(print(__doc__))
    sys.exit(main())
