"""Many brackets: found on a card, merged on one machine or many, and never done twice."""
