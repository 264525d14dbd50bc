"""One-off experiments that a claim rests on, one folder a question: run.py, README.md and result.json."""
