"""How long whole models take: each in a fresh process, with what its figures are worth."""
