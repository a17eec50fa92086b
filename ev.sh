#!/bin/bash
# ev.sh CORE RUN [N]: 2 answers at T 0.8 to N problems of each validation split
c=$1; r=$2; n=${3:-300}
[ -e $r/ev.json ] || /tmp/x $c .venv/bin/python eval.py --ckpt=$r/last.pt --tasks=problems --allow_code_execution=True --batch_size=128 --max_new_tokens=64 --splits=validation,feedback_validation --n_problems=$n --num_samples=2 --temperature=0.8 --problems_seed=7 --out=$r/ev.json > $r/ev.log 2>&1
.venv/bin/python - $r <<'P'
import json,sys,re
r=sys.argv[1]
e=json.load(open(r+'/ev.json'))
def find(o,path=''):
    if isinstance(o,dict):
        for k,v in o.items():
            if k=='pass@1' or k=='pass_at_1': yield path,v
            yield from find(v,path+'/'+str(k))
print(r, [(p[-30:],v) for p,v in find(e) if 'split' in p])
try:
    rows=[json.loads(l) for l in open(r+'/metrics.jsonl')]
    u=[x['used'] for x in rows if 'used' in x]; rw=[x['reward'] for x in rows if 'reward' in x]
    print('   used %.3f reward first %.3f last %.3f entropy %.3f'%(sum(u)/len(u),sum(rw[:3])/3,sum(rw[-3:])/3,[x['entropy'] for x in rows if 'entropy' in x][-1]), 'val', [(x['step'],x['val_reward']) for x in rows if 'val_reward' in x])
except Exception as ex: print(ex)
P
