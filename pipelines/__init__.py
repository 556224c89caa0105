"""The distributed system: each module is one step, in the order data flows."""
