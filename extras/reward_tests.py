"""
Rewards by tests for rl.py: 1 for an answer whose program passes its tests, or that keeps the rules
of its line, else 0.

    python rl.py --reward=problems --allow_code_execution=True          # problems.py
    python rl.py --reward=tasks.jsonl --allow_code_execution=True       # {"prompt", "tests"} lines

Lines may have all forms of questions.py, so the .jsonl files of HumanEval, MBPP and GSM8K, too. The
top of sandbox.py says what a program of the model can do to your machine.
"""
from configurator import Mistake
from extras import grading, sandbox
from extras.questions import convert, from_problems, to_question

N_PROBLEMS = 2000       # to train on, half of them compositions; problems.py draws any number


def open_tests(source, content, n_held_out, allow_code_execution, timeout, rank, world):
    """Return prompts, judge(prompts, texts), which says what these texts earn, and bytes that
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
    n_judges = max(1, min(16, sandbox.CORES // world))      # all processes share the cores

    def run(jobs):
        return [*sandbox.run_many(jobs, timeout, processes=n_judges)]

    def judge(prompts, texts):
        asked = [question_of[str(prompt)] for prompt in prompts]
        verdicts = grading.verdicts(asked, [[text] for text in texts], chat=True, run=run)
        rewards = []
        for question, verdict in zip(asked, verdicts):
            if verdict['outcome'] == 'infrastructure':
                raise Mistake(f'no verdict on {question["messages"][-1]["content"]!r:.80}: its '
                              f'tests or the machine failed: {verdict["message"]}')
            rewards.append(float(verdict['outcome'] == 'passed'))
        return rewards

    tested = grading.tested(asked)
    if tested and not allow_code_execution:
        raise Mistake(f'{source}: judging runs programs that the model wrote; first read the top of '
                      'extras/sandbox.py, then add --allow_code_execution=True')
    # Do the tests work here? An answer that is known to be right must pass, and an empty one not.
    if tested and rank == 0:
        grading.check_harness(tested, run)
    return [question['messages'] for question in asked], judge, content
