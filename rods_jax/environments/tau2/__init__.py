"""tau2-bench, played and scored exactly: mock, airline, retail and telecom, over data that the user has fetched.

data.py         finds and reads tasks, splits, policies, databases
messages.py     tasks and dialogues as records
shapes.py       what a record must look like: defaults, order and number types of the official models
database.py     copy on write over a base that all episodes share; texts and hashes
values.py       records, and the text of a result
toolkit.py      what marks a method as a tool;  specs.py: what the policy reads of it
environment.py  the live rule of a call, set-up, replay, assertions
domains.py      each domain by name;  mock.py, airline*.py, retail.py, telecom*.py, phone*.py: their tools
faults.py       tasks of telecom, made of faults;  telecom_faults.py: which there are;  telecom_variants.py: an author of them
scoring.py      rewards by component, official or strict;  judge.py: a model that decides statements
disputed.py     tasks whose gold no policy can reach, or must guess
slips.py        errors of the user, and calls of the other side's tools, found in a transcript
prompts.py      what agent and user are told
episodes.py     all of it as conversations of a run;  gym_text.py: actions as its gym environment reads them
"""
