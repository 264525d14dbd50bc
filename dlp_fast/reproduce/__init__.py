"""The paper's tables and figures on one code base: every method on the same data, none chosen by the test set."""
