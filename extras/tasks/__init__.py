"""
Questions, answers, and tests that decide whether an answer is right. Each line: a file, the option
that imports it, and what it does.

answers             eval.py --tasks: generates answers to many prompts, for samples.jsonl
problems            --tasks=problems: small Python problems with tests; chats.py writes examples
questions           eval.py --data: one format for HumanEval, MBPP, GSM8K and your own
grading             eval.py --tasks: scores answers by tests or rules
own_tests           questions: runs your unittest or pytest tests
sandbox             --allow_code_execution: runs generated programs; you can copy this file alone
rewards             rl.py --reward=problems, FILE.jsonl, FOLDER: tests, rules or a reward model

Commands, python -m extras.tasks.NAME --help:
compare             compares two models on the same problems
rescore             computes pass@k of existing answers, without a model
chain_report        writes the report of run.sh: scores of each stage
"""
