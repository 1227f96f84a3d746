"""From candidates to labels, and why each other candidate was dropped; numpy and no model. Read `chain.decide` first."""
