"""Numbers that show how good predictions and fits are: pure functions of arrays, drawn elsewhere."""
