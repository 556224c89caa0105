"""How a cell's configurations are found: spaces, grid, random and TPE points, successive halving, budgets."""
