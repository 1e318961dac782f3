"""tau2-bench, played and scored exactly: mock, airline, retail and telecom, over data that the user has fetched.

data.py         finds and reads tasks, splits, policies, databases
shapes.py       what a record must look like; defaults and number types as the official models give them
database.py     copy on write over a base that all episodes share; hashes
values.py       records, and the text of a result
toolkit.py      what marks a method as a tool
environment.py  the live rule of a call, set-up, replay, assertions
mock.py, airline.py, retail.py, telecom.py
scoring.py      rewards by component, official or strict
metrics.py      pass^k, pass@k
prompts.py      what agent and user are told
"""
