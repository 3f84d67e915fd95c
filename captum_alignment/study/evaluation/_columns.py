"""Names of the columns of the records."""

#: Columns of the terms of the margin, in units of the score.
INPUT, RESIDUAL = "input_term", "relative_residual"
#: Prefixes of the columns of every additive term by name, and of the two profiles by the fraction of the way.
BIAS, FORWARD, BACK = "bias:", "margin:", "adversarial_margin:"
