"""Judged lists of documents (learning to rank) to prepared datasets: users are queries, items are documents."""
