"""Floor 5: norm training (规范化训练), the three ways of the founding text, each driven by one spec.

prompting.py   instructive prompting (规范性提示): rules stand in the input; rows with and without them make the prompt mean something
correction.py  supervised correction (有监督纠正): sample → mark per rule → corrected rows and preference pairs → train
preference.py  pairs and marks of answers train a model: DPO and its relatives (comparison.py); compared.py reads them,
               people.py and marked.py make them of what people preferred, rewrote or marked
online.py      the same with pairs that the model makes itself, ranked by the spec or a reward model
reward.py      reward modelling (奖惩建模): R(x, y) from the rules; train to maximise E[R], on a leash to the model before
"""
