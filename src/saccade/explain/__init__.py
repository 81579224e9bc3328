"""What a network is and does: shapes, costs, receptive fields, diagrams, differences."""
