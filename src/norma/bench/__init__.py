"""Floor 7: measurements beside peers, in one run on the same work.

    rows.py     what every benchmark prints: a table, and JSON rows {system, work, setting, tokens_per_s, peak_mb, ratio}
    parity.py   every family against transformers: the largest difference of logits, loss, gradients
    time_to_loss.py  how much sooner our training is where nanoGPT's ends (nanogpt.py: its process; held_out.py: one measure for both)
    serving.py  an OpenAI-compatible server under many streaming clients, ours or a peer's
    model.py    forward and backward of one model beside transformers' (worker.py: one process a system, interleaved)
"""
