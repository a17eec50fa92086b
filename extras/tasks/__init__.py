"""
Questions, answers, and programs that run to see whether an answer is right. A line a file: who
opens it, and why.

answers             eval.py --tasks: a model answers many prompts, and samples.jsonl grows
problems            --tasks=problems: small Python problems with tests; chats.py writes examples
questions           eval.py --data: one form for HumanEval, MBPP, GSM8K and your own
grading             eval.py --tasks: how good an answer is, by tests or rules
own_tests           questions: with your tests for unittest, doctest or pytest, to run them
sandbox             --allow_code_execution: runs programs that a model wrote; may be copied alone
rewards             rl.py --reward=problems, FILE.jsonl, FOLDER: tests, rules or a reward model

Commands, python -m extras.tasks.NAME --help:
compare             is the second of two models better, and at what?
rescore             pass@k of answers that exist already, without a model
chain_report        the table of what each stage of run.sh can do
"""
