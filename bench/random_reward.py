"""
A control for rl.py: half of all answers get the reward 1, whatever they say, so nothing can be learned.

    python rl.py --init_from=out/quickstart_sft --reward=bench/random_reward.py --out_dir=out/rl_random
    python eval.py --ckpt=out/rl_random/last.pt --tasks=problems --allow_code_execution=True

eval.py shows how much training on noise changes the model. If your own reward does no better than this
control, the model has learned nothing from your reward.
"""
import random

from extras.tasks.problems import problems, to_messages

# Not a hash of the answer: a model could learn which answers pay.
rng = random.Random(0)


def prompts():
    """The questions that rl.py asks with --reward=problems."""
    return [to_messages(problem)[0]['content'] for split in ('example_train', 'practice_train')
            for problem in problems(1000, 1, split)]


def reward(prompt, completion):
    return rng.random() < 0.5
