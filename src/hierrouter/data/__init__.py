"""Queries: where benchmark questions come from, which are sampled, how they are split."""
