"""Graphs (link prediction) to prepared datasets: users and items are the nodes, interactions the edges."""
