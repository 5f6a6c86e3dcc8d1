"""The papers' complexity formulas against what is counted: identities, fits, measurements."""
