"""From measured points to surfaces that never fall with more load; what is done and why.

Noiseless data that never falls with load passes through unchanged: knots are the measurements. Noise
is treated in this order:

* prefill: repeats become their median; a point that breaks the order and that a robust
  quadratic fit singles out is left out of the knots; what still falls is pooled in relative error;
* decode: each measured context is a column, pooled along concurrency and carried to
  shared knots as its ratio to the physical surrogate ``itl = a + b*n + c*n*context``; where a column was not
  measured it goes on with the surrogate's slope; the grid is then projected onto surfaces monotone both ways;
* KV transfer: a line in tokens, non-negative, in relative error.
"""
