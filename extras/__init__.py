"""
Options of the scripts at the top, one idea a file. A script opens a file of this folder when a flag
asks for it, and works without the folder as long as no flag does.

what train.py opens
    objectives          which tokens are hidden, and which the model must predict
    streaming           text is tokenized while it is read
    mixture             each source is read as often as it weighs
    sharding            each process holds a part of the gradients, moments and weights
    muon                an optimizer for the matrices of the blocks
    planner             memory, days and price of a run, before it starts
what sft.py and dpo.py open
    lora                only small matrices train, beside the weights
    replay              sft.py also reads base text, and measures how much of it is forgotten
    reward_model        dpo.py trains a head that scores answers
what rl.py opens
    reward_tests        an answer earns 1 if its program passes the tests
    reward_scores       an answer earns what a reward model says
what eval.py opens for --tasks=problems, humaneval, own, ...
    answers             a model answers many prompts at a time
    learned             a command: do a model's texts look like those of the data?
what rl.py, prepare.py, sample.py and eval.py need for programs and their tests
    problems            small Python problems with tests
    questions           one form for HumanEval, MBPP, GSM8K and your own
    grading             how good an answer is: tests, rules, a judge
    sandbox             runs programs that a model wrote
    trial               one run of a program in the sandbox
    crossing            what the program and its tests say to each other
models
    hf_model            folders of Hugging Face, read and written, and the card of one
    hf_tokenizer        tokenizer.json files of Hugging Face, read and written
    longer_context      a command: a model reads more tokens at a time
    new_vocabulary      a command: a model gets another tokenizer
"""
