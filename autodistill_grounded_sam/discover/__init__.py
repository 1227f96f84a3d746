"""Tags of many images, and what a detector says to them, to an ontology with its evidence. Read `proposing.propose` first."""
