"""Floor 5: models for tasks: labels of texts, labels of words, answers found in a text, texts from texts.

    files of people ─→ rows.py: one form for each shape ─→ encode.py, spans.py: ids and targets ─→ learning.py: losses ─→ a model folder
    model folder + new input ─→ model.py: answers ─→ scores.py, writing.py: metrics ─→ page.py: an error browser

The folders are the Hugging Face layout (...ForSequenceClassification, ...ForTokenClassification, ...ForQuestionAnswering).
"""
