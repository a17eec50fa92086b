#!/bin/bash
# ev8.sh CORE RUN: 8 answers at T 0.8 to 200 problems of each validation split
c=$1; r=$2
[ -e $r/ev8.json ] || /tmp/x $c .venv/bin/python eval.py --ckpt=$r/last.pt --tasks=problems --allow_code_execution=True --batch_size=128 --max_new_tokens=64 --splits=validation,feedback_validation --n_problems=200 --num_samples=8 --k=1,8 --temperature=0.8 --problems_seed=7 --out=$r/ev8.json > $r/ev8.log 2>&1
.venv/bin/python - $r <<'P'
import json,sys
r=sys.argv[1]
e=json.load(open(r+'/ev8.json'))
def find(o,path=''):
    if isinstance(o,dict):
        for k,v in o.items():
            if k.startswith('pass@'): yield path,k,v
            yield from find(v,path+'/'+str(k))
print(r, [(p[-20:],k,round(v,4)) for p,k,v in find(e) if 'split' in p])
P
