"""The paper's tables for our pool, beside its own numbers."""
