"""Maps as people and programs take them away: metadata, visualizations, formats."""
